//! One redis-server for the tests of a process, on a port of its own. Where none is installed, those who ask for it are
//! told that there is none, and so is whoever reads what the tests print.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

struct Server {
    process: Child,
    directory: PathBuf,
    port: u16,
}

static SERVER: LazyLock<Mutex<Option<Server>>> = LazyLock::new(|| {
    let server = Server::start();
    if server.is_none() {
        println!("redis-server is not installed: what needs it is left out");
    }
    // What is static is not dropped when the process ends.
    // SAFETY: `stop` is a function of this program, and unwinds into nothing.
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
        let port = free_port();
        let directory = tempfile::tempdir().ok()?.keep();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(&directory)
            .stdout(Stdio::null())
            .spawn()
            .ok();
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
    SERVER.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|server| server.port)
}
