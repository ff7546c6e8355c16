//! The layout of LMDB's data version 1 on 64-bit machines, in native byte order. The comments beside constants are
//! the names in `mdb.c`.

use super::fault::{Fault, VERSION};
use std::fs::File;
use std::io;

pub(super) const META_PAGES: u64 = 2;
pub(super) const META_BYTES: usize = PAGE_HEAD + 136; // MDB_meta
const MAGIC: u32 = 0xbeef_c0de;
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 256..=0x8000; // MAX_PAGESIZE

pub(super) const PAGE_HEAD: usize = 16; // PAGEHDRSZ
pub(super) const PAGE_FLAGS: usize = 10; // mp_flags
pub(super) const PAGE_LOWER: usize = 12; // mp_lower
pub(super) const PAGE_UPPER: usize = 14; // mp_upper
pub(super) const OVERFLOW_PAGES: usize = 12; // mp_pages
pub(super) const BRANCH: u16 = 1;
pub(super) const LEAF: u16 = 2;
pub(super) const OVERFLOW: u16 = 4;
const META: u16 = 8;

pub(super) const NODE_HEAD: usize = 8; // NODESIZE
pub(super) const BIG: u16 = 1; // F_BIGDATA
pub(super) const TREE: u16 = 2; // F_SUBDATA

pub(super) const RECORD_BYTES: usize = 48; // MDB_db
pub(super) const INTEGER_KEY: u16 = 8;
pub(super) const KEY_FORMS: u16 = 0x7e; // MDB_REVERSEKEY to MDB_REVERSEDUP
pub(super) const NO_PAGE: u64 = u64::MAX; // P_INVALID
pub(super) const WORD: usize = 8;

pub(super) struct Meta {
    pub(super) number: u64,
    pub(super) flags: u16,
    pub(super) magic: u32,
    pub(super) version: u32,
    pub(super) map_size: u64,
    pub(super) page_size: u32,
    pub(super) free: TreeRecord,
    pub(super) main: TreeRecord,
    pub(super) last_page: u64,
    pub(super) txn_id: u64,
}

impl Meta {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, meta) = bytes.split_at_checked(PAGE_HEAD)?;
        Some(Self {
            number: u64_at(head, 0)?,
            flags: u16_at(head, PAGE_FLAGS)?,
            magic: u32_at(meta, 0)?,
            version: u32_at(meta, 4)?,
            map_size: u64_at(meta, 16)?,
            page_size: u32_at(meta, 24)?, // md_pad of the free tree
            free: TreeRecord::parse(meta.get(24..)?)?,
            main: TreeRecord::parse(meta.get(72..)?)?,
            last_page: u64_at(meta, 120)?,
            txn_id: u64_at(meta, 128)?,
        })
    }

    /// Whether these bytes may start the first meta page, or a page that has not been written yet.
    pub(super) fn is_possible_prefix(bytes: &[u8]) -> bool {
        let mut start = [0; PAGE_HEAD + 8];
        start[10..12].copy_from_slice(&META.to_ne_bytes());
        start[16..20].copy_from_slice(&MAGIC.to_ne_bytes());
        start[20..].copy_from_slice(&VERSION.to_ne_bytes());
        bytes.iter().zip(&start).all(|(one, other)| one == other) || bytes.iter().all(|byte| *byte == 0)
    }

    /// Reads a meta page until two reads give the same bytes, because another process may be writing it.
    pub(super) fn read(file: &File, at: u64) -> io::Result<Option<Self>> {
        const MAX_READS: u32 = 16;
        let mut last = [0; META_BYTES];
        for _ in 0..MAX_READS {
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

    pub(super) fn check(&self, page: u64, page_size: u32) -> Result<(), Fault> {
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

/// The description of a tree. It is in a meta page, or in the main tree under the name of the tree.
#[derive(Clone, Copy)]
pub(super) struct TreeRecord {
    pub(super) flags: u16,
    pub(super) depth: u16,
    pub(super) counts: Counts,
    pub(super) root: u64,
}

impl TreeRecord {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
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
pub(super) struct Counts {
    pub(super) branch: u64,
    pub(super) leaf: u64,
    pub(super) overflow: u64,
    pub(super) entries: u64,
}

/// A node of a page. In a branch it has a child. In a leaf it has the data, or the number of their first page.
pub(super) struct Node<'p> {
    pub(super) low: u32,
    pub(super) flags: u16,
    pub(super) key: &'p [u8],
    pub(super) data: &'p [u8],
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

    pub(super) fn nth(page: &'p [u8], index: usize, leaf: bool) -> Option<Self> {
        Self::parse(page, usize::from(u16_at(page, PAGE_HEAD + 2 * index)?), leaf)
    }

    pub(super) fn child(&self) -> u64 {
        u64::from(self.low) | u64::from(self.flags) << 32
    }

    fn bytes(&self) -> usize {
        (NODE_HEAD + self.key.len() + self.data.len()).next_multiple_of(2)
    }
}

/// Counts the nodes of a page. Checks that they fill the end of the page without gap or overlap, as in every page of
/// LMDB.
pub(super) fn count_nodes(
    page: &[u8],
    leaf: bool,
    spans: &mut Vec<(usize, usize)>,
) -> Result<usize, &'static str> {
    const BOUNDS: &str = "has its bounds wrong";
    const OUTSIDE: &str = "has a node out of its bounds";
    let lower = u16_at(page, PAGE_LOWER).map(usize::from).ok_or(BOUNDS)?;
    let upper = u16_at(page, PAGE_UPPER).map(usize::from).ok_or(BOUNDS)?;
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

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(unix)]
pub(super) fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(unix)]
pub(super) fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

/// On Windows, LMDB's writes are write-through, so a later sync has nothing to do.
#[cfg(windows)]
pub(super) fn write_at(_: &File, _: &[u8], _: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(windows)]
pub(super) fn read_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
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

/// Reads both meta pages. `None` for an empty file.
pub(super) fn metas(file: &File) -> Result<Option<[Meta; 2]>, Fault> {
    let Some(first) = Meta::read(file, 0)? else {
        return if file.metadata()?.len() == 0 { Ok(None) } else { Err(Fault::Foreign) };
    };
    first.check(0, first.page_size)?;
    let second = Meta::read(file, u64::from(first.page_size))?.ok_or(Fault::Cut)?;
    second.check(1, first.page_size)?;
    Ok(Some([first, second]))
}
