//! The thread that runs the connections and workers of all stores in the process.
//!
//! One thread is enough: its tasks run in the order in which they become ready, and need no locks. The first store
//! starts it. It never ends, and it does not keep the process alive.

use std::io;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::error::{Result, StoreError};

type Start = Box<dyn FnOnce() + Send>;

/// The thread, and the PID of its process. A forked process has a copy of this memory, but not the thread.
static THREAD: Mutex<Option<(u32, UnboundedSender<Start>)>> = Mutex::new(None);

/// Calls `start` on the thread, where it may spawn local tasks.
///
/// # Errors
/// `Unavailable` if the system cannot start the thread.
pub(super) fn run(start: impl FnOnce() + Send + 'static) -> Result<()> {
    let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    let mut start: Start = Box::new(start);
    if let Some((owner, starts)) = &*thread
        && *owner == process
    {
        match starts.send(start) {
            Ok(()) => return Ok(()),
            Err(refused) => start = refused.0,
        }
    }
    let (starts, inbox) = unbounded_channel();
    let (report, reported) = mpsc::channel::<io::Result<()>>();
    let body = move || {
        // Unlike the tasks of a `LocalSet`, tasks of a local runtime wake each other without a lock.
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        // Sending fails only if the receiver is gone, here and below.
        match runtime {
            Ok(runtime) => {
                let _ = report.send(Ok(()));
                runtime.block_on(serve(inbox));
            }
            Err(error) => drop(report.send(Err(error))),
        }
    };
    thread::Builder::new()
        .name("session-store-redis".into())
        .spawn(body)
        .and_then(|_| reported.recv().unwrap_or_else(|_| Err(io::Error::other("it ended"))))
        .map_err(|error| StoreError::unavailable(format!("no thread for Redis: {error}")))?;
    // The thread holds the other end of the channel, so this cannot fail.
    let _ = starts.send(start);
    *thread = Some((process, starts));
    Ok(())
}

async fn serve(mut inbox: UnboundedReceiver<Start>) {
    while let Some(start) = inbox.recv().await {
        start();
    }
}
