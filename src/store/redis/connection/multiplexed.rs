//! One connection to one server: requests of many calls go out together, and their answers come back in order.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use super::super::resp::{Decoder, Malformed, Replies, Reply, Request, are_refused};
use super::reply_window::ReplyWindow;

/// Why a request has no answers.
#[derive(Debug, Clone)]
pub enum SendError {
    /// The server has not seen it.
    Unsent,
    /// The connection was lost before the answer came.
    ConnectionLost(Rc<str>),
    /// The server has carried it out, but so few replicas have it.
    UnderReplicated(i64),
}

/// How much is read at once.
const BUFFER: usize = 16 * 1024;

/// How long replies are waited for on a connection that takes no more requests.
const LAST_REPLIES: Duration = Duration::from_millis(250);

type Answer = Result<Replies, SendError>;

/// How many replicas a write waits for, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Replication {
    pub replicas: u32,
    pub timeout: Duration,
}

/// A request that waits for its answers.
struct Waiting {
    replies: Replies,
    wanted: usize,
    /// How many answers there are to each command, of which only the last counts.
    answers_of_each: usize,
    is_write: bool,
    sent_at: Instant,
    to: oneshot::Sender<Answer>,
}

enum Expected {
    Answers(Waiting),
    /// How many replicas have the writes that were sent since the last of these.
    Replicas,
}

/// A request that is to be sent.
struct Outgoing {
    request: Request,
    /// Counts the requests of its call that were sent.
    sent: Rc<Cell<usize>>,
    to: oneshot::Sender<Answer>,
}

/// How many bytes are written at once, at most by one request more. What waits longer than its call is not sent.
const MAX_BATCH: usize = 256 * 1024;

pub struct MultiplexedConnection {
    outgoing: RefCell<VecDeque<Outgoing>>,
    /// What was sent, or is about to be, in the order of the answers.
    expected: RefCell<VecDeque<Expected>>,
    /// Writes that are done, but for their replicas.
    unreplicated: RefCell<Vec<(oneshot::Sender<Answer>, Replies)>>,
    has_work: Notify,
    /// The server has said something that answers no request.
    pub pushed: Notify,
    cut: Notify,
    is_dead: Cell<bool>,
    /// The server is asked for a sign of life.
    pub is_doubted: Cell<bool>,
    last_read_at: Cell<Instant>,
    has_read: Cell<bool>,
    opened_at: Instant,
    replication: Option<Replication>,
    window: OnceCell<Arc<ReplyWindow>>,
}

impl MultiplexedConnection {
    pub fn new(replication: Option<Replication>) -> Rc<Self> {
        Rc::new(Self {
            outgoing: RefCell::default(),
            expected: RefCell::default(),
            unreplicated: RefCell::default(),
            has_work: Notify::new(),
            pushed: Notify::new(),
            cut: Notify::new(),
            is_dead: Cell::new(false),
            is_doubted: Cell::new(false),
            last_read_at: Cell::new(Instant::now()),
            has_read: Cell::new(false),
            opened_at: Instant::now(),
            replication,
            window: OnceCell::new(),
        })
    }

    /// Has it send no more at once from now on than the window has room for.
    pub fn limit(&self, window: Arc<ReplyWindow>) {
        let _ = self.window.set(window);
    }

    fn has_room(&self, pending: usize) -> bool {
        self.window.get().is_none_or(|window| window.has_room(pending))
    }

    /// Sends a request, with all others of this turn, and waits for its answers. It is not sent any more once this is
    /// dropped. Adds 1 to `sent` when it is.
    pub async fn send(&self, request: Request, sent: &Rc<Cell<usize>>) -> Answer {
        if self.is_dead.get() {
            return Err(SendError::Unsent);
        }
        let (to, answer) = oneshot::channel();
        if self.outgoing.borrow().is_empty() {
            self.has_work.notify_one();
        }
        self.outgoing.borrow_mut().push_back(Outgoing { request, sent: Rc::clone(sent), to });
        // The driver tells each of its end, unless it was dropped itself.
        answer.await.unwrap_or_else(|_| Err(SendError::ConnectionLost("the store was closed".into())))
    }

    pub fn is_dead(&self) -> bool {
        self.is_dead.get()
    }

    /// Whether the server has answered anything.
    pub fn has_read(&self) -> bool {
        self.has_read.get()
    }

    /// For how long it has been open.
    pub fn age(&self) -> Duration {
        self.opened_at.elapsed()
    }

    /// Ends the connection: what was sent is lost.
    pub fn cut(&self) {
        self.cut.notify_one();
    }

    /// Ends it if the server, asked, has said nothing at all for so long, or answers twice as late.
    pub fn cut_if_late(&self, timeout: Duration) {
        let expected = self.expected.borrow();
        let oldest = expected.iter().find_map(|expected| match expected {
            Expected::Answers(waiting) => Some(waiting.sent_at),
            Expected::Replicas => None,
        });
        let is_silent = !expected.is_empty() && self.last_read_at.get().elapsed() >= timeout;
        // What is so late is in buffers on the way, and all behind it is late too.
        if is_silent || oldest.is_some_and(|sent_at| sent_at.elapsed() >= 2 * timeout) {
            self.cut();
        }
    }

    /// Whether nothing is under way, so that its silence says nothing.
    pub fn is_idle(&self) -> bool {
        self.outgoing.borrow().is_empty() && self.expected.borrow().is_empty()
    }

    /// Works until the connection ends, and says why it did.
    pub async fn drive(&self, stream: impl AsyncRead + AsyncWrite) -> Rc<str> {
        let (reader, writer) = tokio::io::split(stream);
        let (reading, writing) = (pin!(self.read(reader)), pin!(self.write(writer)));
        let (works, cut) = (pin!(self.read_and_write(reading, writing)), pin!(self.cut.notified()));
        let reason = match select(works, cut).await {
            Either::Left((reason, _)) => reason,
            Either::Right(_) => "it stopped answering".to_owned(),
        };
        let reason: Rc<str> = reason.into();
        self.end(&reason);
        reason
    }

    async fn read_and_write(
        &self,
        reading: impl Future<Output = String> + Unpin,
        writing: impl Future<Output = String> + Unpin,
    ) -> String {
        let reason = match select(reading, writing).await {
            Either::Left((reason, _)) => reason,
            Either::Right((reason, reading)) => {
                self.send_no_more();
                // Replies may still arrive, such as why the server closes it.
                let _ = timeout(LAST_REPLIES, reading).await;
                reason
            }
        };
        if let Some(window) = self.window.get() {
            window.server_closed(self.expected.borrow().len());
        }
        reason
    }

    /// Has requests that were not sent go by another connection.
    fn send_no_more(&self) {
        self.is_dead.set(true);
        for Outgoing { to, .. } in self.outgoing.take() {
            // It fails where no one waits any more, here and below.
            let _ = to.send(Err(SendError::Unsent));
        }
    }

    fn end(&self, reason: &Rc<str>) {
        self.send_no_more();
        for expected in self.expected.take() {
            if let Expected::Answers(waiting) = expected {
                let _ = waiting.to.send(Err(SendError::ConnectionLost(Rc::clone(reason))));
            }
        }
        for (to, _) in self.unreplicated.take() {
            let _ = to.send(Err(SendError::ConnectionLost(Rc::clone(reason))));
        }
    }

    async fn write(&self, mut writer: impl AsyncWrite + Unpin) -> String {
        let mut bytes = Vec::new();
        loop {
            while self.outgoing.borrow().is_empty() || !self.has_room(self.expected.borrow().len()) {
                self.has_work.notified().await;
            }
            bytes.clear();
            self.take_batch(&mut bytes);
            let written = async {
                writer.write_all(&bytes).await?;
                writer.flush().await
            };
            if let Err(error) = written.await {
                return in_words(&error);
            }
            bytes.shrink_to(MAX_BATCH);
        }
    }

    /// Takes the next requests, without those for which no one waits any more.
    fn take_batch(&self, bytes: &mut Vec<u8>) {
        let (mut expected, now) = (self.expected.borrow_mut(), Instant::now());
        if expected.is_empty() {
            self.last_read_at.set(now);
        }
        let mut has_writes = false;
        while bytes.len() < MAX_BATCH
            && self.has_room(expected.len())
            && let Some(Outgoing { request, sent, to }) = self.outgoing.borrow_mut().pop_front()
        {
            if to.is_closed() {
                continue;
            }
            sent.set(sent.get() + 1);
            bytes.extend_from_slice(&request.bytes);
            has_writes |= request.is_write;
            expected.push_back(Expected::Answers(Waiting {
                replies: Replies::new(),
                wanted: request.commands * request.answers_of_each(),
                answers_of_each: request.answers_of_each(),
                is_write: request.is_write,
                sent_at: now,
                to,
            }));
        }
        if let Some(Replication { replicas, timeout }) = self.replication.filter(|_| has_writes) {
            let (replicas, timeout) = (replicas.to_string(), timeout.as_millis().to_string());
            let wait = [&b"WAIT"[..], replicas.as_bytes(), timeout.as_bytes()];
            bytes.extend_from_slice(&Request::read(Default::default()).command(&wait).bytes);
            expected.push_back(Expected::Replicas);
        }
    }

    async fn read(&self, mut reader: impl AsyncRead + Unpin) -> String {
        let (mut decoder, mut bytes) = (Decoder::default(), Vec::with_capacity(BUFFER));
        loop {
            bytes.reserve(BUFFER);
            match reader.read_buf(&mut bytes).await {
                Ok(0) => return "the server closed it".into(),
                Ok(_) => self.last_read_at.set(Instant::now()),
                Err(error) => return in_words(&error),
            }
            let mut taken = 0;
            loop {
                match decoder.decode(&bytes[taken..]) {
                    Ok(Some((reply, len))) => {
                        if matches!(reply, Reply::Push(_)) {
                            self.pushed.notify_one();
                        } else if !self.take(reply.to_owned()) {
                            return "the server said what nobody asked for".into();
                        }
                        taken += len;
                        self.has_read.set(true);
                        if let Some(window) = self.window.get() {
                            window.reply_came(len);
                        }
                    }
                    Ok(None) => break,
                    // Its words may show what was read.
                    Err(Malformed) => return "the server does not speak Redis's protocol".into(),
                }
            }
            if taken > 0 && !self.outgoing.borrow().is_empty() {
                // They may have waited for room.
                self.has_work.notify_one();
            }
            bytes.drain(..taken);
            bytes.shrink_to(4 * BUFFER);
        }
    }

    /// Takes the next answer; `false` if none is expected.
    fn take(&self, value: Reply) -> bool {
        let mut expected = self.expected.borrow_mut();
        let number = if let Reply::Number(number) = value { number } else { 0 };
        match expected.front_mut() {
            None => return false,
            Some(Expected::Answers(waiting)) => {
                waiting.wanted -= 1;
                if waiting.wanted.is_multiple_of(waiting.answers_of_each) {
                    waiting.replies.push(value);
                }
                if waiting.wanted > 0 {
                    return true;
                }
            }
            Some(Expected::Replicas) => {}
        }
        match expected.pop_front() {
            Some(Expected::Answers(waiting)) if waiting.is_write && self.replication.is_some() => {
                self.unreplicated.borrow_mut().push((waiting.to, waiting.replies));
            }
            Some(Expected::Answers(waiting)) => {
                let _ = waiting.to.send(Ok(waiting.replies));
            }
            Some(Expected::Replicas) => {
                let enough = self.replication.is_none_or(|wanted| number >= i64::from(wanted.replicas));
                for (to, replies) in self.unreplicated.take() {
                    let answer = if enough || are_refused(&replies) {
                        Ok(replies)
                    } else {
                        Err(SendError::UnderReplicated(number))
                    };
                    let _ = to.send(answer);
                }
            }
            None => {}
        }
        true
    }
}

/// An error of the system, without what is of no use to a reader.
pub fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        io::ErrorKind::BrokenPipe => "the server closed it".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures_util::future::join;
    use tokio::io::ReadBuf;
    use tokio::time::{Sleep, sleep};

    use super::*;

    /// A connection that the server has closed: it takes nothing any more, and what the server said before comes late.
    struct Closed {
        words: &'static [u8],
        arrival: Pin<Box<Sleep>>,
    }

    impl AsyncRead for Closed {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.arrival.as_mut().poll(context).is_pending() || self.words.is_empty() {
                return Poll::Pending;
            }
            out.put_slice(std::mem::take(&mut self.words));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Closed {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// The answer to a request on such a connection, why that ended, and after how long.
    fn ask_closed(words: &'static [u8], arrives_after: Duration) -> (Answer, Rc<str>, Duration) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let (link, begun) = (MultiplexedConnection::new(None), Instant::now());
            let closed = Closed { words, arrival: Box::pin(sleep(arrives_after)) };
            let sent = Rc::default();
            let request = Request::read(Default::default()).command(&[b"PING"]);
            let (answer, reason) = join(link.send(request, &sent), link.drive(closed)).await;
            (answer, reason, begun.elapsed())
        })
    }

    #[test]
    fn what_a_server_said_before_it_closed_is_read_though_it_takes_nothing_more() {
        let (answer, reason, took) =
            ask_closed(b"-ERR max number of clients reached\r\n", Duration::from_millis(20));
        let replies = answer.unwrap();
        assert_eq!(replies.first(), Some(&Reply::Error(b"ERR max number of clients reached".to_vec())));
        assert_eq!(&*reason, "the server closed it");
        assert!(took < Duration::from_secs(1), "{took:?}");
        // It need not have said anything.
        let (answer, reason, took) = ask_closed(b"", Duration::ZERO);
        assert!(matches!(answer, Err(SendError::ConnectionLost(_))), "{answer:?}");
        assert_eq!(&*reason, "the server closed it");
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}
