use super::layout::*;
use super::walker::MAX_FINDINGS;
use super::*;
use heed::types::Bytes;
use heed::{CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, PutFlags, WithoutTls};
use proptest::prelude::*;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tempfile::TempDir;

const MAP_SIZE: usize = 1 << 28;

type Db = Database<Bytes, Bytes>;

/// Optimised builds run more rounds.
const ROUNDS: u64 = if cfg!(debug_assertions) { 40 } else { 400 };
const NAMES: [&str; 4] = ["bodies", "users", "expiry", "few"];

struct Store {
    env: Env<WithoutTls>,
    dbs: Vec<Db>,
    random: Random,
    dir: TempDir,
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn key(&mut self) -> Vec<u8> {
        let number = self.below(4000);
        let mut key = format!("{number:x}-").into_bytes();
        key.resize(key.len() + (number % 97) as usize, b'k');
        key
    }

    fn value(&mut self) -> Vec<u8> {
        let bound = [40, 300, 1900, 4200, 20_000][self.below(5) as usize];
        vec![b'v'; self.below(bound) as usize]
    }
}

impl Store {
    fn new(seed: u64, flags: EnvFlags) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_SIZE).max_dbs(8);
        // SAFETY: the folder belongs to the test and is opened once.
        let env = unsafe { options.flags(EnvFlags::NO_SYNC | flags).open(dir.path()) }.unwrap();
        let mut txn = env.write_txn().unwrap();
        let dbs = NAMES.map(|name| env.create_database(&mut txn, Some(name)).unwrap()).to_vec();
        txn.commit().unwrap();
        Self { dir, env, dbs, random: Random(seed * 2 + 0x9e37_79b9_7f4a_7c15) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data.mdb")
    }

    fn file(&self) -> File {
        File::open(self.path()).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }

    fn change(&mut self, changes: u64, deletes_of_ten: u64) {
        let mut txn = self.env.write_txn().unwrap();
        for _ in 0..changes {
            let db = self.dbs[self.random.below(3) as usize];
            let key = self.random.key();
            if self.random.below(10) < deletes_of_ten {
                db.delete(&mut txn, &key).unwrap();
            } else {
                db.put(&mut txn, &key, &self.random.value()).unwrap();
            }
        }
        if self.random.below(10) > 0 {
            txn.commit().unwrap();
        }
    }

    fn append(&mut self, changes: u64) {
        let mut txn = self.env.write_txn().unwrap();
        self.dbs[3].clear(&mut txn).unwrap();
        for number in 0..changes {
            let value = self.random.value();
            self.dbs[3].put_with_flags(&mut txn, PutFlags::APPEND, &number.to_be_bytes(), &value).unwrap();
        }
        txn.commit().unwrap();
    }

    fn nest(&mut self) {
        let mut outer = self.env.write_txn().unwrap();
        for commits in [true, false, true] {
            let mut inner = self.env.nested_write_txn(&mut outer).unwrap();
            for _ in 0..40 {
                self.dbs[0].put(&mut inner, &self.random.key(), &self.random.value()).unwrap();
                self.dbs[0].delete(&mut inner, &self.random.key()).unwrap();
            }
            if commits {
                inner.commit().unwrap();
            }
        }
        outer.commit().unwrap();
    }

    /// Walks the newest snapshot, and compares the counts with LMDB's own.
    fn verify(&self) -> Walk {
        let txn = self.env.read_txn().unwrap();
        let seen = walk(&self.file(), txn.id() as u64, &mut |_, _| {}).unwrap();
        assert_eq!(seen.findings, [""; 0]);
        assert!(seen.is_sound());
        let main: Db = self.env.open_database(&txn, None).unwrap().unwrap();
        let stats: Vec<_> = self.dbs.iter().chain([&main]).map(|db| db.stat(&txn).unwrap()).collect();
        let counted: usize = stats.iter().map(|s| s.branch_pages + s.leaf_pages + s.overflow_pages).sum();
        let free_tree = metas(&self.file()).unwrap().unwrap()[txn.id() % 2].free.counts;
        let in_use = seen.branch + seen.leaf + seen.overflow;
        let own = free_tree.branch + free_tree.leaf + free_tree.overflow;
        assert_eq!(in_use, counted as u64 + own);
        assert_eq!(seen.pages, META_PAGES + in_use + seen.free + seen.leaked);
        let all = free(&self.file(), txn.id() as u64, u64::MAX).unwrap();
        assert_eq!(all.listed() + all.pending, seen.free);
        let some = free(&self.file(), txn.id() as u64, 10).unwrap();
        assert_eq!(some.listed(), all.listed().min(10));
        seen
    }
}

/// A compacted file has no free pages, so all its pages are used.
static DENSE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut store = Store::new(7, EnvFlags::empty());
    (0..3).for_each(|_| store.change(40, 0));
    store.append(30);
    let mut txn = store.env.write_txn().unwrap();
    for number in 0..1500u32 {
        store.dbs[0].put(&mut txn, &number.wrapping_mul(0x9e37_79b9).to_be_bytes(), &[b'v'; 60]).unwrap();
    }
    txn.commit().unwrap();
    let path = store.dir.path().join("copy");
    store.env.copy_to_path(&path, CompactionOption::Enabled).unwrap();
    std::fs::read(path).unwrap()
});

/// A file with a long freelist.
static WORN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut store = Store::new(11, EnvFlags::empty());
    (0..10).for_each(|_| store.change(20, 2));
    let reader = store.env.clone().static_read_txn().unwrap();
    (0..10).for_each(|_| store.change(5, 5));
    drop(reader);
    store.bytes()
});

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// The problem that opening and verifying the file finds. `None` if there is none.
fn fault_of(file: &File) -> Option<String> {
    let header = match inspect(file) {
        Ok(header) => header.expect("the file is not empty"),
        Err(fault) => return Some(fault.to_string()),
    };
    match walk(file, header.txn_id, &mut |_, _| {}) {
        Ok(seen) => (!seen.is_sound()).then(|| seen.findings.join("; ")),
        Err(fault) => Some(fault.to_string()),
    }
}

/// Calls a function with the file while one of its bits is flipped.
fn flipped<T>(file: &File, bytes: &[u8], bit: usize, look: impl FnOnce(&File) -> T) -> T {
    let put = |byte| {
        let mut file = file;
        file.seek(SeekFrom::Start(bit as u64 / 8)).unwrap();
        file.write_all(&[byte]).unwrap();
    };
    let byte = bytes[bit / 8];
    put(byte ^ 1 << (bit % 8));
    let seen = look(file);
    put(byte);
    seen
}

fn page_size(bytes: &[u8]) -> usize {
    u32_at(bytes, PAGE_HEAD + 24).unwrap() as usize
}

/// The offset of the first freelist record, and its number of pages.
fn free_list(bytes: &[u8]) -> (usize, usize) {
    let header = inspect(&file_of(bytes)).unwrap().unwrap();
    let size = header.page_size as usize;
    let meta = header.meta_page as usize * size + PAGE_HEAD;
    let first_node = |page: usize| page + usize::from(u16_at(bytes, page + PAGE_HEAD).unwrap());
    let mut page = u64_at(bytes, meta + 24 + 40).unwrap() as usize * size;
    while u16_at(bytes, page + 10) == Some(BRANCH) {
        page = u32_at(bytes, first_node(page)).unwrap() as usize * size;
    }
    let node = first_node(page);
    let big = u16_at(bytes, node + 4) == Some(BIG);
    let list = node + NODE_HEAD + WORD;
    let list = if big { u64_at(bytes, list).unwrap() as usize * size + PAGE_HEAD } else { list };
    let count = u64_at(bytes, list).unwrap() as usize;
    assert!(count > 3);
    (list, count)
}

fn walk_file(file: &File) -> Walk {
    let header = inspect(file).unwrap().unwrap();
    walk(file, header.txn_id, &mut |_, _| {}).unwrap()
}

fn walk_bytes(bytes: &[u8]) -> Walk {
    walk_file(&file_of(bytes))
}

#[test]
fn a_walk_after_each_transaction_has_no_findings() {
    for (seed, flags) in [
        (1, EnvFlags::empty()),
        (2, EnvFlags::empty()),
        (3, EnvFlags::WRITE_MAP),
        (4, EnvFlags::NO_MEM_INIT | EnvFlags::NO_READ_AHEAD),
    ] {
        let mut store = Store::new(seed, flags);
        let mut readers = Vec::new();
        for round in 0..ROUNDS {
            match store.random.below(12) {
                0 => store.append(round * 5),
                1 => store.change(3000, round % 10),
                2 if flags != EnvFlags::WRITE_MAP => store.nest(),
                3 => readers.push(store.env.clone().static_read_txn().unwrap()),
                4 => readers.clear(),
                _ => store.change(50, round % 10),
            }
            store.verify();
        }
        drop(readers);
        let mut txn = store.env.write_txn().unwrap();
        store.dbs.iter().for_each(|db| db.clear(&mut txn).unwrap());
        txn.commit().unwrap();
        store.verify();
    }
}

#[test]
fn a_long_freelist_of_many_transactions_is_walked() {
    let mut store = Store::new(5, EnvFlags::empty());
    (0..6).for_each(|_| store.change(4000, 1));
    let reader = store.env.clone().static_read_txn().unwrap();
    (0..300).for_each(|_| store.change(10, 5));
    let mut txn = store.env.write_txn().unwrap();
    store.dbs[0].clear(&mut txn).unwrap();
    store.dbs[1].clear(&mut txn).unwrap();
    txn.commit().unwrap();
    let seen = store.verify();
    assert!(seen.free > 5000, "{seen:?}");
    // The reader has ended, so the list is used again and split.
    drop(reader);
    for _ in 0..40 {
        (0..5).for_each(|_| store.change(10, 2));
        store.verify();
    }
}

#[test]
fn a_snapshot_can_be_walked_until_two_later_commits() {
    let mut store = Store::new(6, EnvFlags::empty());
    store.change(500, 0);
    let reader = store.env.clone().static_read_txn().unwrap();
    let id = reader.id() as u64;
    let file = store.file();
    let first = walk(&file, id, &mut |_, _| {}).unwrap();
    store.append(10);
    assert_eq!(walk(&file, id, &mut |_, _| {}).unwrap(), first);
    store.append(20);
    assert!(matches!(walk(&file, id, &mut |_, _| {}), Err(Fault::Gone(gone)) if gone == id));
    assert!(matches!(walk(&file, id + 100, &mut |_, _| {}), Err(Fault::Gone(_))));
}

#[test]
fn a_new_store_has_a_header_and_no_findings() {
    let dir = tempfile::tempdir().unwrap();
    // SAFETY: the folder belongs to the test and is opened once.
    let _env = unsafe { EnvOpenOptions::new().map_size(1 << 20).open(dir.path()) }.unwrap();
    let file = File::open(dir.path().join("data.mdb")).unwrap();
    let header = inspect(&file).unwrap().unwrap();
    assert_eq!((header.txn_id, header.last_page, header.map_size), (0, 1, 1 << 20));
    assert!(!header.is_short());
    let seen = walk(&file, 0, &mut |_, _| {}).unwrap();
    assert_eq!(seen, Walk { pages: 2, ..Walk::default() });
}

#[test]
fn the_header_belongs_to_the_newest_transaction() {
    let mut store = Store::new(8, EnvFlags::empty());
    for _ in 0..5 {
        store.append(3);
        let txn = store.env.read_txn().unwrap();
        let header = inspect(&store.file()).unwrap().unwrap();
        assert_eq!(header.txn_id, txn.id() as u64);
        assert_eq!(header.meta_page, header.txn_id % 2);
        assert_eq!(header.last_page, store.env.info().last_page_number as u64);
        assert_eq!(header.map_size, MAP_SIZE as u64);
        assert_eq!(header.file_len, store.file().metadata().unwrap().len());
    }
}

#[test]
fn copies_have_no_findings() {
    let mut store = Store::new(10, EnvFlags::empty());
    (0..20).for_each(|_| store.change(100, 3));
    for option in [CompactionOption::Enabled, CompactionOption::Disabled] {
        let file = store.env.copy_to_path(store.dir.path().join(format!("{option:?}")), option).unwrap();
        assert_eq!(fault_of(&file), None, "{option:?}");
    }
}

#[test]
fn progress_increases_up_to_the_total() {
    let mut store = Store::new(12, EnvFlags::empty());
    store.append(3000);
    let header = inspect(&store.file()).unwrap().unwrap();
    let mut told = Vec::new();
    let seen = walk(&store.file(), header.txn_id, &mut |seen, pages| told.push((seen, pages))).unwrap();
    assert!(told.len() > 3 && told.is_sorted(), "{told:?}");
    assert_eq!(told.last(), Some(&(seen.pages, seen.pages)));
}

#[test]
fn a_walk_during_writes_has_no_findings() {
    let mut store = Store::new(13, EnvFlags::empty());
    (0..5).for_each(|_| store.change(200, 1));
    let (env, file, ended) = (store.env.clone(), store.file(), AtomicBool::new(false));
    let walks = std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..600).for_each(|_| store.change(20, 5));
            ended.store(true, Relaxed);
        });
        let mut walks = 0;
        while !ended.load(Relaxed) {
            let txn = env.read_txn().unwrap();
            match walk(&file, txn.id() as u64, &mut |_, _| {}) {
                Ok(seen) => assert_eq!(seen.findings, [""; 0]),
                Err(fault) => assert!(matches!(fault, Fault::Gone(_)), "{fault}"),
            }
            walks += 1;
        }
        walks
    });
    assert!(walks > 0);
}

#[test]
fn a_truncated_file_is_detected() {
    let whole = walk_bytes(&DENSE);
    assert_eq!((whole.found, whole.free, whole.leaked), (0, 0, 0));
    let file = file_of(&DENSE);
    let size = u64::from(inspect(&file).unwrap().unwrap().page_size);
    for pages in (1..whole.pages).rev() {
        for extra in [0, size - 1] {
            file.set_len(pages * size - extra).unwrap();
            assert!(fault_of(&file).is_some(), "{pages} pages less {extra} bytes");
            if pages > 2 {
                assert!(inspect(&file).unwrap().unwrap().is_short());
            }
        }
    }
}

#[test]
fn a_file_without_its_free_pages_at_the_end_is_complete() {
    let mut store = Store::new(9, EnvFlags::empty());
    store.change(200, 0);
    (0..5).for_each(|round| store.append(round));
    let mut txn = store.env.write_txn().unwrap();
    let big = vec![0; 1 << 20];
    store.dbs[0].put(&mut txn, b"big", &big).unwrap();
    store.dbs[0].delete(&mut txn, b"big").unwrap();
    txn.commit().unwrap();
    let header = inspect(&store.file()).unwrap().unwrap();
    // Windows extends the file to the size of the map.
    assert!(header.is_short() || cfg!(windows), "{header:?}");
    assert!(store.verify().free > 250);
}

#[test]
fn a_flipped_bit_in_a_page_header_or_pointer_is_found() {
    let bytes = &*DENSE;
    let file = file_of(bytes);
    let size = inspect(&file).unwrap().unwrap().page_size as usize;
    let mut page = 2 * size;
    while page < bytes.len() {
        let flags = u16_at(bytes, page + 10).unwrap();
        let (ends, next) = match flags {
            OVERFLOW => (PAGE_HEAD, u32_at(bytes, page + 12).unwrap() as usize),
            _ => (usize::from(u16_at(bytes, page + 12).unwrap()), 1),
        };
        for bit in (0..ends * 8).filter(|bit| !(64..80).contains(bit)) {
            // A few pages are enough to test a bit, because they are all alike.
            let pages = if bit < PAGE_HEAD * 8 { 7 } else { 61 };
            if (page / size + bit).is_multiple_of(pages) {
                let fault = flipped(&file, bytes, page * 8 + bit, fault_of);
                assert!(fault.is_some(), "bit {bit} of page {}, flags {flags}", page / size);
            }
        }
        page += next * size;
    }
}

#[test]
fn a_flipped_bit_in_the_newest_meta_page_is_found() {
    let bytes = &*WORN;
    let file = file_of(bytes);
    let header = inspect(&file).unwrap().unwrap();
    let meta = header.meta_page as usize * header.page_size as usize;
    let fields: [(usize, usize); 8] = [
        (0, 8),   // number
        (10, 2),  // flags
        (16, 8),  // magic, version
        (40, 4),  // page size
        (46, 42), // the free tree
        (92, 44), // the main tree
        (136, 8), // last page
        (144, 8), // transaction
    ];
    for bit in fields.iter().flat_map(|&(at, len)| at * 8..(at + len) * 8) {
        let found = flipped(&file, bytes, meta * 8 + bit, |file| {
            let gone = matches!(walk(file, header.txn_id, &mut |_, _| {}), Err(Fault::Gone(_)));
            gone || fault_of(file).is_some()
        });
        assert!(found, "byte {}", bit / 8);
    }
}

#[test]
fn a_flipped_bit_in_a_freelist_is_found() {
    let bytes = &*WORN;
    let file = file_of(bytes);
    let (ids, count) = free_list(bytes);
    // A shorter list only leaks pages, so it may be undetected if a set bit is cleared.
    for bit in (64..(count + 1) * 64).step_by(7) {
        let seen = flipped(&file, bytes, ids * 8 + bit, walk_file);
        assert!(!seen.is_sound() || seen.leaked > 0, "bit {bit}");
    }
}

#[test]
fn pages_freed_by_the_last_transaction_are_free_after_one_more() {
    let mut store = Store::new(3, EnvFlags::empty());
    store.append(30);
    let look = |store: &Store| {
        let txn_id = store.env.read_txn().unwrap().id() as u64;
        assert!(matches!(free(&store.file(), txn_id + 1, 1), Err(Fault::Gone(_))));
        free(&store.file(), txn_id, u64::MAX).unwrap()
    };
    let mut txn = store.env.write_txn().unwrap();
    store.dbs[3].clear(&mut txn).unwrap();
    txn.commit().unwrap();
    let before = look(&store);
    assert!(before.pending > 30 && before.listed() < 30, "{before:?}");
    let mut txn = store.env.write_txn().unwrap();
    store.dbs[3].put(&mut txn, b"key", b"value").unwrap();
    txn.commit().unwrap();
    let after = look(&store);
    assert!(after.pending < 30 && after.listed() > 30, "{after:?}");
}

#[test]
fn a_damaged_freelist_is_read_or_rejected() {
    let mut store = Store::new(5, EnvFlags::empty());
    (0..8).for_each(|_| store.change(60, 4));
    let txn_id = store.env.read_txn().unwrap().id() as u64;
    let mut bytes = store.bytes();
    let size = page_size(&bytes);
    let root = metas(&store.file()).unwrap().unwrap()[(txn_id % 2) as usize].free.root as usize;
    for bit in (0..size * 8).step_by(7) {
        bytes[root * size + bit / 8] ^= 1 << (bit % 8);
        let _ = free(&file_of(&bytes), txn_id, 1000);
        bytes[root * size + bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_branch_that_points_to_itself_does_not_loop() {
    let mut bytes = DENSE.clone();
    let size = page_size(&DENSE);
    let branch = (2..).find(|page| u16_at(&bytes, page * size + 10) == Some(BRANCH)).unwrap();
    let node = branch * size + usize::from(u16_at(&bytes, branch * size + PAGE_HEAD).unwrap());
    bytes[node..node + 4].copy_from_slice(&(branch as u32).to_ne_bytes());
    let seen = walk_bytes(&bytes);
    assert_eq!(seen.findings, [format!("page {branch} leads to page {branch}, which is in use elsewhere")],);
    assert!(seen.leaked > 0);
}

#[test]
fn swapped_leaves_are_out_of_order() {
    let mut bytes = DENSE.clone();
    let size = page_size(&DENSE);
    let branch =
        (2..).map(|page| page * size).find(|page| u16_at(&bytes, page + 10) == Some(BRANCH)).unwrap();
    let node = |index: usize| branch + usize::from(u16_at(&DENSE, branch + PAGE_HEAD + 2 * index).unwrap());
    (0..6).for_each(|byte| bytes.swap(node(1) + byte, node(2) + byte));
    let seen = walk_bytes(&bytes);
    assert!(seen.found >= 2 && seen.findings.iter().all(|what| what.contains("out of order")), "{seen:?}");
}

#[test]
fn a_free_page_that_is_listed_twice_or_used_is_found() {
    let size = page_size(&WORN);
    let (list, count) = free_list(&WORN);
    let header = inspect(&file_of(&WORN)).unwrap().unwrap();
    let root = header.meta_page as usize * size + PAGE_HEAD + 72 + 40;
    let second = list + 2 * WORD;
    assert!(count > 1);
    for (from, what) in [(list + WORD, "listed as free twice"), (root, "both free and in use")] {
        let mut bytes = WORN.clone();
        bytes.copy_within(from..from + WORD, second);
        let seen = walk_bytes(&bytes);
        assert!(seen.findings.iter().any(|finding| finding.contains(what)), "{seen:?}");
    }
}

/// So a store can be walked before the map of LMDB is accessed.
#[test]
fn a_truncated_file_can_be_walked_under_a_read_transaction() {
    let size = page_size(&DENSE);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data.mdb"), &DENSE[..3 * size]).unwrap();
    // SAFETY: the folder belongs to the test and is opened once.
    let env = unsafe { EnvOpenOptions::new().map_size(MAP_SIZE).max_dbs(8).open(dir.path()) }.unwrap();
    let txn = env.read_txn().unwrap();
    let file = File::open(dir.path().join("data.mdb")).unwrap();
    let seen = walk(&file, txn.id() as u64, &mut |_, _| {});
    assert!(!seen.unwrap().is_sound());
}

#[test]
fn findings_beyond_the_described_ones_are_counted() {
    let mut bytes = DENSE.clone();
    let size = page_size(&DENSE);
    for page in bytes.chunks_exact_mut(size).skip(2) {
        page[0] ^= 0x55;
    }
    let seen = walk_bytes(&bytes);
    assert_eq!(seen.findings.len(), MAX_FINDINGS);
    assert!(seen.found > 40, "{}", seen.found);
}

#[test]
fn foreign_files_are_rejected() {
    let size = page_size(&DENSE);
    let changed = |at: usize, byte: u8| {
        let mut bytes = DENSE.clone();
        bytes[at] = byte;
        bytes
    };
    assert!(inspect(&file_of(b"")).unwrap().is_none());
    assert!(matches!(walk(&file_of(b""), 1, &mut |_, _| {}), Err(Fault::Gone(1))));
    let foreign = [b"{}".to_vec(), vec![0; 8192], vec![b'#'; 100_000], DENSE[..100].to_vec(), changed(16, 0)];
    for bytes in foreign {
        assert!(matches!(inspect(&file_of(&bytes)), Err(Fault::Foreign)), "{} bytes", bytes.len());
    }
    assert!(matches!(inspect(&file_of(&DENSE[..size])), Err(Fault::Cut)));
    assert!(matches!(inspect(&file_of(&DENSE[..size + META_BYTES - 1])), Err(Fault::Cut)));
    assert!(matches!(inspect(&file_of(&changed(20, 2))), Err(Fault::Version(2))));
    for at in [10, 40, size + 10, size + 16, size + 40, size + 41] {
        assert!(matches!(inspect(&file_of(&changed(at, 3))), Err(Fault::Meta { .. })), "{at}");
    }
}

#[test]
fn only_an_unfinished_store_may_become_complete() {
    let new = Store::new(1, EnvFlags::empty());
    let bytes = new.bytes();
    let may_be_initializing = |bytes: &[u8]| super::may_be_initializing(&file_of(bytes)).unwrap();
    let size = page_size(&bytes);
    for len in [0, 1, 11, 30, size, size + 100] {
        assert!(may_be_initializing(&bytes[..len]), "{len} bytes");
    }
    assert!(may_be_initializing(&[0; 100]) && may_be_initializing(&vec![0; 2 * size]));
    // A file with a commit never becomes more complete by waiting.
    assert!(!may_be_initializing(&bytes));
    assert!(
        !may_be_initializing(b"hello")
            && !may_be_initializing(&vec![b'x'; size])
            && !may_be_initializing(&vec![b'x'; 3 * size])
    );
}

#[test]
fn a_source_file_is_foreign_and_a_folder_unreadable() {
    let source = File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(matches!(inspect(&source), Err(Fault::Foreign)));
    #[cfg(unix)]
    assert!(matches!(inspect(&File::open("/").unwrap()), Err(Fault::Io(_))));
}

/// The most interesting bytes to change: meta pages, page headers, pointers, first and last nodes.
fn place(pages: usize) -> impl Strategy<Value = usize> {
    let offset = prop_oneof![0..32usize, 0..160usize, 0..4096usize, 3900..4096usize];
    (prop_oneof![0..4usize, 0..pages], offset).prop_map(|(page, offset)| page * 4096 + offset)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_in_a_file_end_in_an_answer(
        worn in any::<bool>(),
        changes in proptest::collection::vec((place(100), prop_oneof![any::<u8>(), 0..4u8]), 1..60),
        cut in proptest::option::of(0..400_000usize),
    ) {
        let mut bytes = if worn { WORN.clone() } else { DENSE.clone() };
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        let file = file_of(&bytes);
        let _ = inspect(&file);
        if let Ok(Some(metas)) = metas(&file) {
            for id in metas.map(|meta| meta.txn_id) {
                if let Ok(seen) = walk(&file, id, &mut |_, _| {}) {
                    prop_assert_eq!(seen.findings.len() as u64, seen.found.min(MAX_FINDINGS as u64));
                }
            }
        }
    }

    #[test]
    fn noise_after_the_meta_pages_does_not_panic(seed in 1..u64::MAX, bound in 1..256u64) {
        let mut random = Random(seed);
        let size = page_size(&DENSE);
        let mut bytes = DENSE[..20 * size].to_vec();
        bytes.iter_mut().skip(2 * size).for_each(|byte| *byte = random.below(bound) as u8);
        prop_assert!(!walk_bytes(&bytes).is_sound());
    }
}
