//! Passes the results of calls through the cache on their way to the callers.

use super::super::queue::Results;
use super::{NearCache, PROBE};
use crate::error::StoreError;
use crate::session::{Content, Expiry};

/// Forwards results, and records each in the cache.
pub struct CachingResults<'a, R> {
    pub results: &'a mut R,
    pub cache: Option<NearCache>,
    /// Whether the server of this connection sends invalidations.
    pub is_tracked: bool,
}

impl<R> CachingResults<'_, R> {
    fn end(&mut self, ticket: u32) -> bool {
        if let Some(cache) = &mut self.cache {
            cache.end(ticket);
        }
        ticket != PROBE
    }
}

impl<R: Results> Results for CachingResults<'_, R> {
    fn number(&mut self, ticket: u32, number: u64) {
        if self.end(ticket) {
            self.results.number(ticket, number);
        }
    }

    fn session(&mut self, ticket: u32, session: Option<(Expiry, Content<'_>)>) {
        if let (Some(cache), Some((expires, content)), true) = (&mut self.cache, session, self.is_tracked) {
            cache.load(ticket, expires, content);
        }
        if self.end(ticket) {
            self.results.session(ticket, session);
        }
    }

    fn refused(&mut self, ticket: u32, error: &StoreError) {
        if self.end(ticket) {
            self.results.refused(ticket, error);
        }
    }
}
