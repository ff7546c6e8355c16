//! Measures the core without Node.js: `cargo bench --features bench`. `npm run bench` measures the package in Node.js.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use native_store::clock::{MockClock, SystemClock};
use native_store::session::{Body, Content, Expiry, FieldOrder, Session, SessionId, UserKeyBuf};
use native_store::store::SessionStore;
use native_store::store::memory::{Limits, MemoryStore};

const SIZES: [u64; 2] = [1000, 100_000];
const SWEPT: u64 = 100_000;
/// Few compared with the sessions of the smallest store, so that its size hardly changes.
const BATCH: u64 = 50;
const FAR_OFF: i64 = 4_000_000_000_000;

/// A session with the three fields of FluidAuth. A number always gives the same session.
struct Login {
    id: String,
    user: UserKeyBuf,
    expires: Expiry,
}

impl Login {
    fn new(number: u64) -> Self {
        Self::ending_at(number, FAR_OFF)
    }

    fn ending_at(number: u64, millis: i64) -> Self {
        // 18 bytes that look as random as those of `randomBytes`.
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let id = format!("{mixed:016x}{:016x}{:04x}", mixed.swap_bytes() ^ number, mixed >> 48);
        Self {
            id,
            user: UserKeyBuf::from_text(&(10_000_000 + number).to_string()),
            expires: Expiry::new(millis).unwrap(),
        }
    }

    /// Packs the id each time, like a call from JavaScript.
    fn create_in(&self, store: &MemoryStore) {
        let content = Content { user: Some(self.user.as_key()), body: Body::Plain(FieldOrder::UserFirst) };
        store.create(&Session { id: self.packed(), expires: self.expires, content }).unwrap();
    }

    fn packed(&self) -> SessionId {
        SessionId::new(&self.id).unwrap()
    }
}

fn filled(size: u64) -> MemoryStore {
    let store = MemoryStore::new(Limits::default(), Arc::new(SystemClock));
    for number in 0..size {
        Login::new(number).create_in(&store);
    }
    store
}

/// Calls `run` with batches of logins that a store of `size` does not have, and returns the sum of its times.
fn in_batches(size: u64, iterations: u64, mut run: impl FnMut(&[Login]) -> Duration) -> Duration {
    let mut elapsed = Duration::ZERO;
    for first in (0..iterations).step_by(BATCH as usize) {
        let fresh: Vec<_> =
            (first..iterations.min(first + BATCH)).map(|number| Login::new(size + number)).collect();
        elapsed += run(&fresh);
    }
    elapsed
}

fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// Measures a call on logins in random order.
fn on_each(
    group: &mut BenchmarkGroup<'_, WallTime>,
    call: &str,
    logins: &[Login],
    mut run: impl FnMut(&Login),
) {
    let mut next = 0;
    group.bench_function(BenchmarkId::new(call, logins.len()), |bencher| {
        bencher.iter(|| {
            next = (next + 7919) % logins.len();
            run(&logins[next]);
        });
    });
}

fn calls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("MemoryStore");
    for size in SIZES {
        let store = filled(size);
        let logins: Vec<_> = (0..size).map(Login::new).collect();
        on_each(&mut group, "get", &logins, |login| {
            black_box(store.get(&login.packed()).unwrap().unwrap());
        });
        on_each(&mut group, "touch", &logins, |login| {
            assert!(store.touch(&login.packed(), login.expires).unwrap());
        });
        let create = |logins: &[Login]| logins.iter().for_each(|login| login.create_in(&store));
        let delete =
            |logins: &[Login]| logins.iter().for_each(|login| store.delete(&login.packed()).unwrap());
        group.bench_function(BenchmarkId::new("create", size), |bencher| {
            bencher.iter_custom(|iterations| {
                in_batches(size, iterations, |fresh| {
                    let elapsed = timed(|| create(fresh));
                    delete(fresh);
                    elapsed
                })
            });
        });
        group.bench_function(BenchmarkId::new("delete", size), |bencher| {
            bencher.iter_custom(|iterations| {
                in_batches(size, iterations, |fresh| {
                    create(fresh);
                    timed(|| delete(fresh))
                })
            });
        });
    }
}

/// Measures a sweep in which half of the sessions have expired.
fn sweep(criterion: &mut Criterion) {
    let half_expired = || {
        let clock = Arc::new(MockClock::new(0));
        let store = MemoryStore::new(Limits::default(), clock.clone());
        for number in 0..SWEPT {
            Login::ending_at(number, if number % 2 == 0 { 1 } else { FAR_OFF }).create_in(&store);
        }
        clock.advance(1);
        store
    };
    let mut group = criterion.benchmark_group("MemoryStore");
    group.sample_size(20).throughput(Throughput::Elements(SWEPT));
    group.bench_function(BenchmarkId::new("clean, half expired", SWEPT), |bencher| {
        bencher.iter_batched_ref(
            half_expired,
            |store| assert_eq!(store.clean().unwrap(), SWEPT / 2),
            BatchSize::PerIteration,
        );
    });
}

fn limits() -> [(&'static str, Limits); 3] {
    let far = NonZeroUsize::new(1 << 40);
    [
        ("no limits", Limits::default()),
        ("maxSessions", Limits { max_sessions: far, ..Limits::default() }),
        ("maxBytes", Limits { max_bytes: far, ..Limits::default() }),
    ]
}

/// Measures the part of `deleteByUser` and `clear` that runs on the caller's thread.
fn endings(criterion: &mut Criterion) {
    const OF_ONE_USER: u64 = 50_000;
    const OTHERS: u64 = 100_000;
    let mut group = criterion.benchmark_group("MemoryStore");
    group.sample_size(10);
    for (name, limits) in limits() {
        let of_user = UserKeyBuf::from_text("one");
        let filled = || {
            let store = MemoryStore::new(limits, Arc::new(SystemClock));
            for number in 0..OF_ONE_USER + OTHERS {
                let mut login = Login::new(number);
                if number % (1 + OTHERS / OF_ONE_USER) == 0 {
                    login.user = of_user.clone();
                }
                login.create_in(&store);
            }
            store
        };
        group.bench_function(BenchmarkId::new("end_by_user", name), |bencher| {
            bencher.iter_custom(|iterations| {
                let end = |_| {
                    let (store, start) = (filled(), Instant::now());
                    let ended = black_box(store.end_by_user(of_user.as_key(), None));
                    let elapsed = start.elapsed();
                    assert_eq!(ended.count(), OF_ONE_USER);
                    elapsed
                };
                (0..iterations).map(end).sum()
            });
        });
        group.bench_function(BenchmarkId::new("detach_all", name), |bencher| {
            bencher.iter_custom(|iterations| {
                let detach = |_| {
                    let (store, start) = (filled(), Instant::now());
                    let cleared = black_box(store.detach_all());
                    let elapsed = start.elapsed();
                    drop(cleared);
                    elapsed
                };
                (0..iterations).map(detach).sum()
            });
        });
    }
}

/// Measures creations in a full store, where each one evicts another session.
fn evictions(criterion: &mut Criterion) {
    const SESSIONS: usize = 100_000;
    let mut group = criterion.benchmark_group("MemoryStore");
    let full = [
        ("maxSessions", Limits { max_sessions: NonZeroUsize::new(SESSIONS), ..Limits::default() }),
        ("maxBytes", Limits { max_bytes: NonZeroUsize::new(SESSIONS * 84), ..Limits::default() }),
    ];
    for (name, limits) in full {
        let store = MemoryStore::new(limits, Arc::new(SystemClock));
        let mut next = 0;
        let mut create = || {
            Login::new(next).create_in(&store);
            next += 1;
        };
        (0..SESSIONS * 2).for_each(|_| create());
        group.bench_function(BenchmarkId::new("create, full", name), |bencher| bencher.iter(&mut create));
    }
}

criterion_group!(benches, calls, sweep, endings, evictions);
criterion_main!(benches);
