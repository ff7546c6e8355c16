//! Redo logs for the stores of tests.

use libc::ENOSPC;

use super::image::Image;
use super::{Call, Failure, Fault};

pub const ALWAYS: usize = usize::MAX;

/// The size of a log that is full after a few writes, in bytes.
const SMALL: usize = 128 << 10;

/// The files of a new store with a small log. A store reuses the file of an old log, whatever its content.
pub fn small_log() -> Image {
    Image { log: Some(vec![0; SMALL]), ..Image::default() }
}

/// The files of a new store that creates its log itself.
pub fn own_log() -> Image {
    Image::default()
}

/// The disk has no room for a larger log.
pub fn no_growth() -> Fault {
    Fault { call: Call::NewLogWrite, after: 0, times: ALWAYS, failure: Failure::Refused(ENOSPC) }
}
