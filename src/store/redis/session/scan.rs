//! The calls on all sessions, which scan the keys of every primary.

use std::rc::Rc;

use futures_util::future::join_all;

use super::super::error::{self, unless_foreign};
use super::super::resp::{END_EXPIRED, Reply, Request, number as text};
use super::super::routing::{Attempt, Effect, SlotView};
use super::context::Context;
use super::cursor::ScanCursor;
use super::key_ring::cipher;
use super::names::pattern;
use super::record::{self, Record};
use super::user_index::{BATCH_SIZE, EntryState, Owner, entries, forget_all, is_old, look_up};
use super::window::Window;
use crate::error::{Result, StoreError};
use crate::session::SessionId;
use crate::store::{Cursor, Page};

/// How many keys a server looks at for one `SCAN`.
const STEP: i64 = 1000;

/// How many indexes are cleared together.
const INDEX_BATCH: usize = 64;

/// How many rounds a scan takes to follow moving slots before it fails.
const MAX_ROUNDS: u32 = 10;

/// The next keys of a scan. `None` at the end.
///
/// # Errors
/// `Unavailable` if slots move so often that keys may have been missed.
pub async fn next_page(
    context: &Context,
    attempt: &Attempt,
    scan: &mut ScanCursor,
) -> Result<Option<Vec<Vec<u8>>>> {
    if scan.nodes.is_empty() {
        begin_round(context, attempt, scan).await?;
    }
    let Some(node) = scan.nodes.last().map(Rc::clone) else { return Ok(None) };
    let is_there = context.router.topology.connections_of(&node).await.is_some();
    let generation = node.generation();
    let cursor = match &scan.now {
        Some((known, cursor)) if *known == generation => cursor.clone(),
        _ => b"0".to_vec(),
    };
    let (pattern, count) = (pattern(&scan.start), text(STEP));
    let make = |mode| Request::read(mode).command(&[b"SCAN", &cursor, b"MATCH", &pattern, b"COUNT", &count]);
    let reply = if is_there { context.router.ask_node(attempt, &node, make).await? } else { None };
    let Some(reply) = reply else {
        // Another node has taken over its slots. It may have been scanned before that.
        (scan.view, scan.moves, scan.now) = (None, None, None);
        scan.nodes.clear();
        return Ok(Some(Vec::new()));
    };
    // After a reconnect, the server may have continued from an invalid cursor. The node is scanned again from the
    // start.
    if node.generation() != generation {
        scan.now = None;
        return Ok(Some(Vec::new()));
    }
    let Reply::Array(parts) = reply else { return Err(error::unexpected()) };
    let [Reply::Bytes(next), Reply::Array(keys)] = &parts[..] else {
        return Err(error::unexpected());
    };
    let keys = keys.iter().filter_map(|key| match key {
        Reply::Bytes(key) if scan.is_new(key) => Some(key.clone()),
        _ => None,
    });
    let keys = keys.collect();
    if next == b"0" {
        scan.nodes.pop();
        scan.now = None;
    } else {
        scan.now = Some((generation, next.clone()));
    }
    Ok(Some(keys))
}

/// Chooses the nodes to scan: all nodes in the first round, then those to which slots have moved.
async fn begin_round(context: &Context, attempt: &Attempt, scan: &mut ScanCursor) -> Result<()> {
    let topology = &context.router.topology;
    topology.known().await;
    if scan.rounds == MAX_ROUNDS {
        return Err(StoreError::unavailable("slots kept moving while the cluster was scanned"));
    }
    let view = SlotView::look(&context.router, attempt).await?;
    (scan.nodes, scan.moves) = match (&scan.view, &view) {
        (None, Some(now)) => (now.nodes(), None),
        (Some(before), Some(now)) => {
            let moves = match &scan.moves {
                None => before.moves_until(now),
                Some(followed) => before.moves_after(now, followed),
            };
            (now.nodes_of(&moves), Some(moves))
        }
        // Without a cluster there is one server.
        (_, None) if scan.rounds == 0 => (topology.all_primaries(), None),
        (_, None) => (Vec::new(), None),
    };
    scan.view = view;
    scan.rounds += 1;
    Ok(())
}

/// The ids of the live sessions among some keys.
async fn live_ids(context: &Context, attempt: &Attempt, keys: &[Vec<u8>]) -> Result<Vec<SessionId>> {
    let cipher = cipher(context, attempt).await?;
    let now = context.times.now();
    // An encrypted record contains the id only in its payload.
    let last = text(if cipher.is_plain() { record::USER_AT as i64 - 1 } else { -1 });
    let mut ids = Vec::new();
    let (mut rest, mut window) = (keys, Window::new());
    while let Some(batch) = window.take(&mut rest) {
        let mut bytes = 0;
        let heads = join_all(batch.iter().map(async |key| {
            let make = |mode| Request::read(mode).command(&[b"GETRANGE", key, b"0", &last]);
            context.router.ask(attempt, key, Effect::None, make).await
        }));
        for (key, head) in batch.iter().zip(heads.await) {
            let head = head?;
            // A session that cannot be read is skipped.
            let Some(Reply::Bytes(head)) = head.first() else { continue };
            bytes += head.len();
            if record::end(head, &context.times).is_ok_and(|(expires, _)| !expires.is_past(now)) {
                let member = &key[context.names.sessions.len()..];
                let id = if cipher.is_plain() {
                    cipher.id_of(member).ok()
                } else {
                    let opened = Record::parse(head).and_then(|record| cipher.decode(member, record));
                    opened.ok().flatten().map(|session| session.id)
                };
                ids.extend(id);
            }
        }
        window.adapt(batch.len(), bytes);
    }
    Ok(ids)
}

pub async fn ids(context: &Context, after: Cursor) -> Result<(Vec<SessionId>, Option<Cursor>)> {
    let (number, mut cursor) = context.scans.borrow_mut().take(&after, &context.names.sessions)?;
    let page = context
        .router
        .step(async |attempt| {
            let Some(keys) = next_page(context, attempt, &mut cursor).await? else { return Ok(None) };
            Ok(Some(live_ids(context, attempt, &keys).await?))
        })
        .await?;
    let Some(ids) = page else { return Ok((Vec::new(), None)) };
    context.scans.borrow_mut().keep(number, cursor);
    Ok((ids, Some(Cursor::from_bytes(&number.to_le_bytes()))))
}

/// The next page of whole sessions.
pub async fn sessions(context: &Context, after: Cursor) -> Result<Page> {
    let (number, mut scan) = context.scans.borrow_mut().take(&after, &context.names.sessions)?;
    let mut page = Page::default();
    let is_over = context
        .router
        .step(async |attempt| {
            if scan.unread.is_empty() {
                let Some(keys) = next_page(context, attempt, &mut scan).await? else { return Ok(true) };
                scan.unread = keys;
            }
            read_some(context, attempt, &mut scan, &mut page).await?;
            Ok(false)
        })
        .await?;
    if !is_over {
        context.scans.borrow_mut().keep(number, scan);
        page.next = Some(Cursor::from_bytes(&number.to_le_bytes()));
    }
    Ok(page)
}

/// Reads sessions of a scan until the page is full or none is left.
async fn read_some(
    context: &Context,
    attempt: &Attempt,
    scan: &mut ScanCursor,
    page: &mut Page,
) -> Result<()> {
    let cipher = cipher(context, attempt).await?;
    while !scan.unread.is_empty() && !page.is_full() {
        let count = scan.unread.len().min(scan.window.size()).min(page.room());
        let batch = scan.unread.split_off(scan.unread.len() - count);
        let values = join_all(batch.iter().map(async |key| {
            let get = |mode| Request::read(mode).command(&[b"GET", key]);
            context.router.get_one(attempt, key, Effect::None, get).await
        }));
        let mut bytes = 0;
        for (key, value) in batch.iter().zip(values.await) {
            let Reply::Bytes(value) = unless_foreign(value, Reply::Nil)? else { continue };
            bytes += value.len();
            // An encrypted store ignores plaintext sessions from before it had a secret.
            if !cipher.is_plain() && record::is_plain(&value) {
                continue;
            }
            let member = &key[context.names.sessions.len()..];
            if let Some(session) = cipher.decode_live(member, &value, &context.times).transpose() {
                page.add(session);
            }
        }
        scan.window.adapt(count, bytes);
    }
    Ok(())
}

/// Ends a scan of ids or sessions early.
pub fn end_scan(context: &Context, at: &Cursor) {
    context.scans.borrow_mut().end(at);
}

pub async fn size(context: &Context) -> Result<u64> {
    let mut live = 0;
    let mut cursor = ScanCursor::new(&context.names.sessions);
    while let Some(keys) =
        context.router.step(async |attempt| next_page(context, attempt, &mut cursor).await).await?
    {
        live += context.router.step(async |attempt| count_live(context, attempt, &keys).await).await?;
    }
    Ok(live)
}

async fn count_live(context: &Context, attempt: &Attempt, keys: &[Vec<u8>]) -> Result<u64> {
    let (now, last) = (context.times.now(), text(record::USER_AT as i64 - 1));
    let mut live = 0;
    for batch in keys.chunks(BATCH_SIZE) {
        let heads = join_all(batch.iter().map(async |key| {
            let make = |mode| Request::read(mode).command(&[b"GETRANGE", key, b"0", &last]);
            context.router.ask(attempt, key, Effect::None, make).await
        }));
        for head in heads.await {
            if let Some(Reply::Bytes(head)) = head?.first()
                && record::end(head, &context.times).is_ok_and(|(expires, _)| !expires.is_past(now))
            {
                live += 1;
            }
        }
    }
    Ok(live)
}

/// Removes all sessions, then their entries. Keeps the entries of pending creations.
pub async fn clear(context: &Context) -> Result<()> {
    let mut may_have_changed = false;
    let mut sessions = ScanCursor::repeating(&context.names.sessions);
    while let Some(keys) = context
        .router
        .changing_step(&mut may_have_changed, async |attempt| {
            next_page(context, attempt, &mut sessions).await
        })
        .await?
    {
        context
            .router
            .changing_step(&mut may_have_changed, async |attempt| remove(context, attempt, &keys).await)
            .await?;
    }
    clear_indexes(context, &mut may_have_changed).await
}

/// Removes sessions. Leaves foreign values alone.
async fn remove(context: &Context, attempt: &Attempt, keys: &[Vec<u8>]) -> Result<()> {
    // At this time every session has expired.
    let end_of_time = text(i64::MAX);
    for batch in keys.chunks(BATCH_SIZE) {
        let removed = join_all(batch.iter().map(async |key| {
            let args: [&[u8]; 1] = [&end_of_time];
            let removed = context.router.run_script(attempt, Effect::Main, &END_EXPIRED, key, &args).await;
            if removed == Ok(Reply::Number(0)) {
                attempt.changed_nothing();
            }
            removed
        }));
        for removed in removed.await {
            unless_foreign(removed, Reply::Nil)?;
        }
    }
    Ok(())
}

/// Removes old entries, after removing each session that they still name.
pub async fn clear_indexes(context: &Context, may_have_changed: &mut bool) -> Result<()> {
    let mut indexes = ScanCursor::repeating(&context.names.users);
    while let Some(keys) = context
        .router
        .changing_step(may_have_changed, async |attempt| next_page(context, attempt, &mut indexes).await)
        .await?
    {
        for batch in keys.chunks(INDEX_BATCH) {
            let clear = async |attempt: &Attempt| {
                let cleared = join_all(batch.iter().map(|index| clear_index(context, attempt, index))).await;
                cleared.into_iter().collect::<Result<()>>()
            };
            context.router.changing_step(may_have_changed, clear).await?;
        }
    }
    Ok(())
}

async fn clear_index(context: &Context, attempt: &Attempt, index: &[u8]) -> Result<()> {
    let Some(owner) = Owner::of(index, &context.names.users) else { return Ok(()) };
    let mut old = unless_foreign(entries(context, attempt, index).await, Vec::new())?;
    old.retain(|(_, version)| is_old(context, *version));
    for batch in old.chunks(BATCH_SIZE) {
        let named = look_up(context, attempt, batch, &owner).await?;
        let is_there = |named: &EntryState| matches!(named, EntryState::Live(_) | EntryState::Expired(_));
        let left = batch.iter().zip(&named).filter(|(_, named)| is_there(named));
        let keys: Vec<_> = left.map(|((member, _), _)| context.names.session(member)).collect();
        remove(context, attempt, &keys).await?;
        forget_all(context, attempt, index, batch).await;
    }
    Ok(())
}
