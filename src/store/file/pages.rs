//! A check of an LMDB data file, page by page, that only reads, and never through LMDB's map: where the file was
//! cut short, the map would answer with a bus error.
//!
//! The layout is that of LMDB's data version 1 on 64-bit machines, in the machine's own byte order. Its names in
//! `mdb.c` stand beside the constants. A finding tells page numbers, never keys: they may be ids of sessions.

use std::cmp::Ordering;
use std::fmt;
use std::fs::File;
use std::io;

const META_PAGES: u64 = 2;
const META_BYTES: usize = PAGE_HEAD + 136; // MDB_meta
const MAGIC: u32 = 0xbeef_c0de;
const VERSION: u32 = 1;
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 256..=0x8000; // MAX_PAGESIZE

const PAGE_HEAD: usize = 16; // PAGEHDRSZ
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const OVERFLOW: u16 = 4;
const META: u16 = 8;

const NODE_HEAD: usize = 8; // NODESIZE
const BIG: u16 = 1; // F_BIGDATA
const TREE: u16 = 2; // F_SUBDATA

const RECORD_BYTES: usize = 48; // MDB_db
const INTEGER_KEY: u16 = 8;
const KEY_FORMS: u16 = 0x7e; // MDB_REVERSEKEY to MDB_REVERSEDUP
const NO_PAGE: u64 = u64::MAX; // P_INVALID
const WORD: usize = 8;

const MAX_DEPTH: u16 = 32; // CURSOR_STACK
const MAX_FINDINGS: usize = 20;
const TELL_EVERY: u64 = 512;
/// How far past the file's end pages are followed: they are free pages that were never written.
const MAX_TAIL: u64 = 1 << 24;

/// Why a file cannot be opened, or be walked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),

    #[error("it is not an LMDB file")]
    Foreign,

    #[error("its LMDB data version is {0}, not {VERSION}")]
    Version(u32),

    #[error("it ends before its second page does")]
    Cut,

    #[error("its meta page {page} {what}")]
    Meta { page: u64, what: &'static str },

    /// Neither meta page is of the transaction: two later ones were committed, or there never was one.
    #[error("its meta pages are no longer of transaction {0}")]
    Gone(u64),
}

/// What the newest meta page says, and how long the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub meta_page: u64,
    pub txn_id: u64,
    pub page_size: u32,
    pub last_page: u64,
    pub map_size: u64,
    pub file_len: u64,
}

impl Header {
    /// Whether pages that the meta page counts are not in the file. It may be whole all the same: free pages at
    /// its end were perhaps never written. [`walk`] tells.
    pub fn is_short(&self) -> bool {
        self.file_len / u64::from(self.page_size) <= self.last_page
    }
}

/// What a walk saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walk {
    /// All that the meta page counts, the two meta pages too.
    pub pages: u64,
    pub branch: u64,
    pub leaf: u64,
    pub overflow: u64,
    pub free: u64,
    /// Neither in use nor free: space lost, no harm. Where there are findings, it may be what they hide.
    pub leaked: u64,
    /// The first findings, as sentences.
    pub findings: Vec<String>,
    /// How many findings there were in all.
    pub found: u64,
}

/// Reads the meta pages. An empty file, which LMDB would make anew, has no header.
///
/// # Errors
/// Where LMDB would refuse the file, or should.
pub fn inspect(file: &File) -> Result<Option<Header>, Fault> {
    let Some(metas) = metas(file)? else { return Ok(None) };
    let newest = usize::from(metas[0].txn_id < metas[1].txn_id);
    let Meta { page_size, txn_id, last_page, map_size, .. } = metas[newest];
    let meta_page = newest as u64;
    if txn_id > 0 && txn_id % META_PAGES != meta_page {
        return Err(Fault::Meta { page: meta_page, what: "has the other's transaction" });
    }
    if last_page < META_PAGES - 1 {
        return Err(Fault::Meta { page: meta_page, what: "counts too few pages" });
    }
    // After the metas: a commit lengthens the file before it writes its meta.
    let file_len = file.metadata()?.len();
    Ok(Some(Header { meta_page, txn_id, page_size, last_page, map_size, file_len }))
}

/// Looks at every page that the transaction can reach. The caller holds a read transaction with this id, so that
/// no writer reuses the pages meanwhile. `progress` is told of the pages seen, and of how many there are.
///
/// # Errors
/// As for [`inspect`], and `Gone` where a read transaction must be begun anew. What is wrong beyond the meta pages
/// is a finding.
pub fn walk(file: &File, txn_id: u64, progress: &mut dyn FnMut(u64, u64)) -> Result<Walk, Fault> {
    let metas = metas(file)?.ok_or(Fault::Gone(txn_id))?;
    let meta_page = txn_id % META_PAGES;
    let meta = &metas[meta_page as usize];
    if meta.txn_id != txn_id {
        return Err(Fault::Gone(txn_id));
    }
    let file_len = file.metadata()?.len();
    let mut walker = Walker::new(file, meta, file_len, progress);
    for (page, meta) in (0..).zip(&metas) {
        walker.require(meta.number == page, || format!("page {page} is numbered {}", meta.number));
    }
    walker.require(meta.map_size / u64::from(meta.page_size) > meta.last_page, || {
        format!("page {meta_page} has a map size below its last page, {}", meta.last_page)
    });
    walker.tree(Name::Free, &meta.free, meta_page);
    walker.tree(Name::Main, &meta.main, meta_page);
    Ok(walker.finish())
}

struct Meta {
    number: u64,
    flags: u16,
    magic: u32,
    version: u32,
    map_size: u64,
    page_size: u32,
    free: Record,
    main: Record,
    last_page: u64,
    txn_id: u64,
}

impl Meta {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, meta) = bytes.split_at_checked(PAGE_HEAD)?;
        Some(Self {
            number: u64_at(head, 0)?,
            flags: u16_at(head, 10)?,
            magic: u32_at(meta, 0)?,
            version: u32_at(meta, 4)?,
            map_size: u64_at(meta, 16)?,
            page_size: u32_at(meta, 24)?, // md_pad of the free tree
            free: Record::parse(meta.get(24..)?)?,
            main: Record::parse(meta.get(72..)?)?,
            last_page: u64_at(meta, 120)?,
            txn_id: u64_at(meta, 128)?,
        })
    }

    /// Reads a meta page until it reads the same twice: a writer may be at it.
    fn read(file: &File, at: u64) -> io::Result<Option<Self>> {
        let mut last = [0; META_BYTES];
        for _ in 0..16 {
            let mut bytes = [0; META_BYTES];
            match read_at(file, &mut bytes, at) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                read => read?,
            }
            if std::mem::replace(&mut last, bytes) == bytes {
                break;
            }
        }
        Ok(Self::parse(&last))
    }

    fn check(&self, page: u64, page_size: u32) -> Result<(), Fault> {
        if self.magic != MAGIC {
            return Err(if page == 0 {
                Fault::Foreign
            } else {
                Fault::Meta { page, what: "has no magic number" }
            });
        }
        if self.version != VERSION {
            return Err(Fault::Version(self.version));
        }
        if self.flags != META {
            return Err(Fault::Meta { page, what: "is not marked as one" });
        }
        let size = self.page_size;
        if !PAGE_SIZES.contains(&size) || !size.is_power_of_two() || size != page_size {
            return Err(Fault::Meta { page, what: "has a wrong page size" });
        }
        Ok(())
    }
}

fn metas(file: &File) -> Result<Option<[Meta; 2]>, Fault> {
    let Some(first) = Meta::read(file, 0)? else {
        return if file.metadata()?.len() == 0 { Ok(None) } else { Err(Fault::Foreign) };
    };
    first.check(0, first.page_size)?;
    let second = Meta::read(file, u64::from(first.page_size))?.ok_or(Fault::Cut)?;
    second.check(1, first.page_size)?;
    Ok(Some([first, second]))
}

/// A tree's record: in a meta page, or in the main tree under the tree's name.
#[derive(Clone, Copy)]
struct Record {
    flags: u16,
    depth: u16,
    counts: Counts,
    root: u64,
}

impl Record {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let counts = Counts {
            branch: u64_at(bytes, 8)?,
            leaf: u64_at(bytes, 16)?,
            overflow: u64_at(bytes, 24)?,
            entries: u64_at(bytes, 32)?,
        };
        Some(Self { flags: u16_at(bytes, 4)?, depth: u16_at(bytes, 6)?, counts, root: u64_at(bytes, 40)? })
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    branch: u64,
    leaf: u64,
    overflow: u64,
    entries: u64,
}

/// A page's node. A branch's has a child; a leaf's has data, or the number of the page where they begin.
struct Node<'p> {
    low: u32,
    flags: u16,
    key: &'p [u8],
    data: &'p [u8],
}

impl<'p> Node<'p> {
    fn parse(page: &'p [u8], at: usize, leaf: bool) -> Option<Self> {
        let (head, rest) = page.get(at..)?.split_at_checked(NODE_HEAD)?;
        let (low, flags) = (u32_at(head, 0)?, u16_at(head, 4)?);
        let (key, rest) = rest.split_at_checked(usize::from(u16_at(head, 6)?))?;
        let len = match (leaf, flags & BIG) {
            (false, _) => 0,
            (true, 0) => usize::try_from(low).ok()?,
            (true, _) => WORD,
        };
        Some(Self { low, flags, key, data: rest.get(..len)? })
    }

    fn nth(page: &'p [u8], index: usize, leaf: bool) -> Option<Self> {
        Self::parse(page, usize::from(u16_at(page, PAGE_HEAD + 2 * index)?), leaf)
    }

    fn child(&self) -> u64 {
        u64::from(self.low) | u64::from(self.flags) << 32
    }

    fn bytes(&self) -> usize {
        (NODE_HEAD + self.key.len() + self.data.len()).next_multiple_of(2)
    }
}

/// How many nodes a page has, once it is sure that they fill the end of the page without gap or overlap, as LMDB
/// keeps them.
fn count_nodes(page: &[u8], leaf: bool, spans: &mut Vec<(usize, usize)>) -> Result<usize, &'static str> {
    const BOUNDS: &str = "has its bounds wrong";
    const OUTSIDE: &str = "has a node out of its bounds";
    let lower = u16_at(page, 12).map(usize::from).ok_or(BOUNDS)?;
    let upper = u16_at(page, 14).map(usize::from).ok_or(BOUNDS)?;
    if lower < PAGE_HEAD || lower > upper || upper > page.len() || lower % 2 + upper % 2 > 0 {
        return Err(BOUNDS);
    }
    spans.clear();
    for index in page[PAGE_HEAD..lower].chunks_exact(2) {
        let at = u16_at(index, 0).map(usize::from).ok_or(BOUNDS)?;
        let node = Node::parse(page, at, leaf).ok_or(OUTSIDE)?;
        spans.push((at, at + node.bytes()));
    }
    spans.sort_unstable();
    let filled = spans.iter().try_fold(upper, |end, &(from, to)| (from == end).then_some(to));
    if filled == Some(page.len()) { Ok(spans.len()) } else { Err("has nodes that overlap or leave a gap") }
}

/// A tree's name in findings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Free,
    Main,
    Of { page: u64, node: usize },
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => write!(f, "the tree of free pages"),
            Self::Main => write!(f, "the main tree"),
            Self::Of { page, node } => write!(f, "the tree of page {page}, node {node},"),
        }
    }
}

impl Name {
    /// The order of the tree's keys: in that of the free pages they are the ids of transactions.
    fn order(self, a: &[u8], b: &[u8]) -> Ordering {
        match (self, u64_at(a, 0), u64_at(b, 0)) {
            (Self::Free, Some(a), Some(b)) => a.cmp(&b),
            _ => a.cmp(b),
        }
    }
}

/// A tree, as far as it was walked.
struct Tree {
    name: Name,
    depth: u16,
    counts: Counts,
    /// The key before: a leaf's, or a branch's, which its child may begin with.
    key: Option<Vec<u8>>,
    may_repeat: bool,
    /// Whether no page of it had to be left out.
    whole: bool,
    deep: bool,
}

impl Tree {
    /// Whether the key comes after those before it. Between two leaves stands a key of the branch above, so this
    /// holds the leaves to their place in the tree as well.
    fn follows(&mut self, key: &[u8], leaf: bool) -> bool {
        let Some(before) = &mut self.key else {
            self.key = Some(key.to_vec());
            self.may_repeat = !leaf;
            return true;
        };
        let follows = match self.name.order(before, key) {
            Ordering::Less => true,
            Ordering::Equal => self.may_repeat,
            Ordering::Greater => false,
        };
        before.clear();
        before.extend_from_slice(key);
        self.may_repeat = !leaf;
        follows
    }
}

/// A record of the free list, as far as it was read: a count, and that many page numbers, the highest first.
struct FreeList {
    page: u64,
    room: u64,
    left: Option<u64>,
    before: u64,
}

struct Walker<'w> {
    file: &'w File,
    progress: &'w mut dyn FnMut(u64, u64),
    page_size: usize,
    txn_id: u64,
    last_page: u64,
    file_pages: u64,
    used: Bits,
    free: Bits,
    free_past_end: u64,
    whole: bool,
    told: u64,
    spans: Vec<(usize, usize)>,
    walk: Walk,
}

impl<'w> Walker<'w> {
    fn new(file: &'w File, meta: &Meta, file_len: u64, progress: &'w mut dyn FnMut(u64, u64)) -> Self {
        let pages = meta.last_page.saturating_add(1);
        let file_pages = (file_len / u64::from(meta.page_size)).min(pages);
        let tracked = pages.min(file_pages + MAX_TAIL);
        Self {
            file,
            progress,
            page_size: meta.page_size as usize,
            txn_id: meta.txn_id,
            last_page: meta.last_page,
            file_pages,
            used: Bits::new(file_pages),
            free: Bits::new(tracked),
            free_past_end: 0,
            whole: true,
            told: 0,
            spans: Vec::new(),
            walk: Walk { pages, ..Walk::default() },
        }
    }

    fn find(&mut self, sentence: impl FnOnce() -> String) {
        self.walk.found += 1;
        if self.walk.findings.len() < MAX_FINDINGS {
            self.walk.findings.push(sentence());
        }
    }

    fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.find(otherwise);
        }
    }

    fn tell(&mut self) {
        let Walk { branch, leaf, overflow, free, pages, .. } = self.walk;
        let seen = META_PAGES + branch + leaf + overflow + free;
        if seen >= self.told + TELL_EVERY {
            self.told = seen;
            (self.progress)(seen, pages);
        }
    }

    fn tree(&mut self, name: Name, record: &Record, from: u64) {
        let flags = if name == Name::Free { INTEGER_KEY } else { 0 };
        // Beside its own flags the tree of free pages has those of the environment.
        let mask = if name == Name::Free { KEY_FORMS } else { u16::MAX };
        self.require(record.flags & mask == flags, || format!("{name} has the flags {:#x}", record.flags));
        let mut tree = Tree {
            name,
            depth: record.depth,
            counts: Counts::default(),
            key: None,
            may_repeat: false,
            whole: true,
            deep: false,
        };
        if record.root == NO_PAGE {
            self.require(record.depth == 0, || {
                format!("{name} is empty but has a depth of {}", record.depth)
            });
        } else {
            self.visit(&mut tree, record.root, from, 1);
        }
        let (seen, noted) = (tree.counts, record.counts);
        if tree.whole {
            for (what, seen, noted) in [
                ("branch pages", seen.branch, noted.branch),
                ("leaf pages", seen.leaf, noted.leaf),
                ("overflow pages", seen.overflow, noted.overflow),
                ("entries", seen.entries, noted.entries),
            ] {
                self.require(seen == noted, || format!("{name} has {seen} {what}, where {noted} are noted"));
            }
        }
        self.whole &= tree.whole;
    }

    fn visit(&mut self, tree: &mut Tree, number: u64, from: u64, level: u16) {
        let seen = level <= MAX_DEPTH && self.claim(number, 1, from);
        self.require(level <= MAX_DEPTH, || format!("page {number} lies too deep, at level {level}"));
        let mut page = vec![0; self.page_size];
        if !seen || !self.read(number, 0, &mut page) {
            tree.whole = false;
            return;
        }
        let flags = self.header(number, &page);
        let leaf = match flags {
            LEAF => true,
            BRANCH => false,
            _ => {
                self.find(|| {
                    format!("page {number} is neither a branch nor a leaf: its flags are {flags:#x}")
                });
                tree.whole = false;
                return;
            }
        };
        if leaf {
            tree.counts.leaf += 1;
            self.walk.leaf += 1;
            if level != tree.depth && !std::mem::replace(&mut tree.deep, true) {
                self.find(|| format!("page {number} is a leaf at level {level} of {}", tree.depth));
            }
        } else {
            tree.counts.branch += 1;
            self.walk.branch += 1;
        }
        self.tell();
        let count = match count_nodes(&page, leaf, &mut self.spans) {
            Ok(count) => count,
            Err(what) => {
                self.find(|| format!("page {number} {what}"));
                tree.whole = false;
                return;
            }
        };
        // LMDB lets a branch of the free tree have one child alone, if but for a while.
        let fewest = if leaf || tree.name == Name::Free { 1 } else { 2 };
        self.require(count >= fewest, || format!("page {number} has too few nodes: {count}"));

        let mut ordered = true;
        for index in 0..count {
            let Some(node) = Node::nth(&page, index, leaf) else { break };
            // A branch's first key stands for all that are lower, whatever it is.
            if (leaf || index > 0) && !tree.follows(node.key, leaf) && ordered {
                ordered = false;
                self.find(|| format!("page {number} has its node {index} out of order"));
            }
            if leaf {
                self.entry(tree, &node, number, index);
            } else {
                self.visit(tree, node.child(), number, level + 1);
            }
        }
    }

    fn entry(&mut self, tree: &mut Tree, node: &Node<'_>, page: u64, index: usize) {
        tree.counts.entries += 1;
        let flags = node.flags;
        let known = flags == 0 || flags == BIG || flags == TREE && tree.name == Name::Main;
        if !known {
            self.find(|| format!("page {page} has the flags {flags:#x} at its node {index}"));
            // Whatever hangs on it stays unseen.
            tree.whole = false;
            return;
        }
        let size = u64::from(node.low);
        let big = if flags == BIG {
            let first = u64_at(node.data, 0).unwrap_or(NO_PAGE);
            match self.overflow(first, size, page) {
                Some(pages) => {
                    tree.counts.overflow += pages;
                    Some(first)
                }
                None => {
                    tree.whole = false;
                    return;
                }
            }
        } else {
            None
        };
        if flags == TREE {
            match Record::parse(node.data).filter(|_| node.data.len() == RECORD_BYTES) {
                Some(record) => self.tree(Name::Of { page, node: index }, &record, page),
                None => self.find(|| format!("page {page} has no record of a tree at its node {index}")),
            }
        }
        if tree.name == Name::Free {
            let id = u64_at(node.key, 0).filter(|_| node.key.len() == WORD);
            self.require(id.is_some_and(|id| id <= self.txn_id), || {
                format!("page {page} has no past transaction at its node {index}")
            });
            self.free_list(node.data, big, size, page);
        }
    }

    /// Claims the pages of data too big for a leaf, and counts them. They may be more than the data need: data that
    /// shrink within a transaction stay where they are.
    fn overflow(&mut self, first: u64, size: u64, from: u64) -> Option<u64> {
        if !self.within(first, 1, from) {
            return None;
        }
        let mut head = [0; PAGE_HEAD];
        if !self.read(first, 0, &mut head) {
            return None;
        }
        let flags = self.header(first, &head);
        if flags != OVERFLOW {
            self.find(|| format!("page {first} is no overflow page: its flags are {flags:#x}"));
            return None;
        }
        let pages = u32_at(&head, 12).map_or(0, u64::from);
        let needed = (size + PAGE_HEAD as u64).div_ceil(self.page_size as u64);
        if pages < needed {
            self.find(|| format!("page {first} begins {pages} overflow pages, where {needed} are needed"));
            return None;
        }
        if !self.claim(first, pages, from) {
            return None;
        }
        self.walk.overflow += pages;
        self.tell();
        Some(pages)
    }

    /// Reads a record of the free list, from a leaf or from the overflow pages that begin at `big`.
    fn free_list(&mut self, data: &[u8], big: Option<u64>, size: u64, page: u64) {
        let word = WORD as u64;
        self.require(size >= word && size.is_multiple_of(word), || {
            format!("page {page} has half a list of free pages")
        });
        let mut list = FreeList { page, room: (size / word).saturating_sub(1), left: None, before: NO_PAGE };
        let Some(first) = big else { return self.take_free(&mut list, data) };
        list.page = first;
        let mut chunk = vec![0; self.page_size];
        let mut at = 0;
        while at < size && list.left != Some(0) {
            let len = (self.page_size as u64).min(size - at) as usize;
            if !self.read(first, PAGE_HEAD as u64 + at, &mut chunk[..len]) {
                self.whole = false;
                return;
            }
            self.take_free(&mut list, &chunk[..len]);
            at += len as u64;
        }
    }

    fn take_free(&mut self, list: &mut FreeList, bytes: &[u8]) {
        let page = list.page;
        for word in bytes.chunks_exact(WORD).filter_map(|bytes| u64_at(bytes, 0)) {
            match list.left {
                None if word > list.room => {
                    self.find(|| format!("page {page} lists {word} free pages in the room of {}", list.room));
                    self.whole = false;
                    list.left = Some(0);
                }
                None => list.left = Some(word),
                Some(0) => return,
                Some(left) => {
                    list.left = Some(left - 1);
                    let before = std::mem::replace(&mut list.before, word);
                    self.require(word < before, || format!("page {page} lists free pages out of order"));
                    self.take_free_page(word, page);
                }
            }
        }
    }

    fn take_free_page(&mut self, number: u64, from: u64) {
        if number < META_PAGES || number > self.last_page {
            return self.find(|| format!("page {from} lists page {number} as free, which there is not"));
        }
        if number >= self.free.len() {
            return; // `finish` finds fault with so long a tail.
        }
        if self.used.get(number) {
            self.find(|| format!("page {number} is both free and in use"));
        }
        if self.free.set(number) {
            return self.find(|| format!("page {number} is listed as free twice"));
        }
        self.free_past_end += u64::from(number >= self.file_pages);
        self.walk.free += 1;
        self.tell();
    }

    fn within(&mut self, first: u64, pages: u64, from: u64) -> bool {
        let end = first.saturating_add(pages);
        if first < META_PAGES || end - 1 > self.last_page {
            self.find(|| format!("page {from} leads to page {first}, which is not a page of the trees"));
            return false;
        }
        if end > self.file_pages {
            self.find(|| format!("page {from} leads to page {}, past the end of the file", end - 1));
            return false;
        }
        true
    }

    /// Marks pages as in use. False where they cannot be, or are already.
    fn claim(&mut self, first: u64, pages: u64, from: u64) -> bool {
        if !self.within(first, pages, from) {
            return false;
        }
        for number in first..first + pages {
            if self.used.set(number) {
                self.find(|| format!("page {from} leads to page {number}, which is in use elsewhere"));
                return false;
            }
            if self.free.get(number) {
                self.find(|| format!("page {number} is both free and in use"));
            }
        }
        true
    }

    fn header(&mut self, number: u64, page: &[u8]) -> u16 {
        let noted = u64_at(page, 0).unwrap_or(NO_PAGE);
        self.require(noted == number, || format!("page {number} is numbered {noted}"));
        u16_at(page, 10).unwrap_or(0)
    }

    fn read(&mut self, number: u64, offset: u64, bytes: &mut [u8]) -> bool {
        let read = read_at(self.file, bytes, number * self.page_size as u64 + offset);
        read.inspect_err(|error| self.find(|| format!("page {number} cannot be read: {error}"))).is_ok()
    }

    fn finish(mut self) -> Walk {
        let (pages, last, in_file) = (self.walk.pages, self.last_page, self.file_pages);
        let in_use = self.used.count() + self.free.count() - self.used.count_common(&self.free);
        self.walk.leaked = pages.saturating_sub(META_PAGES + in_use);
        let unwritten = pages - in_file;
        // Where a list was not read, its pages are not known to be lacking.
        if unwritten > MAX_TAIL || self.whole && unwritten > self.free_past_end {
            self.find(|| format!("the file ends after {in_file} pages, before its last page, {last}"));
        }
        (self.progress)(pages - self.walk.leaked, pages);
        self.walk
    }
}

struct Bits {
    words: Vec<u64>,
    len: u64,
}

impl Bits {
    fn new(len: u64) -> Self {
        Self { words: vec![0; len.div_ceil(64) as usize], len }
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn get(&self, at: u64) -> bool {
        self.words.get((at / 64) as usize).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Sets a bit, and tells whether it was set.
    fn set(&mut self, at: u64) -> bool {
        let Some(word) = self.words.get_mut((at / 64) as usize) else { return false };
        let bit = 1 << (at % 64);
        let was = *word & bit > 0;
        *word |= bit;
        was
    }

    fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    fn count_common(&self, other: &Self) -> u64 {
        self.words.iter().zip(&other.words).map(|(a, b)| u64::from((a & b).count_ones())).sum()
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !bytes.is_empty() {
        match file.seek_read(bytes, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                bytes = &mut bytes[len..];
                at += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
