//! Regular checks without a call: the time of the servers, the limits, and the wrapped keys.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::resp::{Reply, Request};
use super::super::routing::{Attempt, Effect};
use super::context::Context;
use super::key_ring::{is_same_connection, key_connection, recheck_keys};
use super::limits_differ::publish_limits;
use crate::clock::Millis;
use crate::error::Result;

const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Within this time, clocks drift apart by a few milliseconds.
const TIME_INTERVAL: Duration = Duration::from_secs(60);

/// After each reconnect and once a minute, asks a server for its time and publishes this store's limits. Checks the
/// wrapped keys every second.
pub async fn watch(context: Rc<Context>) {
    let (mut asked, mut is_first) = (None, true);
    loop {
        let now = key_connection(&context);
        let is_known = asked.as_ref().is_some_and(|(at, on): &(Instant, _)| {
            at.elapsed() < TIME_INTERVAL && is_same_connection(on, &now)
        });
        if !is_known {
            let learned =
                context.router.step(async |attempt| ask_server_time(&context, attempt, b"").await).await;
            asked = learned.is_ok().then(|| (Instant::now(), now));
            if asked.is_some() {
                // If a server refuses this, differences in limits go unreported.
                let said = context
                    .router
                    .step(async |attempt| publish_limits(&context, attempt, is_first).await)
                    .await;
                is_first &= said.is_err();
            }
        }
        // An error here also fails the calls, which report it.
        let _ = context.router.step(async |attempt| recheck_keys(&context, attempt).await).await;
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// Ensures that the time of the servers is known, before a stamp is made. If it is not, asks the server of a key.
pub async fn ensure_server_time(
    context: &Context,
    attempt: &Attempt,
    key: impl FnOnce() -> Vec<u8>,
) -> Result<()> {
    if context.times.knows_server_time() { Ok(()) } else { ask_server_time(context, attempt, &key()).await }
}

/// Asks the server of a key for its time.
async fn ask_server_time(context: &Context, attempt: &Attempt, key: &[u8]) -> Result<()> {
    // The first request may have to wait for a connection, which makes its time inaccurate.
    for _ in 0..2 {
        let asked_at = context.times.now();
        let make = |mode| Request::read(mode).command(&[b"TIME"]);
        let replies = context.router.ask(attempt, key, Effect::None, make).await?;
        context.times.record_server_time(asked_at, replies.first().and_then(millis));
    }
    Ok(())
}

fn millis(reply: &Reply) -> Option<Millis> {
    let Reply::Array(parts) = reply else { return None };
    let [Reply::Bytes(seconds), Reply::Bytes(micros)] = &parts[..] else { return None };
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<Millis>().ok();
    Some(number(seconds)? * 1000 + number(micros)? / 1000)
}
