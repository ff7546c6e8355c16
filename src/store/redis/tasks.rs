//! Counts the running work of a store, so that closing the store can wait for it.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::task::spawn_local;

#[derive(Default)]
pub struct Tasks {
    running: Cell<usize>,
    /// The number of tasks that wait for all others to end.
    waiting: Cell<usize>,
    has_ended: Notify,
}

impl Tasks {
    pub fn running(&self) -> usize {
        self.running.get()
    }

    pub fn start(&self) {
        self.running.set(self.running.get() + 1);
    }

    pub fn end(&self) {
        self.running.set(self.running.get() - 1);
        if self.running.get() <= self.waiting.get() {
            self.has_ended.notify_waiters();
        }
    }

    /// Runs work that no caller waits for. Closing the store waits for it.
    pub fn spawn(self: &Rc<Self>, work: impl Future<Output = ()> + 'static) {
        let tasks = Rc::clone(self);
        self.start();
        spawn_local(async move {
            work.await;
            tasks.end();
        });
    }

    /// Waits, within a task, until only tasks that wait here are running.
    pub async fn others_ended(&self) {
        self.waiting.set(self.waiting.get() + 1);
        self.all_ended().await;
        self.waiting.set(self.waiting.get() - 1);
    }

    pub async fn all_ended(&self) {
        while self.running.get() > self.waiting.get() {
            self.has_ended.notified().await;
        }
    }
}
