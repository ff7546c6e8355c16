//! Ends connections so that the system delivers nothing of them later.
//!
//! After a connection is closed, the system keeps sending its remaining data for minutes. An abandoned write could
//! then overtake a later one that was acknowledged on another connection. So connections are reset instead.

use std::net::Shutdown;
use std::time::Duration;

use socket2::{SockRef, Socket};

/// Makes the system reset the connection when its socket is closed.
pub fn reset_on_close<'a>(socket: impl Into<SockRef<'a>>) {
    // This fails only if the connection has ended already.
    let _ = socket.into().set_linger(Some(Duration::ZERO));
}

/// Resets a connection immediately, even if its socket has duplicates. Where the system cannot do that, the
/// connection is reset when all duplicates are closed.
pub fn abort(socket: &Socket) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if disconnect(socket).is_ok() {
        return;
    }
    // This fails if the connection has ended already. Data written to a Unix socket has already reached the server.
    let _ = socket.shutdown(Shutdown::Both);
}

/// Dissolves the association of a socket, which resets its connection (connect(2), `AF_UNSPEC`).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn disconnect(socket: &Socket) -> std::io::Result<()> {
    let size = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: all zeros are an address of the family AF_UNSPEC, whose length is at most that of the storage.
    let nobody = unsafe { socket2::SockAddr::new(socket2::SockAddrStorage::zeroed(), size) };
    socket.connect(&nobody)
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (socket, listener.accept().unwrap().0)
    }

    fn is_reset(peer: &mut TcpStream) -> bool {
        let mut some = [0; 64];
        loop {
            match peer.read(&mut some) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }

    #[test]
    fn a_closed_connection_is_reset() {
        let (mut socket, mut peer) = pair();
        reset_on_close(&socket);
        socket.write_all(b"PING").unwrap();
        drop(socket);
        assert!(is_reset(&mut peer));
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn a_connection_is_reset_although_its_socket_has_a_duplicate() {
        let (socket, mut peer) = pair();
        let mut other = socket.try_clone().unwrap();
        abort(&socket.into());
        assert!(is_reset(&mut peer));
        assert!(other.read(&mut [0; 64]).is_err() && other.write(b"PING").is_err());
    }
}
