//! Checks an LMDB data file page by page. It only reads, and does not use LMDB's map: if the file is truncated, an
//! access to the map ends the process with SIGBUS.

use layout::{META_BYTES, META_PAGES, Meta, metas, read_at, write_at};
use std::fs::File;
use std::io;
use walker::{TreeName, Walker};

pub use fault::Fault;
pub use free::{Free, free};
pub use walker::Walk;

mod allocation;
mod bits;
mod fault;
mod free;
mod layout;
#[cfg(test)]
mod tests;
mod walker;

/// The newest meta page, and the length of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    pub meta_page: u64,
    pub txn_id: u64,
    pub page_size: u32,
    pub last_page: u64,
    pub map_size: u64,
    pub file_len: u64,
}

impl FileHeader {
    /// Whether the file is shorter than the meta page says. It may still be complete, because free pages at the end
    /// may never have been written. [`walk`] finds out.
    pub fn is_short(&self) -> bool {
        self.file_len / u64::from(self.page_size) <= self.last_page
    }
}

/// Reads the meta pages. `None` for an empty file, which LMDB would initialise.
///
/// # Errors
/// Fails for each file that LMDB would or should reject.
pub fn inspect(file: &File) -> Result<Option<FileHeader>, Fault> {
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
    // After the meta pages: a commit extends the file before it writes its meta page.
    let file_len = file.metadata()?.len();
    Ok(Some(FileHeader { meta_page, txn_id, page_size, last_page, map_size, file_len }))
}

/// Rewrites both meta pages with the same bytes, so that the next sync writes them to disk. No other process may
/// change them at the same time. A power loss does not tear them, because a meta page is within one sector.
///
/// # Errors
/// Those of reading or writing the file.
pub fn rewrite_metas(file: &File, page_size: u64) -> io::Result<()> {
    for page in 0..META_PAGES {
        let mut bytes = [0; META_BYTES];
        read_at(file, &mut bytes, page * page_size)?;
        write_at(file, &bytes, page * page_size)?;
    }
    Ok(())
}

/// Whether the first commit was interrupted, so that the file never had any content. A commit writes its meta page
/// after all other pages. Without that page, any part of the others may be missing.
///
/// # Errors
/// Those of reading the file.
pub fn is_never_committed(file: &File) -> io::Result<bool> {
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

/// Whether another process may be writing the first pages at this moment.
///
/// # Errors
/// Those of reading the file.
pub fn may_be_initializing(file: &File) -> io::Result<bool> {
    let len = file.metadata()?.len();
    if len >= META_PAGES * page_size::get() as u64 {
        return is_never_committed(file);
    }
    let mut bytes = [0; META_BYTES];
    let bytes = &mut bytes[..META_BYTES.min(usize::try_from(len).unwrap_or(META_BYTES))];
    match read_at(file, bytes, 0) {
        // Another process is emptying it.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
        read => read.map(|()| Meta::is_possible_prefix(bytes)),
    }
}

/// Checks every page that the transaction can reach. The caller holds a read transaction with this id, so that no
/// writer reuses these pages. `progress` receives the number of checked pages and the total.
///
/// # Errors
/// As for [`inspect`]. `Gone` if a new read transaction is needed. A problem outside the meta pages is a finding, not
/// an error.
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
    walker.tree(TreeName::Free, &meta.free, meta_page);
    walker.tree(TreeName::Main, &meta.main, meta_page);
    Ok(walker.finish())
}
