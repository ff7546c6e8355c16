//! A check of an LMDB data file, page by page, that only reads, and never through LMDB's map: where the file was
//! cut short, the map would answer with a bus error.

use layout::{META_BYTES, META_PAGES, Meta, metas, read_at, write_at};
use std::fs::File;
use std::io;
use walker::{Name, Walker};

pub use fault::Fault;
pub use free::{Free, free};
pub use walker::Walk;

mod bits;
mod fault;
mod free;
mod layout;
#[cfg(test)]
mod tests;
mod walker;

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

/// Writes both meta pages again, with the bytes that they have, so that the next sync writes them to the disk. Nobody may
/// change them meanwhile. They are not torn by a power loss: a meta page is in one sector.
///
/// # Errors
/// Where the file cannot be read or written.
pub fn rewrite_metas(file: &File, page_size: u64) -> io::Result<()> {
    for page in 0..META_PAGES {
        let mut bytes = [0; META_BYTES];
        read_at(file, &mut bytes, page * page_size)?;
        write_at(file, &bytes, page * page_size)?;
    }
    Ok(())
}

/// Whether the first commit of all was cut off, so that there was never anything in the file. Before that commit's meta
/// page all others are on disk; without it, any part of them may be.
///
/// # Errors
/// Where it cannot be read.
pub fn is_unborn(file: &File) -> io::Result<bool> {
    /// More than the first commit writes.
    const FIRST_PAGES: u64 = 16;
    let page_size = page_size::get() as u64;
    let len = file.metadata()?.len();
    if len > FIRST_PAGES * page_size || len % page_size > 0 {
        return Ok(false);
    }
    for page in (0..META_PAGES).take_while(|page| page * page_size < len) {
        let mut bytes = [0; META_BYTES];
        read_at(file, &mut bytes, page * page_size)?;
        let is_first = Meta::parse(&bytes)
            .is_some_and(|meta| meta.check(page, page_size as u32).is_ok() && meta.txn_id == 0);
        if bytes != [0; META_BYTES] && !is_first {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether another process may be writing the first pages of the file, so that it will be whole in a moment.
///
/// # Errors
/// Where it cannot be read.
pub fn may_be_begun(file: &File) -> io::Result<bool> {
    let len = file.metadata()?.len();
    if len >= META_PAGES * page_size::get() as u64 {
        return is_unborn(file);
    }
    let mut bytes = [0; META_BYTES];
    let bytes = &mut bytes[..META_BYTES.min(usize::try_from(len).unwrap_or(META_BYTES))];
    match read_at(file, bytes, 0) {
        // It is being emptied.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
        read => read.map(|()| Meta::may_begin(bytes)),
    }
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
