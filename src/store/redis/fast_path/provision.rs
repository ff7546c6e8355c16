//! The connections of event loops, which the worker makes.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::connection::System;
use super::super::queue::{EventLoopConnection, Queue};
use super::super::resp::{CREATE_INDEXED, Request, TOUCH, UPDATE};
use super::super::routing::{Attempt, backoff};
use super::super::session::{Context, cipher, has_keys, keys_request, learn_time};

/// A connection that lasts no longer is of no use, as where the event loop cannot poll it, or the server takes no writes.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// How long to wait before a connection is replaced.
#[derive(Default)]
struct Pace {
    provided_at: Option<Instant>,
    short_lives: u32,
}

impl Pace {
    /// The pause before the next one, where the last has ended.
    fn pause(&mut self) -> Option<Duration> {
        if self.provided_at.is_none_or(|at| at.elapsed() >= SHORT_LIFE) {
            self.short_lives = 0;
            return None;
        }
        self.short_lives += 1;
        Some(backoff(self.short_lives - 1, System::Real.chance()))
    }

    fn provided(&mut self) {
        self.provided_at = Some(Instant::now());
    }
}

/// Makes a connection whenever a fast path wants one.
pub async fn provide(context: Rc<Context>, queue: Arc<Queue>) {
    let mut pace = Pace::default();
    loop {
        queue.fast_path.wake.notified().await;
        if let Some(pause) = pace.pause() {
            sleep(pause).await;
        }
        let Some(to) = queue.fast_path.by.lock().take() else { continue };
        let mut attempts = 0;
        let connection = loop {
            // Why one fails the worker's own connection tells, on which the calls go meanwhile.
            match connect(&context).await {
                Some(connection) => break connection,
                None => sleep(backoff(attempts, System::Real.chance())).await,
            }
            attempts += 1;
        };
        pace.provided();
        to.connected(connection);
    }
}

async fn connect(context: &Context) -> Option<EventLoopConnection> {
    let unlock = async |attempt: &Attempt| {
        if !context.times.knows_servers() {
            learn_time(context, attempt, b"").await?;
        }
        cipher(context, attempt).await
    };
    let unlocked = context.router.step(unlock).await;
    // A script that is not loaded here is when it is first called.
    let load = [&CREATE_INDEXED, &TOUCH, &UPDATE]
        .iter()
        .fold(Request::read(Default::default()), |request, script| {
            request.command(&[b"SCRIPT", b"LOAD", script.text.as_bytes()])
        });
    let first = keys_request(context, load);
    let (connection, mut replies) = context.router.topology.connect_event_loop(first).await.ok()?;
    let cipher = unlocked.ok()?;
    // What was encrypted otherwise meanwhile is for the next one, and so is a server that has lost the keys.
    has_keys(context, &cipher, &replies.pop()?).then_some(EventLoopConnection { connection, cipher })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_end_at_once_are_replaced_ever_more_slowly() {
        let mut pace = Pace::default();
        assert_eq!(pace.pause(), None);
        let pauses: Vec<_> = (0..8)
            .map(|_| {
                pace.provided();
                pace.pause().unwrap()
            })
            .collect();
        assert!(pauses[0] <= Duration::from_millis(50), "{pauses:?}");
        assert!(pauses[7] >= SHORT_LIFE, "{pauses:?}");
        pace.provided_at = pace.provided_at.and_then(|at| at.checked_sub(SHORT_LIFE));
        assert_eq!(pace.pause(), None);
        pace.provided();
        assert!(pace.pause().unwrap() <= Duration::from_millis(50));
    }
}
