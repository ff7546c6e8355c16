//! Publishes the limits of this process to the other processes of the prefix, and compares them.
//!
//! A sorted set contains the limits of these processes, with the time of the last publication as the score. Each
//! process publishes its limits once a minute. The set expires when none does any more. A process without limits
//! takes no part.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use parking_lot::Mutex;

use super::super::resp::{Reply, Request, number as text};
use super::super::routing::{Attempt, Effect};
use super::context::Context;
use super::user_index::entries_of;
use crate::error::{Result, StoreError};
use crate::store::{CommonLimits, LimitsDiffer};

/// How long published limits count.
const KEPT: Duration = Duration::from_secs(150);

/// Publishes the limits of this process. With `is_first`, also compares them with the limits of the others.
pub async fn publish_limits(context: &Context, attempt: &Attempt, is_first: bool) -> Result<()> {
    let own = context.options.common_limits();
    if own == CommonLimits::default() || context.options.is_tool {
        return Ok(());
    }
    let key = &context.names.limits;
    let since = context.times.stamp_before(KEPT) / 1000;
    let now = (context.times.stamp_before(Duration::ZERO) / 1000) as i64;
    let (said, end) = (text(now), text(now + KEPT.as_millis() as i64));
    let member = format!("{} {}", own.user_code(), own.lifetime_code());
    let make = |mode| {
        Request::write(mode)
            .command(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"])
            .command(&[b"ZADD", key, &said, member.as_bytes()])
            .command(&[b"PEXPIREAT", key, &end])
    };
    let mut replies = context.router.ask(attempt, key, Effect::None, make).await?;
    let others = entries_of(std::mem::replace(&mut replies[0], Reply::Nil))?;
    let is_other = |(other, said): &(Vec<u8>, u64)| *other != member.as_bytes() && *said >= since;
    if is_first && let Some((other, _)) = others.into_iter().rfind(is_other) {
        let differ = LimitsDiffer { own, other: parse(&other)? };
        if is_new(context, differ) {
            context.limits_report.found(differ);
        }
    }
    Ok(())
}

fn parse(member: &[u8]) -> Result<CommonLimits> {
    const OTHER: StoreError = StoreError::Corrupt("invalid limits of another process");
    let text = std::str::from_utf8(member).map_err(|_| OTHER)?;
    let (user, lifetime) = text.split_once(' ').ok_or(OTHER)?;
    match (user.parse(), lifetime.parse()) {
        (Ok(user), Ok(lifetime)) => Ok(CommonLimits::from_codes(user, lifetime)),
        _ => Err(OTHER),
    }
}

/// Whether no other store of this process has reported this difference. Each JavaScript thread has its own store.
fn is_new(context: &Context, differ: LimitsDiffer) -> bool {
    static REPORTED: LazyLock<Mutex<HashSet<(String, LimitsDiffer)>>> = LazyLock::new(Mutex::default);
    let store = format!("{:?} {}", context.options.servers, context.options.prefix);
    REPORTED.lock().insert((store, differ))
}
