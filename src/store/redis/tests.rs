//! The contract, on a server that these tests start, and what only this store does.
//!
//! Where no redis-server is installed they pass, and say that they did nothing.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use super::*;
use crate::clock::{Millis, MockClock};
use crate::session::{Body, Content, ExpiresForm, FieldOrder, UserKeyBuf};
use crate::store::conformance::{self, Bench, MAX_SESSION_BYTES, START, conformance, id, json, plain};

/// A server of this process, on a port of its own.
struct Server {
    process: Child,
    directory: PathBuf,
    port: u16,
}

/// The process ends without dropping what is static, hence `stop`.
static SERVER: LazyLock<Mutex<Option<Server>>> = LazyLock::new(|| {
    let server = Server::start();
    if server.is_none() {
        eprintln!("redis-server is not installed: the tests of RedisStore do nothing");
    }
    // SAFETY: `stop` is a function of this program.
    unsafe { libc::atexit(stop) };
    Mutex::new(server)
});

extern "C" fn stop() {
    if let Some(mut server) = SERVER.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = server.process.kill();
        let _ = server.process.wait();
        let _ = std::fs::remove_dir_all(server.directory);
    }
}

impl Server {
    fn start() -> Option<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0)).ok()?.local_addr().ok()?.port();
        let directory = tempfile::tempdir().ok()?.keep();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(&directory)
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self { process, directory, port })
    }
}

fn port() -> Option<u16> {
    SERVER.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|server| server.port)
}

/// The options of a store of its own; `None` where there is no server.
fn options() -> Option<RedisOptions> {
    static PREFIXES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let address = Address { host: "127.0.0.1".into(), port: port()? };
    let mut options = RedisOptions::new(Servers::Single { address, login: Login::default() });
    let number = PREFIXES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    options.prefix = format!("test*[{number}]:");
    // The first connection may find the server starting.
    options.command_timeout = Duration::from_secs(10);
    options.max_session_bytes = MAX_SESSION_BYTES.try_into().ok();
    options.sweep_interval = Some(0);
    Some(options)
}

/// For a clock that stands still the server keeps sessions for as long as a test takes.
const KEPT_FOR: Duration = Duration::from_secs(600);

fn secret(byte: u8) -> Secret {
    Secret::new(vec![byte; 32])
}

fn open_at(secrets: Vec<Secret>, clock: Arc<MockClock>) -> Option<Arc<RedisStore>> {
    let options = RedisOptions { secrets, ..options()? };
    Some(RedisStore::open_at(&options, clock, KEPT_FOR).unwrap())
}

mod in_the_open {
    use super::*;
    conformance!(maybe | clock | open_at(Vec::new(), clock));
}

mod encrypted {
    use super::*;
    conformance!(maybe | clock | open_at(vec![secret(1), secret(2)], clock));
}
