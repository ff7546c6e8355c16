//! Starts a redis-server for the tests of a process, and another one with TLS. Tests that need a server which is not
//! installed are skipped, and a message says so.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

struct Server {
    process: Child,
    directory: PathBuf,
    port: u16,
}

/// The servers that are stopped when the process exits.
static RUNNING: Mutex<Vec<Server>> = Mutex::new(Vec::new());

static PORT: LazyLock<Option<u16>> = LazyLock::new(|| {
    let server = Server::start(|_| Some(vec![]), "--port");
    if server.is_none() {
        println!("redis-server is not installed: the tests that need it are skipped");
    }
    server.map(keep)
});

static TLS_PORT: LazyLock<Option<u16>> = LazyLock::new(|| {
    let with_tls = |directory: &Path| {
        let (cert, key) = make_certificate(directory)?;
        let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &cert];
        let args = [&["--port", "0", "--tls-auth-clients", "no"][..], &files].concat();
        Some(args.iter().map(|&arg| arg.into()).collect())
    };
    let server = Server::start(with_tls, "--tls-port");
    if server.is_none() {
        println!("redis-server or openssl is not installed: the tests that need both are skipped");
    }
    server.map(keep)
});

fn running() -> MutexGuard<'static, Vec<Server>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a server running until the process exits, and returns its port.
fn keep(server: Server) -> u16 {
    let port = server.port;
    let mut running = running();
    if running.is_empty() {
        // Rust does not drop statics when the process exits.
        // SAFETY: `stop` is a function of this program. A panic in it aborts instead of unwinding.
        unsafe { libc::atexit(stop) };
    }
    running.push(server);
    port
}

extern "C" fn stop() {
    for mut server in running().drain(..) {
        let _ = server.process.kill();
        let _ = server.process.wait();
        let _ = std::fs::remove_dir_all(server.directory);
    }
}

/// Makes a self-signed certificate and its key, and returns their paths. `None` without openssl.
pub fn make_certificate(directory: &Path) -> Option<(String, String)> {
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| directory.join(name).display().to_string());
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-keyout", &key, "-out", &cert])
        .stderr(Stdio::null())
        .status();
    made.is_ok_and(|status| status.success()).then_some((cert, key))
}

impl Server {
    /// Starts a server. `args` returns its arguments for a directory, and `port_option` sets its port.
    fn start(args: impl FnOnce(&Path) -> Option<Vec<String>>, port_option: &str) -> Option<Self> {
        let port = free_port();
        let directory = tempfile::tempdir().ok()?.keep();
        let process = args(&directory).and_then(|args| {
            Command::new("redis-server")
                .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
                .args(args)
                .args([port_option, &port.to_string()])
                .arg("--dir")
                .arg(&directory)
                .stdout(Stdio::null())
                .spawn()
                .ok()
        });
        if process.is_none() {
            let _ = std::fs::remove_dir_all(&directory);
        }
        Some(Self { process: process?, directory, port })
    }
}

/// Returns a free port. It is below the range for outgoing connections, which could take it before the server does.
pub fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    loop {
        let tried = std::process::id().wrapping_mul(97).wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed));
        let port = 12_000 + (tried % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The port of the server, which may still be starting.
pub fn port() -> Option<u16> {
    *PORT
}

/// The port of the server with TLS, whose certificate is self-signed.
#[allow(dead_code, reason = "not every test program uses TLS")]
pub fn tls_port() -> Option<u16> {
    *TLS_PORT
}
