//! Discards a missing or damaged redo log. Its readable part is kept, no session comes back that a readable batch has
//! ended, and the store works normally afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::drain::copy_in_a_drain;
use super::names::{DATA, REDO};
use super::*;

/// The offset of the ring in the file.
const RING: usize = 4096;

/// Ids, with the user and the creation number.
type Sessions = BTreeMap<&'static str, (&'static str, usize)>;
/// Ids and users.
type View = BTreeMap<String, String>;

enum Op {
    Create(&'static str, &'static str),
    Update(&'static str, &'static str),
    Delete(&'static str),
    DeleteByUser(&'static str),
}

use Op::{Create, Delete, DeleteByUser, Update};

const BASE: [Op; 5] = [
    Create("base-a", "ann"),
    Create("base-b", "ann"),
    Create("base-c", "bob"),
    Create("base-d", "cid"),
    Create("base-e", "cid"),
];

/// Each operation is a batch.
const LOGGED: [Op; 10] = [
    Create("one", "ann"),
    Delete("base-a"),
    Update("base-c", "eve"),
    Create("two", "bob"),
    Delete("one"),
    Create("base-a", "ann"),
    DeleteByUser("cid"),
    Create("three", "cid"),
    Delete("base-b"),
    Update("two", "eve"),
];

impl Op {
    fn perform(&self, store: &FileStore) {
        let create = |name, user: &str| {
            let user = UserKeyBuf::from_text(user);
            store.create(&plain(name, &user, far()))
        };
        match self {
            Create(name, user) => create(name, user).unwrap(),
            Update(name, user) => {
                let user = UserKeyBuf::from_text(user);
                assert!(store.update(&plain(name, &user, far())).unwrap());
            }
            Delete(name) => store.delete(&id(name)).unwrap(),
            DeleteByUser(user) => {
                assert!(store.delete_by_user(UserKeyBuf::from_text(user).as_key(), None).unwrap() > 0);
            }
        }
    }

    fn apply(&self, sessions: &mut Sessions, nth: usize) {
        match self {
            Create(name, user) => _ = sessions.insert(name, (user, nth)),
            Update(name, user) => sessions.get_mut(name).unwrap().0 = user,
            Delete(name) => _ = sessions.remove(name),
            DeleteByUser(user) => sessions.retain(|_, (of, _)| of != user),
        }
    }
}

fn far() -> Expiry {
    Expiry::new(START + 1_000_000).unwrap()
}

fn view(sessions: &Sessions) -> View {
    sessions.iter().map(|(name, (user, _))| ((*name).into(), (*user).into())).collect()
}

fn look(store: &FileStore) -> View {
    let (ids, next) = store.ids(Cursor::default()).unwrap();
    assert!(next.is_none());
    let user_of = |id: &SessionId| {
        let session = store.get(id).unwrap().unwrap();
        let user = session.content().unwrap().user.unwrap().text().unwrap().to_vec();
        String::from_utf8(user).unwrap()
    };
    ids.iter().map(|id| (id.to_string(), user_of(id))).collect()
}

/// The files of a store whose process was killed.
struct Killed {
    secrets: Vec<Secret>,
    data: Vec<u8>,
    log: Vec<u8>,
    /// The start of each batch in the log, and the end of the last one.
    batches: Vec<usize>,
    /// The sessions before each batch, and after the last one.
    states: Vec<Sessions>,
}

impl Killed {
    fn new(secrets: Vec<Secret>) -> Self {
        let dir = new_dir();
        let options = FileOptions { secrets: secrets.clone(), ..options(dir.path()) };
        let store = reopen(&options).unwrap();
        let mut sessions = Sessions::new();
        let mut at = 0;
        let mut perform = |op: &Op| {
            op.perform(&store);
            op.apply(&mut sessions, at);
            at += 1;
            sessions.clone()
        };
        let base: Vec<_> = BASE.iter().map(&mut perform).collect();
        store.ids(Cursor::default()).unwrap();
        let from = fs::read(dir.path().join(REDO)).unwrap();
        let states: Vec<_> = base.into_iter().last().into_iter().chain(LOGGED.iter().map(perform)).collect();
        let (data, log) =
            (fs::read(dir.path().join(DATA)).unwrap(), fs::read(dir.path().join(REDO)).unwrap());
        let first =
            (RING..log.len()).step_by(8).find(|at| log[*at..] != from[*at..] && log[*at] != from[*at]);
        let mut batches = vec![first.unwrap()];
        while let Some(len) = batch_at(&log, *batches.last().unwrap()) {
            batches.push(batches.last().unwrap() + len);
        }
        assert_eq!((batches.len(), states.len()), (LOGGED.len() + 1, LOGGED.len() + 1));
        Self { secrets, data, log, batches, states }
    }

    /// The log with one flipped bit in a batch.
    fn damaged(&self, batch: usize) -> Vec<u8> {
        let mut log = self.log.clone();
        log[self.batches[batch] + 50] ^= 1;
        log
    }

    /// The live sessions if the first batches are replayed, and readable later ones only end sessions.
    fn expected(&self, replayed: usize, readable: impl Fn(usize) -> bool) -> View {
        let mut sessions = self.states[replayed].clone();
        for batch in (replayed..LOGGED.len()).filter(|batch| readable(*batch)) {
            let [before, after] = [&self.states[batch], &self.states[batch + 1]];
            sessions.retain(|name, (_, created)| match (before.get(name), after.get(name)) {
                (before, after) if before == after => true,
                (_, None) => false,
                (_, Some((_, newest))) => *created >= *newest,
            });
        }
        view(&sessions)
    }

    fn put(&self, log: Option<&[u8]>) -> StoreFolder {
        let dir = new_dir();
        fs::write(dir.path().join(DATA), &self.data).unwrap();
        if let Some(log) = log {
            fs::write(dir.path().join(REDO), log).unwrap();
        }
        let options = FileOptions { secrets: self.secrets.clone(), ..options(dir.path()) };
        StoreFolder { dir, options }
    }
}

/// The length of the batch at this offset.
fn batch_at(log: &[u8], at: usize) -> Option<usize> {
    (log[at..at + 4] == *b"redo")
        .then(|| u32::from_le_bytes(log[at + 8..at + 12].try_into().unwrap()) as usize)
}

/// A store in a folder.
struct StoreFolder {
    dir: TempDir,
    options: FileOptions,
}

impl StoreFolder {
    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap());
        let files =
            entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()));
        files.filter(|(name, _)| !name.contains("lock")).collect()
    }

    fn is_refused(&self) {
        let before = self.files();
        let error = reopen(&self.options).err().unwrap();
        assert_eq!(error.code(), "ERR_STORE_CORRUPT", "{error}");
        assert!(error.to_string().contains("native-store discard-log"), "{error}");
        assert_eq!(self.files(), before);
    }

    fn inspect(&self) -> LogState {
        FileStore::inspect_log(self.path(), false).unwrap()
    }

    fn damage(&self) -> LogDamage {
        let before = self.files();
        let state = self.inspect();
        assert_eq!(self.files(), before);
        match state {
            LogState::Damaged(damage) => damage,
            state => panic!("{state:?}"),
        }
    }

    fn discard(&self) -> Result<DiscardedLog> {
        FileStore::discard_log(self.path(), false, &self.damage().fingerprint)
    }

    /// Discards the log, and checks the remaining sessions and that the store works.
    fn discards_to(&self, expected: &View, what: &str) -> DiscardedLog {
        self.is_refused();
        let log = fs::read(self.path().join(REDO)).ok();
        let discarded = self.discard().unwrap();
        assert_eq!(self.inspect(), LogState::NotNeeded, "{what}");
        assert!(!self.path().join(REDO).exists(), "{what}");
        let aside = discarded.file.as_ref();
        assert_eq!(aside.map(|file| fs::read(file).unwrap()), log, "{what}");
        if let Some(aside) = aside {
            assert_eq!(aside.parent(), self.path().canonicalize().ok().as_deref());
            assert_eq!(fs::metadata(aside).unwrap().permissions().mode() & 0o7777, 0o600, "{what}");
        }
        self.goes_on_with(expected, what);
        // The store has a new log, which did not overwrite the old one.
        assert_eq!(aside.map(|file| fs::read(file).unwrap()), log, "{what}");
        discarded
    }

    fn goes_on_with(&self, expected: &View, what: &str) {
        for _ in 0..2 {
            let store = reopen(&self.options).unwrap();
            assert_eq!(&look(&store), expected, "{what}");
            assert_eq!(store.size().unwrap(), expected.len() as u64, "{what}");
            for user in ["ann", "bob", "cid", "eve"] {
                let found = store.get_by_user(UserKeyBuf::from_text(user).as_key()).unwrap();
                let mut ids: Vec<_> = found.iter().map(|found| found.id.to_string()).collect();
                ids.sort();
                let of_user = expected.iter().filter(|(_, of)| *of == user);
                assert_eq!(ids, of_user.map(|(id, _)| id.clone()).collect::<Vec<_>>(), "{what}: {user}");
            }
            let seen = store.verify(&mut |_, _| ()).unwrap();
            assert_eq!((seen.problems, seen.sessions), (Vec::new(), expected.len() as u64), "{what}");
            Create("new", "ann").perform(&store);
            assert!(store.stats().unwrap().log.unwrap().size > 0, "{what}");
            Delete("new").perform(&store);
            store.close().unwrap();
        }
    }
}

fn both() -> [Killed; 2] {
    [Killed::new(Vec::new()), Killed::new(vec![secret("first"), secret("second")])]
}

#[test]
fn without_the_log_only_the_data_file_is_left() {
    for killed in both() {
        let folder = killed.put(None);
        let damage = folder.damage();
        assert_eq!((damage.problem.as_str(), &damage.file, damage.changes), ("it is missing", &None, 0));
        assert!(damage.data_written_at.is_some());
        let discarded = folder.discards_to(&view(&killed.states[0]), "missing");
        assert_eq!(discarded, DiscardedLog { kept: 0, ended: 0, file: None });
    }
}

#[test]
fn batches_before_the_damage_are_kept_and_ended_sessions_stay_ended() {
    for killed in both() {
        for batch in 0..LOGGED.len() - 1 {
            let what = format!("batch {batch}");
            let folder = killed.put(Some(&killed.damaged(batch)));
            let damage = folder.damage();
            assert!(damage.problem.contains("a part that was on disk is gone"), "{}", damage.problem);
            assert_eq!(damage.changes, if batch > 6 { batch as u64 + 1 } else { batch as u64 });
            assert_eq!(damage.lost_bytes, (killed.batches[batch + 1] - killed.batches[batch]) as u64);
            assert!(!damage.is_data_ahead && damage.later_changes > 0 && damage.written_at.is_some());
            folder.discards_to(&killed.expected(batch, |other| other > batch), &what);
        }
    }
}

#[test]
fn a_damaged_first_page_loses_no_sessions() {
    for killed in both() {
        for at in [0, 9, 12, 20, 33] {
            let mut log = killed.log.clone();
            log[at] ^= 1;
            let folder = killed.put(Some(&log));
            assert_eq!((folder.damage().lost_bytes, folder.damage().later_changes), (0, 0));
            let discarded = folder.discards_to(&view(killed.states.last().unwrap()), &format!("byte {at}"));
            assert_eq!(discarded.ended, 0);
        }
    }
}

#[test]
fn a_truncated_log_is_kept_up_to_its_end() {
    for killed in both() {
        for batch in [0, 4, LOGGED.len()] {
            let cut = killed.batches[batch] + 9;
            let folder = killed.put(Some(&killed.log[..cut]));
            folder.discards_to(&view(&killed.states[batch]), &format!("cut in batch {batch}"));
        }
        for len in [0, 39, RING] {
            let folder = killed.put(Some(&killed.log[..len]));
            folder.discards_to(&view(&killed.states[0]), &format!("cut to {len}"));
        }
    }
}

#[test]
fn the_log_of_another_store_is_not_used() {
    let [killed, other] = both();
    let folder = killed.put(Some(&other.log));
    assert!(folder.damage().problem.contains("belongs to another"));
    folder.discards_to(&view(&killed.states[0]), "another log");
    let folder = other.put(Some(&killed.log));
    folder.discards_to(&view(&other.states[0]), "another log");
}

/// The end of this log was never synced. Another store does not need its log.
#[test]
fn a_sound_log_is_not_discarded() {
    let killed = Killed::new(Vec::new());
    let mut torn = killed.log.clone();
    torn[killed.batches[LOGGED.len() - 1] + 50] ^= 1;
    for (log, batches) in [(&killed.log, LOGGED.len()), (&torn, LOGGED.len() - 1)] {
        let folder = killed.put(Some(log));
        assert_eq!(folder.inspect(), LogState::Sound);
        let error = FileStore::discard_log(folder.path(), false, "").unwrap_err();
        assert_eq!(error.code(), "ERR_STORE_LOCKED", "{error}");
        folder.goes_on_with(&view(&killed.states[batches]), "a log that is fine");
        assert_eq!(folder.inspect(), LogState::NotNeeded);
        assert!(FileStore::discard_log(folder.path(), false, "").is_err());
    }
}

#[test]
fn a_log_that_has_changed_since_its_inspection_is_not_discarded() {
    let killed = Killed::new(Vec::new());
    let folder = killed.put(Some(&killed.damaged(2)));
    let damage = folder.damage();
    fs::write(folder.path().join(REDO), killed.damaged(3)).unwrap();
    let before = folder.files();
    let discard = || FileStore::discard_log(folder.path(), false, &damage.fingerprint);
    assert_eq!(discard().unwrap_err().code(), "ERR_STORE_LOCKED");
    // The right log was found.
    fs::write(folder.path().join(REDO), &killed.log).unwrap();
    assert_eq!(discard().unwrap_err().code(), "ERR_STORE_LOCKED");
    fs::write(folder.path().join(REDO), killed.damaged(3)).unwrap();
    assert_eq!(folder.files(), before);
}

#[test]
fn an_open_store_is_not_changed() {
    let dir = new_dir();
    let store = reopen(&options(dir.path())).unwrap();
    let error = FileStore::inspect_log(dir.path(), false).unwrap_err();
    assert_eq!(error.code(), "ERR_STORE_LOCKED", "{error}");
    store.close().unwrap();
    assert_eq!(FileStore::inspect_log(dir.path(), false), Ok(LogState::NotNeeded));
    let none = FileStore::inspect_log(&dir.path().join("none"), false).unwrap_err();
    assert_eq!(none.code(), "ERR_STORE_IO");
    assert!(!dir.path().join("none").exists());
}

#[test]
fn a_damaged_data_file_is_not_changed() {
    let mut killed = Killed::new(Vec::new());
    let log = killed.damaged(2);
    // The pages after the first few are those of the tables.
    for page in killed.data[4 * 4096..].chunks_mut(4096) {
        page[10..16].fill(0xff);
    }
    let folder = killed.put(Some(&log));
    let before = folder.files();
    let error = FileStore::inspect_log(folder.path(), false).unwrap_err();
    assert_eq!(error.code(), "ERR_STORE_CORRUPT");
    assert!(error.to_string().contains(DATA), "{error}");
    assert_eq!(folder.files(), before);
}

/// The state after a process was killed while it discarded the log: the log is renamed, and the data file still needs
/// it.
#[test]
fn an_interrupted_attempt_is_continued() {
    for killed in both() {
        let folder = killed.put(Some(&killed.damaged(4)));
        let first = folder.damage();
        let aside = aside(&folder, &first.fingerprint, 1);
        fs::rename(folder.path().join(REDO), &aside).unwrap();
        folder.is_refused();
        let second = folder.damage();
        assert_eq!((second.problem.as_str(), second.changes), ("it is missing", first.changes));
        let discarded = folder.discard().unwrap();
        assert_eq!(discarded.file.map(|file| fs::read(file).unwrap()), Some(killed.damaged(4)));
        assert!(aside.exists());
        folder.goes_on_with(&killed.expected(4, |other| other > 4), "a second attempt");
    }
}

/// After such an attempt, the log of another store in the folder does not hide the renamed log.
#[test]
fn the_log_of_another_store_does_not_hide_the_renamed_log() {
    let (killed, other) = (Killed::new(Vec::new()), Killed::new(Vec::new()));
    let folder = killed.put(Some(&killed.damaged(4)));
    let aside = aside(&folder, &folder.damage().fingerprint, 1);
    fs::rename(folder.path().join(REDO), &aside).unwrap();
    fs::write(folder.path().join(REDO), &other.log).unwrap();
    let before = folder.files();
    let error = FileStore::inspect_log(folder.path(), false).unwrap_err();
    assert_eq!(error.code(), "ERR_STORE_CORRUPT");
    assert!(error.to_string().contains(&*aside.to_string_lossy()), "{error}");
    assert_eq!(folder.files(), before);
    fs::remove_file(folder.path().join(REDO)).unwrap();
    folder.discard().unwrap();
    folder.goes_on_with(&killed.expected(4, |other| other > 4), "the log that was set aside");
}

fn aside(folder: &StoreFolder, fingerprint: &str, nth: usize) -> PathBuf {
    let suffix = if nth == 1 { String::new() } else { format!("-{nth}") };
    folder.path().join(format!("{REDO}.damaged-{}{suffix}", &fingerprint[..8]))
}

/// Files that were set aside are never replaced.
#[test]
fn an_existing_renamed_log_is_not_overwritten() {
    let killed = Killed::new(Vec::new());
    let folder = killed.put(Some(&killed.damaged(4)));
    let fingerprint = folder.damage().fingerprint;
    for nth in 1..=2 {
        fs::write(aside(&folder, &fingerprint, nth), [nth as u8]).unwrap();
    }
    let discarded = folder.discards_to(&killed.expected(4, |other| other > 4), "taken names");
    assert!(discarded.file.unwrap().ends_with(aside(&folder, &fingerprint, 3).file_name().unwrap()));
    assert_eq!(fs::read(aside(&folder, &fingerprint, 1)).unwrap(), [1]);
    assert_eq!(fs::read(aside(&folder, &fingerprint, 2)).unwrap(), [2]);
}

/// A killed drain has deleted sessions that are live in the readable part of the log. They stay deleted.
#[test]
fn sessions_deleted_by_an_interrupted_drain_do_not_come_back() {
    for secrets in [Vec::new(), vec![secret("first")]] {
        let (dir, copy) = (new_dir(), new_dir());
        let store = reopen(&FileOptions { secrets: secrets.clone(), ..options(dir.path()) }).unwrap();
        Create("base-a", "ann").perform(&store);
        Create("base-b", "ann").perform(&store);
        store.ids(Cursor::default()).unwrap();
        Delete("base-b").perform(&store);
        let half = copy_in_a_drain(&store, dir.path(), copy.path());
        store.close().unwrap();

        let folder = StoreFolder { options: FileOptions { secrets, ..options(copy.path()) }, dir: copy };
        fs::write(folder.path().join(REDO), &half).unwrap();
        folder.is_refused();
        assert!(folder.damage().is_data_ahead);
        assert_eq!(folder.damage().changes, 11);
        // Sessions that were created in the log are not replayed. Sessions that ended there have ended.
        let expected = View::from([("base-a".into(), "ann".into())]);
        let discarded = folder.discards_to(&expected, "a drain that did not end");
        assert_eq!(discarded.kept, 0);
    }
}
