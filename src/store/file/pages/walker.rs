//! Walks the pages. Findings contain page numbers and never keys, because keys may be session ids.

use super::bits::Bits;
use super::layout::{
    BIG, BRANCH, Counts, INTEGER_KEY, KEY_FORMS, LEAF, META_PAGES, Meta, NO_PAGE, Node, OVERFLOW,
    OVERFLOW_PAGES, PAGE_FLAGS, PAGE_HEAD, RECORD_BYTES, TREE, TreeRecord, WORD, count_nodes, read_at,
    u16_at, u32_at, u64_at,
};
use std::cmp::Ordering;
use std::fmt;
use std::fs::File;

const MAX_DEPTH: u16 = 32; // CURSOR_STACK
pub(super) const MAX_FINDINGS: usize = 20;
const PROGRESS_INTERVAL: u64 = 512;
/// The maximum number of tracked pages past the end of the file. They are free pages that were never written.
const MAX_TAIL: u64 = 1 << 24;

/// The result of a walk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walk {
    /// All pages up to the last page of the meta page, both meta pages included.
    pub pages: u64,
    pub branch: u64,
    pub leaf: u64,
    pub overflow: u64,
    pub free: u64,
    /// Pages that are neither used nor free. They waste space without harm. After a finding, they may be pages that
    /// the walk did not reach.
    pub leaked: u64,
    /// The first findings, as sentences.
    pub findings: Vec<String>,
    /// The number of all findings.
    pub found: u64,
}

impl Walk {
    pub fn is_sound(&self) -> bool {
        self.found == 0
    }
}

/// The name of a tree in findings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TreeName {
    Free,
    Main,
    Of { page: u64, node: usize },
}

impl fmt::Display for TreeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => write!(f, "the freelist"),
            Self::Main => write!(f, "the main tree"),
            Self::Of { page, node } => write!(f, "the tree of page {page}, node {node},"),
        }
    }
}

impl TreeName {
    /// Compares two keys of the tree. The keys of the freelist are transaction ids.
    fn order(self, a: &[u8], b: &[u8]) -> Ordering {
        match (self, u64_at(a, 0), u64_at(b, 0)) {
            (Self::Free, Some(a), Some(b)) => a.cmp(&b),
            _ => a.cmp(b),
        }
    }
}

/// The state of a tree's walk.
struct TreeWalk {
    name: TreeName,
    depth: u16,
    counts: Counts,
    /// The previous key. It may come from a leaf or from a branch. The child of a branch may start with the same key.
    key: Option<Vec<u8>>,
    may_repeat: bool,
    /// Whether all pages of the tree were readable.
    is_complete: bool,
    has_wrong_depth: bool,
}

impl TreeWalk {
    /// Whether the key is greater than the previous ones. There is a branch key between two leaves, so this also
    /// checks that each leaf is in the right place.
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

/// The state of reading a record of the freelist: a count, and then that many page numbers in descending order.
struct FreeList {
    page: u64,
    room: u64,
    left: Option<u64>,
    before: u64,
}

pub(super) struct Walker<'w> {
    file: &'w File,
    progress: &'w mut dyn FnMut(u64, u64),
    page_size: usize,
    txn_id: u64,
    last_page: u64,
    file_pages: u64,
    used: Bits,
    free: Bits,
    free_past_end: u64,
    is_complete: bool,
    reported: u64,
    spans: Vec<(usize, usize)>,
    walk: Walk,
}

impl<'w> Walker<'w> {
    pub(super) fn new(
        file: &'w File,
        meta: &Meta,
        file_len: u64,
        progress: &'w mut dyn FnMut(u64, u64),
    ) -> Self {
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
            is_complete: true,
            reported: 0,
            spans: Vec::new(),
            walk: Walk { pages, ..Walk::default() },
        }
    }

    fn add_finding(&mut self, sentence: impl FnOnce() -> String) {
        self.walk.found += 1;
        if self.walk.findings.len() < MAX_FINDINGS {
            self.walk.findings.push(sentence());
        }
    }

    pub(super) fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.add_finding(otherwise);
        }
    }

    fn report_progress(&mut self) {
        let Walk { branch, leaf, overflow, free, pages, .. } = self.walk;
        let seen = META_PAGES + branch + leaf + overflow + free;
        if seen >= self.reported + PROGRESS_INTERVAL {
            self.reported = seen;
            (self.progress)(seen, pages);
        }
    }

    pub(super) fn tree(&mut self, name: TreeName, record: &TreeRecord, from: u64) {
        let flags = if name == TreeName::Free { INTEGER_KEY } else { 0 };
        // The flags of the freelist also contain the flags of the environment.
        let mask = if name == TreeName::Free { KEY_FORMS } else { u16::MAX };
        self.require(record.flags & mask == flags, || format!("{name} has the flags {:#x}", record.flags));
        let mut tree = TreeWalk {
            name,
            depth: record.depth,
            counts: Counts::default(),
            key: None,
            may_repeat: false,
            is_complete: true,
            has_wrong_depth: false,
        };
        if record.root == NO_PAGE {
            self.require(record.depth == 0, || {
                format!("{name} is empty but has a depth of {}", record.depth)
            });
        } else {
            self.visit(&mut tree, record.root, from, 1);
        }
        let (seen, noted) = (tree.counts, record.counts);
        if tree.is_complete {
            for (what, seen, noted) in [
                ("branch pages", seen.branch, noted.branch),
                ("leaf pages", seen.leaf, noted.leaf),
                ("overflow pages", seen.overflow, noted.overflow),
                ("entries", seen.entries, noted.entries),
            ] {
                self.require(seen == noted, || {
                    format!("{name} has {seen} {what}, but its record says {noted}")
                });
            }
        }
        self.is_complete &= tree.is_complete;
    }

    fn visit(&mut self, tree: &mut TreeWalk, number: u64, from: u64, level: u16) {
        let seen = level <= MAX_DEPTH && self.claim(number, 1, from);
        self.require(level <= MAX_DEPTH, || format!("page {number} is too deep, at level {level}"));
        let mut page = vec![0; self.page_size];
        if !seen || !self.read(number, 0, &mut page) {
            tree.is_complete = false;
            return;
        }
        let flags = self.header(number, &page);
        let leaf = match flags {
            LEAF => true,
            BRANCH => false,
            _ => {
                self.add_finding(|| {
                    format!("page {number} is neither a branch nor a leaf: its flags are {flags:#x}")
                });
                tree.is_complete = false;
                return;
            }
        };
        if leaf {
            tree.counts.leaf += 1;
            self.walk.leaf += 1;
            if level != tree.depth && !std::mem::replace(&mut tree.has_wrong_depth, true) {
                self.add_finding(|| format!("page {number} is a leaf at level {level} of {}", tree.depth));
            }
        } else {
            tree.counts.branch += 1;
            self.walk.branch += 1;
        }
        self.report_progress();
        let count = match count_nodes(&page, leaf, &mut self.spans) {
            Ok(count) => count,
            Err(what) => {
                self.add_finding(|| format!("page {number} {what}"));
                tree.is_complete = false;
                return;
            }
        };
        // LMDB temporarily allows a branch of the freelist to have only one child.
        let fewest = if leaf || tree.name == TreeName::Free { 1 } else { 2 };
        self.require(count >= fewest, || format!("page {number} has too few nodes: {count}"));

        let mut ordered = true;
        for index in 0..count {
            let Some(node) = Node::nth(&page, index, leaf) else { break };
            // The first key of a branch is ignored. It stands for all lower keys.
            if (leaf || index > 0) && !tree.follows(node.key, leaf) && ordered {
                ordered = false;
                self.add_finding(|| format!("page {number} has its node {index} out of order"));
            }
            if leaf {
                self.entry(tree, &node, number, index);
            } else {
                self.visit(tree, node.child(), number, level + 1);
            }
        }
    }

    fn entry(&mut self, tree: &mut TreeWalk, node: &Node<'_>, page: u64, index: usize) {
        tree.counts.entries += 1;
        let flags = node.flags;
        let known = flags == 0 || flags == BIG || flags == TREE && tree.name == TreeName::Main;
        if !known {
            self.add_finding(|| format!("page {page} has the flags {flags:#x} at its node {index}"));
            // Pages below this node are not reached.
            tree.is_complete = false;
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
                    tree.is_complete = false;
                    return;
                }
            }
        } else {
            None
        };
        if flags == TREE {
            match TreeRecord::parse(node.data).filter(|_| node.data.len() == RECORD_BYTES) {
                Some(record) => self.tree(TreeName::Of { page, node: index }, &record, page),
                None => {
                    self.add_finding(|| format!("page {page} has no record of a tree at its node {index}"))
                }
            }
        }
        if tree.name == TreeName::Free {
            let id = u64_at(node.key, 0).filter(|_| node.key.len() == WORD);
            self.require(id.is_some_and(|id| id <= self.txn_id), || {
                format!("page {page} has no past transaction at its node {index}")
            });
            self.free_list(node.data, big, size, page);
        }
    }

    /// Claims and counts the overflow pages of large data. There may be more pages than necessary: if data shrink
    /// within a transaction, LMDB does not move them.
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
            self.add_finding(|| format!("page {first} is no overflow page: its flags are {flags:#x}"));
            return None;
        }
        let pages = u32_at(&head, OVERFLOW_PAGES).map_or(0, u64::from);
        let needed = (size + PAGE_HEAD as u64).div_ceil(self.page_size as u64);
        if pages < needed {
            self.add_finding(|| {
                format!("page {first} begins {pages} overflow pages, where {needed} are needed")
            });
            return None;
        }
        if !self.claim(first, pages, from) {
            return None;
        }
        self.walk.overflow += pages;
        self.report_progress();
        Some(pages)
    }

    /// Reads a record of the freelist, from a leaf or from the overflow pages that start at `big`.
    fn free_list(&mut self, data: &[u8], big: Option<u64>, size: u64, page: u64) {
        let word = WORD as u64;
        self.require(size >= word && size.is_multiple_of(word), || {
            format!("page {page} has an incomplete list of free pages")
        });
        let mut list = FreeList { page, room: (size / word).saturating_sub(1), left: None, before: NO_PAGE };
        let Some(first) = big else { return self.take_free(&mut list, data) };
        list.page = first;
        let mut chunk = vec![0; self.page_size];
        let mut at = 0;
        while at < size && list.left != Some(0) {
            let len = (self.page_size as u64).min(size - at) as usize;
            if !self.read(first, PAGE_HEAD as u64 + at, &mut chunk[..len]) {
                self.is_complete = false;
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
                    self.add_finding(|| {
                        format!("page {page} lists {word} free pages, but has room for {}", list.room)
                    });
                    self.is_complete = false;
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
            return self.add_finding(|| {
                format!("page {from} lists page {number} as free, but the file has no such page")
            });
        }
        if number >= self.free.len() {
            return; // `finish` finds fault with so long a tail.
        }
        if self.used.get(number) {
            self.add_finding(|| format!("page {number} is both free and in use"));
        }
        if self.free.set(number) {
            return self.add_finding(|| format!("page {number} is listed as free twice"));
        }
        self.free_past_end += u64::from(number >= self.file_pages);
        self.walk.free += 1;
        self.report_progress();
    }

    fn within(&mut self, first: u64, pages: u64, from: u64) -> bool {
        let end = first.saturating_add(pages);
        if first < META_PAGES || end - 1 > self.last_page {
            self.add_finding(|| {
                format!("page {from} leads to page {first}, which is not a page of the trees")
            });
            return false;
        }
        if end > self.file_pages {
            self.add_finding(|| format!("page {from} leads to page {}, past the end of the file", end - 1));
            return false;
        }
        true
    }

    /// Marks pages as used. Returns `false` if that is impossible or if they are used already.
    fn claim(&mut self, first: u64, pages: u64, from: u64) -> bool {
        if !self.within(first, pages, from) {
            return false;
        }
        for number in first..first + pages {
            if self.used.set(number) {
                self.add_finding(|| format!("page {from} leads to page {number}, which is in use elsewhere"));
                return false;
            }
            if self.free.get(number) {
                self.add_finding(|| format!("page {number} is both free and in use"));
            }
        }
        true
    }

    fn header(&mut self, number: u64, page: &[u8]) -> u16 {
        let noted = u64_at(page, 0).unwrap_or(NO_PAGE);
        self.require(noted == number, || format!("page {number} is numbered {noted}"));
        u16_at(page, PAGE_FLAGS).unwrap_or(0)
    }

    fn read(&mut self, number: u64, offset: u64, bytes: &mut [u8]) -> bool {
        let read = read_at(self.file, bytes, number * self.page_size as u64 + offset);
        read.inspect_err(|error| self.add_finding(|| format!("page {number} cannot be read: {error}")))
            .is_ok()
    }

    pub(super) fn finish(mut self) -> Walk {
        let (pages, last, in_file) = (self.walk.pages, self.last_page, self.file_pages);
        let in_use = self.used.count() + self.free.count() - self.used.count_common(&self.free);
        self.walk.leaked = pages.saturating_sub(META_PAGES + in_use);
        let unwritten = pages - in_file;
        // After an unreadable list, it is unknown which pages are free.
        if unwritten > MAX_TAIL || self.is_complete && unwritten > self.free_past_end {
            self.add_finding(|| format!("the file ends after {in_file} pages, before its last page, {last}"));
        }
        (self.progress)(pages - self.walk.leaked, pages);
        self.walk
    }
}
