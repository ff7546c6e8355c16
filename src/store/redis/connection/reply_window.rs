//! Limits the number of requests without a reply.
//!
//! A server buffers its replies until they are read. If they exceed its `client-output-buffer-limit`, it closes the
//! connection. The same requests, sent again together, would end every new connection. So after the server has closed
//! a connection, fewer requests are sent at a time. The limit grows again with each reply, as far as the size of
//! recent replies allows.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The maximum size of pending replies, once a server has closed a connection.
const MAX_BYTES: usize = 1 << 20;

/// By this factor the window shrinks when the server closes a connection.
const SHRINK: usize = 4;

/// The known size of replies shrinks by one part in this many with each smaller reply.
const DECAY: usize = 16;

/// At this number of requests the window limits nothing.
const UNLIMITED_FROM: usize = 1 << 16;

/// The window of all connections of a store. It need not be exact, so threads may overwrite each other's changes.
pub struct ReplyWindow {
    requests: AtomicUsize,
    /// The size of the largest recent reply. It decays with each reply.
    reply_len: AtomicUsize,
}

impl Default for ReplyWindow {
    fn default() -> Self {
        Self { requests: AtomicUsize::new(UNLIMITED_FROM), reply_len: AtomicUsize::new(0) }
    }
}

impl ReplyWindow {
    /// Whether another request may be sent while `pending` requests have no reply.
    pub fn has_room(&self, pending: usize) -> bool {
        let requests = self.requests.load(Ordering::Relaxed);
        pending < requests || requests >= UNLIMITED_FROM
    }

    /// Records a reply, which widens the window.
    pub fn reply_came(&self, len: usize) {
        let requests = self.requests.load(Ordering::Relaxed);
        if requests >= UNLIMITED_FROM {
            return;
        }
        let known = self.reply_len.load(Ordering::Relaxed);
        let len = len.max(known - known / DECAY).max(1);
        self.reply_len.store(len, Ordering::Relaxed);
        self.requests.store((requests + 1).min(MAX_BYTES / len).max(1), Ordering::Relaxed);
    }

    /// Records that the server has closed a connection with `pending` requests, which narrows the window.
    pub fn server_closed(&self, pending: usize) {
        if pending > 1 {
            let requests = self.requests.load(Ordering::Relaxed).min(pending) / SHRINK;
            self.requests.store(requests.max(1), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of requests that the window allows.
    fn room(window: &ReplyWindow) -> usize {
        (0..=UNLIMITED_FROM).find(|&pending| !window.has_room(pending)).unwrap_or(usize::MAX)
    }

    #[test]
    fn the_window_is_unlimited_until_a_server_closes_a_connection() {
        let window = ReplyWindow::default();
        window.reply_came(MAX_BYTES);
        window.server_closed(0);
        window.server_closed(1);
        assert_eq!(room(&window), usize::MAX);
    }

    #[test]
    fn the_window_depends_on_the_size_of_replies() {
        let window = ReplyWindow::default();
        window.server_closed(40);
        assert_eq!(room(&window), 10);
        window.server_closed(10);
        assert_eq!(room(&window), 2);
        for _ in 0..40 {
            window.reply_came(400_000);
            assert_eq!(room(&window), 2);
        }
        for _ in 0..200 {
            window.reply_came(300);
        }
        assert!(room(&window) > 50, "{}", room(&window));
        window.reply_came(400_000);
        assert_eq!(room(&window), 2);
        (0..2 * UNLIMITED_FROM).for_each(|_| window.reply_came(5));
        assert_eq!(room(&window), usize::MAX);
    }

    #[test]
    fn the_window_always_allows_one_request() {
        let window = ReplyWindow::default();
        (0..10).for_each(|_| window.server_closed(2));
        window.reply_came(100 * MAX_BYTES);
        assert_eq!(room(&window), 1);
    }
}
