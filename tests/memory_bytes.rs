//! `stats().bytes` of a `MemoryStore` agrees with the allocated memory within 10 %, and `maxBytes` limits it.
// With the feature `binding` the crate has its own allocator.
#![cfg(not(feature = "binding"))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::Arc;

use native_store::clock::MockClock;
use native_store::session::{Body, Content, ExpiresForm, Expiry, Session, SessionId, UserKeyBuf};
use native_store::store::SessionStore;
use native_store::store::memory::{Limits, MemoryStore};

/// Counts the bytes that a thread has allocated and not freed.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // This fails while a thread exits, and is not needed then.
    let _ = ALLOCATED.try_with(|allocated| allocated.set(allocated.get() + bytes));
}

// SAFETY: all calls are passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: guaranteed by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: guaranteed by the caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A store, and the bytes that were allocated before it had sessions.
struct Measured {
    store: MemoryStore,
    before: isize,
}

impl Measured {
    fn new(limits: Limits) -> Self {
        let store = MemoryStore::new(limits, Arc::new(MockClock::new(0)));
        Self { store, before: ALLOCATED.get() }
    }

    /// The bytes that the sessions have allocated.
    fn allocated(&self) -> usize {
        (ALLOCATED.get() - self.before) as usize
    }

    fn create(&self, number: usize, user: usize, len: usize) {
        let (key, text) = (UserKeyBuf::from_text(&format!("user {user:06}")), "x".repeat(len));
        let content = Content {
            user: Some(key.as_key()),
            body: Body::Json { text: &text, expires: ExpiresForm::Text },
        };
        let expires = Expiry::new(1_000_000).unwrap();
        self.store.create(&Session { id: id(number), expires, content }).unwrap();
    }

    fn assert_bytes_agree(&self, what: &str) {
        let (stated, allocated) = (self.store.stats().unwrap().bytes.unwrap() as usize, self.allocated());
        println!("{what}: stated {stated}, allocated {allocated}");
        let difference = stated.abs_diff(allocated);
        assert!(difference <= allocated / 10, "{what}: stated {stated} bytes, allocated {allocated}");
    }
}

fn id(number: usize) -> SessionId {
    SessionId::new(&format!("{:036x}", number as u64 ^ 0x9e37_79b9_7f4a_7c15)).unwrap()
}

fn max_bytes(max: usize) -> Limits {
    Limits { max_bytes: NonZeroUsize::new(max), ..Limits::default() }
}

fn each_kind_of_store() -> [(&'static str, Limits); 3] {
    let far = NonZeroUsize::new(1 << 40);
    [
        ("without limits", Limits::default()),
        ("maxSessions", Limits { max_sessions: far, ..Limits::default() }),
        ("maxBytes", max_bytes(1 << 40)),
    ]
}

#[test]
fn bytes_agree_for_sessions_of_one_size() {
    for (kind, limits) in each_kind_of_store() {
        for len in [0, 100, 500, 3000] {
            let measured = Measured::new(limits);
            (0..20_000).for_each(|number| measured.create(number, number, len));
            measured.assert_bytes_agree(&format!("{kind}, {len}"));
        }
    }
}

#[test]
fn bytes_agree_after_most_sessions_of_many_sizes_are_deleted() {
    for (kind, limits) in each_kind_of_store() {
        let measured = Measured::new(limits);
        (0..40_000).for_each(|number| measured.create(number, number, number * 7 % 1200));
        measured.assert_bytes_agree(&format!("{kind}, all"));
        for number in (0..40_000).filter(|number| number % 8 != 0) {
            measured.store.delete(&id(number)).unwrap();
        }
        measured.assert_bytes_agree(&format!("{kind}, an eighth"));
        measured.store.clear().unwrap();
        measured.store.clean().unwrap();
        assert!(measured.allocated() < 10_000, "{} bytes are left", measured.allocated());
    }
}

#[test]
fn bytes_agree_for_users_with_many_sessions() {
    for (kind, limits) in each_kind_of_store() {
        let measured = Measured::new(limits);
        (0..50_000).for_each(|number| measured.create(number, number % 20, 10));
        measured.assert_bytes_agree(&format!("{kind}, all"));
        let user = UserKeyBuf::from_text("user 000007");
        assert_eq!(measured.store.delete_by_user(user.as_key(), None), Ok(2500));
        measured.assert_bytes_agree(&format!("{kind}, without one user"));
    }
}

/// Creates sessions of a new size in each round. One session in 40 is used regularly, so it outlives the others.
#[test]
fn max_bytes_limits_the_memory_when_some_sessions_outlive_the_others() {
    const MAX: usize = 8_000_000;
    let measured = Measured::new(max_bytes(MAX));
    let (mut kept, mut number) = (Vec::new(), 0);
    for round in 0..12 {
        let len = 20 + round * 80;
        for at in 0..6_000_000 / (150 + len) {
            measured.create(number, number, len);
            if at % 40 == 0 {
                kept.push(id(number));
            }
            if at % 1000 == 0 {
                kept.iter().for_each(|kept| drop(measured.store.get(kept)));
            }
            number += 1;
        }
        measured.assert_bytes_agree(&format!("round {round}"));
        assert!(measured.allocated() < MAX + MAX / 10, "{} bytes", measured.allocated());
    }
    // The store must also use its memory: most of it must hold sessions.
    let live = measured.store.size().unwrap() as usize;
    assert!(live * 1300 > MAX * 8 / 10, "{live} sessions");
    assert!(kept.iter().all(|kept| measured.store.get(kept).unwrap().is_some()));
}
