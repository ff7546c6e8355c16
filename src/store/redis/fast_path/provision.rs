//! The connections of event loops, which the worker makes.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::sleep;

use super::super::connection::System;
use super::super::queue::{EventLoopConnection, Queue};
use super::super::resp::{TOUCH, UPDATE};
use super::super::routing::backoff;
use super::super::session::{Context, cipher};

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
                None => sleep(backoff(attempts, System::Real.chance())).await,
            }
            attempts += 1;
        };
        to.connected(connection);
    }
}

async fn connect(context: &Context) -> Option<EventLoopConnection> {
    let unlocked = context.router.step(async |attempt| cipher(context, attempt).await).await;
    let socket = context.router.topology.connect_event_loop(&[&TOUCH, &UPDATE]).await.ok()?;
    let cipher = unlocked.ok()?;
    // What was encrypted otherwise meanwhile is for the next one.
    let is_current = context.cipher.borrow().as_ref().is_some_and(|current| Arc::ptr_eq(current, &cipher));
    is_current.then_some(EventLoopConnection { socket, cipher })
}
