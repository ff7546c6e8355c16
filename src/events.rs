//! Publishes events of a store to listeners.
//!
//! A store publishes on its [`Bus`], from any of its threads and under its locks. Each listener has an [`Inbox`], from
//! which one thread takes events. Without a listener for a topic, publishing reads one atomic and allocates nothing.
//!
//! **Invariants**
//! - An inbox holds at most [`MAX_WAITING`] ends of sessions. It counts further ones by reason, so the totals are
//!   exact.
//! - An inbox wakes its thread once. It wakes it again only after the thread has found the inbox empty.
//! - A thread has one inbox on a bus, however often it has the store open.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};

use parking_lot::Mutex;

use crate::clock::Millis;
use crate::session::{SessionId, UserKey, UserKeyBuf};

/// The maximum number of ends of sessions in an inbox, and in a transaction.
pub const MAX_WAITING: usize = 4096;

/// The maximum number of other events in an inbox. They are rare. Beyond this the oldest is dropped.
const MAX_OTHERS: usize = 1024;

/// Topics, as bits.
pub type Topics = u8;

/// Ends of sessions.
pub const ENDS: Topics = 1;
pub const SWEEPS: Topics = 2;
/// Connections, and drains of redo logs.
pub const OTHERS: Topics = 4;

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Deleted by its id.
    Deleted,
    /// Ended by `delete_by_user`.
    Revoked,
    Expired,
    /// The store was full.
    Evicted,
    /// The user had too many sessions.
    Replaced,
}

impl Reason {
    const ALL: [Self; 5] = [Self::Deleted, Self::Revoked, Self::Expired, Self::Evicted, Self::Replaced];

    pub fn name(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Replaced => "replaced",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Ended {
        reason: Reason,
        id: SessionId,
        user: Option<UserKeyBuf>,
    },
    /// Sessions of which only the number is known.
    EndedUnnamed {
        reason: Reason,
        count: u64,
    },
    Swept {
        at: Millis,
        duration: Millis,
        removed: u64,
    },
    SweepFailed(String),
    Connected {
        server: String,
    },
    Disconnected {
        server: String,
        problem: String,
    },
    /// Another server has become the primary.
    FailedOver {
        from: String,
        to: String,
    },
    /// The redo log was applied to the data file.
    Drained {
        bytes: u64,
        millis: u64,
    },
}

impl Event {
    fn topic(&self) -> Topics {
        match self {
            Self::Ended { .. } | Self::EndedUnnamed { .. } => ENDS,
            Self::Swept { .. } | Self::SweepFailed(_) => SWEEPS,
            _ => OTHERS,
        }
    }
}

/// The ends of sessions in a transaction that has not committed yet.
#[derive(Debug, Default)]
pub struct Ends {
    /// Whether there is a listener.
    is_wanted: bool,
    named: Vec<(Reason, SessionId, Option<UserKeyBuf>)>,
    unnamed: [u64; Reason::ALL.len()],
}

/// A savepoint of [`Ends`].
#[derive(Debug, Clone, Copy, Default)]
pub struct EndsMark {
    named: usize,
    unnamed: [u64; Reason::ALL.len()],
}

impl Ends {
    pub fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Whether the next end should be added with its id. Otherwise it is only counted.
    pub fn has_room(&self) -> bool {
        self.named.len() < MAX_WAITING
    }

    pub fn add(&mut self, reason: Reason, id: SessionId, user: Option<UserKey<'_>>) {
        self.named.push((reason, id, user.map(UserKey::to_buf)));
    }

    pub fn add_unnamed(&mut self, reason: Reason) {
        self.unnamed[reason as usize] += 1;
    }

    pub fn mark(&self) -> EndsMark {
        EndsMark { named: self.named.len(), unnamed: self.unnamed }
    }

    /// Removes the ends that were added since a mark.
    pub fn rewind(&mut self, mark: EndsMark) {
        self.named.truncate(mark.named);
        self.unnamed = mark.unnamed;
    }
}

/// The event bus of a store.
#[derive(Default)]
pub struct Bus {
    /// The topics that have a listener.
    topics: AtomicU8,
    inboxes: Mutex<Vec<Weak<Inbox>>>,
}

impl Bus {
    pub fn wants(&self, topic: Topics) -> bool {
        self.topics.load(Ordering::Relaxed) & topic != 0
    }

    /// Subscribes an inbox to these topics, and unsubscribes it from all others. Returns `false` if another inbox of
    /// the same thread is subscribed.
    pub fn listen(&self, inbox: &Arc<Inbox>, topics: Topics) -> bool {
        let mut inboxes = self.inboxes.lock();
        inboxes.retain(|other| other.upgrade().is_some_and(|other| !Arc::ptr_eq(&other, inbox)));
        let is_rival =
            |other: &Weak<Inbox>| other.upgrade().is_some_and(|other| other.thread == inbox.thread);
        let is_first = !inboxes.iter().any(is_rival);
        inbox.topics.store(topics, Ordering::Relaxed);
        if is_first && topics != 0 {
            inboxes.push(Arc::downgrade(inbox));
        }
        self.count_topics(&inboxes);
        is_first
    }

    /// Recomputes the topics that have a listener. Call it under the lock of the inboxes.
    fn count_topics(&self, inboxes: &[Weak<Inbox>]) {
        let of =
            |inbox: &Weak<Inbox>| inbox.upgrade().map_or(0, |inbox| inbox.topics.load(Ordering::Relaxed));
        self.topics.store(inboxes.iter().map(of).fold(0, |all, topics| all | topics), Ordering::Relaxed);
    }

    /// Publishes an event. `event` runs only if there is a listener.
    pub fn publish(&self, topic: Topics, event: impl FnOnce() -> Event) {
        if self.wants(topic) {
            self.send(event());
        }
    }

    /// Publishes the ends of sessions of which only the number is known.
    pub fn publish_unnamed(&self, reason: Reason, count: u64) {
        if count > 0 {
            self.publish(ENDS, || Event::EndedUnnamed { reason, count });
        }
    }

    /// Returns an empty list for the ends of a transaction.
    pub fn ends(&self) -> Ends {
        Ends { is_wanted: self.wants(ENDS), ..Ends::default() }
    }

    /// Publishes the ends of a committed transaction.
    pub fn publish_ends(&self, ends: Ends) {
        for (reason, id, user) in ends.named {
            self.send(Event::Ended { reason, id, user });
        }
        for (reason, count) in Reason::ALL.into_iter().zip(ends.unnamed) {
            self.publish_unnamed(reason, count);
        }
    }

    fn send(&self, event: Event) {
        let listening: Vec<Arc<Inbox>> = {
            let mut inboxes = self.inboxes.lock();
            let before = inboxes.len();
            inboxes.retain(|inbox| inbox.strong_count() > 0);
            if inboxes.len() < before {
                self.count_topics(&inboxes);
            }
            let topic = event.topic();
            let wants = |inbox: &Arc<Inbox>| inbox.topics.load(Ordering::Relaxed) & topic != 0;
            inboxes.iter().filter_map(Weak::upgrade).filter(wants).collect()
        };
        for inbox in listening {
            inbox.push(event.clone());
        }
    }
}

/// The pending events of a thread.
pub struct Inbox {
    thread: ThreadId,
    topics: AtomicU8,
    waiting: Mutex<Waiting>,
    /// Makes the thread take the events.
    wake: Box<dyn Fn(Arc<Inbox>) + Send + Sync>,
}

#[derive(Default)]
struct Waiting {
    ends: VecDeque<Event>,
    left_out: [u64; Reason::ALL.len()],
    others: VecDeque<Event>,
    is_awake: bool,
}

impl Inbox {
    /// Creates an inbox for the calling thread.
    pub fn new(wake: impl Fn(Arc<Self>) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            thread: thread::current().id(),
            topics: AtomicU8::new(0),
            waiting: Mutex::default(),
            wake: Box::new(wake),
        })
    }

    /// Takes the next events, ends of sessions last. After it has returned none, the next event wakes the thread again.
    pub fn take(&self, max: usize) -> Vec<Event> {
        let mut waiting = self.waiting.lock();
        let others = waiting.others.len().min(max);
        let mut taken: Vec<Event> = waiting.others.drain(..others).collect();
        let ends = waiting.ends.len().min(max - others);
        taken.extend(waiting.ends.drain(..ends));
        if waiting.ends.is_empty() {
            for (reason, count) in Reason::ALL.into_iter().zip(std::mem::take(&mut waiting.left_out)) {
                if count > 0 {
                    taken.push(Event::EndedUnnamed { reason, count });
                }
            }
        }
        waiting.is_awake = !taken.is_empty();
        taken
    }

    fn push(self: Arc<Self>, event: Event) {
        let mut waiting = self.waiting.lock();
        match event {
            Event::EndedUnnamed { reason, count } => waiting.left_out[reason as usize] += count,
            Event::Ended { reason, .. } if waiting.ends.len() >= MAX_WAITING => {
                waiting.left_out[reason as usize] += 1;
            }
            Event::Ended { .. } => waiting.ends.push_back(event),
            _ => {
                if waiting.others.len() >= MAX_OTHERS {
                    waiting.others.pop_front();
                }
                waiting.others.push_back(event);
            }
        }
        if !std::mem::replace(&mut waiting.is_awake, true) {
            drop(waiting);
            (self.wake)(Arc::clone(&self));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn inbox() -> (Arc<Inbox>, Arc<AtomicUsize>) {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        (Inbox::new(move |_| _ = count.fetch_add(1, Ordering::SeqCst)), woken)
    }

    fn ended(number: usize) -> Event {
        let id = SessionId::new(&number.to_string()).unwrap();
        Event::Ended { reason: Reason::Expired, id, user: None }
    }

    fn swept(removed: u64) -> Event {
        Event::Swept { at: 0, duration: 0, removed }
    }

    fn counted(events: &[Event]) -> u64 {
        let count = |event: &Event| match event {
            Event::Ended { .. } => 1,
            Event::EndedUnnamed { count, .. } => *count,
            _ => 0,
        };
        events.iter().map(count).sum()
    }

    #[test]
    fn a_dropped_listener_unsubscribes_only_its_own_topics() {
        let bus = Bus::default();
        let (stays, _) = inbox();
        assert!(bus.listen(&stays, SWEEPS));
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(bus.listen(&inbox().0, ENDS)));
        });
        bus.publish(ENDS, || ended(1));
        bus.publish(ENDS, || unreachable!("that listener has gone"));
        bus.publish(SWEEPS, || swept(1));
        assert_eq!(stays.take(9), vec![swept(1)]);
    }

    #[test]
    fn no_event_is_made_without_a_listener() {
        let bus = Bus::default();
        let (inbox, woken) = inbox();
        bus.publish(ENDS, || unreachable!("nobody listens"));
        assert!(bus.listen(&inbox, SWEEPS));
        bus.publish(ENDS, || unreachable!("nobody listens to that"));
        bus.publish(SWEEPS, || swept(1));
        assert_eq!((inbox.take(9), woken.load(Ordering::SeqCst)), (vec![swept(1)], 1));
        assert!(bus.listen(&inbox, 0));
        bus.publish(SWEEPS, || unreachable!("nobody listens any more"));
        bus.listen(&inbox, SWEEPS);
        drop(inbox);
        // The first event detects that the listener is gone.
        bus.publish(SWEEPS, || swept(2));
        bus.publish(SWEEPS, || unreachable!("the listener has gone"));
    }

    #[test]
    fn a_thread_is_woken_once_until_its_inbox_is_empty() {
        let bus = Bus::default();
        let (inbox, woken) = inbox();
        bus.listen(&inbox, ENDS);
        for number in 0..3 {
            bus.publish(ENDS, || ended(number));
        }
        assert_eq!(inbox.take(2), [ended(0), ended(1)]);
        bus.publish(ENDS, || ended(3));
        assert_eq!(inbox.take(9), [ended(2), ended(3)]);
        assert_eq!((inbox.take(9), woken.load(Ordering::SeqCst)), (vec![], 1));
        bus.publish(ENDS, || ended(4));
        assert_eq!(woken.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_full_inbox_counts_the_rest() {
        let bus = Bus::default();
        let (inbox, _) = inbox();
        bus.listen(&inbox, ENDS | SWEEPS);
        let all = 100_000;
        for number in 0..all {
            bus.publish(ENDS, || ended(number));
        }
        bus.publish(SWEEPS, || swept(7));
        let mut taken = Vec::new();
        loop {
            let some = inbox.take(256);
            if some.is_empty() {
                break;
            }
            taken.extend(some);
        }
        assert_eq!((counted(&taken), taken.len()), (all as u64, MAX_WAITING + 2));
        assert_eq!(taken[0], swept(7));
        let left_out = (all - MAX_WAITING) as u64;
        let last = Event::EndedUnnamed { reason: Reason::Expired, count: left_out };
        assert_eq!(taken.last(), Some(&last));
    }

    #[test]
    fn each_thread_receives_each_event_once() {
        let bus = Arc::new(Bus::default());
        let (one, _) = inbox();
        let (twin, _) = inbox();
        assert!(bus.listen(&one, ENDS));
        assert!(!bus.listen(&twin, ENDS), "this thread listens already");
        let theirs = {
            let bus = Arc::clone(&bus);
            thread::spawn(move || {
                let (theirs, _) = inbox();
                assert!(bus.listen(&theirs, ENDS));
                theirs
            })
            .join()
            .unwrap()
        };
        bus.publish(ENDS, || ended(1));
        assert_eq!((one.take(9).len(), twin.take(9).len(), theirs.take(9).len()), (1, 0, 1));
        drop(one);
        assert!(bus.listen(&twin, ENDS), "the other one has gone");
        bus.publish(ENDS, || ended(2));
        assert_eq!((twin.take(9).len(), theirs.take(9).len()), (1, 1));
    }

    #[test]
    fn the_ends_of_a_refused_write_are_rolled_back() {
        let bus = Bus::default();
        let (inbox, _) = inbox();
        assert!(!bus.ends().is_wanted());
        bus.listen(&inbox, ENDS);
        let mut ends = bus.ends();
        let id = |number: usize| SessionId::new(&number.to_string()).unwrap();
        ends.add(Reason::Deleted, id(1), None);
        let mark = ends.mark();
        ends.add(Reason::Revoked, id(2), None);
        ends.add_unnamed(Reason::Revoked);
        ends.rewind(mark);
        bus.publish_ends(ends);
        assert_eq!(inbox.take(9), [Event::Ended { reason: Reason::Deleted, id: id(1), user: None }]);
    }
}
