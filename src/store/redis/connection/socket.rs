//! A connection without a runtime. Its owner reads and writes when the socket is ready.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;
use tokio_rustls::rustls::ClientConnection;

use super::super::resp::{Decoder, Malformed, Reply};

/// The size of a read, and the size to which idle buffers shrink.
const ROOM: usize = 64 * 1024;

/// The receive buffer grows if it has less free space than this.
const MIN_FREE: usize = ROOM / 4;

/// About how much is written before the event loop gets its turn.
const MAX_WRITTEN: usize = 1 << 20;

/// Replies in the receive buffer. Most requests get one.
pub type SomeReplies<'a> = SmallVec<[Reply<&'a [u8]>; 1]>;

/// Whether an error of a write says that this connection can send nothing more. Replies may still arrive.
pub fn is_end_of_writing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// The result of one read.
pub enum Filled {
    /// The read filled the buffer, so there may be more.
    Whole,
    Some,
    Nothing,
    Ended,
}

/// An authenticated connection whose socket the event loop reads and writes.
pub struct RawConnection {
    pub socket: Arc<socket2::Socket>,
    /// The TLS state, if the connection uses TLS.
    pub tls: Option<Box<ClientConnection>>,
}

/// The TLS state, and a buffer for encrypted data.
struct TlsState {
    connection: Box<ClientConnection>,
    arrived: Box<[u8]>,
}

pub struct Socket {
    socket: Arc<socket2::Socket>,
    tls: Option<TlsState>,
    out: Vec<u8>,
    /// How much of `out` was written or encrypted. Encrypted data must be sent in order.
    written: usize,
    /// The number of bytes that were sent and removed from `out`.
    before: u64,
    inbox: Vec<u8>,
    /// The part of `inbox` that is received and not consumed.
    unread: Range<usize>,
    /// The position in `inbox` from which to look for push messages.
    looked_until: usize,
    /// When the server last sent something, or when the first pending request was sent.
    last_read_at: Instant,
}

impl Socket {
    /// # Errors
    /// If the socket cannot be made non-blocking, or its TLS session has ended.
    pub fn new(connection: RawConnection) -> io::Result<Self> {
        let RawConnection { socket, tls } = connection;
        socket.set_nonblocking(true)?;
        let tls = tls.map(|connection| TlsState { connection, arrived: vec![0; ROOM].into() });
        let mut opened = Self {
            socket,
            tls,
            out: Vec::new(),
            written: 0,
            before: 0,
            inbox: vec![0; ROOM],
            unread: 0..0,
            looked_until: 0,
            last_read_at: Instant::now(),
        };
        // The worker may have received bytes that it has not decrypted.
        opened.decrypt(0)?;
        Ok(opened)
    }

    pub fn into_socket(self) -> Arc<socket2::Socket> {
        self.socket
    }

    pub fn socket(&self) -> &socket2::Socket {
        &self.socket
    }

    pub fn last_read_at(&self) -> Instant {
        self.last_read_at
    }

    /// Records that a reply is expected from now on.
    pub fn expect_from(&mut self, now: Instant) {
        self.last_read_at = now;
    }

    /// Queues bytes. Returns their position in the stream of all bytes sent.
    pub fn push(&mut self, bytes: &[u8]) -> u64 {
        let start = self.before + self.out.len() as u64;
        self.out.extend_from_slice(bytes);
        start
    }

    /// Whether the server may have received bytes from this position on.
    pub fn has_sent(&self, start: u64) -> bool {
        start < self.before + self.written as u64
    }

    /// The number of bytes that wait to be written or encrypted.
    pub fn unsent(&self) -> usize {
        self.out.len() - self.written
    }

    /// Whether everything queued was written, including TLS's own messages.
    pub fn is_flushed(&self) -> bool {
        self.unsent() == 0 && !self.tls.as_ref().is_some_and(|tls| tls.connection.wants_write())
    }

    /// Writes as much as the system accepts, up to `MAX_WRITTEN`.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut left = MAX_WRITTEN;
        while left > 0 && !self.is_flushed() {
            match self.write(left) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => left = left.saturating_sub(len),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.forget_written();
        Ok(())
    }

    /// Writes once, at most `most` bytes. Returns how many bytes the system has accepted.
    fn write(&mut self, most: usize) -> io::Result<usize> {
        let rest = &self.out[self.written..];
        let (mut socket, rest) = (&*self.socket, &rest[..rest.len().min(most)]);
        if let Some(TlsState { connection, .. }) = &mut self.tls {
            // TLS accepts only as much as it can buffer.
            let len = connection.writer().write(rest)?;
            let sent = connection.write_tls(&mut socket);
            // Once writing has ended, TLS can send nothing of what it buffers.
            if !sent.as_ref().is_err_and(is_end_of_writing) {
                self.written += len;
            }
            return sent;
        }
        let len = socket.write(rest)?;
        self.written += len;
        Ok(len)
    }

    /// Removes written bytes. With calls in quick succession, `out` might never be written completely.
    fn forget_written(&mut self) {
        if self.written == self.out.len() {
            self.before += self.written as u64;
            self.written = 0;
            self.out.clear();
            self.out.shrink_to(ROOM);
        } else if self.written >= ROOM.max(self.out.len() / 2) {
            self.out.drain(..self.written);
            self.before += self.written as u64;
            self.written = 0;
        }
    }

    /// Reads once.
    pub fn fill(&mut self) -> io::Result<Filled> {
        self.make_room();
        let room = match &mut self.tls {
            Some(tls) => &mut tls.arrived[..],
            None => &mut self.inbox[self.unread.end..],
        };
        let size = room.len();
        loop {
            return match (&*self.socket).read(room) {
                Ok(0) => Ok(Filled::Ended),
                Ok(len) => {
                    self.last_read_at = Instant::now();
                    if self.tls.is_some() {
                        self.decrypt(len)?;
                    } else {
                        self.unread.end += len;
                    }
                    Ok(if len == size { Filled::Whole } else { Filled::Some })
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Filled::Nothing),
                Err(error) => Err(error),
            };
        }
    }

    /// Decrypts the bytes that have arrived. TLS keeps only an incomplete record.
    fn decrypt(&mut self, len: usize) -> io::Result<()> {
        let Some(TlsState { connection, arrived }) = &mut self.tls else { return Ok(()) };
        let mut arrived = &arrived[..len];
        loop {
            // `read_tls` takes a few kilobytes at a time, and nothing after the server has closed the TLS session.
            let has_ended = arrived.is_empty() || connection.read_tls(&mut arrived)? == 0;
            connection.process_new_packets().map_err(io::Error::other)?;
            loop {
                if self.inbox.len() - self.unread.end < MIN_FREE {
                    self.inbox.resize(2 * self.inbox.len(), 0);
                }
                match connection.reader().read(&mut self.inbox[self.unread.end..]) {
                    Ok(0) => break,
                    Ok(len) => self.unread.end += len,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            if has_ended {
                return Ok(());
            }
        }
    }

    /// The next `count` replies and their length in bytes, for `take`. `None` if they are incomplete.
    ///
    /// # Errors
    /// As for [`Decoder::decode`].
    pub fn replies(&self, count: usize) -> Result<Option<(SomeReplies<'_>, usize)>, Malformed> {
        let unread = &self.inbox[self.unread.clone()];
        let (mut replies, mut len) = (SomeReplies::new(), 0);
        while replies.len() < count {
            let Some((reply, reply_len)) = Decoder::default().decode(&unread[len..])? else {
                return Ok(None);
            };
            len += reply_len;
            if !matches!(reply, Reply::Push(_)) {
                replies.push(reply);
            }
        }
        Ok(Some((replies, len)))
    }

    pub fn take(&mut self, len: usize) {
        self.unread.start += len;
    }

    /// The number of bytes that are received and not consumed.
    pub fn unread(&self) -> usize {
        self.unread.len()
    }

    /// The next push message, even if replies precede it. `replies` skips it.
    ///
    /// # Errors
    /// As for [`Decoder::decode`].
    pub fn next_message(&mut self) -> Result<Option<Vec<Reply<&[u8]>>>, Malformed> {
        let Self { inbox, unread, looked_until, .. } = self;
        *looked_until = unread.start.max(*looked_until);
        while let Some((reply, len)) = Decoder::default().decode(&inbox[*looked_until..unread.end])? {
            let is_first = *looked_until == unread.start;
            *looked_until += len;
            if let Reply::Push(message) = reply {
                if is_first {
                    // Many messages may come before the next reply.
                    unread.start = *looked_until;
                }
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn make_room(&mut self) {
        if self.unread.is_empty() {
            self.unread = 0..0;
            self.looked_until = 0;
            if self.inbox.len() > ROOM {
                self.inbox.truncate(ROOM);
                self.inbox.shrink_to_fit();
            }
        } else if self.unread.start > 0 {
            // Less than one reply is left.
            self.inbox.copy_within(self.unread.clone(), 0);
            self.looked_until = self.looked_until.saturating_sub(self.unread.start);
            self.unread = 0..self.unread.len();
        }
        if self.inbox.len() - self.unread.end < MIN_FREE {
            self.inbox.resize(2 * self.inbox.len(), 0);
        }
    }
}

#[cfg(test)]
mod tests;
