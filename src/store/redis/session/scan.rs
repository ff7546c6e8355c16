//! The calls on all sessions, which scan the keys of every primary.

use std::rc::Rc;

use futures_util::future::join_all;

use super::super::error::{self, unless_foreign};
use super::super::resp::{END_EXPIRED, Reply, Request, number as text};
use super::super::routing::{Attempt, Effect, Node};
use super::context::Context;
use super::cursor::ScanCursor;
use super::key_ring::cipher;
use super::names::pattern;
use super::record::{self, Record};
use super::user_index::{AT_ONCE, GRACE};
use crate::error::Result;
use crate::session::SessionId;
use crate::store::Cursor;

/// How many keys a server looks at in one step.
const STEP: i64 = 1000;

/// The next keys of a cursor, each of which is given once; `None` at the end.
pub async fn next_page(
    context: &Context,
    attempt: &Attempt,
    scan: &mut ScanCursor,
) -> Result<Option<Vec<Vec<u8>>>> {
    context.router.topology.known().await;
    let Some(node) = next_server(context, scan) else { return Ok(None) };
    if context.router.topology.connections_of(&node).await.is_none() {
        scan.now = None;
        return Ok(Some(Vec::new()));
    }
    let generation = node.generation();
    let cursor = match &scan.now {
        Some((_, known, cursor)) if *known == generation => cursor.clone(),
        _ => b"0".to_vec(),
    };
    let (pattern, count) = (pattern(&scan.start), text(STEP));
    let make = |mode| Request::read(mode).command(&[b"SCAN", &cursor, b"MATCH", &pattern, b"COUNT", &count]);
    let Some(reply) = context.router.ask_node(attempt, &node, make).await? else {
        scan.now = None;
        return Ok(Some(Vec::new()));
    };
    // A server that came back while it was asked has begun at a cursor of its past: once more from the start.
    if node.generation() != generation {
        scan.now = Some((node.address(), 0, b"0".to_vec()));
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
        scan.done.push(node.address());
        scan.now = None;
    } else {
        scan.now = Some((node.address(), generation, next.clone()));
    }
    Ok(Some(keys))
}

/// The server with which a cursor goes on; `None` at its end.
fn next_server(context: &Context, cursor: &mut ScanCursor) -> Option<Rc<Node>> {
    let (primaries, version) = (context.router.topology.all_primaries(), context.router.topology.version());
    if let Some((address, ..)) = &cursor.now
        && let Some(node) = primaries.iter().find(|node| node.address() == *address)
    {
        return Some(Rc::clone(node));
    }
    cursor.now = None;
    // Sessions may have gone where the cursor has been.
    if cursor.version.is_some_and(|known| known != version) {
        cursor.done.clear();
    }
    cursor.version = Some(version);
    let node = primaries.into_iter().find(|node| !cursor.done.contains(&node.address()))?;
    cursor.now = Some((node.address(), 0, b"0".to_vec()));
    Some(node)
}

/// The live ones of some sessions, given by their keys.
async fn live_ids(context: &Context, attempt: &Attempt, keys: &[Vec<u8>]) -> Result<Vec<SessionId>> {
    let cipher = cipher(context, attempt).await?;
    let now = context.times.now();
    // What is sealed tells its id only as a whole.
    let last = text(if cipher.is_plain() { record::USER_AT as i64 - 1 } else { -1 });
    let mut ids = Vec::new();
    for some in keys.chunks(AT_ONCE) {
        let heads = join_all(some.iter().map(async |key| {
            let make = |mode| Request::read(mode).command(&[b"GETRANGE", key, b"0", &last]);
            context.router.ask(attempt, key, Effect::None, make).await
        }));
        for (key, head) in some.iter().zip(heads.await) {
            let head = head?;
            // One that cannot be read has no id to give; the others have.
            let Some(Reply::Bytes(head)) = head.first() else { continue };
            if record::times(head).is_ok_and(|(expires, _)| !expires.is_past(now)) {
                let member = &key[context.names.sessions.len()..];
                let id = if cipher.is_plain() {
                    cipher.id_of(member).ok()
                } else {
                    let opened = Record::parse(head).and_then(|record| cipher.open(member, record));
                    opened.ok().flatten().map(|session| session.id)
                };
                ids.extend(id);
            }
        }
    }
    Ok(ids)
}

pub async fn ids(context: &Context, after: Cursor) -> Result<(Vec<SessionId>, Option<Cursor>)> {
    let (number, mut cursor) = context.scans.borrow_mut().take(&after, &context.names.sessions);
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
    for some in keys.chunks(AT_ONCE) {
        let heads = join_all(some.iter().map(async |key| {
            let make = |mode| Request::read(mode).command(&[b"GETRANGE", key, b"0", &last]);
            context.router.ask(attempt, key, Effect::None, make).await
        }));
        for head in heads.await {
            if let Some(Reply::Bytes(head)) = head?.first()
                && record::times(head).is_ok_and(|(expires, _)| !expires.is_past(now))
            {
                live += 1;
            }
        }
    }
    Ok(live)
}

/// Removes all sessions, and then the entries of those: not those of creations under way.
pub async fn clear(context: &Context) -> Result<()> {
    let oldest = text(context.times.stamp_before(GRACE) as i64);
    let mut is_begun = false;
    let mut sessions = ScanCursor::new(&context.names.sessions);
    while let Some(keys) = context
        .router
        .step_of(&mut is_begun, async |attempt| next_page(context, attempt, &mut sessions).await)
        .await?
    {
        let unlink = async |attempt: &Attempt| {
            for some in keys.chunks(AT_ONCE) {
                // Whatever its expiry: no session is live then.
                let end_of_time = text(i64::MAX);
                let removed = join_all(some.iter().map(async |key| {
                    let args: [&[u8]; 1] = [&end_of_time];
                    context.router.run_script(attempt, Effect::Main, &END_EXPIRED, key, &args).await
                }));
                for removed in removed.await {
                    unless_foreign(removed, Reply::Nil)?;
                }
            }
            Ok(())
        };
        context.router.step_of(&mut is_begun, unlink).await?;
    }
    let mut indexes = ScanCursor::new(&context.names.users);
    while let Some(keys) = context
        .router
        .step_of(&mut is_begun, async |attempt| next_page(context, attempt, &mut indexes).await)
        .await?
    {
        let tidy = async |attempt: &Attempt| {
            for some in keys.chunks(AT_ONCE) {
                let tidied = join_all(some.iter().map(async |key| {
                    let args: [&[u8]; 4] = [b"ZREMRANGEBYSCORE", key, b"-inf", &oldest];
                    let make = |mode| Request::write(mode).command(&args);
                    context.router.get_one(attempt, key, Effect::None, make).await
                }));
                for tidied in tidied.await {
                    unless_foreign(tidied, Reply::Nil)?;
                }
            }
            Ok(())
        };
        context.router.step_of(&mut is_begun, tidy).await?;
    }
    Ok(())
}
