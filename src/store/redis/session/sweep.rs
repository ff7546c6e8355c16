//! The background sweep: it removes what expired sessions leave behind.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::super::counters::Counters;
use super::super::error::unless_foreign;
use super::super::resp::{END_EXPIRED, Reply, Request, number as text};
use super::super::routing::{Attempt, Effect};
use super::super::time::Stamp;
use super::context::Context;
use super::cursor::ScanCursor;
use super::scan::next_page;
use super::user_index::{AT_ONCE, NOT_THEIRS, Named, Owner, forget_all, look_up, some_entries, tidy};
use crate::error::Result;
use crate::store::Sweep;

/// Goes through all indexes and removes what they name in vain; how many sessions have expired, as far as that
/// shows: the server ends those itself, and what it leaves behind are their entries.
pub async fn clean(context: &Context) -> Result<u64> {
    let (at, begun) = (context.times.now(), Instant::now());
    let mut removed = 0;
    let mut cursor = ScanCursor::new(&context.names.users);
    while let Some(indexes) =
        context.router.step(async |attempt| next_page(context, attempt, &mut cursor).await).await?
    {
        for index in indexes {
            removed += clean_index(context, &index).await?;
        }
    }
    if context.times.kept_for.is_some() {
        removed += end_expired(context).await?;
    }
    Counters::add(&context.counters.expired, removed);
    let duration = begun.elapsed().as_millis() as i64;
    *context.counters.last_sweep.lock() = Some(Sweep { at, duration, removed });
    Ok(removed)
}

async fn clean_index(context: &Context, index: &[u8]) -> Result<u64> {
    let Some(owner) = Owner::of(index, &context.names.users) else { return Ok(0) };
    let (mut first, mut removed) = (0, 0);
    loop {
        let (entries, gone) = context
            .router
            .step(async |attempt| {
                let last = first + AT_ONCE as i64 - 1;
                let entries = some_entries(context, attempt, index, first, last).await;
                let entries = unless_foreign(entries, Vec::new())?;
                let named = look_up(context, attempt, &entries, &owner).await?;
                let (mut expired, mut absent, mut others) = (Vec::new(), Vec::new(), Vec::new());
                for (entry, named) in entries.iter().zip(named) {
                    match named {
                        Named::Live(_) => {}
                        Named::Expired => expired.push(entry.clone()),
                        Named::Absent => absent.push(entry.clone()),
                        Named::Another => others.push(entry.clone()),
                    }
                }
                let ended = end_each(context, attempt, &expired).await?;
                removed += ended.len() as u64;
                let mut gone = forget_all(context, attempt, index, &ended).await;
                let forgotten = tidy(context, attempt, index, &absent).await;
                removed += forgotten;
                gone += forgotten + tidy(context, attempt, index, &others).await;
                Ok((entries.len(), gone))
            })
            .await?;
        if entries < AT_ONCE {
            return Ok(removed);
        }
        first += entries as i64 - gone as i64;
    }
}

/// Removes those of some entries' sessions that are expired by now, and tells which.
async fn end_each(
    context: &Context,
    attempt: &Attempt,
    entries: &[(Vec<u8>, Stamp)],
) -> Result<Vec<(Vec<u8>, Stamp)>> {
    let now = text(context.times.now());
    let ends = join_all(entries.iter().map(async |(member, _)| {
        let key = context.names.session(member);
        context.router.run_script(attempt, Effect::None, &END_EXPIRED, &key, &[&now]).await
    }));
    let mut ended = Vec::new();
    for (entry, end) in entries.iter().zip(ends.await) {
        if unless_foreign(end, NOT_THEIRS)? == Reply::Number(1) {
            ended.push(entry.clone());
        }
    }
    Ok(ended)
}

/// Removes the expired sessions of no user, which no index names.
async fn end_expired(context: &Context) -> Result<u64> {
    let mut removed = 0;
    let mut cursor = ScanCursor::new(&context.names.sessions);
    while let Some(keys) =
        context.router.step(async |attempt| next_page(context, attempt, &mut cursor).await).await?
    {
        let entries: Vec<_> =
            keys.iter().map(|key| (key[context.names.sessions.len()..].to_vec(), 0)).collect();
        removed +=
            context.router.step(async |attempt| end_each(context, attempt, &entries).await).await?.len()
                as u64;
    }
    Ok(removed)
}

/// Sweeps every so often: one process of all that use the prefix does, if it gets the lock.
pub async fn sweep(context: Rc<Context>) {
    let interval = context.options.sweep_interval.unwrap_or(crate::sweeper::DEFAULT_SWEEP_INTERVAL);
    if interval == 0 {
        return;
    }
    loop {
        tokio::time::sleep(Duration::from_millis(interval)).await;
        let until = text(i64::try_from(interval).unwrap_or(i64::MAX).clamp(1, i64::from(i32::MAX)));
        let lock = &context.names.sweep;
        let taken = context.router.step(async |attempt| {
            let make = |mode| Request::read(mode).command(&[b"SET", lock, b"1", b"NX", b"PX", &until]);
            context.router.get_one(attempt, lock, Effect::None, make).await
        });
        if matches!(taken.await, Ok(Reply::Okay)) {
            // A failed sweep leaves only garbage behind, which the next one removes.
            let _ = clean(&context).await;
        }
    }
}
