//! The calls on one session.

use std::rc::Rc;

use futures_util::future::try_join;

use super::super::counters::Counters;
use super::super::error::FOREIGN;
use super::super::resp::{CREATE, END_OF_USER, Reply, Request, number as text};
use super::super::routing::{Attempt, Effect};
use super::super::time::Stamp;
use super::commands::{
    Change, Creation, Entry, StaleEntry, created_field, delete_request, get_request, touch_request,
};
use super::context::Context;
use super::key_ring::cipher;
use super::names::UserField;
use super::new_session::NewSession;
use super::op::{Kind, Step, index_len, interpret, is_entered};
use super::record::Record;
use super::user_index::{enter, forget, forget_later, limit, undo_entry, version};
use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::session::{Expiry, SessionId};
use crate::store::StoredSession;

/// Stores a session, unless a live one has its id.
///
/// Its user's index knows it first: an entry without a session is only passed over, but a session without one would
/// be missed. The index is on another node of a cluster, so it has to have answered before; one server does one
/// after the other. A session that was stored is created, even if there is no time left to end older ones.
pub async fn create(
    context: &Rc<Context>,
    attempt: &Attempt,
    session: &NewSession,
    created: Stamp,
) -> Result<()> {
    let cipher = cipher(context, attempt).await?;
    let creation = Creation::new(session, created, &cipher, &context.names, &context.times)?;
    let Creation { key, member, user, .. } = &creation;
    let router = &context.router;
    let counts = context.options.max_sessions_per_user.is_some();
    let (mut entered, mut is_own) = (0, true);
    let make = if user.is_nobody() || router.topology.is_one_server() {
        |creation: &Creation, mode, counts| creation.request(Request::write(mode), counts)
    } else {
        let enter = |mode| creation.entry().enter(Request::write(mode), counts);
        let replies = router.get_all(attempt, &creation.index, Effect::None, enter).await?;
        (entered, is_own) = (index_len(&replies), is_entered(&replies));
        |creation: &Creation, mode, _| creation.set(Request::write(mode))
    };
    let replies = router.ask(attempt, key, Effect::Main, |mode| make(&creation, mode, counts)).await?;
    match interpret(Kind::Create, &replies) {
        Step::Created { index_len, is_entered } => {
            (entered, is_own) = (entered.max(index_len), is_own && is_entered);
        }
        Step::Occupied => {
            let before = &replies[..replies.len() - 1];
            (entered, is_own) = (entered.max(index_len(before)), is_own && is_entered(before));
            replace_expired(context, attempt, &creation, is_own).await?;
        }
        step => {
            // A session must not be without its entry.
            if attempt.is_repeated() || matches!(step, Step::Unentered(_)) {
                let taken_back = take_back(context, attempt, key, user, created).await;
                taken_back.map_err(|error| attempt.in_part(error))?;
            }
            return Err(step.error());
        }
    }
    Counters::add(&context.counters.created, 1);
    if !is_own || attempt.is_repeated() {
        // A process that has seen the entry before may remove it, as one that ended the session in between does.
        let entered = enter(context, attempt, &creation.entry(), false).await;
        entered.map_err(|error| attempt.in_part(error))?;
    }
    Box::pin(limit(context, attempt, user, member, entered, Some(created), session.expires)).await;
    Ok(())
}

/// Creates a session where the server holds one, unless that is live.
async fn replace_expired(
    context: &Context,
    attempt: &Attempt,
    creation: &Creation,
    is_entered: bool,
) -> Result<()> {
    let (now, created) = (text(context.times.now()), created_field(creation.created));
    let make = |mode| {
        let args: [&[u8]; 4] = [&now, &creation.value, &creation.until, &created];
        // The live one may be this one only if it was sent before: stamps of two processes may be alike.
        let args = if attempt.is_repeated() { &args[..] } else { &args[..3] };
        Request::write(mode).script(&CREATE, &creation.key, args)
    };
    match context.router.get_one(attempt, &creation.key, Effect::Main, make).await? {
        Reply::Number(1) => Ok(()),
        Reply::Bytes(live) => {
            if is_entered {
                undo_entry(context, attempt, &creation.entry(), &creation.user, &live).await;
            }
            Err(StoreError::Exists)
        }
        _ => Err(FOREIGN),
    }
}

pub async fn get(context: &Context, attempt: &Attempt, id: &SessionId) -> Result<Option<StoredSession>> {
    let cipher = cipher(context, attempt).await?;
    let member = cipher.member(id);
    let key = context.names.session(&member);
    let make = |mode| get_request(Request::read(mode), &key);
    let replies = context.router.ask(attempt, &key, Effect::None, make).await?;
    let found = match interpret(Kind::Get, &replies) {
        Step::NotFound => None,
        Step::Found(value) => cipher.open_live(&member, value, &context.times)?,
        step => return Err(step.error()),
    };
    context.counters.looked_up(found.is_some());
    Ok(found)
}

/// Replaces a live session. That of another user is left alone at first, as the new one's index must know it before.
pub async fn update(context: &Context, attempt: &Attempt, session: &NewSession) -> Result<bool> {
    let cipher = cipher(context, attempt).await?;
    let member = cipher.member(&session.id);
    let key = context.names.session(&member);
    let user = cipher.user(session.user());
    let change = Change::new(session, key, &member, &user, &cipher, &context.times)?;
    loop {
        if let Some(found) = replace(context, attempt, &change, &user, None).await? {
            return Ok(found);
        }
        let expires = session.expires;
        if let Some(found) = Box::pin(change_user(context, attempt, &change, &member, &user, expires)).await?
        {
            return Ok(found);
        }
    }
}

/// Replaces the live session of another user, and tells whether there is one; `None` if it has changed meanwhile.
async fn change_user(
    context: &Context,
    attempt: &Attempt,
    change: &Change,
    member: &[u8],
    user: &UserField,
    expires: Expiry,
) -> Result<Option<bool>> {
    let key = &change.key;
    let get = |mode| Request::read(mode).command(&[b"GET", key]);
    let Reply::Bytes(old) = context.router.get_one(attempt, key, Effect::None, get).await? else {
        return Ok(Some(false));
    };
    let old = Record::parse(&old)?;
    if old.expires.is_past(context.times.now()) {
        return Ok(Some(false));
    }
    if old.user == user.json {
        return Ok(None);
    }
    let old_user = UserField { json: old.user.to_vec() };
    let (index, old_index) = (user.index(&context.names), old_user.index(&context.names));
    let entry = Entry { index: &index, member, version: context.times.stamp() };
    let counts = context.options.max_sessions_per_user.is_some();
    let new_entry = async {
        if user.is_nobody() { Ok(None) } else { enter(context, attempt, &entry, counts).await.map(Some) }
    };
    let old_version = async {
        if old_user.is_nobody() { Ok(None) } else { version(context, attempt, &old_index, member).await }
    };
    let (entered, old_version) = try_join(new_entry, old_version).await?;
    let replaced = replace(context, attempt, change, &old_user, Some(old.created)).await?;
    if replaced == Some(true) {
        if let Some((_, index_len)) = entered {
            // Whoever has seen the entry before the session was the user's may remove it.
            let entered = enter(context, attempt, &entry, false).await;
            entered.map_err(|error| attempt.in_part(error))?;
            Box::pin(limit(context, attempt, user, member, index_len, None, expires)).await;
        }
        if let Some(version) = old_version {
            forget(context, attempt, &Entry { index: &old_index, member, version }).await;
        }
    }
    // If the session is not the user's, the entry is passed over, and removed when it is old enough.
    Ok(replaced)
}

pub async fn touch(
    context: &Context,
    attempt: &Attempt,
    id: &SessionId,
    expires: Expiry,
    enough: Option<Millis>,
) -> Result<bool> {
    let key = cipher(context, attempt).await?.key(&context.names, id);
    let make = |mode| touch_request(Request::write(mode), &key, expires, enough, &context.times);
    let replies = context.router.ask(attempt, &key, Effect::Main, make).await?;
    match interpret(Kind::Touch, &replies) {
        Step::Number(touched) => Ok(touched > 0),
        step => Err(refusal(attempt, &step)),
    }
}

/// Removes a session. Its entry follows, without being waited for: it is passed over until then.
pub async fn delete(context: &Rc<Context>, attempt: &Attempt, id: &SessionId) -> Result<()> {
    let member = cipher(context, attempt).await?.member(id);
    let key = context.names.session(&member);
    let make = |mode| delete_request(Request::write(mode), &key);
    let replies = context.router.ask(attempt, &key, Effect::Main, make).await?;
    match interpret(Kind::Delete, &replies) {
        Step::Number(_) => Ok(()),
        Step::Deleted(value) => {
            if let Some(stale) = StaleEntry::of(member, value, &context.names) {
                forget_later(context, stale);
            }
            Ok(())
        }
        step => Err(refusal(attempt, &step)),
    }
}

/// Replaces the session if it is live, and returns whether it is; `None` if it is another user's, or of another creation.
async fn replace(
    context: &Context,
    attempt: &Attempt,
    change: &Change,
    user: &UserField,
    created: Option<Stamp>,
) -> Result<Option<bool>> {
    let make = |mode| change.replace(Request::write(mode), user, created, &context.times);
    let replies = context.router.ask(attempt, &change.key, Effect::Main, make).await?;
    match interpret(Kind::Update, &replies) {
        Step::Number(found) => Ok(Some(found > 0)),
        Step::OtherUser => Ok(None),
        step => Err(refusal(attempt, &step)),
    }
}

/// The error of a write that was refused. If its answer was lost before, it may have been carried out then.
fn refusal(attempt: &Attempt, step: &Step<'_>) -> StoreError {
    match step {
        Step::Refused(_) => attempt.in_part(step.error()),
        step => step.error(),
    }
}

/// Ends a session that was created without its entry.
async fn take_back(
    context: &Context,
    attempt: &Attempt,
    key: &[u8],
    user: &UserField,
    created: Stamp,
) -> Result<()> {
    let (now, user, created) = (text(context.times.now()), user.to_match(), created_field(created));
    let args: [&[u8]; 3] = [&now, &user, &created];
    context.router.run_script(attempt, Effect::Main, &END_OF_USER, key, &args).await.map(drop)
}
