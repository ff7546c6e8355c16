//! Reads the freelist, as far as a transaction needs it.

use super::fault::Fault;
use super::layout::metas;
use super::layout::{
    BIG, BRANCH, LEAF, META_PAGES, Meta, NO_PAGE, Node, PAGE_FLAGS, PAGE_HEAD, PAGE_LOWER, WORD, read_at,
    u16_at, u64_at,
};
use std::fs::File;

/// The maximum depth of a tree, the same as LMDB's.
const MAX_DEPTH: u16 = 32;

/// The free pages of a file. They include pages that a reader may still see, because the file does not contain the
/// readers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Free {
    /// The pages that the next transaction may use, as lists of the transactions that freed them. The oldest list
    /// comes first. Each list is in ascending order.
    pub lists: Vec<Vec<u64>>,
    /// The number of pages that the last transaction has freed. They can be used after one more transaction.
    pub pending: u64,
}

impl Free {
    /// The number of pages in the lists.
    pub fn listed(&self) -> u64 {
        self.lists.iter().map(|list| list.len() as u64).sum()
    }
}

/// Reads the free pages for the transaction after `txn_id`, up to about `enough` pages. `txn_id` must be the last
/// transaction, and the caller holds the write lock.
///
/// # Errors
/// As for [`inspect`](super::inspect). `Gone` if there is a later transaction, or if the freelist is damaged.
pub fn free(file: &File, txn_id: u64, enough: u64) -> Result<Free, Fault> {
    let metas = metas(file)?.ok_or(Fault::Gone(txn_id))?;
    let meta = &metas[(txn_id % META_PAGES) as usize];
    if meta.txn_id != txn_id {
        return Err(Fault::Gone(txn_id));
    }
    let mut reader = Reader { file, meta, enough, free: Free::default() };
    if meta.free.root != NO_PAGE {
        reader.visit(meta.free.root, 1)?;
    }
    Ok(reader.free)
}

struct Reader<'r> {
    file: &'r File,
    meta: &'r Meta,
    enough: u64,
    free: Free,
}

impl Reader<'_> {
    fn damaged(&self) -> Fault {
        Fault::Gone(self.meta.txn_id)
    }

    fn has_enough(&self) -> bool {
        self.free.listed() >= self.enough
    }

    fn visit(&mut self, number: u64, level: u16) -> Result<(), Fault> {
        let page_size = self.meta.page_size as usize;
        let mut page = vec![0; page_size];
        if level > MAX_DEPTH || number > self.meta.last_page {
            return Err(self.damaged());
        }
        read_at(self.file, &mut page, number.saturating_mul(page_size as u64))?;
        let is_leaf = match u16_at(&page, PAGE_FLAGS) {
            Some(LEAF) => true,
            Some(BRANCH) => false,
            _ => return Err(self.damaged()),
        };
        let nodes = usize::from(u16_at(&page, PAGE_LOWER).unwrap_or(0)).saturating_sub(PAGE_HEAD) / 2;
        for index in 0..nodes {
            // The oldest lists come first.
            if self.has_enough() {
                return Ok(());
            }
            let node = Node::nth(&page, index, is_leaf).ok_or_else(|| self.damaged())?;
            if is_leaf {
                self.record(&node)?;
            } else {
                self.visit(node.child(), level + 1)?;
            }
        }
        Ok(())
    }

    /// Reads the list of one transaction: the number of pages that it freed, and then these pages.
    fn record(&mut self, node: &Node<'_>) -> Result<(), Fault> {
        let txn_id = u64_at(node.key, 0).ok_or_else(|| self.damaged())?;
        let first = u64_at(node.data, 0).ok_or_else(|| self.damaged())?;
        let is_big = node.flags == BIG;
        let big_at = first.saturating_mul(self.meta.page_size.into()).saturating_add(PAGE_HEAD as u64);
        let count = if is_big { self.word(big_at)? } else { first };
        if count > self.meta.last_page {
            return Err(self.damaged());
        }
        if txn_id >= self.meta.txn_id {
            self.free.pending += count;
            return Ok(());
        }
        let wanted = count.min(self.enough - self.free.listed()) as usize;
        let bytes = if is_big {
            let mut bytes = vec![0; wanted * WORD];
            read_at(self.file, &mut bytes, big_at.saturating_add(WORD as u64))?;
            bytes
        } else {
            node.data.get(WORD..(wanted + 1) * WORD).ok_or_else(|| self.damaged())?.to_vec()
        };
        self.free.lists.push(bytes.chunks_exact(WORD).rev().filter_map(|word| u64_at(word, 0)).collect());
        Ok(())
    }

    fn word(&self, at: u64) -> Result<u64, Fault> {
        let mut bytes = [0; WORD];
        read_at(self.file, &mut bytes, at)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}
