//! Says to the other processes of a prefix which limits this one keeps to, and looks for others.
//!
//! A sorted set has the limits of these processes, by when one of them has said so last. Each says so once a minute. The set
//! ends by itself when nobody does any more. A process without limits takes no part.

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

/// For how long limits count that nobody has said again.
const KEPT: Duration = Duration::from_secs(150);

/// Says the limits of this process, and looks at those of the others if this is the `first` time.
pub async fn say_limits(context: &Context, attempt: &Attempt, is_first: bool) -> Result<()> {
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
    const OTHER: StoreError = StoreError::Corrupt("these are no limits");
    let text = std::str::from_utf8(member).map_err(|_| OTHER)?;
    let (user, lifetime) = text.split_once(' ').ok_or(OTHER)?;
    match (user.parse(), lifetime.parse()) {
        (Ok(user), Ok(lifetime)) => Ok(CommonLimits::from_codes(user, lifetime)),
        _ => Err(OTHER),
    }
}

/// Whether no store of this process has reported the same: each thread has a store of its own.
fn is_new(context: &Context, differ: LimitsDiffer) -> bool {
    static REPORTED: LazyLock<Mutex<HashSet<(String, LimitsDiffer)>>> = LazyLock::new(Mutex::default);
    let store = format!("{:?} {}", context.options.servers, context.options.prefix);
    REPORTED.lock().insert((store, differ))
}
