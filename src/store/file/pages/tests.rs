use super::*;
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, PutFlags, WithoutTls};
use proptest::prelude::*;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

type Db = Database<Bytes, Bytes>;

const NAMES: [&str; 4] = ["bodies", "users", "expiry", "few"];

struct Store {
    dir: TempDir,
    env: Env<WithoutTls>,
    dbs: Vec<Db>,
    random: Random,
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
        options.map_size(1 << 30).max_dbs(8);
        // SAFETY: the directory is the test's own, and opened once.
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

    /// Walks the newest snapshot, and holds the counts against LMDB's own.
    fn verify(&self) -> Walk {
        let txn = self.env.read_txn().unwrap();
        let seen = walk(&self.file(), txn.id() as u64, &mut |_, _| {}).unwrap();
        assert_eq!(seen.findings, [""; 0]);
        assert!((seen.found == 0));
        let main: Db = self.env.open_database(&txn, None).unwrap().unwrap();
        let stats: Vec<_> = self.dbs.iter().chain([&main]).map(|db| db.stat(&txn).unwrap()).collect();
        let least: usize = stats.iter().map(|s| s.branch_pages + s.leaf_pages + s.overflow_pages).sum();
        let in_use = seen.branch + seen.leaf + seen.overflow;
        assert!((least as u64..least as u64 + 60).contains(&in_use), "{in_use} of {least}");
        assert_eq!(seen.pages, META_PAGES + in_use + seen.free + seen.leaked);
        seen
    }
}

/// A file of one transaction has no free pages: all are in use.
static DENSE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut store = Store::new(7, EnvFlags::empty());
    let mut txn = store.env.write_txn().unwrap();
    for number in 0..1500u32 {
        let key = number.wrapping_mul(0x9e37_79b9).to_be_bytes();
        let value = vec![b'v'; store.random.below(if number % 50 == 0 { 20_000 } else { 200 }) as usize];
        store.dbs[(number % 3) as usize].put(&mut txn, &key, &value).unwrap();
    }
    txn.commit().unwrap();
    store.bytes()
});

/// A file with a long free list.
static WORN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut store = Store::new(11, EnvFlags::empty());
    (0..30).for_each(|_| store.change(60, 3));
    let reader = store.env.clone().static_read_txn().unwrap();
    (0..30).for_each(|_| store.change(60, 7));
    drop(reader);
    store.bytes()
});

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// What opening and then verifying the file comes to: `None` where all is well.
fn fault_of(file: &File) -> Option<String> {
    let header = match inspect(file) {
        Ok(header) => header.expect("the file is not empty"),
        Err(fault) => return Some(fault.to_string()),
    };
    match walk(file, header.txn_id, &mut |_, _| {}) {
        Ok(seen) => (!(seen.found == 0)).then(|| seen.findings.join("; ")),
        Err(fault) => Some(fault.to_string()),
    }
}

fn flip(bytes: &mut [u8], bit: usize) {
    bytes[bit / 8] ^= 1 << (bit % 8);
}

fn walk_bytes(bytes: &[u8]) -> Walk {
    let file = file_of(bytes);
    let header = inspect(&file).unwrap().unwrap();
    walk(&file, header.txn_id, &mut |_, _| {}).unwrap()
}

#[test]
fn no_transaction_leaves_a_finding() {
    for (seed, flags) in [
        (1, EnvFlags::empty()),
        (2, EnvFlags::empty()),
        (3, EnvFlags::WRITE_MAP),
        (4, EnvFlags::NO_MEM_INIT | EnvFlags::NO_READ_AHEAD),
    ] {
        let mut store = Store::new(seed, flags);
        let mut readers = Vec::new();
        for round in 0..120 {
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
fn a_long_free_list_of_many_transactions_is_walked() {
    let mut store = Store::new(5, EnvFlags::empty());
    (0..6).for_each(|_| store.change(4000, 1));
    let reader = store.env.clone().static_read_txn().unwrap();
    (0..600).for_each(|_| store.change(10, 5));
    let mut txn = store.env.write_txn().unwrap();
    store.dbs[0].clear(&mut txn).unwrap();
    store.dbs[1].clear(&mut txn).unwrap();
    txn.commit().unwrap();
    let seen = store.verify();
    assert!(seen.free > 5000, "{seen:?}");
    // Its reader gone, the list is taken up again, and split.
    drop(reader);
    (0..200).for_each(|_| {
        store.change(10, 2);
        store.verify();
    });
}

#[test]
fn a_snapshot_is_walked_until_two_more_are_committed() {
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
    // SAFETY: the directory is the test's own, and opened once.
    let _env = unsafe { EnvOpenOptions::new().map_size(1 << 20).open(dir.path()) }.unwrap();
    let file = File::open(dir.path().join("data.mdb")).unwrap();
    let header = inspect(&file).unwrap().unwrap();
    assert_eq!((header.txn_id, header.last_page, header.map_size), (0, 1, 1 << 20));
    assert!(!header.is_short());
    let seen = walk(&file, 0, &mut |_, _| {}).unwrap();
    assert_eq!(seen, Walk { pages: 2, ..Walk::default() });
}

#[test]
fn the_header_is_that_of_the_newest_transaction() {
    let mut store = Store::new(8, EnvFlags::empty());
    for _ in 0..5 {
        store.append(3);
        let txn = store.env.read_txn().unwrap();
        let header = inspect(&store.file()).unwrap().unwrap();
        assert_eq!(header.txn_id, txn.id() as u64);
        assert_eq!(header.meta_page, header.txn_id % 2);
        assert_eq!(header.last_page, store.env.info().last_page_number as u64);
        assert_eq!(header.map_size, 1 << 30);
        assert_eq!(header.file_len, store.file().metadata().unwrap().len());
    }
}

#[test]
fn copies_have_no_findings() {
    let mut store = Store::new(10, EnvFlags::empty());
    (0..20).for_each(|_| store.change(100, 3));
    for option in [heed::CompactionOption::Enabled, heed::CompactionOption::Disabled] {
        let file = store.env.copy_to_path(store.dir.path().join(format!("{option:?}")), option).unwrap();
        assert_eq!(fault_of(&file), None, "{option:?}");
    }
}

#[test]
fn progress_goes_from_nothing_to_all() {
    let mut told = Vec::new();
    let file = file_of(&WORN);
    let header = inspect(&file).unwrap().unwrap();
    let seen = walk(&file, header.txn_id, &mut |seen, pages| told.push((seen, pages))).unwrap();
    assert!(told.len() > 3 && told.is_sorted(), "{told:?}");
    assert_eq!(told.last(), Some(&(seen.pages, seen.pages)));
}

#[test]
fn a_file_that_is_cut_short_is_found_out() {
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
fn a_file_without_its_free_end_is_whole() {
    let mut store = Store::new(9, EnvFlags::empty());
    store.change(200, 0);
    (0..5).for_each(|round| store.append(round));
    let mut txn = store.env.write_txn().unwrap();
    let big = vec![0; 1 << 20];
    store.dbs[0].put(&mut txn, b"big", &big).unwrap();
    store.dbs[0].delete(&mut txn, b"big").unwrap();
    txn.commit().unwrap();
    let header = inspect(&store.file()).unwrap().unwrap();
    assert!(header.is_short(), "{header:?}");
    assert!(store.verify().free > 250);
}

#[test]
fn a_wrong_bit_in_a_page_header_or_pointer_is_found() {
    let mut bytes = DENSE.clone();
    let size = inspect(&file_of(&bytes)).unwrap().unwrap().page_size as usize;
    let mut page = 2 * size;
    while page < bytes.len() {
        let flags = u16_at(&bytes, page + 10).unwrap();
        let (ends, next) = match flags {
            OVERFLOW => (PAGE_HEAD, u32_at(&bytes, page + 12).unwrap() as usize),
            _ => (usize::from(u16_at(&bytes, page + 12).unwrap()), 1),
        };
        // Bits of one page in eight are enough, as all of its kind are alike.
        for bit in
            (0..ends * 8).filter(|bit| !(64..80).contains(bit) && (page / size + bit).is_multiple_of(8))
        {
            flip(&mut bytes, page * 8 + bit);
            let file = file_of(&bytes);
            assert!(fault_of(&file).is_some(), "bit {bit} of page {}, flags {flags}", page / size);
            flip(&mut bytes, page * 8 + bit);
        }
        page += next * size;
    }
}

#[test]
fn a_wrong_bit_in_the_newest_meta_page_is_found() {
    let mut bytes = WORN.clone();
    let header = inspect(&file_of(&bytes)).unwrap().unwrap();
    let meta = header.meta_page as usize * header.page_size as usize;
    let fields: [(usize, usize); 10] = [
        (0, 8),   // number
        (10, 2),  // flags
        (16, 8),  // magic, version
        (40, 4),  // page size
        (46, 42), // the free tree
        (92, 44), // the main tree
        (136, 4), // last page
        (140, 4), // last page
        (144, 4), // transaction
        (148, 4), // transaction
    ];
    for bit in fields.iter().flat_map(|&(at, len)| at * 8..(at + len) * 8) {
        flip(&mut bytes, meta * 8 + bit);
        let file = file_of(&bytes);
        let gone = matches!(walk(&file, header.txn_id, &mut |_, _| {}), Err(Fault::Gone(_)));
        assert!(gone || fault_of(&file).is_some(), "byte {}", bit / 8);
        flip(&mut bytes, meta * 8 + bit);
    }
}

#[test]
fn a_wrong_bit_in_a_free_list_is_found() {
    let mut bytes = WORN.clone();
    let header = inspect(&file_of(&bytes)).unwrap().unwrap();
    let size = header.page_size as usize;
    let root =
        u64_at(&bytes, header.meta_page as usize * size + PAGE_HEAD + 24 + 40).unwrap() as usize * size;
    assert_eq!(u16_at(&bytes, root + 10), Some(LEAF));
    let node = root + usize::from(u16_at(&bytes, root + PAGE_HEAD).unwrap());
    let big = u16_at(&bytes, node + 4) == Some(BIG);
    let ids = node + NODE_HEAD + WORD;
    let ids = if big { u64_at(&bytes, ids).unwrap() as usize * size + PAGE_HEAD } else { ids };
    let count = u64_at(&bytes, ids).unwrap();
    assert!(count > 3);
    // A shorter list only leaks: a bit that is set may be cleared.
    for bit in (64..(count as usize + 1) * 64).step_by(3) {
        flip(&mut bytes, ids * 8 + bit);
        assert!(fault_of(&file_of(&bytes)).is_some() || walk_bytes(&bytes).leaked > 0, "bit {bit}");
        flip(&mut bytes, ids * 8 + bit);
    }
}

#[test]
fn a_branch_that_leads_to_itself_ends_the_walk() {
    let mut bytes = DENSE.clone();
    let size = inspect(&file_of(&bytes)).unwrap().unwrap().page_size as usize;
    let branch = (2..).find(|page| u16_at(&bytes, page * size + 10) == Some(BRANCH)).unwrap();
    let node = branch * size + usize::from(u16_at(&bytes, branch * size + PAGE_HEAD).unwrap());
    bytes[node..node + 4].copy_from_slice(&(branch as u32).to_ne_bytes());
    let seen = walk_bytes(&bytes);
    assert_eq!(seen.findings, [format!("page {branch} leads to page {branch}, which is in use elsewhere")],);
    assert!(seen.leaked > 0);
}

#[test]
fn findings_are_counted_beyond_those_that_are_told() {
    let mut bytes = DENSE.clone();
    let size = inspect(&file_of(&bytes)).unwrap().unwrap().page_size as usize;
    for page in bytes.chunks_exact_mut(size).skip(2) {
        page[0] ^= 0x55;
    }
    let seen = walk_bytes(&bytes);
    assert_eq!(seen.findings.len(), MAX_FINDINGS);
    assert!(seen.found > 40, "{}", seen.found);
}

#[test]
fn what_is_no_store_is_refused() {
    let size = inspect(&file_of(&DENSE)).unwrap().unwrap().page_size as usize;
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
fn a_source_file_is_foreign_and_a_directory_unreadable() {
    let source = File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(matches!(inspect(&source), Err(Fault::Foreign)));
    #[cfg(unix)]
    assert!(matches!(inspect(&File::open("/").unwrap()), Err(Fault::Io(_))));
}

/// The bytes that a change is most telling in: metas, page headers, pointers, first and last nodes.
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
    fn noise_behind_meta_pages_ends_in_an_answer(
        noise in proptest::collection::vec(prop_oneof![any::<u8>(), 0..3u8], 0..20_000),
    ) {
        let mut bytes = DENSE[..2 * 4096].to_vec();
        bytes.extend(noise);
        let seen = walk_bytes(&bytes);
        prop_assert!(!(seen.found == 0));
    }
}
