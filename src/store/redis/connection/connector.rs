//! Connects to a server: socket, TLS and login.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Either, join_all, select};
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::super::monitor::Monitor;
use super::super::options::{Address, Auth, Credentials, Login};
use super::super::resp::{Replies, Reply, Request};
use super::multiplexed::{MultiplexedConnection, Replication, SendError, describe};
use super::reply_window::ReplyWindow;
use super::socket::RawConnection;
use super::system::{Stream, System};
use super::tls::Tls;

/// A router or firewall may silently drop an idle connection.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));

/// The library name in `CLIENT LIST`.
const LIBRARY: &str = "@fluidauth/native-store";

/// Makes connections.
#[derive(Clone)]
pub struct Connector {
    pub system: System,
    pub tls: Option<Tls>,
    /// The path of the server's Unix socket, if it has one.
    pub socket_path: Option<Arc<str>>,
    pub client_name: Arc<str>,
    pub timeout: Duration,
    pub replication: Option<Replication>,
    pub window: Arc<ReplyWindow>,
    /// Where the callers record connections and failures.
    pub monitor: Arc<Monitor>,
}

/// A connection after login. Dropping it ends the connection.
pub struct Connected {
    pub connection: Rc<MultiplexedConnection>,
    end: oneshot::Receiver<Rc<str>>,
}

impl Connected {
    /// Waits until the connection ends. Returns the reason.
    pub async fn ended(&mut self) -> Rc<str> {
        (&mut self.end).await.unwrap_or_else(|_| "the store was closed".into())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.connection.cut();
    }
}

impl Connector {
    /// Connects and logs in, within `timeout`.
    ///
    /// # Errors
    /// A message for people, without credentials.
    pub async fn connect(
        &self,
        address: &Address,
        login: &Login,
        replication: Option<Replication>,
    ) -> Result<Connected, String> {
        let stage = Cell::new("no connection");
        let connecting = async {
            let connected = self.open(address, login, replication, &stage).await?;
            stage.set("credentials: no answer");
            let credentials = credentials_of(login).await?;
            if connected.connection.is_dead() {
                return Err("the server closed it before there were credentials".into());
            }
            stage.set("no answer to the login");
            self.log_in(&connected.connection, login, credentials.as_ref()).await?;
            connected.connection.limit(Arc::clone(&self.window));
            Ok(connected)
        };
        let outcome = timeout(self.timeout, connecting).await;
        outcome.unwrap_or_else(|_| Err(format!("{} within {} ms", stage.get(), self.timeout.as_millis())))
    }

    /// Connects, logs in and sends a first request. The caller then reads and writes the socket itself.
    ///
    /// # Errors
    /// A message for people, without credentials.
    pub async fn connect_event_loop(
        &self,
        address: &Address,
        login: &Login,
        first: Request,
    ) -> Result<(RawConnection, Replies), String> {
        let (socket, tls, replies): (io::Result<socket2::Socket>, _, _) =
            if let Some(path) = &self.socket_path {
                let mut socket = connect_unix(path).await?;
                let replies = self.prepare(&mut socket, login, first).await?;
                (socket.into_std().map(Into::into), None, replies)
            } else {
                let mut socket = connect_tcp(address).await?;
                if let Some(tls) = self.tls_for(login) {
                    let mut stream = tls.connect(address, socket).await?;
                    let replies = self.prepare(&mut stream, login, first).await?;
                    let (socket, connection) = stream.into_inner();
                    (socket.into_std().map(Into::into), Some(Box::new(connection)), replies)
                } else {
                    let replies = self.prepare(&mut socket, login, first).await?;
                    (socket.into_std().map(Into::into), None, replies)
                }
            };
        let socket = Arc::new(socket.map_err(|error| describe(&error))?);
        Ok((RawConnection { socket, tls }, replies))
    }

    /// The TLS settings, if this login uses TLS.
    fn tls_for(&self, login: &Login) -> Option<&Tls> {
        self.tls.as_ref().filter(|_| login.is_tls)
    }

    async fn open(
        &self,
        address: &Address,
        login: &Login,
        replication: Option<Replication>,
        stage: &Cell<&str>,
    ) -> Result<Connected, String> {
        if let Some(path) = &self.socket_path {
            return Ok(drive(connect_unix(path).await?, replication));
        }
        let socket = match &self.system {
            System::Real => connect_tcp(address).await?,
            #[cfg(test)]
            System::Simulated(system) => {
                let resolved = system.lookup(&address.host, address.port);
                let stream = connect_host(resolved, |address| system.connect(address)).await?;
                return Ok(drive(stream, replication));
            }
        };
        match self.tls_for(login) {
            None => Ok(drive(socket, replication)),
            Some(tls) => {
                stage.set("no TLS handshake (redis:// is for servers without TLS)");
                Ok(drive(tls.connect(address, socket).await?, replication))
            }
        }
    }

    /// Logs in, and sends a first request.
    async fn prepare(
        &self,
        socket: impl AsyncRead + AsyncWrite,
        login: &Login,
        first: Request,
    ) -> Result<Replies, String> {
        let connection = MultiplexedConnection::new(None);
        let prepare = async {
            let credentials = credentials_of(login).await?;
            self.log_in(&connection, login, credentials.as_ref()).await?;
            ask(&connection, first).await
        };
        match select(pin!(prepare), pin!(connection.drive(socket))).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right((reason, _)) => Err(reason.to_string()),
        }
    }

    async fn log_in(
        &self,
        connection: &MultiplexedConnection,
        login: &Login,
        credentials: Option<&Credentials>,
    ) -> Result<(), String> {
        let command = |parts: &[&[u8]]| Request::read(Default::default()).command(parts);
        let mut commands = Vec::new();
        if let Some(Credentials { username, password }) = credentials {
            let auth = [Some("AUTH"), username.as_deref(), Some(password)];
            commands.push(command(&auth.into_iter().flatten().map(str::as_bytes).collect::<Vec<_>>()));
        }
        if login.database > 0 {
            commands.push(command(&[b"SELECT", login.database.to_string().as_bytes()]));
        }
        // The server refuses `PING` while it loads its data, and if it requires a login.
        commands.push(command(&[b"PING"]));
        let required = commands.len();
        // These are optional: a server may not know them, or may forbid them.
        commands.push(command(&[b"CLIENT", b"SETNAME", self.client_name.as_bytes()]));
        for (attribute, value) in [("LIB-NAME", LIBRARY), ("LIB-VER", env!("CARGO_PKG_VERSION"))] {
            commands.push(command(&[b"CLIENT", b"SETINFO", attribute.as_bytes(), value.as_bytes()]));
        }
        // Each command is a request of its own. A server that has too many clients answers the first one and closes
        // the connection.
        let replies = join_all(commands.into_iter().map(|command| ask(connection, command))).await;
        for reply in replies.into_iter().take(required) {
            let reply = reply.map_err(|reason| match login.is_tls || connection.has_read() {
                true => reason,
                false => format!("{reason}, as by a server that expects TLS (rediss://)"),
            })?;
            reply.iter().try_for_each(|reply| error_text(reply).map_or(Ok(()), Err))?;
        }
        Ok(())
    }
}

/// How long an address has to answer before the next address of the host is tried too.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

#[cfg(unix)]
async fn connect_unix(path: &str) -> Result<UnixStream, String> {
    UnixStream::connect(path).await.map_err(|error| describe(&error))
}

#[cfg(not(unix))]
async fn connect_unix(_: &str) -> Result<TcpStream, String> {
    Err("Unix sockets are not supported on this system".into())
}

async fn connect_tcp(address: &Address) -> Result<TcpStream, String> {
    let resolved = lookup_host((address.host.as_str(), address.port));
    let socket = connect_host(resolved, TcpStream::connect).await?;
    // These fail only if the connection has ended already.
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(&socket).set_tcp_keepalive(&KEEPALIVE);
    Ok(socket)
}

/// Resolves a host and connects to one of its addresses.
async fn connect_host<S: Stream, F: Future<Output = io::Result<S>>>(
    resolved: impl Future<Output = io::Result<impl IntoIterator<Item = SocketAddr>>>,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<S, String> {
    let addresses = alternate_families(resolved.await.map_err(|error| format!("DNS: {error}"))?);
    let stream = connect_any(addresses, connect).await.map_err(|error| describe(&error))?;
    stream.reset_on_drop();
    Ok(stream)
}

/// Connects to the address that answers first. Tries the next one when an address has failed or has not answered
/// soon, so that a silent address does not delay the others (RFC 8305).
async fn connect_any<S, F: Future<Output = io::Result<S>>>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<S> {
    let (mut rest, mut attempts) = (addresses.into_iter(), FuturesUnordered::new());
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    loop {
        match rest.next() {
            Some(address) => attempts.push(connect(address)),
            None if attempts.is_empty() => return Err(last_error),
            None => {}
        }
        let limit = if rest.len() > 0 { NEXT_ADDRESS_AFTER } else { Duration::MAX };
        match timeout(limit, attempts.next()).await {
            Ok(Some(Ok(socket))) => return Ok(socket),
            Ok(Some(Err(error))) => last_error = error,
            Ok(None) | Err(_) => {}
        }
    }
}

/// Alternates the addresses of the two families.
fn alternate_families(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let addresses: Vec<_> = addresses.into_iter().collect();
    let is_first = |address: &SocketAddr| address.is_ipv6() == addresses[0].is_ipv6();
    let (first, second): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(is_first);
    let mut second = second.into_iter();
    let mut alternating: Vec<_> =
        first.into_iter().flat_map(|address| [Some(address), second.next()]).flatten().collect();
    alternating.extend(second);
    alternating
}

/// Starts the driver of a connection.
fn drive(stream: impl AsyncRead + AsyncWrite + 'static, replication: Option<Replication>) -> Connected {
    let connection = MultiplexedConnection::new(replication);
    let (ended, end) = oneshot::channel();
    let driven = Rc::clone(&connection);
    spawn_local(async move {
        // Sending fails only if the connection was dropped.
        let _ = ended.send(driven.drive(stream).await);
    });
    Connected { connection, end }
}

/// The credentials for one connection. A provider is called only when the server has accepted the connection.
async fn credentials_of(login: &Login) -> Result<Option<Credentials>, String> {
    match &login.auth {
        Auth::None => Ok(None),
        Auth::Credentials(credentials) => Ok(Some(credentials.clone())),
        Auth::Provider(provider) => {
            let (sender, answer) = oneshot::channel();
            provider.ask(sender);
            let answer = answer.await.unwrap_or_else(|_| Err("there was no answer".into()));
            answer.map(Some).map_err(|reason| format!("credentials: {reason}"))
        }
    }
}

/// Sends a request that belongs to no call of the store.
pub async fn ask(connection: &MultiplexedConnection, request: Request) -> Result<Replies, String> {
    connection.send(request, &Rc::default()).await.map_err(|fault| match fault {
        SendError::ConnectionLost(reason) => reason.to_string(),
        SendError::Unsent | SendError::UnderReplicated(_) => "the connection ended".into(),
    })
}

/// The message of an error reply.
pub fn error_text(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Error(error) => Some(String::from_utf8_lossy(error).into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Instant;

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// A listener with a full backlog, and the sockets that fill it.
    fn silent() -> (Socket, Vec<Socket>, SocketAddr) {
        let new = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let listener = new();
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let fill = || {
            let socket = new();
            socket.set_nonblocking(true).unwrap();
            // The connection attempt is pending, or never completes.
            let _ = socket.connect(&address);
            socket
        };
        (listener, (0..4).map(|_| fill()).collect(), address.as_socket().unwrap())
    }

    #[test]
    fn the_first_address_that_answers_is_used() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let good = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let good_address = good.local_addr().unwrap();
        let refusing = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let (_listener, _others, silent) = silent();
        for (addresses, least, most) in [
            (vec![good_address], 0, 200),
            (vec![refusing, refusing, good_address], 0, 200),
            (vec![silent, good_address], 240, 900),
            (vec![silent, refusing, good_address], 240, 900),
        ] {
            let started = Instant::now();
            let socket = runtime.block_on(connect_any(addresses, TcpStream::connect)).unwrap();
            assert_eq!(socket.peer_addr().unwrap(), good_address);
            let took = started.elapsed().as_millis();
            assert!((least..most).contains(&took), "{took} ms");
        }
        assert!(runtime.block_on(connect_any(vec![refusing], TcpStream::connect)).is_err());
        assert!(runtime.block_on(connect_any(vec![], TcpStream::connect)).is_err());
    }

    #[test]
    fn addresses_of_both_families_alternate() {
        let parse =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let given = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]);
        let expected = parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]);
        assert_eq!(alternate_families(given), expected);
        assert!(alternate_families(std::iter::empty()).is_empty());
    }
}
