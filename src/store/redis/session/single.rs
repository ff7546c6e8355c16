//! The calls on one session.

use std::rc::Rc;

use futures_util::future::try_join;

use super::super::counters::Counters;
use super::super::error::FOREIGN;
use super::super::resp::{END_OF_USER, Reply, Request, number as text};
use super::super::routing::{Attempt, Effect};
use super::super::time::Stamp;
use super::cipher::Cipher;
use super::commands::{
    Change, Creation, Entry, Reentry, StaleEntry, created_field, delete_request, get_request, touch_request,
};
use super::context::Context;
use super::names::UserField;
use super::new_session::NewSession;
use super::op::{Kind, Step, interpret};
use super::record::{self, Record};
use super::user_index::{enter, forget, forget_later, limit, may_forget, prolong, undo_entry, version};
use super::watch::know_time;
use crate::clock::Millis;
use crate::error::{Result, StoreError};
use crate::session::{Expiry, SessionId};
use crate::store::StoredSession;

/// Stores a session, unless a live one has its id.
///
/// Its user's index knows it first: an entry without a session is only passed over, but a session without one would
/// be missed. On a single server one step does both: a transaction, or a script where the server holds a session of the id,
/// or may have been sent the creation before, or takes no such transactions. In a cluster the index is on another node, which
/// has to have answered before. A session that was stored is created, even if there is no time left to end older ones.
pub async fn create(
    context: &Rc<Context>,
    attempt: &Attempt,
    cipher: &Cipher,
    session: &NewSession,
    stamp: Option<Stamp>,
) -> Result<()> {
    know_time(context, attempt, || cipher.key(&context.names, &session.id)).await?;
    // What may be stored already is known by the stamp with which it was sent.
    let stamp = stamp.filter(|_| attempt.is_repeated());
    let created = stamp.unwrap_or_else(|| context.times.stamp());
    let creation = Creation::new(session, created, cipher, &context.names, &context.times)?;
    let Creation { member, user, index_end, .. } = &creation;
    let has_index = !user.is_nobody();
    let is_apart = has_index && !context.router.topology.is_one_server();
    let mut entered = 0;
    if is_apart {
        entered = enter(context, attempt, &creation.entry(), *index_end, Reentry::Renew).await?;
    }
    let stored = if is_apart {
        store(context, attempt, &creation, |request, _| creation.set(request)).await?
    } else if has_index && (attempt.is_repeated() || !context.transactions.are_taken()) {
        Stored::Untried
    } else {
        let counts = context.options.max_sessions_per_user.is_some();
        let transaction = |request, version| creation.transaction(request, version, counts);
        store(context, attempt, &creation, transaction).await?
    };
    match stored {
        Stored::Yes { index_len } => entered = entered.max(index_len),
        stored => {
            let index_len = store_by_script(context, attempt, &creation, stored, !is_apart).await?;
            entered = entered.max(index_len);
        }
    }
    Counters::add(&context.counters.created, 1);
    if attempt.is_repeated() && is_apart {
        // In between another process may have ended the session and removed its entry.
        enter(context, attempt, &creation.entry(), *index_end, Reentry::Renew).await?;
    }
    Box::pin(limit(context, attempt, user, member, entered, Some(created), creation.expires)).await;
    Ok(())
}

/// Whether a session is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stored {
    Yes {
        index_len: u64,
    },
    /// The server takes no such request, and has changed nothing.
    Untried,
    /// There is another one.
    No,
    /// Perhaps, without its entry.
    Perhaps,
}

/// Stores a session where the server holds none. `make` adds to a request what does that, by the version of the entry.
async fn store(
    context: &Context,
    attempt: &Attempt,
    creation: &Creation,
    make: impl Fn(Request, Stamp) -> Request,
) -> Result<Stored> {
    let make = |mode| {
        // If it was sent before, its entry may have been seen since, and its session ended.
        let version = if attempt.is_repeated() { context.times.stamp() } else { creation.version };
        make(Request::write(mode), version)
    };
    let replies = context.router.ask(attempt, &creation.key, Effect::Main, make).await?;
    Ok(match interpret(Kind::Create, &replies) {
        Step::Created { index_len } => Stored::Yes { index_len },
        Step::Occupied => {
            attempt.changed_nothing();
            Stored::No
        }
        Step::PartlyRefused(reason) => {
            context.transactions.were_refused(reason);
            Stored::Perhaps
        }
        Step::Refused(reason) if context.transactions.were_refused(reason) => Stored::Untried,
        step => return Err(step.error()),
    })
}

/// Creates a session unless a live one is stored, and its entry in the same step if the server `has_index`. Returns how many
/// entries the index has, if that matters.
async fn store_by_script(
    context: &Context,
    attempt: &Attempt,
    creation: &Creation,
    stored: Stored,
    has_index: bool,
) -> Result<u64> {
    let make = |mode| {
        let is_repeated = attempt.is_repeated();
        // If it was sent before, its entry may have been seen since.
        let is_first = stored == Stored::Untried && !is_repeated;
        let version = if is_first { creation.version } else { context.times.stamp() };
        let may_be_stored = stored == Stored::Perhaps || is_repeated;
        let counts = context.options.max_sessions_per_user.is_some();
        let entry = has_index.then_some(version);
        creation.script(Request::write(mode), entry, counts, may_be_stored, &context.times)
    };
    match context.router.get_one(attempt, &creation.key, Effect::Main, make).await {
        Ok(Reply::Number(index_len @ 1..)) => Ok(index_len.unsigned_abs()),
        Ok(Reply::Bytes(live)) => {
            if !has_index {
                undo_entry(context, attempt, &creation.entry(), &creation.user, &live).await;
            }
            Err(StoreError::Exists)
        }
        Ok(_) => {
            attempt.changed_nothing();
            Err(FOREIGN)
        }
        Err(StoreError::Corrupt(_)) if has_index => {
            // What is under the key of the index is another app's. A transaction may have stored the session all the same.
            let (now, created) = (text(context.times.now()), created_field(creation.created));
            let args: [&[u8]; 3] = [&now, &creation.user.to_match(), &created];
            let end = context.router.run_script(attempt, Effect::Main, &END_OF_USER, &creation.key, &args);
            end.await?;
            attempt.was_undone();
            Err(FOREIGN)
        }
        Err(error) => Err(error),
    }
}

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
    let found = match interpret(Kind::Get, &replies) {
        Step::NotFound => None,
        Step::Found(value) => cipher.open_live(&member, value, &context.times)?,
        step => return Err(step.error()),
    };
    context.counters.looked_up(found.is_some());
    Ok(found)
}

/// Replaces a live session. It is left alone at first if it is another user's, as the new one's index must know it before,
/// or if its user's index has to be kept longer before.
pub async fn update(
    context: &Context,
    attempt: &Attempt,
    cipher: &Cipher,
    session: &NewSession,
) -> Result<bool> {
    let member = cipher.member(&session.id);
    let key = context.names.session(&member);
    let user = cipher.user(session.user());
    let change = Change::new(session, key, &member, &user, cipher, &context.times)?;
    loop {
        if let Some(found) = replace(context, attempt, &change, &user, None).await? {
            return Ok(found);
        }
        let expires = session.expires;
        if let Some(found) =
            Box::pin(replace_entered(context, attempt, &change, &member, &user, expires)).await?
        {
            return Ok(found);
        }
    }
}

/// Enters a live session into the index of the user that it is to have, then replaces it, and returns whether there is one;
/// `None` if it has changed since.
async fn replace_entered(
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
    if context.times.end(old.expires, old.created).is_past(context.times.now()) {
        return Ok(Some(false));
    }
    know_time(context, attempt, || key.clone()).await?;
    let until = context.times.index_end(old.created, expires);
    if old.user == user.json {
        prolong(context, attempt, user, member, until).await?;
        return replace(context, attempt, change, user, Some(old.created)).await;
    }
    let old_user = UserField { json: old.user.to_vec() };
    let (index, old_index) = (user.index(&context.names), old_user.index(&context.names));
    let entry = Entry { index: &index, member, version: context.times.stamp() };
    let new_entry = async {
        let entered = async || enter(context, attempt, &entry, until, Reentry::Renew).await;
        if user.is_nobody() { Ok(None) } else { entered().await.map(Some) }
    };
    let old_version = async {
        if old_user.is_nobody() { Ok(None) } else { version(context, attempt, &old_index, member).await }
    };
    let (entered, old_version) = try_join(new_entry, old_version).await?;
    let replaced = replace(context, attempt, change, &old_user, Some(old.created)).await?;
    if replaced == Some(true) {
        if let Some(index_len) = entered {
            // Whoever has seen the entry before the session was the user's may remove it.
            enter(context, attempt, &entry, until, Reentry::Renew).await?;
            Box::pin(limit(context, attempt, user, member, index_len, None, expires)).await;
        }
        if let Some(version) = old_version
            && may_forget(context, version, old.created)
        {
            forget(context, attempt, &Entry { index: &old_index, member, version }).await;
        }
    }
    // If the session is not the user's, the entry is passed over, and removed when it is old enough.
    Ok(replaced)
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
        match interpret(Kind::Touch, &replies) {
            Step::Number(touched) => return Ok(touched > 0),
            Step::OutlivesIndex => {
                attempt.changed_nothing();
                prolonged = Box::pin(prolong_for(context, attempt, &key, &member, expires)).await?;
            }
            step => return Err(step.error()),
        }
    }
}

/// Has the index of a session's user kept for as long as a session with this expiry needs. Returns what the session's
/// record says of its creation and user; `None` if there is no session any more.
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

/// Removes a session. Its entry follows, without being waited for: it is passed over until then.
pub async fn delete(context: &Rc<Context>, attempt: &Attempt, cipher: &Cipher, id: &SessionId) -> Result<()> {
    let member = cipher.member(id);
    let key = context.names.session(&member);
    let make = |mode| delete_request(Request::write(mode), &key);
    let replies = context.router.ask(attempt, &key, Effect::Main, make).await?;
    match interpret(Kind::Delete, &replies) {
        Step::Number(_) => Ok(()),
        Step::Deleted(value) => {
            context.counters.deleted(id, || cipher.user_of(&member, value));
            if let Some(stale) = StaleEntry::of(member, value, &context.names) {
                forget_later(context, stale);
            }
            Ok(())
        }
        step => Err(step.error()),
    }
}

/// Replaces the session if it is live, and returns whether it is; `None` if it has to be entered before, or is of another
/// creation.
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
        Step::OtherUser | Step::OutlivesIndex => {
            attempt.changed_nothing();
            Ok(None)
        }
        step => Err(step.error()),
    }
}
