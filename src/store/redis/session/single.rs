//! Reads, touches and deletes a session by its id.

use std::rc::Rc;

use super::super::resp::{Reply, Request};
use super::super::routing::{Attempt, Effect};
use super::cipher::Cipher;
use super::commands::{StaleEntry, delete_request, get_request, touch_request};
use super::context::Context;
use super::names::UserField;
use super::op::{CallReply, OpKind, interpret};
use super::record::{self, Record};
use super::user_index::{forget_later, prolong};
use crate::clock::Millis;
use crate::error::Result;
use crate::session::{Expiry, SessionId};
use crate::store::StoredSession;

pub async fn get(
    context: &Context,
    attempt: &Attempt,
    cipher: &Cipher,
    id: &SessionId,
) -> Result<Option<StoredSession>> {
    let member = cipher.member(id);
    let key = context.names.session(&member);
    let make = |mode| get_request(Request::read(mode), &key);
    let replies = context.router.ask(attempt, &key, Effect::None, make).await?;
    let found = match interpret(OpKind::Get, &replies) {
        CallReply::NotFound => None,
        CallReply::Found(value) => cipher.decode_live(&member, value, &context.times)?,
        step => return Err(step.error()),
    };
    context.counters.looked_up(found.is_some());
    Ok(found)
}

pub async fn touch(
    context: &Context,
    attempt: &Attempt,
    cipher: &Cipher,
    id: &SessionId,
    expires: Expiry,
    enough: Option<Millis>,
) -> Result<bool> {
    let member = cipher.member(id);
    let key = context.names.session(&member);
    let mut prolonged = None;
    loop {
        let make = |mode| {
            let prolonged = prolonged.as_deref();
            touch_request(Request::write(mode), &key, expires, enough, prolonged, &context.times)
        };
        let replies = context.router.ask(attempt, &key, Effect::Main, make).await?;
        match interpret(OpKind::Touch, &replies) {
            CallReply::Number(touched) => return Ok(touched > 0),
            CallReply::OutlivesIndex => {
                attempt.changed_nothing();
                prolonged = Box::pin(prolong_for(context, attempt, &key, &member, expires)).await?;
            }
            step => return Err(step.error()),
        }
    }
}

/// Prolongs the index of a session's user for a new expiry. Returns the creation and user in the session's record,
/// and `None` if the session has ended.
async fn prolong_for(
    context: &Context,
    attempt: &Attempt,
    key: &[u8],
    member: &[u8],
    expires: Expiry,
) -> Result<Option<Vec<u8>>> {
    let get = |mode| get_request(Request::read(mode), key);
    let Reply::Bytes(value) = context.router.get_one(attempt, key, Effect::None, get).await? else {
        return Ok(None);
    };
    let record = Record::parse(&value)?;
    let (user, until) =
        (UserField { json: record.user.to_vec() }, context.times.index_end(record.created, expires));
    prolong(context, attempt, &user, member, until).await?;
    Ok(Some(record::owner(&value, &record).to_vec()))
}

/// Removes a session. Its entry is removed in the background, and readers ignore it until then.
pub async fn delete(context: &Rc<Context>, attempt: &Attempt, cipher: &Cipher, id: &SessionId) -> Result<()> {
    let member = cipher.member(id);
    let key = context.names.session(&member);
    let make = |mode| delete_request(Request::write(mode), &key);
    let replies = context.router.ask(attempt, &key, Effect::Main, make).await?;
    match interpret(OpKind::Delete, &replies) {
        CallReply::Number(_) => Ok(()),
        CallReply::Deleted(value) => {
            context.counters.deleted(id, || cipher.user_of(&member, value));
            if let Some(stale) = StaleEntry::of(member, value, &context.names) {
                forget_later(context, stale);
            }
            Ok(())
        }
        step => Err(step.error()),
    }
}
