//! Follows the sentinels, which know the primary.
//!
//! There is a connection to each sentinel. The sentinel announces a failover immediately (`+switch-master`), and is
//! also asked every few seconds. The given sentinels name the others, so the store does not depend on any single one.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::super::connection::{Connector, MultiplexedConnection, ask, error_text};
use super::super::options::{Address, Login, Servers};
use super::super::resp::{Reply, Request};
use super::backoff::backoff;
use super::{parse_address, within};

/// How often to ask a sentinel that announces nothing.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// The primary that a sentinel names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Primary {
    address: Address,
    /// Grows with each failover.
    epoch: u64,
}

/// A sentinel that the store follows.
struct Sentinel {
    address: Address,
    /// The id by which other sentinels know it.
    id: Option<Vec<u8>>,
    /// The primary that it named last. `None` while it is not connected.
    named: Option<Primary>,
}

/// The other sentinels that a sentinel names, with their ids.
type Others = Vec<(Address, Option<Vec<u8>>)>;

pub struct Sentinels {
    connector: Connector,
    master: String,
    given: Vec<(Address, Login)>,
    asked: RefCell<Vec<Sentinel>>,
    /// The sentinels that are up: those in the latest reply, and the one that sent it.
    others: RefCell<Others>,
    primary: RefCell<Option<Primary>>,
    /// Requests that all sentinels are asked now.
    wanted: Notify,
    /// A sentinel has answered or failed.
    reported: Notify,
    answers: Cell<u64>,
    failures: Cell<u64>,
    last_error: RefCell<String>,
    is_closed: Cell<bool>,
}

impl Sentinels {
    /// Starts to follow the sentinels, if the store has any.
    pub fn follow(servers: &Servers, connector: &Connector) -> Option<Rc<Self>> {
        let Servers::Sentinel { sentinels, master, .. } = servers else { return None };
        let all = Rc::new(Self {
            connector: connector.clone(),
            master: master.clone(),
            given: sentinels.clone(),
            asked: RefCell::default(),
            others: RefCell::default(),
            primary: RefCell::default(),
            wanted: Notify::new(),
            reported: Notify::new(),
            answers: Cell::new(0),
            failures: Cell::new(0),
            last_error: RefCell::default(),
            is_closed: Cell::new(false),
        });
        for (address, login) in sentinels {
            all.add(address, login);
        }
        Some(all)
    }

    pub fn close(&self) {
        self.is_closed.set(true);
        self.wanted.notify_waiters();
    }

    /// Asks all sentinels for the primary. Returns the first answer, so an unreachable sentinel delays nobody.
    ///
    /// # Errors
    /// The last error, if all of them fail.
    pub async fn find_primary(&self) -> Result<Address, String> {
        let (answers, failures) = (self.answers.get(), self.failures.get());
        self.wanted.notify_waiters();
        loop {
            let reported = self.reported.notified();
            if self.answers.get() > answers
                && let Some(primary) = &*self.primary.borrow()
            {
                return Ok(primary.address.clone());
            }
            if self.failures.get() - failures >= self.asked.borrow().len() as u64 {
                return Err(self.last_error.borrow().clone());
            }
            reported.await;
        }
    }

    /// Waits until the primary has another address than `address`.
    pub async fn replaced(&self, address: &Address) {
        loop {
            let reported = self.reported.notified();
            if self.primary.borrow().as_ref().is_some_and(|primary| primary.address != *address) {
                return;
            }
            reported.await;
        }
    }

    fn add(self: &Rc<Self>, address: &Address, login: &Login) {
        if self.is_closed.get() || self.asked.borrow().iter().any(|sentinel| sentinel.address == *address) {
            return;
        }
        self.asked.borrow_mut().push(Sentinel { address: address.clone(), id: None, named: None });
        spawn_local(Rc::clone(self).follow_sentinel(address.clone(), login.clone()));
    }

    /// Follows one sentinel, and reconnects whenever the connection ends, while the sentinel is needed.
    async fn follow_sentinel(self: Rc<Self>, address: Address, login: Login) {
        let (mut attempts, mut subscribes) = (0, true);
        while !self.is_closed.get() && self.is_needed(&address) {
            let reason = self.ask_one(&address, &login, &mut attempts, &mut subscribes).await;
            self.failures.set(self.failures.get() + 1);
            *self.last_error.borrow_mut() = format!("sentinel {address}: {reason}");
            self.with(&address, |sentinel| sentinel.named = None);
            self.reported.notify_waiters();
            // A node that needs the primary ends this delay early.
            let _ = timeout(backoff(attempts, self.connector.system.chance()), self.wanted.notified()).await;
            attempts += 1;
        }
        self.asked.borrow_mut().retain(|sentinel| sentinel.address != address);
    }

    /// Asks one sentinel repeatedly until that fails. Returns the reason.
    async fn ask_one(
        self: &Rc<Self>,
        address: &Address,
        login: &Login,
        attempts: &mut u32,
        subscribes: &mut bool,
    ) -> String {
        let mut connected = match self.connector.connect(address, login, None).await {
            Ok(connected) => connected,
            Err(reason) => return reason,
        };
        let connection = Rc::clone(&connected.connection);
        let mut ended = pin!(connected.ended());
        if *subscribes && let Err(reason) = self.subscribe(&connection).await {
            // From the next connection on, the sentinel is only asked.
            *subscribes = false;
            return reason;
        }
        while !self.is_closed.get() && !self.is_duplicate(address) {
            match self.ask_for_all(&connection, address).await {
                Ok((primary, others, id)) => {
                    *attempts = 0;
                    self.take(address, id, primary);
                    self.take_others(others, address, login);
                }
                Err(reason) => return reason,
            }
            let (pushed, wanted) = (pin!(connection.pushed.notified()), pin!(self.wanted.notified()));
            match timeout(POLL_INTERVAL, select(select(pushed, wanted), ended.as_mut())).await {
                Ok(Either::Right((reason, _))) => return reason.to_string(),
                Ok(Either::Left(_)) | Err(_) => {}
            }
        }
        "it is not needed".to_owned()
    }

    /// Subscribes to failovers. With RESP3 the same connection can still send requests.
    async fn subscribe(&self, connection: &MultiplexedConnection) -> Result<(), String> {
        let hello = Request::read(Default::default()).command(&[b"HELLO", b"3"]);
        let subscribe = Request::read(Default::default())
            .pushed_command(&[b"SUBSCRIBE", b"+switch-master"])
            .command(&[b"PING"]);
        for request in [hello, subscribe] {
            let replies = within(self.connector.timeout, ask(connection, request)).await?;
            if let Some(refusal) = replies.first().and_then(error_text) {
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// Asks a sentinel for the primary, the other sentinels, and its own id.
    async fn ask_for_all(
        &self,
        connection: &MultiplexedConnection,
        address: &Address,
    ) -> Result<(Primary, Others, Option<Vec<u8>>), String> {
        let master = self.master.as_bytes();
        let request = Request::read(Default::default())
            .command(&[b"SENTINEL", b"get-master-addr-by-name", master])
            .command(&[b"SENTINEL", b"MASTER", master])
            .command(&[b"SENTINEL", b"SENTINELS", master])
            .command(&[b"SENTINEL", b"MYID"]);
        let replies = within(self.connector.timeout, ask(connection, request)).await?;
        let named = match replies.first() {
            Some(Reply::Array(parts)) => parse_address(parts, &address.host),
            Some(Reply::Error(error)) => return Err(String::from_utf8_lossy(error).into_owned()),
            Some(Reply::Nil) => return Err(format!("it knows no {:?}", self.master)),
            _ => None,
        };
        let address_of_primary = named.ok_or("it named no primary")?;
        // Only the first reply is required. A sentinel may refuse the other commands, or be too old for them.
        let epoch = replies.get(1).and_then(|fields| number_of(fields, b"config-epoch")).unwrap_or(0);
        let others = match replies.get(2) {
            Some(Reply::Array(others)) => others.iter().filter_map(parse_other).collect(),
            _ => Others::new(),
        };
        let id = match replies.get(3) {
            Some(Reply::Bytes(id)) => Some(id.clone()),
            _ => None,
        };
        Ok((Primary { address: address_of_primary, epoch }, others, id))
    }

    fn take(&self, address: &Address, id: Option<Vec<u8>>, primary: Primary) {
        self.with(address, |sentinel| {
            sentinel.id = id;
            sentinel.named = Some(primary.clone());
        });
        let asked = self.asked.borrow();
        let named: Vec<_> = asked.iter().filter_map(|sentinel| sentinel.named.as_ref()).collect();
        let mut known = self.primary.borrow_mut();
        if is_accepted(known.as_ref(), &primary, &named) {
            *known = Some(primary);
        }
        self.answers.set(self.answers.get() + 1);
        self.reported.notify_waiters();
    }

    fn take_others(self: &Rc<Self>, mut others: Others, by: &Address, login: &Login) {
        for (address, id) in &others {
            let is_asked = |sentinel: &Sentinel| sentinel.id.is_some() && sentinel.id == *id;
            if !self.asked.borrow().iter().any(is_asked) {
                self.add(address, login);
            }
        }
        others.push((by.clone(), None));
        *self.others.borrow_mut() = others;
    }

    fn with(&self, address: &Address, work: impl FnOnce(&mut Sentinel)) {
        self.asked.borrow_mut().iter_mut().find(|sentinel| sentinel.address == *address).map(work);
    }

    fn is_given(&self, address: &Address) -> bool {
        self.given.iter().any(|(given, _)| given == address)
    }

    /// Whether to stay connected to a sentinel: it was given as an option, or another sentinel names it.
    fn is_needed(&self, address: &Address) -> bool {
        let is_named = self.others.borrow().iter().any(|(named, _)| named == address);
        self.is_given(address) || is_named && !self.is_duplicate(address)
    }

    /// Whether the store also follows this sentinel under another address, which was given as an option.
    fn is_duplicate(&self, address: &Address) -> bool {
        let asked = self.asked.borrow();
        let id = asked.iter().find(|sentinel| sentinel.address == *address).and_then(|own| own.id.as_ref());
        let is_same =
            |other: &Sentinel| id.is_some() && other.id.as_ref() == id && self.is_given(&other.address);
        !self.is_given(address) && asked.iter().any(is_same)
    }
}

/// Whether to accept the primary that a sentinel names. A later failover counts immediately. Otherwise a majority of
/// the connected sentinels must name the same primary. One of them may be cut off from the others, or all may have
/// been set up again.
fn is_accepted(known: Option<&Primary>, new: &Primary, named: &[&Primary]) -> bool {
    let Some(known) = known else { return true };
    let supporters = named.iter().filter(|other| other.address == new.address).count();
    new.epoch > known.epoch || new.address != known.address && 2 * supporters > named.len()
}

/// The numeric value of a field.
fn number_of(fields: &Reply, name: &[u8]) -> Option<u64> {
    std::str::from_utf8(field(fields, name)?).ok()?.parse().ok()
}

fn field<'a>(fields: &'a Reply, name: &[u8]) -> Option<&'a [u8]> {
    let Reply::Array(fields) = fields else { return None };
    fields.chunks_exact(2).find_map(|field| match field {
        [Reply::Bytes(key), Reply::Bytes(value)] if key == name => Some(&value[..]),
        _ => None,
    })
}

/// Parses another sentinel. `None` if it is down.
fn parse_other(fields: &Reply) -> Option<(Address, Option<Vec<u8>>)> {
    let flags = std::str::from_utf8(field(fields, b"flags")?).ok()?;
    if flags.split(',').any(|flag| matches!(flag, "s_down" | "o_down" | "disconnected")) {
        return None;
    }
    let part = |name| field(fields, name).map(|value| Reply::Bytes(value.to_vec()));
    let address = parse_address(&[part(b"ip")?, part(b"port")?], "?")?;
    Some((address, field(fields, b"runid").map(<[u8]>::to_vec)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(port: u16, epoch: u64) -> Primary {
        Primary { address: Address { host: "a".into(), port }, epoch }
    }

    #[test]
    fn an_earlier_failover_needs_a_majority_of_sentinels() {
        let (old, new) = (primary(1, 4), primary(2, 5));
        assert!(is_accepted(None, &old, &[&old]));
        assert!(is_accepted(Some(&old), &new, &[&old, &old, &new]));
        // A sentinel that is cut off from the others still names the old primary.
        assert!(!is_accepted(Some(&new), &old, &[&old, &new, &new]));
        assert!(!is_accepted(Some(&new), &old, &[&old, &new]));
        // All sentinels were set up again, and count failovers from 0.
        let afresh = primary(3, 0);
        assert!(!is_accepted(Some(&new), &afresh, &[&afresh, &new, &new]));
        assert!(is_accepted(Some(&new), &afresh, &[&afresh, &afresh, &new]));
        assert!(is_accepted(Some(&new), &afresh, &[&afresh]));
    }

    #[test]
    fn only_sentinels_that_are_up_are_followed() {
        let text = |text: &str| Reply::Bytes(text.into());
        let other = |flags: &str| {
            let fields = ["name", "x", "ip", "10.0.0.7", "port", "26379", "runid", "id", "flags", flags];
            Reply::Array(fields.map(text).to_vec())
        };
        let address = Address { host: "10.0.0.7".into(), port: 26_379 };
        assert_eq!(parse_other(&other("sentinel")), Some((address, Some(b"id".to_vec()))));
        assert_eq!(parse_other(&other("s_down,sentinel,disconnected")), None);
        assert_eq!(parse_other(&Reply::Array(vec![text("ip")])), None);
        assert_eq!(parse_other(&Reply::Nil), None);
        let fields = Reply::Array(["flags", "master", "config-epoch", "12"].map(text).to_vec());
        assert_eq!(number_of(&fields, b"config-epoch"), Some(12));
        assert_eq!(number_of(&fields, b"flags"), None);
        assert_eq!(number_of(&fields, b"epoch"), None);
    }
}
