//! One connection to one server. It sends the requests of many calls together, and returns their replies in order.

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

/// Why a request got no replies.
#[derive(Debug, Clone)]
pub enum SendError {
    /// The request was not sent.
    Unsent,
    /// The connection ended before the replies arrived.
    ConnectionLost(Rc<str>),
    /// The server has carried out the request, but only this number of replicas have it.
    UnderReplicated(i64),
}

/// The size of the read buffer.
const BUFFER: usize = 16 * 1024;

/// How long to wait for the remaining replies after the connection accepts no more requests.
const LAST_REPLIES: Duration = Duration::from_millis(250);

type Answer = Result<Replies, SendError>;

/// The number of replicas that a write waits for, and how long it waits.
#[derive(Debug, Clone, Copy)]
pub struct Replication {
    pub replicas: u32,
    pub timeout: Duration,
}

/// A request that waits for its replies.
struct Waiting {
    replies: Replies,
    wanted: usize,
    /// The number of replies to each command, of which only the last counts.
    answers_of_each: usize,
    is_write: bool,
    sent_at: Instant,
    to: oneshot::Sender<Answer>,
}

enum Expected {
    Answers(Waiting),
    /// The reply to a `WAIT`: the number of replicas that have all writes sent before it.
    Replicas,
}

/// A request that waits to be sent.
struct Outgoing {
    request: Request,
    /// Counts the requests of the call that were sent.
    sent: Rc<Cell<usize>>,
    to: oneshot::Sender<Answer>,
}

/// The maximum size of one write, beyond which only its last request may extend. Other requests wait, and are not
/// sent after their deadline.
const MAX_BATCH: usize = 256 * 1024;

pub struct MultiplexedConnection {
    outgoing: RefCell<VecDeque<Outgoing>>,
    /// The requests that are sent or about to be sent, in the order of their replies.
    expected: RefCell<VecDeque<Expected>>,
    /// Writes that have their replies, and wait for replicas.
    unreplicated: RefCell<Vec<(oneshot::Sender<Answer>, Replies)>>,
    has_work: Notify,
    /// The server has sent a push message.
    pub pushed: Notify,
    cut: Notify,
    is_dead: Cell<bool>,
    /// Whether a `PING` is checking if the server still answers.
    pub is_suspect: Cell<bool>,
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
            is_suspect: Cell::new(false),
            last_read_at: Cell::new(Instant::now()),
            has_read: Cell::new(false),
            opened_at: Instant::now(),
            replication,
            window: OnceCell::new(),
        })
    }

    /// Limits the number of requests without a reply by a window.
    pub fn limit(&self, window: Arc<ReplyWindow>) {
        let _ = self.window.set(window);
    }

    fn has_room(&self, pending: usize) -> bool {
        self.window.get().is_none_or(|window| window.has_room(pending))
    }

    /// Sends a request together with the others of this turn, and waits for its replies. If the future is dropped,
    /// the request is not sent any more. Increments `sent` when the request is sent.
    pub async fn send(&self, request: Request, sent: &Rc<Cell<usize>>) -> Answer {
        if self.is_dead.get() {
            return Err(SendError::Unsent);
        }
        let (to, answer) = oneshot::channel();
        if self.outgoing.borrow().is_empty() {
            self.has_work.notify_one();
        }
        self.outgoing.borrow_mut().push_back(Outgoing { request, sent: Rc::clone(sent), to });
        // The driver answers every request, unless it was dropped itself.
        answer.await.unwrap_or_else(|_| Err(SendError::ConnectionLost("the store was closed".into())))
    }

    pub fn is_dead(&self) -> bool {
        self.is_dead.get()
    }

    /// Whether the server has sent any reply.
    pub fn has_read(&self) -> bool {
        self.has_read.get()
    }

    /// The time since the connection was opened.
    pub fn age(&self) -> Duration {
        self.opened_at.elapsed()
    }

    /// Ends the connection. Requests without a reply get `ConnectionLost`.
    pub fn cut(&self) {
        self.cut.notify_one();
    }

    /// Ends the connection if the server has been silent for `timeout` with a request pending, or if the oldest reply
    /// is twice as late.
    pub fn cut_if_late(&self, timeout: Duration) {
        let expected = self.expected.borrow();
        let oldest = expected.iter().find_map(|expected| match expected {
            Expected::Answers(waiting) => Some(waiting.sent_at),
            Expected::Replicas => None,
        });
        let is_silent = !expected.is_empty() && self.last_read_at.get().elapsed() >= timeout;
        // Such a late reply is stuck in buffers of the network, and all replies behind it are late too.
        if is_silent || oldest.is_some_and(|sent_at| sent_at.elapsed() >= 2 * timeout) {
            self.cut();
        }
    }

    /// Whether no request is waiting or pending, so that silence is normal.
    pub fn is_idle(&self) -> bool {
        self.outgoing.borrow().is_empty() && self.expected.borrow().is_empty()
    }

    /// Reads and writes until the connection ends. Returns the reason.
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
                // Replies may still arrive, such as the reason why the server closes the connection.
                let _ = timeout(LAST_REPLIES, reading).await;
                reason
            }
        };
        if let Some(window) = self.window.get() {
            window.server_closed(self.expected.borrow().len());
        }
        reason
    }

    /// Returns all requests that were not sent, for another connection.
    fn send_no_more(&self) {
        self.is_dead.set(true);
        for Outgoing { to, .. } in self.outgoing.take() {
            // Sending fails only if the receiver is gone, here and below.
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
                return describe(&error);
            }
            bytes.shrink_to(MAX_BATCH);
        }
    }

    /// Encodes the next requests into `bytes`. Skips requests whose caller has stopped waiting.
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
                Err(error) => return describe(&error),
            }
            let mut taken = 0;
            loop {
                match decoder.decode(&bytes[taken..]) {
                    Ok(Some((reply, len))) => {
                        if matches!(reply, Reply::Push(_)) {
                            self.pushed.notify_one();
                        } else if !self.take(reply.to_owned()) {
                            return "the server sent an unexpected reply".into();
                        }
                        taken += len;
                        self.has_read.set(true);
                        if let Some(window) = self.window.get() {
                            window.reply_came(len);
                        }
                    }
                    Ok(None) => break,
                    // The message leaves out the bytes, which may contain session data.
                    Err(Malformed) => return "the server does not speak Redis's protocol".into(),
                }
            }
            if taken > 0 && !self.outgoing.borrow().is_empty() {
                // Requests may have waited for room in the window.
                self.has_work.notify_one();
            }
            bytes.drain(..taken);
            bytes.shrink_to(4 * BUFFER);
        }
    }

    /// Takes the next reply. Returns `false` if no request expects one.
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

/// Describes an error of the system briefly.
pub fn describe(error: &io::Error) -> String {
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

    /// A connection that the server has closed: writes fail, and its last message arrives late.
    struct Closed {
        last_message: &'static [u8],
        arrival: Pin<Box<Sleep>>,
    }

    impl AsyncRead for Closed {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.arrival.as_mut().poll(context).is_pending() || self.last_message.is_empty() {
                return Poll::Pending;
            }
            out.put_slice(std::mem::take(&mut self.last_message));
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

    /// Sends a request on such a connection. Returns the reply, why the connection ended, and how long it took.
    fn ask_closed(last_message: &'static [u8], arrives_after: Duration) -> (Answer, Rc<str>, Duration) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let (connection, started) = (MultiplexedConnection::new(None), Instant::now());
            let closed = Closed { last_message, arrival: Box::pin(sleep(arrives_after)) };
            let sent = Rc::default();
            let request = Request::read(Default::default()).command(&[b"PING"]);
            let (answer, reason) = join(connection.send(request, &sent), connection.drive(closed)).await;
            (answer, reason, started.elapsed())
        })
    }

    #[test]
    fn the_last_message_of_a_closed_connection_is_read() {
        let (answer, reason, took) =
            ask_closed(b"-ERR max number of clients reached\r\n", Duration::from_millis(20));
        let replies = answer.unwrap();
        assert_eq!(replies.first(), Some(&Reply::Error(b"ERR max number of clients reached".to_vec())));
        assert_eq!(&*reason, "the server closed it");
        assert!(took < Duration::from_secs(1), "{took:?}");
        // The server may also close without a message.
        let (answer, reason, took) = ask_closed(b"", Duration::ZERO);
        assert!(matches!(answer, Err(SendError::ConnectionLost(_))), "{answer:?}");
        assert_eq!(&*reason, "the server closed it");
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}
