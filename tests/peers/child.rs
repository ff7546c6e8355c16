//! The code of a started process. It serves commands until the end of its standard input.

use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use native_store::clock::Millis;
use native_store::error::{Result, StoreError};
use native_store::session::{Body, Content, ExpiresForm, Expiry, Session, SessionId, UserKeyBuf};
use native_store::store::file::{Durability, LogState};
use native_store::store::{Answer, Completions, FileStore, SessionStore};

use super::model::{Rows, encode, look, row_of};
use super::{Kind, ROLE};

/// Reports the results of writes, by ticket.
struct Reports;

impl Completions for Reports {
    fn complete(&self, done: Vec<(u32, Result<Answer>)>) {
        for (ticket, answer) in done {
            let number = answer.map(|answer| match answer {
                Answer::Number(number) => number.to_string(),
                Answer::Session(_) => unreachable!("no read is queued"),
            });
            report(ticket, number);
        }
    }
}

fn report(ticket: u32, answer: Result<String>) {
    let line = match answer {
        Ok(value) => format!("\n@{ticket} ok {value}\n"),
        Err(error) => format!("\n@{ticket} error {} {error}\n", error.code()),
    };
    let mut out = std::io::stdout().lock();
    // This fails if the parent has exited.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

struct Server {
    store: Mutex<Option<Arc<FileStore>>>,
    reports: Arc<dyn Completions>,
}

/// Serves commands if a test has started this process for that.
pub fn serve() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let server = Arc::new(Server { store: Mutex::default(), reports: Arc::new(Reports) });
    for line in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {
        let mut words = line.split(' ').map(str::to_owned);
        let ticket = words.next().unwrap().parse().unwrap();
        let words: Vec<String> = words.collect();
        match server.start_write(ticket, &words) {
            Ok(true) => {}
            Err(error) => report(ticket, Err(error)),
            // Call it on a thread, so that the next commands do not wait.
            Ok(false) => {
                let server = Arc::clone(&server);
                thread::spawn(move || report(ticket, server.call(&words)));
            }
        }
    }
    // Exit without closing the store.
    std::process::exit(0);
}

impl Server {
    fn store(&self) -> Result<Arc<FileStore>> {
        self.store.lock().unwrap().clone().ok_or(StoreError::Closed)
    }

    /// Starts a write. `false` if the command is not a write.
    fn start_write(&self, ticket: u32, words: &[String]) -> Result<bool> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (reports, id) = (&self.reports, |text: &str| SessionId::new(text).unwrap());
        match words[..] {
            ["create", name, user, version, expires, pad] => {
                with_session([name, user, version, expires, pad], |session| {
                    self.store()?.begin_create(session, reports, ticket)
                })?;
            }
            ["update", name, user, version, expires, pad] => {
                with_session([name, user, version, expires, pad], |session| {
                    self.store()?.begin_update(session, reports, ticket)
                })?;
            }
            ["touch", name, expires] => {
                let expires = Expiry::moved_to(expires.parse().unwrap())?;
                self.store()?.begin_touch(&id(name), expires, None, reports, ticket)?;
            }
            ["delete", name] => {
                if !self.store()?.begin_delete(&id(name), reports, ticket)? {
                    report(ticket, Ok("0".into()));
                }
            }
            ["deleteByUser", user] => {
                let user = UserKeyBuf::from_text(user);
                self.store()?.begin_delete_by_user(user.as_key(), None, reports, ticket)?;
            }
            ["clear"] => self.store()?.begin_clear(reports, ticket)?,
            _ => return Ok(false),
        }
        self.store()?.wake();
        Ok(true)
    }

    fn call(&self, words: &[String]) -> Result<String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["open", path, durability, is_encrypted, millis] => {
                self.open(path, durability, is_encrypted, millis).map(|()| String::new())
            }
            ["get", name] => {
                let found = self.store()?.get(&SessionId::new(name).unwrap())?;
                let rows: Rows = found.iter().map(|found| (name.to_owned(), row_of(found))).collect();
                Ok(encode(&rows))
            }
            ["getByUser", user] => {
                let found = self.store()?.get_by_user(UserKeyBuf::from_text(user).as_key())?;
                let rows: Rows = found.iter().map(|found| (found.id.to_string(), row_of(found))).collect();
                Ok(encode(&rows))
            }
            ["look"] => Ok(encode(&look(&*self.store()?))),
            ["size"] => self.store()?.size().map(|size| size.to_string()),
            ["clean"] => self.store()?.clean().map(|removed| removed.to_string()),
            ["verify"] => self.store()?.verify(&mut |_, _| ()).map(|seen| seen.problems.join("; ")),
            ["backup", path] => {
                self.store()?.backup(path.as_ref(), &mut |_, _| ()).map(|bytes| bytes.to_string())
            }
            ["log"] => {
                let log = self.store()?.stats()?.log.unwrap_or_default();
                Ok(format!("{} {} {}", log.is_exclusive, log.used, log.size))
            }
            ["discardLog", path] => {
                let path = path.as_ref();
                let LogState::Damaged(damage) = FileStore::inspect_log(path, false)? else {
                    return Ok("nothing to do".into());
                };
                FileStore::discard_log(path, false, &damage.fingerprint).map(|_| String::new())
            }
            ["close"] => {
                let store = self.store.lock().unwrap().take().ok_or(StoreError::Closed)?;
                store.close().map(|()| String::new())
            }
            _ => panic!("not a command: {words:?}"),
        }
    }

    fn open(&self, path: &str, durability: &str, is_encrypted: &str, millis: &str) -> Result<()> {
        let everysec = Durability::EverySec;
        let durability = if durability == everysec.name() { everysec } else { Durability::Commit };
        let kind = Kind { path: path.into(), durability, is_encrypted: is_encrypted == "true" };
        let store = FileStore::open(&kind.options(Duration::from_millis(millis.parse().unwrap())))?;
        let weak = Arc::downgrade(&store);
        // The binding does this with a timer: it fails the calls that have timed out.
        thread::spawn(move || {
            while let Some(store) = weak.upgrade() {
                store.expire();
                drop(store);
                thread::sleep(Duration::from_millis(20));
            }
        });
        *self.store.lock().unwrap() = Some(store);
        Ok(())
    }
}

fn with_session<T>(words: [&str; 5], call: impl FnOnce(&Session<'_>) -> Result<T>) -> Result<T, StoreError> {
    let [id, user, version, expires, pad] = words;
    let millis: Millis = expires.parse().unwrap();
    let pad = "x".repeat(pad.parse().unwrap());
    let text =
        format!(r#"{{"sessionId":"{id}","userId":"{user}","expires":{millis},"v":{version},"pad":"{pad}"}}"#);
    let key = UserKeyBuf::from_text(user);
    let body = Body::Json { text: &text, expires: ExpiresForm::Number };
    let content = Content { user: Some(key.as_key()), body };
    call(&Session { id: SessionId::new(id).unwrap(), expires: Expiry::new(millis)?, content })
}
