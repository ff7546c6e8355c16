//! A redo log was damaged, truncated, replaced or removed. Opening a store that needs the log fails, and nothing in its
//! folder is changed. The end of a log may be torn if it was never synced.

#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]

mod disk;

use std::fs;
use std::io::{self, Write};
use std::ops::Range;

use native_store::clock::Clock;
use native_store::store::file::Durability::{self, Commit, EverySec};
use native_store::store::file::LogState;
use native_store::store::{Cursor, FileStore, SessionStore};

use disk::image::Image;
use disk::logs::{no_growth, small_log};
use disk::run::{RecordedStore, perform};
use disk::sessions::{self, FAR, Lane, Model, Op, START, Setup, TestSession, View, look, options};
use disk::{Call, Event, Failure, Fault, Random};

const CORRUPT: &str = "ERR_STORE_CORRUPT";

/// The files of a store whose process was killed while it had a log.
struct Killed {
    image: Image,
    setup: Setup,
    /// The ranges of the batches in the log file, in the order of their writes.
    batches: Vec<Range<usize>>,
    /// The views of the store with the first 0, 1, 2, … batches.
    views: Vec<View>,
}

/// Makes a store with sessions in its data file, and then this many batches in its log. Returns its files as if its
/// process were killed.
fn kill(durability: Durability, batches: usize, seed: u64) -> Killed {
    let mut random = Random::new(seed);
    let setup = Setup::logged(seed.is_multiple_of(2), durability);
    let recorded = RecordedStore::open(setup, &small_log(), START);
    recorded.disk.fail(&[no_growth()]);
    let mut lane = Lane::new(Model::default(), START);
    for nth in 0..8 {
        perform(&create(nth, &mut random), 0, &mut lane, &recorded);
    }
    recorded.store().ids(Cursor::default()).unwrap();
    recorded.disk.take_log();
    let mut views = vec![lane.last().view(START)];
    for nth in 0..batches as u64 {
        let op = if nth % 3 == 2 {
            Op::Delete { id: sessions::id_text(0, nth) }
        } else {
            create(8 + nth, &mut random)
        };
        perform(&op, 0, &mut lane, &recorded);
        views.push(lane.last().view(START));
    }
    let log = recorded.disk.log_file();
    let written = recorded.disk.take_log().into_iter().filter_map(|event| match event {
        Event::Write { file, at, bytes, .. } if Some(file) == log => {
            Some(at as usize..at as usize + bytes.len())
        }
        _ => None,
    });
    let batches_found: Vec<Range<usize>> = written.collect();
    assert_eq!(batches_found.len(), batches, "a batch is one write");
    assert_eq!(recorded.clock.now(), START);
    Killed { image: Image::of(recorded.dir.path()), setup, batches: batches_found, views }
}

fn create(nth: u64, random: &mut Random) -> Op {
    let user = Some(sessions::user_name(0, nth % 5));
    Op::Create(TestSession::new(sessions::id_text(0, nth), user, FAR, 300, random))
}

impl Killed {
    /// Opens the store with another log.
    fn open(&self, log: Option<Vec<u8>>) -> Result<View, &'static str> {
        let image = Image { log, ..self.image.clone() };
        let dir = disk::temp_dir();
        image.put(dir.path());
        match FileStore::open_at(
            &options(dir.path(), self.setup),
            std::sync::Arc::new(native_store::clock::MockClock::new(START)),
        ) {
            Ok(store) => Ok(look(&store, 1).unwrap()),
            Err(error) => {
                assert!(Image::of(dir.path()) == image, "the folder has changed: {error}");
                let name = disk::LOG;
                assert!(error.to_string().contains(name), "the error does not name {name}: {error}");
                // With the original log, the store still opens.
                self.image.put(dir.path());
                let (store, _) = sessions::open(dir.path(), self.setup, START).unwrap();
                assert!(look(&store, 1).unwrap() == *self.views.last().unwrap());
                Err(error.code())
            }
        }
    }

    fn log(&self) -> Vec<u8> {
        self.image.log.clone().unwrap()
    }

    /// The log with one flipped bit in the byte at this offset.
    fn flipped(&self, at: usize, random: &mut Random) -> Vec<u8> {
        let mut log = self.log();
        log[at] ^= 1 << random.below(8);
        log
    }
}

#[test]
fn a_store_does_not_open_without_the_log_that_it_needs() {
    let killed = kill(Commit, 6, 1);
    let other = kill(Commit, 6, 3);
    assert!(killed.open(Some(killed.log())) == Ok(killed.views.last().unwrap().clone()));
    assert_eq!(killed.open(None), Err(CORRUPT));
    assert_eq!(killed.open(Some(other.log())), Err(CORRUPT));
    let len = killed.log().len();
    for cut in [0, 1, 39, 40, 100, 4095, 4096, 5000, len / 2, len - 4096, len - 1] {
        assert_eq!(killed.open(Some(killed.log()[..cut].to_vec())), Err(CORRUPT), "{cut} of {len} bytes");
    }
    for added in [1, 4096] {
        let mut log = killed.log();
        log.resize(len + added, 0);
        assert_eq!(killed.open(Some(log)), Err(CORRUPT), "{added} bytes more");
    }
    assert_eq!(killed.open(Some(vec![0; len])), Err(CORRUPT));
    // The first page is intact, and the rest of the ring is empty.
    let mut emptied = killed.log();
    emptied[4096..].fill(0);
    // Only the data file can show that batches are missing.
    let found = killed.open(Some(emptied));
    assert!(found == Err(CORRUPT) || found == Ok(killed.views[0].clone()), "{found:?}");
}

#[test]
fn a_flipped_bit_in_a_synced_batch_is_detected() {
    let mut flips = 0;
    for seed in [1, 2] {
        let killed = kill(Commit, 8, seed);
        let mut random = Random::new(seed);
        for at in 0..40 {
            // Bytes 12 to 16 are the checksum, which covers bytes 16 to 40.
            assert_eq!(killed.open(Some(killed.flipped(at, &mut random))), Err(CORRUPT), "byte {at}");
            flips += 1;
        }
        let (last, others) = killed.batches.split_last().unwrap();
        for batch in others {
            let heads = batch.start..batch.start + 48;
            let sampled = (0..16).map(|_| batch.start + random.below(batch.len() as u64) as usize);
            let places: Vec<usize> = heads.step_by(5).chain(sampled).chain([batch.end - 1]).collect();
            for at in places {
                assert_eq!(killed.open(Some(killed.flipped(at, &mut random))), Err(CORRUPT), "byte {at}");
                flips += 1;
            }
        }
        // A damaged last batch looks like a batch that was torn during its write.
        for _ in 0..16 {
            let at = last.start + random.below(last.len() as u64) as usize;
            let found = killed.open(Some(killed.flipped(at, &mut random)));
            assert!(found == Ok(killed.views[killed.views.len() - 2].clone()), "byte {at}");
            flips += 1;
        }
        for _ in 0..8 {
            let at = last.end + random.below((killed.log().len() - last.end) as u64) as usize;
            let found = killed.open(Some(killed.flipped(at, &mut random)));
            assert!(found == Ok(killed.views.last().unwrap().clone()), "byte {at}");
            flips += 1;
        }
    }
    io::stdout().write_all(format!("log damage: {flips} flips\n").as_bytes()).unwrap();
}

#[test]
fn a_missing_synced_batch_is_detected() {
    let killed = kill(Commit, 8, 1);
    let (_, others) = killed.batches.split_last().unwrap();
    for (nth, batch) in others.iter().enumerate() {
        let mut log = killed.log();
        log[batch.clone()].fill(0);
        assert_eq!(killed.open(Some(log)), Err(CORRUPT), "batch {nth}");
        // The batch before it is in its place.
        if nth > 0 && killed.batches[nth - 1].len() == batch.len() {
            let mut log = killed.log();
            log.copy_within(killed.batches[nth - 1].clone(), batch.start);
            assert_eq!(killed.open(Some(log)), Err(CORRUPT), "batch {nth} is another");
        }
    }
}

/// With everysec the last batches are not synced. Any of them may be lost, together with all later batches.
#[test]
fn a_torn_end_that_was_never_synced_is_not_damage() {
    let mut random = Random::new(1);
    let killed = kill(EverySec, 8, 1);
    for (nth, batch) in killed.batches.iter().enumerate() {
        for _ in 0..4 {
            let mut log = killed.log();
            let from = batch.start + random.below(batch.len() as u64) as usize;
            log[from..batch.end].fill(0);
            if log == killed.log() {
                continue;
            }
            let found = killed.open(Some(log));
            assert!(found == Ok(killed.views[nth].clone()), "batch {nth} is torn");
        }
    }
}

/// The data file names the id of the log that it needs. It names none if the store was closed, restored or created
/// again.
#[test]
fn a_log_that_the_store_does_not_need_is_never_read() {
    let killed = kill(Commit, 6, 2);
    let dir = disk::temp_dir();
    killed.image.put(dir.path());
    let (store, _) = sessions::open(dir.path(), killed.setup, START).unwrap();
    let mut random = Random::new(7);
    // These changes are not in the old log.
    create(30, &mut random).perform(&store).unwrap();
    Op::Delete { id: sessions::id_text(0, 8) }.perform(&store).unwrap();
    let view = look(&store, 1).unwrap();
    drop(store);
    for log in [Some(killed.log()), Some(vec![0xff; 128 << 10]), Some(b"no log".to_vec()), None] {
        match &log {
            Some(bytes) => fs::write(dir.path().join(disk::LOG), bytes).unwrap(),
            None => fs::remove_file(dir.path().join(disk::LOG)).unwrap(),
        }
        let (store, _) = sessions::open(dir.path(), killed.setup, START).unwrap();
        assert!(look(&store, 1).unwrap() == view);
        // The store starts a log again, whatever the file contained.
        create(31, &mut random).perform(&store).unwrap();
        assert!(store.stats().unwrap().log.unwrap().size > 0);
        Op::Delete { id: sessions::id_text(0, 31) }.perform(&store).unwrap();
        assert!(look(&store, 1).unwrap() == view);
    }
    let made = disk::temp_dir();
    Image { data: Vec::new(), ..killed.image.clone() }.put(made.path());
    let (store, _) = sessions::open(made.path(), killed.setup, START).unwrap();
    assert!(look(&store, 1).unwrap() == View::default());
}

/// A read-only process cannot recover a damaged log, and changes nothing.
#[test]
fn a_read_only_process_refuses_a_damaged_log() {
    let killed = kill(Commit, 6, 1);
    let mut log = killed.log();
    log[killed.batches[0].start + 60] ^= 1;
    for log in [Some(log), None] {
        let dir = disk::temp_dir();
        let image = Image { log, ..killed.image.clone() };
        image.put(dir.path());
        let options =
            native_store::store::file::FileOptions { read_only: true, ..options(dir.path(), killed.setup) };
        let error = FileStore::open(&options).map(drop).unwrap_err();
        println!("{}: {error}", error.code());
        assert_eq!(error.code(), CORRUPT, "{error}");
        assert!(Image::of(dir.path()) == image, "the folder has changed: {error}");
    }
}

/// A log is discarded completely or not at all, even if the disk fails. If it is not discarded, the file has its name
/// again.
#[test]
fn a_log_that_cannot_be_discarded_stays_unchanged() {
    let calls =
        [Call::Write, Call::Sync, Call::WriteThrough, Call::RollBack, Call::FolderSync, Call::LogRead];
    let failures =
        [Failure::Refused(libc::EIO), Failure::Refused(libc::ENOSPC), Failure::Doubtful(libc::EIO)];
    let mut failed = 0;
    for seed in [1, 2] {
        let killed = kill(Commit, 8, seed);
        let mut log = killed.log();
        log[killed.batches[6].start + 60] ^= 1;
        for (call, failure, after) in calls
            .iter()
            .flat_map(|call| failures.iter().map(move |failure| (*call, *failure)))
            .flat_map(|(call, failure)| (0..4).map(move |after| (call, failure, after)))
        {
            let what = format!("{call:?}, {failure:?}, {after}");
            let dir = disk::temp_dir();
            Image { log: Some(log.clone()), ..killed.image.clone() }.put(dir.path());
            let discard = || {
                let LogState::Damaged(damage) = FileStore::inspect_log(dir.path(), false)? else {
                    return Ok(());
                };
                FileStore::discard_log(dir.path(), false, &damage.fingerprint).map(drop)
            };
            let disk = disk::Disk::watch_folder(dir.path());
            disk.fail(&[Fault { call, after, times: 1, failure }]);
            let discarded = discard();
            let has_failed = disk.clear_faults() > 0;
            drop(disk);
            failed += usize::from(has_failed);
            assert!(has_failed || discarded.is_ok(), "{what}: {discarded:?}");
            if let Err(error) = &discarded
                && !error.is_outcome_unknown()
            {
                assert!(Image::of(dir.path()).log.as_ref() == Some(&log), "{what}: {error}");
                let opened = sessions::open(dir.path(), killed.setup, START).err().map(|error| error.code());
                assert_eq!(opened, Some(CORRUPT), "{what}: {error}");
            }
            discard().unwrap();
            let (store, _) = sessions::open(dir.path(), killed.setup, START).unwrap();
            // The damaged batch and the batch after it create one session each.
            assert!(look(&store, 1).unwrap() == killed.views[6], "{what}");
            assert_eq!(store.verify(&mut |_, _| ()).unwrap().problems, [""; 0], "{what}");
        }
    }
    io::stdout().write_all(format!("log damage: {failed} failures\n").as_bytes()).unwrap();
    assert!(failed > 40);
}
