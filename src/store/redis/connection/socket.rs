//! A connection to a server without a runtime: whoever has it writes and reads when the socket is ready.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use super::super::resp::{Decoded, Decoder, Reply};

/// How much is read at once, and what buffers keep while nothing needs more.
const ROOM: usize = 64 * 1024;

/// What became of a reading.
pub enum Filled {
    /// There may be more.
    Whole,
    Some,
    Nothing,
    Ended,
}

pub struct Socket {
    socket: Arc<socket2::Socket>,
    out: Vec<u8>,
    /// How much of `out` is with the system.
    written: usize,
    /// How much was written before what is in `out`.
    before: u64,
    inbox: Vec<u8>,
    /// What of `inbox` is read, and not yet taken.
    unread: std::ops::Range<usize>,
    /// When the server last said something, or was first to say something after it had said everything.
    last_read_at: Instant,
}

impl Socket {
    /// # Errors
    /// If the socket cannot be told not to wait.
    pub fn new(socket: Arc<socket2::Socket>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            out: Vec::new(),
            written: 0,
            before: 0,
            inbox: vec![0; ROOM],
            unread: 0..0,
            last_read_at: Instant::now(),
        })
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

    /// From now on the server is to say something.
    pub fn expect_from(&mut self, now: Instant) {
        self.last_read_at = now;
    }

    /// Queues bytes, and tells where in all that is ever sent they begin.
    pub fn push(&mut self, bytes: &[u8]) -> u64 {
        let start = self.before + self.out.len() as u64;
        self.out.extend_from_slice(bytes);
        start
    }

    /// Whether the server may have some of what begins there.
    pub fn has_sent(&self, start: u64) -> bool {
        start < self.before + self.written as u64
    }

    /// How many bytes wait for the system.
    pub fn unsent(&self) -> usize {
        self.out.len() - self.written
    }

    /// Whether all that was queued is with the system.
    pub fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// Writes as much as the system takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match (&*self.socket).write(&self.out[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => self.written += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.forget_written();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.before += self.written as u64;
        self.written = 0;
        self.out.clear();
        self.out.shrink_to(ROOM);
        Ok(())
    }

    /// Makes room: of calls that follow each other closely, never all may be with the system.
    fn forget_written(&mut self) {
        if self.written >= ROOM.max(self.out.len() / 2) {
            self.out.drain(..self.written);
            self.before += self.written as u64;
            self.written = 0;
        }
    }

    /// Reads once.
    pub fn fill(&mut self) -> io::Result<Filled> {
        self.make_room();
        let room = &mut self.inbox[self.unread.end..];
        let size = room.len();
        loop {
            return match (&*self.socket).read(room) {
                Ok(0) => Ok(Filled::Ended),
                Ok(len) => {
                    self.unread.end += len;
                    self.last_read_at = Instant::now();
                    Ok(if len == size { Filled::Whole } else { Filled::Some })
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Filled::Nothing),
                Err(error) => Err(error),
            };
        }
    }

    /// The next reply, if it has come, and its length, for `take`.
    ///
    /// # Errors
    /// As for [`Decoder::decode`].
    pub fn reply(&self) -> Decoded<'_> {
        let unread = &self.inbox[self.unread.clone()];
        let mut len = 0;
        while let Some((reply, reply_len)) = Decoder::default().decode(&unread[len..])? {
            len += reply_len;
            if !matches!(reply, Reply::Push(_)) {
                return Ok(Some((reply, len)));
            }
        }
        Ok(None)
    }

    pub fn take(&mut self, len: usize) {
        self.unread.start += len;
    }

    fn make_room(&mut self) {
        if self.unread.is_empty() {
            self.unread = 0..0;
            if self.inbox.len() > ROOM {
                self.inbox.truncate(ROOM);
                self.inbox.shrink_to_fit();
            }
        } else if self.unread.start > 0 {
            // Less than one answer is left.
            self.inbox.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        if self.inbox.len() - self.unread.end < ROOM / 4 {
            self.inbox.resize(2 * self.inbox.len(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_takes_no_room_though_there_is_always_more() {
        const SIZE: usize = 1 << 20;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut peer = listener.accept().unwrap().0;
        let mut wire = Socket::new(Arc::new(socket.into())).unwrap();
        let (mut read, mut pushed) = (vec![0; SIZE], 0_u64);
        let mut push = |wire: &mut Socket| {
            let bytes: Vec<u8> =
                (0..SIZE / 8).flat_map(|at| (pushed + 8 * at as u64).to_ne_bytes()).collect();
            assert_eq!(wire.push(&bytes), pushed);
            pushed += SIZE as u64;
            wire.flush().unwrap();
        };
        // More than the system takes.
        while wire.out.len() - wire.written < 8 * SIZE {
            push(&mut wire);
        }
        let most = wire.out.len().max(16 * SIZE) + 2 * SIZE;
        for round in 0..64 {
            peer.read_exact(&mut read).unwrap();
            let first = (round * SIZE) as u64;
            assert_eq!(read[..8], first.to_ne_bytes());
            push(&mut wire);
            assert!(wire.out.len() <= most, "{} bytes", wire.out.len());
            assert!(wire.has_sent(first) && !wire.has_sent(wire.before + wire.written as u64));
        }
    }
}
