//! A connection to a server without a runtime: whoever has it writes and reads when the socket is ready.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// What a server answers to the commands of single sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    Okay,
    Number(i64),
    Bytes(&'a [u8]),
    Nil,
    Refusal(&'a [u8]),
}

/// Of bytes that are no such answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Garbled;

impl<'a> Reply<'a> {
    /// The answer with which the bytes begin, and its length; `None` while it is not whole.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, Garbled> {
        let Some((line, mut len)) = line(bytes)? else { return Ok(None) };
        let (&kind, rest) = line.split_first().ok_or(Garbled)?;
        let reply = match kind {
            b'+' if rest == b"OK" => Self::Okay,
            b'-' => Self::Refusal(rest),
            b':' => Self::Number(number(rest)?),
            b'$' if rest == b"-1" => Self::Nil,
            b'$' => {
                let size = usize::try_from(number(rest)?).map_err(|_| Garbled)?;
                let Some(found) = bytes[len..].get(..size.saturating_add(2)) else { return Ok(None) };
                let found = found.strip_suffix(b"\r\n").ok_or(Garbled)?;
                len += size + 2;
                Self::Bytes(found)
            }
            _ => return Err(Garbled),
        };
        Ok(Some((reply, len)))
    }
}

/// The longest line of a reply.
const MAX_LINE: usize = 4096;

/// The first line, and its length with its end.
fn line(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Garbled> {
    let window = &bytes[..bytes.len().min(MAX_LINE)];
    match window.iter().position(|&byte| byte == b'\n') {
        Some(end) => Ok(Some((window[..end].strip_suffix(b"\r").ok_or(Garbled)?, end + 1))),
        None if bytes.len() < MAX_LINE => Ok(None),
        None => Err(Garbled),
    }
}

fn number(text: &[u8]) -> Result<i64, Garbled> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Garbled)
}

/// How much is read at once, and what buffers keep while nothing needs more.
const ROOM: usize = 64 * 1024;

/// What became of a reading.
pub(super) enum Filled {
    /// There may be more.
    Whole,
    Some,
    Nothing,
    Ended,
}

pub(super) struct Wire {
    socket: TcpStream,
    out: Vec<u8>,
    /// How much of `out` is with the system.
    written: usize,
    /// How much was written before what is in `out`.
    before: u64,
    inbox: Vec<u8>,
    /// What of `inbox` is read, and not yet taken.
    unread: std::ops::Range<usize>,
    /// When the server last said something, or was first to say something after it had said everything.
    heard: Instant,
}

impl Wire {
    /// # Errors
    /// If the socket cannot be told not to wait.
    pub(super) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            out: Vec::new(),
            written: 0,
            before: 0,
            inbox: vec![0; ROOM],
            unread: 0..0,
            heard: Instant::now(),
        })
    }

    pub(super) fn into_socket(self) -> TcpStream {
        self.socket
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// From now on the server is to say something.
    pub(super) fn expect_from(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Queues bytes, and tells where in all that is ever sent they begin.
    pub(super) fn push(&mut self, bytes: &[u8]) -> u64 {
        let start = self.before + self.out.len() as u64;
        self.out.extend_from_slice(bytes);
        start
    }

    /// Whether the server may have some of what begins there.
    pub(super) fn has_sent(&self, start: u64) -> bool {
        start < self.before + self.written as u64
    }

    /// Whether all that was queued is with the system.
    pub(super) fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// Writes as much as the system takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.socket.write(&self.out[self.written..]) {
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
    pub(super) fn fill(&mut self) -> io::Result<Filled> {
        self.make_room();
        let room = &mut self.inbox[self.unread.end..];
        let size = room.len();
        loop {
            return match self.socket.read(room) {
                Ok(0) => Ok(Filled::Ended),
                Ok(len) => {
                    self.unread.end += len;
                    self.heard = Instant::now();
                    Ok(if len == size { Filled::Whole } else { Filled::Some })
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Filled::Nothing),
                Err(error) => Err(error),
            };
        }
    }

    /// The next answer, if it is whole, and how much `take` is to be told of.
    pub(super) fn reply(&self) -> Result<Option<(Reply<'_>, usize)>, Garbled> {
        Reply::parse(&self.inbox[self.unread.clone()])
    }

    pub(super) fn take(&mut self, len: usize) {
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
    use proptest::prelude::*;

    #[test]
    fn replies_are_these_bytes() {
        let cases: [(&[u8], Reply<'_>); 7] = [
            (b"+OK\r\n", Reply::Okay),
            (b":-12\r\n", Reply::Number(-12)),
            (b"$-1\r\n", Reply::Nil),
            (b"$0\r\n\r\n", Reply::Bytes(b"")),
            (b"$4\r\n\r\n\r\n\r\n", Reply::Bytes(b"\r\n\r\n")),
            (b"-ERR no\r\n", Reply::Refusal(b"ERR no")),
            (b"-\r\n", Reply::Refusal(b"")),
        ];
        for (bytes, reply) in cases {
            for len in 0..bytes.len() {
                assert_eq!(Reply::parse(&bytes[..len]), Ok(None), "{bytes:?}");
            }
            assert_eq!(Reply::parse(bytes), Ok(Some((reply, bytes.len()))));
        }
    }

    #[test]
    fn anything_else_is_garbled() {
        let long = [b'-'; MAX_LINE];
        for bytes in [
            &b"\r\n"[..],
            b"+QUEUED\r\n",
            b"*1\r\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"$1\r\nabc",
            b":\r\n",
            b"HTTP\n",
            b"$9999999999999999999999\r\n",
            &long,
        ] {
            assert_eq!(Reply::parse(bytes), Err(Garbled), "{bytes:?}");
        }
        // It never comes, but is no fault yet.
        assert_eq!(Reply::parse(b"$9223372036854775807\r\n"), Ok(None));
    }

    #[test]
    fn what_was_written_takes_no_room_though_there_is_always_more() {
        const SIZE: usize = 1 << 20;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut peer = listener.accept().unwrap().0;
        let mut wire = Wire::new(socket).unwrap();
        let (mut read, mut pushed) = (vec![0; SIZE], 0_u64);
        let mut push = |wire: &mut Wire| {
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some((_, len))) = Reply::parse(&bytes) {
                prop_assert!(len <= bytes.len());
            }
        }
    }
}
