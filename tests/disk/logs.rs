//! Redo logs that a test puts beside a data file.

use libc::ENOSPC;

use super::image::Image;
use super::{Call, Failure, Fault};

pub const ALWAYS: usize = usize::MAX;

/// A store reuses the file of an old log, whatever is in it. So small a ring is full after some writes.
const SMALL: usize = 128 << 10;

/// A store to be made, with a small log to be reused.
pub fn small_log() -> Image {
    Image { log: Some(vec![0; SMALL]), ..Image::default() }
}

/// A store to be made, which makes its log.
pub fn own_log() -> Image {
    Image::default()
}

/// The disk has no room for a larger log.
pub fn no_growth() -> Fault {
    Fault { call: Call::NewLogWrite, after: 0, times: ALWAYS, failure: Failure::Refused(ENOSPC) }
}
