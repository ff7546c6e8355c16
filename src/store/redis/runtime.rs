//! The thread on which all stores of the process speak with their servers.
//!
//! One for all of them: tasks of one thread take turns in the order in which they become ready, and need no locks. It
//! is started by the first store and never ends; the process does not wait for it.

use std::io;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::error::{Result, StoreError};

type Start = Box<dyn FnOnce() + Send>;

/// The thread, and the process that it is of: a fork has the memory, but not the thread.
static THREAD: Mutex<Option<(u32, UnboundedSender<Start>)>> = Mutex::new(None);

/// Calls `start` on the thread, where it may spawn local tasks.
///
/// # Errors
/// `Unavailable` if the system has no thread to give.
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
    let (tell, told) = mpsc::channel::<io::Result<()>>();
    let body = move || {
        // Its tasks need no lock to wake each other, as those of a `LocalSet` do.
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        // It fails where no one waits any more, here and below.
        match runtime {
            Ok(runtime) => {
                let _ = tell.send(Ok(()));
                runtime.block_on(serve(inbox));
            }
            Err(error) => drop(tell.send(Err(error))),
        }
    };
    thread::Builder::new()
        .name("session-store-redis".into())
        .spawn(body)
        .and_then(|_| told.recv().unwrap_or_else(|_| Err(io::Error::other("it ended"))))
        .map_err(|error| StoreError::unavailable(format!("no thread for Redis: {error}")))?;
    // The thread has its end of the channel.
    let _ = starts.send(start);
    *thread = Some((process, starts));
    Ok(())
}

async fn serve(mut inbox: UnboundedReceiver<Start>) {
    while let Some(start) = inbox.recv().await {
        start();
    }
}
