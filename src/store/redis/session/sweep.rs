//! The background sweep: removes index entries of sessions that have ended.
//!
//! The server expires sessions, and also each index after all of its sessions. So a sweep only checks a random
//! sample: some entries of some indexes. It continues while it finds many stale entries, and takes at most a
//! hundredth of the server's time.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::super::error::{self, unless_foreign};
use super::super::resp::{END_EXPIRED, Reply, Request, number as text};
use super::super::routing::{Attempt, Effect};
use super::super::time::Stamp;
use super::context::Context;
use super::cursor::ScanCursor;
use super::scan::next_page;
use super::user_index::{
    BATCH_SIZE, EntryState, NOT_OWNED, Owner, entries_of, forget_all, look_up, may_forget, remove_stale,
    some_entries,
};
use crate::error::Result;
use crate::store::Sweep;

/// The number of random entries to check in each index.
const SAMPLE: i64 = 8;

/// The number of indexes to check together.
const INDEXES: usize = BATCH_SIZE / SAMPLE as usize;

/// The number of entries to check before the sweep may stop.
const ENOUGH: usize = 128;

/// One in this many entries may be stale, in a sample or in an index, without a further check.
const TOLERATED: usize = 10;

/// A sweep takes at most one part in this many of its interval.
const SHARE: u32 = 100;

/// The result of checking some entries.
#[derive(Debug, Default, Clone, Copy)]
struct Checked {
    entries: usize,
    /// How many of them name no session of the index's user.
    stale: usize,
    /// How many of these were removed.
    gone: usize,
    /// How many of the removed entries were of sessions that have ended.
    removed: u64,
}

impl Checked {
    fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.stale += other.stale;
        self.gone += other.gone;
        self.removed += other.removed;
    }

    fn is_tolerable(&self) -> bool {
        self.stale * TOLERATED <= self.entries
    }
}

/// Sweeps once. Returns the number of removed entries whose sessions have ended. If the servers do not share the
/// store's clock, it checks all indexes and sessions, and also removes expired sessions.
pub async fn clean(context: &Context) -> Result<u64> {
    sweep_once(context, async || Ok(())).await
}

/// Calls `renew` before each step but the first.
async fn sweep_once(context: &Context, renew: impl AsyncFn() -> Result<()>) -> Result<u64> {
    let (at, started) = (context.times.now(), Instant::now());
    let removed = if context.times.kept_for.is_some() {
        sweep_all(context).await?
    } else {
        sweep_sample(context, started + interval(context) / SHARE, renew).await?
    };
    let duration = started.elapsed().as_millis() as i64;
    context.counters.swept(Sweep { at, duration, removed });
    Ok(removed)
}

async fn sweep_sample(context: &Context, until: Instant, renew: impl AsyncFn() -> Result<()>) -> Result<u64> {
    let resumed = context.sweep_cursor.take();
    let mut cursor = resumed.unwrap_or_else(|| ScanCursor::repeating(&context.names.users));
    let mut checked = Checked::default();
    loop {
        let page =
            context.router.step(async |attempt| next_page(context, attempt, &mut cursor).await).await?;
        // The next sweep starts from the beginning.
        let Some(indexes) = page else { return Ok(checked.removed) };
        for batch in indexes.chunks(INDEXES) {
            for found in join_all(batch.iter().map(|index| sample_index(context, index))).await {
                checked.add(found?);
            }
        }
        let is_enough = checked.entries >= ENOUGH && checked.is_tolerable();
        if is_enough || Instant::now() >= until {
            *context.sweep_cursor.borrow_mut() = Some(cursor);
            return Ok(checked.removed);
        }
        renew().await?;
    }
}

/// Checks a sample of an index, and all of its entries if too many of the sample are stale.
async fn sample_index(context: &Context, index: &[u8]) -> Result<Checked> {
    let Some(owner) = Owner::of(index, &context.names.users) else { return Ok(Checked::default()) };
    let count = text(SAMPLE);
    let checked = context
        .router
        .step(async |attempt| {
            let command: [&[u8]; 4] = [b"ZRANDMEMBER", index, &count, b"WITHSCORES"];
            let make = |mode| Request::read(mode).command(&command);
            let entries = context.router.get_one(attempt, index, Effect::None, make).await;
            let entries = unless_foreign(entries.and_then(entries_of), Vec::new())?;
            check_entries(context, attempt, index, &owner, &entries).await
        })
        .await?;
    if checked.is_tolerable() || checked.entries < SAMPLE as usize {
        return Ok(checked);
    }
    let removed = checked.removed + clean_index(context, index).await?;
    Ok(Checked { removed, ..checked })
}

/// Checks some entries of an index. Removes those of ended sessions, and those of other users' sessions.
async fn check_entries(
    context: &Context,
    attempt: &Attempt,
    index: &[u8],
    owner: &Owner<'_>,
    entries: &[(Vec<u8>, Stamp)],
) -> Result<Checked> {
    let named = look_up(context, attempt, entries, owner).await?;
    let (mut expired, mut absent, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for (entry, named) in entries.iter().zip(named) {
        match named {
            EntryState::Live(_) => {}
            EntryState::Expired(created) => expired.push((entry.clone(), created)),
            EntryState::Absent => absent.push(entry.clone()),
            EntryState::Another => others.push(entry.clone()),
        }
    }
    let keys = expired.iter().map(|((member, _), _)| context.names.session(member));
    let ends = end_each(context, attempt, keys).await?;
    let ended = expired.into_iter().zip(ends).filter_map(|(expired, is_ended)| is_ended.then_some(expired));
    let ended: Vec<_> = ended.collect();
    let stale = ended.len() + absent.len() + others.len();
    let own = ended.iter().filter(|((_, version), created)| may_forget(context, *version, *created));
    let own: Vec<_> = own.map(|(entry, _)| entry.clone()).collect();
    let gone = forget_all(context, attempt, index, &own).await;
    let forgotten = remove_stale(context, attempt, index, &absent).await;
    let removed = ended.len() as u64 + forgotten;
    let gone = (gone + forgotten + remove_stale(context, attempt, index, &others).await) as usize;
    Ok(Checked { entries: entries.len(), stale, gone, removed })
}

async fn sweep_all(context: &Context) -> Result<u64> {
    let mut removed = 0;
    let mut cursor = ScanCursor::new(&context.names.users);
    while let Some(indexes) =
        context.router.step(async |attempt| next_page(context, attempt, &mut cursor).await).await?
    {
        for index in indexes {
            removed += clean_index(context, &index).await?;
        }
    }
    Ok(removed + end_expired(context).await?)
}

async fn clean_index(context: &Context, index: &[u8]) -> Result<u64> {
    let Some(owner) = Owner::of(index, &context.names.users) else { return Ok(0) };
    let (mut first, mut removed) = (0, 0);
    loop {
        let checked = context
            .router
            .step(async |attempt| {
                let last = first + BATCH_SIZE as i64 - 1;
                let entries = some_entries(context, attempt, index, first, last).await;
                let entries = unless_foreign(entries, Vec::new())?;
                check_entries(context, attempt, index, &owner, &entries).await
            })
            .await?;
        removed += checked.removed;
        if checked.entries < BATCH_SIZE {
            return Ok(removed);
        }
        first += (checked.entries - checked.gone) as i64;
    }
}

/// Removes the sessions that have expired. Returns which ones it has removed.
async fn end_each(
    context: &Context,
    attempt: &Attempt,
    keys: impl Iterator<Item = Vec<u8>>,
) -> Result<Vec<bool>> {
    let now = text(context.times.now());
    let ends = join_all(keys.map(async |key| {
        let end = context.router.run_script(attempt, Effect::None, &END_EXPIRED, &key, &[&now]).await;
        Ok(unless_foreign(end, NOT_OWNED)? == Reply::Number(1))
    }));
    ends.await.into_iter().collect()
}

/// Removes expired sessions without a user, which no index names.
async fn end_expired(context: &Context) -> Result<u64> {
    let mut removed = 0;
    let mut cursor = ScanCursor::new(&context.names.sessions);
    while let Some(keys) =
        context.router.step(async |attempt| next_page(context, attempt, &mut cursor).await).await?
    {
        let end = async |attempt: &Attempt| end_each(context, attempt, keys.iter().cloned()).await;
        let ends = context.router.step(end).await?;
        removed += ends.into_iter().filter(|is_ended| *is_ended).count() as u64;
    }
    Ok(removed)
}

fn interval(context: &Context) -> Duration {
    let interval = context.options.sweep_interval.filter(|&interval| interval > 0);
    Duration::from_millis(interval.unwrap_or(crate::sweeper::DEFAULT_SWEEP_INTERVAL))
}

/// Runs the background sweep. Of all processes with the prefix, the one that gets the lock sweeps. `stats` reports
/// the error of the last sweep, until one succeeds.
pub async fn sweep(context: Rc<Context>) {
    if context.options.sweep_interval == Some(0) {
        return;
    }
    let interval = interval(&context);
    loop {
        tokio::time::sleep(interval).await;
        context.scans.borrow_mut().end_abandoned();
        let failed = match locked_sweep(&context, interval).await {
            Ok(false) => continue,
            Ok(true) => None,
            Err(error) => Some(error.to_string()),
        };
        context.counters.set_sweep_error(failed);
    }
}

/// Sweeps if no other process does. Returns whether it did.
async fn locked_sweep(context: &Context, interval: Duration) -> Result<bool> {
    let millis = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
    let until = text(millis.clamp(1, i64::from(i32::MAX)));
    let lock = &context.names.sweep;
    let ask = async |command: &[&[u8]]| {
        let make = |mode| Request::read(mode).command(command);
        context
            .router
            .step(async |attempt| context.router.get_one(attempt, lock, Effect::None, make).await)
            .await
    };
    match ask(&[b"SET", lock, b"1", b"NX", b"PX", &until]).await? {
        Reply::Okay => {}
        Reply::Nil => return Ok(false),
        _ => return Err(error::unexpected()),
    }
    sweep_once(context, async || ask(&[b"PEXPIRE", lock, &until]).await.map(drop)).await?;
    Ok(true)
}
