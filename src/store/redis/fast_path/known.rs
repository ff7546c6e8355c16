//! The values of sessions that this thread has last read or written. With them, a change of a session needs no script:
//! the server stores the new value only if it still has the known one.
//!
//! A value may be out of date. The server then refuses the change, and the worker makes it by a script.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::session::SessionId;

/// The longest value that is kept. A change sends the known value to the server, and for long ones a script is cheaper.
const MAX_VALUE: usize = 1024;

/// The most that all values may take, with [`OVERHEAD`] bytes for each. Beyond it all are forgotten. Most changes follow a
/// read of the same request, so few of them notice.
const MAX_BYTES: usize = 8 << 20;
const OVERHEAD: usize = 128;

#[derive(Default)]
pub struct KnownValues {
    values: HashMap<SessionId, Known, RandomState>,
    bytes: usize,
}

#[derive(Default)]
struct Known {
    value: Vec<u8>,
    /// How many changes of this thread have no reply yet. The value is that after the last one.
    unanswered: u32,
}

impl KnownValues {
    pub fn get(&self, id: &SessionId) -> Option<&[u8]> {
        self.values.get(id).map(|known| &known.value[..])
    }

    /// Records what the server has replied to a `GET`.
    pub fn read(&mut self, id: &SessionId, value: &[u8]) {
        // The server has run the unanswered changes after this read.
        if self.values.get(id).is_none_or(|known| known.unanswered == 0) {
            self.put(id, value, 0);
        }
    }

    /// Records the value that a change was sent with.
    pub fn sent(&mut self, id: &SessionId, value: &[u8]) {
        self.put(id, value, 1);
    }

    /// Records that the server has made a change.
    pub fn done(&mut self, id: &SessionId) {
        if let Some(known) = self.values.get_mut(id) {
            known.unanswered = known.unanswered.saturating_sub(1);
        }
    }

    pub fn forget(&mut self, id: &SessionId) {
        if let Some(known) = self.values.remove(id) {
            self.bytes -= known.value.len() + OVERHEAD;
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn put(&mut self, id: &SessionId, value: &[u8], unanswered: u32) {
        if value.len() > MAX_VALUE {
            return self.forget(id);
        }
        if self.bytes > MAX_BYTES {
            self.clear();
        }
        let known = match self.values.get_mut(id) {
            Some(known) => {
                self.bytes -= known.value.len();
                known
            }
            None => {
                self.bytes += OVERHEAD;
                self.values.entry(id.clone()).or_default()
            }
        };
        self.bytes += value.len();
        known.value.clear();
        known.value.extend_from_slice(value);
        known.unanswered += unanswered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> SessionId {
        SessionId::new(&number.to_string()).unwrap()
    }

    #[test]
    fn a_read_does_not_replace_the_value_of_a_later_change() {
        let mut known = KnownValues::default();
        known.read(&id(1), b"old");
        known.sent(&id(1), b"new");
        known.sent(&id(1), b"newer");
        known.read(&id(1), b"old");
        known.done(&id(1));
        known.read(&id(1), b"new");
        assert_eq!(known.get(&id(1)), Some(&b"newer"[..]));
        known.done(&id(1));
        known.read(&id(1), b"of another process");
        assert_eq!(known.get(&id(1)), Some(&b"of another process"[..]));
        known.forget(&id(1));
        known.done(&id(1));
        assert_eq!(known.get(&id(1)), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut known = KnownValues::default();
        for number in 0..20_000 {
            known.read(&id(number), &[b'a'; MAX_VALUE]);
            assert!(known.bytes <= MAX_BYTES + MAX_VALUE + OVERHEAD);
        }
        let last = id(19_999);
        known.sent(&last, b"short");
        let counted: usize = known.values.values().map(|known| known.value.len() + OVERHEAD).sum();
        assert_eq!((known.bytes, known.get(&last)), (counted, Some(&b"short"[..])));
        known.sent(&last, &[b'a'; MAX_VALUE + 1]);
        assert_eq!(known.get(&last), None);
    }
}
