//! One redis-server for the tests of a process, on a port of its own, and one more with TLS. Where none is installed, the
//! tests skip what needs it and print that.

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

/// Those that are to be stopped when the process ends.
static RUNNING: Mutex<Vec<Server>> = Mutex::new(Vec::new());

static PORT: LazyLock<Option<u16>> = LazyLock::new(|| {
    let server = Server::start(|_| Some(vec![]), "--port");
    if server.is_none() {
        println!("redis-server is not installed: what needs it is left out");
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
        println!("redis-server or openssl is not installed: what needs both is left out");
    }
    server.map(keep)
});

fn running() -> MutexGuard<'static, Vec<Server>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a server until the process ends: its port.
fn keep(server: Server) -> u16 {
    let port = server.port;
    let mut running = running();
    if running.is_empty() {
        // What is static is not dropped when the process ends.
        // SAFETY: `stop` is a function of this program, and unwinds into nothing.
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

/// Makes a certificate that nobody has signed but itself, and its key: the paths of the two. `None` without openssl.
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
    /// Starts one with the arguments that are given for its directory. `port_option` is that of its port.
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

/// A port of this machine on which no one listens: below those that the system gives to outgoing connections, one of which
/// could take it before the server does.
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

/// The server's port. It may still be starting.
pub fn port() -> Option<u16> {
    *PORT
}

/// That of the one with TLS, whose certificate nobody has signed.
#[allow(dead_code, reason = "not every program of tests has TLS")]
pub fn tls_port() -> Option<u16> {
    *TLS_PORT
}
