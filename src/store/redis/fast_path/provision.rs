//! The connections of event loops, which the worker makes.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::sleep;

use super::super::queue::{EventLoopConnection, Queue};
use super::super::resp::{ENTER, Request, TOUCH, UPDATE};
use super::super::routing::{Attempt, backoff};
use super::super::session::{Context, cipher, has_keys, keys_request, learn_time};

/// Makes a connection whenever a fast path wants one.
pub async fn provide(context: Rc<Context>, queue: Arc<Queue>) {
    loop {
        queue.fast_path.wake.notified().await;
        let Some(to) = queue.fast_path.by.lock().take() else { continue };
        let mut attempts = 0;
        let connection = loop {
            // Why one fails the worker's own connection tells, on which the calls go meanwhile.
            match connect(&context).await {
                Some(connection) => break connection,
                None => sleep(backoff(attempts)).await,
            }
            attempts += 1;
        };
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
    let load = [&ENTER, &TOUCH, &UPDATE].iter().fold(Request::read(Default::default()), |request, script| {
        request.command(&[b"SCRIPT", b"LOAD", script.text.as_bytes()])
    });
    let first = keys_request(context, load);
    let (socket, mut replies) = context.router.topology.connect_event_loop(first).await.ok()?;
    let cipher = unlocked.ok()?;
    // What was encrypted otherwise meanwhile is for the next one, and so is a server that has lost the keys.
    has_keys(context, &cipher, &replies.pop()?).then_some(EventLoopConnection { socket, cipher })
}
