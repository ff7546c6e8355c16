//! The values of sessions that this thread has last read or written. With them, a change of a session needs no script:
//! the server stores the new value only if it still has the known one.
//!
//! A value may be out of date. The server then refuses the change, and the worker makes it by a script.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::session::SessionId;

/// The longest value that is kept. A change sends the known value to the server, and for long ones a script is cheaper.
const MAX_VALUE: usize = 1024;

/// The most that all values may take, with their ids and [`OVERHEAD`] bytes for each. Beyond it all are forgotten. Most
/// changes follow a read of the same request, so few of them notice.
const MAX_BYTES: usize = 8 << 20;
/// The map's share of an entry, and what the allocator adds.
const OVERHEAD: usize = 192;

#[derive(Default)]
pub struct KnownValues {
    values: HashMap<SessionId, Box<[u8]>, RandomState>,
    bytes: usize,
}

impl KnownValues {
    pub fn get(&self, id: &SessionId) -> Option<&[u8]> {
        self.values.get(id).map(|value| &value[..])
    }

    /// Records the value of a session, unless it is too long.
    pub fn put(&mut self, id: &SessionId, value: &[u8]) {
        if value.len() > MAX_VALUE {
            return self.forget(id);
        }
        if let Some(known) = self.values.get_mut(id) {
            if known.len() == value.len() {
                known.copy_from_slice(value);
                return;
            }
            self.forget(id);
        }
        if self.bytes > MAX_BYTES {
            self.clear();
        }
        self.bytes += bytes_of(id, value);
        self.values.insert(id.clone(), value.into());
    }

    pub fn forget(&mut self, id: &SessionId) {
        if let Some(value) = self.values.remove(id) {
            self.bytes -= bytes_of(id, &value);
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

fn bytes_of(id: &SessionId, value: &[u8]) -> usize {
    id.as_bytes().len() + value.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded() {
        let id = |number: usize| SessionId::new(&format!("{number:0200}-")).unwrap();
        let mut known = KnownValues::default();
        for number in 0..20_000 {
            known.put(&id(number), &[b'a'; MAX_VALUE]);
            assert!(known.bytes <= MAX_BYTES + 2 * MAX_VALUE);
        }
        let last = id(19_999);
        known.put(&last, b"short");
        known.put(&last, b"other");
        let counted: usize = known.values.iter().map(|(id, value)| bytes_of(id, value)).sum();
        assert_eq!((known.bytes, known.get(&last)), (counted, Some(&b"other"[..])));
        known.put(&last, &[b'a'; MAX_VALUE + 1]);
        assert_eq!(known.get(&last), None);
        known.clear();
        assert_eq!(known.bytes, 0);
    }
}
