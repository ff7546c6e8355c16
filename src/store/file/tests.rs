use std::num::NonZeroUsize;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::clock::MockClock;
use crate::store::conformance::{MAX_SESSION_BYTES, conformance};

/// A store in a directory that goes with it.
struct Kept {
    store: Arc<FileStore>,
    _dir: TempDir,
}

impl SessionStore for Kept {
    fn create(&self, session: &Session<'_>) -> Result<()> {
        self.store.create(session)
    }
    fn get(&self, id: &SessionId) -> Result<Option<StoredSession>> {
        self.store.get(id)
    }
    fn update(&self, session: &Session<'_>) -> Result<bool> {
        self.store.update(session)
    }
    fn touch(&self, id: &SessionId, expires: Expiry) -> Result<bool> {
        self.store.touch(id, expires)
    }
    fn delete(&self, id: &SessionId) -> Result<()> {
        self.store.delete(id)
    }
    fn clean(&self) -> Result<u64> {
        self.store.clean()
    }
    fn get_by_user(&self, user: UserKey<'_>) -> Result<Vec<StoredSession>> {
        self.store.get_by_user(user)
    }
    fn delete_by_user(&self, user: UserKey<'_>, except: Option<&SessionId>) -> Result<u64> {
        self.store.delete_by_user(user, except)
    }
    fn size(&self) -> Result<u64> {
        self.store.size()
    }
    fn ids(&self, after: Cursor) -> Result<(Vec<SessionId>, Option<Cursor>)> {
        self.store.ids(after)
    }
    fn clear(&self) -> Result<()> {
        self.store.clear()
    }
    fn stats(&self) -> Result<Stats> {
        self.store.stats()
    }
}

fn options(dir: &Path) -> FileOptions {
    FileOptions {
        path: dir.into(),
        max_session_bytes: NonZeroUsize::new(MAX_SESSION_BYTES),
        sweep_interval: Some(0),
        ..FileOptions::default()
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.repeat(4).into_bytes())
}

fn open(secrets: Vec<Secret>, clock: Arc<MockClock>) -> Kept {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::open_at(&FileOptions { secrets, ..options(dir.path()) }, clock).unwrap();
    Kept { store, _dir: dir }
}

mod in_the_open {
    use super::*;
    conformance!(|clock| open(Vec::new(), clock));
}

mod encrypted {
    use super::*;
    conformance!(|clock| open(vec![secret("first"), secret("second")], clock));
}
