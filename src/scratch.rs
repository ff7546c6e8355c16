//! A reusable buffer per thread, for temporary bytes of a call.

use std::cell::Cell;

/// The maximum capacity that is kept. One large session must not occupy memory for the life of the thread.
const KEPT_BYTES: usize = 16 * 1024;

/// Calls `call` with an empty buffer. A nested call gets its own buffer.
#[inline]
pub(crate) fn with_buffer<T>(call: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    thread_local! {
        static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    BUFFER.with(|spare| {
        let mut buffer = spare.take();
        let result = call(&mut buffer);
        buffer.clear();
        buffer.shrink_to(KEPT_BYTES);
        spare.set(buffer);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_empty_and_nested_calls_get_another() {
        with_buffer(|outer| {
            outer.extend_from_slice(b"outer");
            with_buffer(|inner| {
                assert!(inner.is_empty());
                inner.extend_from_slice(b"inner");
            });
            assert_eq!(outer, b"outer");
        });
        with_buffer(|buffer| assert!(buffer.is_empty()));
    }

    #[test]
    fn a_large_buffer_is_freed() {
        with_buffer(|buffer| buffer.resize(10 * KEPT_BYTES, 0));
        with_buffer(|buffer| assert!(buffer.capacity() < 2 * KEPT_BYTES, "{}", buffer.capacity()));
    }
}
