//! The connections of lanes, which the store's thread makes.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::sleep;

use super::core::Core;
use super::lane::Line;
use super::topology::pause;

impl Core {
    /// Makes a connection whenever a lane wants one, until the store is closed.
    pub(super) async fn make_lines(self: Rc<Self>) {
        loop {
            self.shared.lane.wake.notified().await;
            let Some(to) = self.shared.lane.by.lock().take() else { continue };
            let mut attempts = 0;
            let line = loop {
                // Why one fails the store's own connection tells, on which the calls go meanwhile.
                match self.make_line().await {
                    Some(line) => break line,
                    None => sleep(pause(attempts)).await,
                }
                attempts += 1;
            };
            to.line(line);
        }
    }

    async fn make_line(&self) -> Option<Line> {
        let unlocked = self.step(async |call| self.vault(call).await).await;
        let socket = self.topology.connect_lane().await.ok()?;
        let vault = unlocked.ok()?;
        // What was sealed otherwise meanwhile is for the next one.
        let is_current = self.vault.borrow().as_ref().is_some_and(|current| Arc::ptr_eq(current, &vault));
        is_current.then_some(Line { socket, vault })
    }
}
