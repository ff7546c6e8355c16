use std::net::{TcpListener, TcpStream};

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection};

use super::super::super::tests::server::make_certificate;
use super::super::tls;
use super::*;

fn plain() -> (Socket, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let connection = RawConnection { socket: Arc::new(socket.into()), tls: None };
    (Socket::new(connection).unwrap(), listener.accept().unwrap().0)
}

/// The server side of TLS, driven by the test: it sends what it encrypts only when the test says so.
struct TlsPeer {
    connection: ServerConnection,
    stream: TcpStream,
}

impl TlsPeer {
    /// Completes the handshake with a client. Sends `early` directly behind it, so that the client reads both
    /// together.
    fn shake_hands(early: &[u8]) -> Option<(Socket, Self)> {
        let directory = tempfile::tempdir().unwrap();
        let (cert, key) = make_certificate(directory.path())?;
        let cert = CertificateDer::from_pem_file(cert).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert], PrivateKeyDer::from_pem_file(key).unwrap())
            .unwrap();
        let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut stream = listener.accept().unwrap().0;
        let mut client = tls::unchecked();
        // One thread drives both ends: each writes all it has, then reads.
        while client.is_handshaking() || connection.is_handshaking() {
            while client.wants_write() {
                client.write_tls(&mut &near).unwrap();
            }
            if connection.is_handshaking() {
                connection.read_tls(&mut stream).unwrap();
                connection.process_new_packets().unwrap();
            }
            if !connection.is_handshaking() {
                connection.writer().write_all(early).unwrap();
            }
            while connection.wants_write() {
                connection.write_tls(&mut stream).unwrap();
            }
            if client.is_handshaking() {
                client.read_tls(&mut &near).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        let socket =
            Socket::new(RawConnection { socket: Arc::new(near.into()), tls: Some(Box::new(client)) });
        Some((socket.unwrap(), Self { connection, stream }))
    }

    /// Encrypts a message, without sending it.
    fn encrypt(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.connection.set_buffer_limit(None);
        self.connection.writer().write_all(bytes).unwrap();
        let mut encrypted = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut encrypted).unwrap();
        }
        encrypted
    }

    /// Reads until the client has sent `len` bytes.
    fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut received = Vec::new();
        while received.len() < len {
            let mut some = [0; 64 * 1024];
            match self.connection.reader().read(&mut some) {
                Ok(len) => received.extend_from_slice(&some[..len]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    assert!(self.connection.read_tls(&mut self.stream).unwrap() > 0);
                    self.connection.process_new_packets().unwrap();
                }
            }
        }
        received
    }
}

/// Reads until data or the end arrives.
fn fill(socket: &mut Socket) -> io::Result<Filled> {
    loop {
        match socket.fill()? {
            Filled::Nothing => std::thread::yield_now(),
            filled => return Ok(filled),
        }
    }
}

/// The next reply, which must be a bulk string.
fn text(socket: &mut Socket) -> Option<Vec<u8>> {
    let (reply, len) = {
        let (replies, len) = socket.replies(1).unwrap()?;
        let [Reply::Bytes(text)] = &replies[..] else { panic!("{replies:?}") };
        (text.to_vec(), len)
    };
    socket.take(len);
    Some(reply)
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

#[test]
fn written_bytes_are_freed_under_constant_load() {
    const SIZE: usize = 1 << 20;
    let (mut wire, mut peer) = plain();
    let (mut read, mut pushed) = (vec![0; SIZE], 0_u64);
    let mut push = |wire: &mut Socket| {
        let bytes: Vec<u8> = (0..SIZE / 8).flat_map(|at| (pushed + 8 * at as u64).to_ne_bytes()).collect();
        assert_eq!(wire.push(&bytes), pushed);
        pushed += SIZE as u64;
        wire.flush().unwrap();
    };
    // More than the system's buffers take.
    while wire.out.len() - wire.written < 8 * SIZE {
        push(&mut wire);
    }
    let most = wire.out.len().max(16 * SIZE) + 2 * SIZE;
    for round in 0..64 {
        peer.read_exact(&mut read).unwrap();
        let first = (round * SIZE) as u64;
        assert_eq!(read[..8], first.to_ne_bytes());
        push(&mut wire);
        assert!(wire.out.len() <= most, "{} bytes", wire.out.len());
        assert!(wire.has_sent(first) && !wire.has_sent(wire.before + wire.written as u64));
    }
}

#[test]
fn a_flush_writes_a_limited_number_of_bytes() {
    let (mut wire, mut peer) = plain();
    let reader = std::thread::spawn(move || {
        let mut bytes = vec![0; 8 * MAX_WRITTEN];
        peer.read_exact(&mut bytes).unwrap();
        bytes.len()
    });
    wire.push(&vec![7; 8 * MAX_WRITTEN]);
    while !wire.is_flushed() {
        let before = wire.unsent();
        wire.flush().unwrap();
        assert!(before - wire.unsent() <= MAX_WRITTEN);
    }
    assert_eq!(reader.join().unwrap(), 8 * MAX_WRITTEN);
}

#[test]
fn tls_records_may_be_split_at_every_byte() {
    let Some((mut socket, mut peer)) = TlsPeer::shake_hands(b"") else { return };
    let first = peer.encrypt(&[bulk(b"one"), bulk(b"")].concat());
    let encrypted = [first, peer.encrypt(&bulk(b"three"))].concat();
    let mut texts = Vec::new();
    for byte in encrypted {
        peer.stream.write_all(&[byte]).unwrap();
        fill(&mut socket).unwrap();
        texts.extend(std::iter::from_fn(|| text(&mut socket)));
    }
    assert_eq!(texts, [&b"one"[..], b"", b"three"]);
}

#[test]
fn bytes_received_during_the_handshake_are_read_first() {
    let Some((mut socket, mut peer)) = TlsPeer::shake_hands(&bulk(b"early")) else { return };
    let encrypted = peer.encrypt(&bulk(b"late"));
    peer.stream.write_all(&encrypted).unwrap();
    let mut texts = Vec::new();
    while texts.len() < 2 {
        match text(&mut socket) {
            Some(text) => texts.push(text),
            None => drop(fill(&mut socket).unwrap()),
        }
    }
    assert_eq!(texts, [&b"early"[..], b"late"]);
}

#[test]
fn tls_transfers_more_than_the_systems_buffers_both_ways() {
    const SIZE: usize = 4 << 20;
    let Some((mut socket, mut peer)) = TlsPeer::shake_hands(b"") else { return };
    let large: Vec<u8> = (0..SIZE).map(|at| at as u8).collect();
    let start = socket.push(&large);
    assert!(!socket.has_sent(start));
    let last = socket.push(b"last");
    socket.flush().unwrap();
    assert!(socket.has_sent(start) && !socket.is_flushed());
    assert!(!socket.has_sent(last), "it waits in plain text, and can be left out");
    let server = std::thread::spawn(move || {
        let received = peer.receive(SIZE + 4);
        let encrypted = peer.encrypt(&bulk(&received));
        peer.stream.write_all(&encrypted).unwrap();
        peer
    });
    while !socket.is_flushed() {
        socket.flush().unwrap();
        std::thread::yield_now();
    }
    let echo = loop {
        match text(&mut socket) {
            Some(text) => break text,
            None => drop(fill(&mut socket).unwrap()),
        }
    };
    assert!(echo[..SIZE] == large && &echo[SIZE..] == b"last");
    drop(server.join().unwrap());
}

#[test]
fn what_tls_buffers_after_the_end_of_writing_is_unsent() {
    let Some((mut socket, _peer)) = TlsPeer::shake_hands(b"") else { return };
    socket.push(b"sent");
    socket.flush().unwrap();
    socket.socket.shutdown(std::net::Shutdown::Write).unwrap();
    let start = socket.push(b"unsent");
    assert!(is_end_of_writing(&socket.flush().unwrap_err()));
    assert!(!socket.has_sent(start));
}

#[test]
fn what_tls_buffered_before_the_end_of_writing_counts_as_sent() {
    let Some((mut socket, _peer)) = TlsPeer::shake_hands(b"") else { return };
    let start = socket.push(&vec![0; 16 << 20]);
    socket.flush().unwrap();
    assert!(!socket.is_flushed());
    socket.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(is_end_of_writing(&socket.flush().unwrap_err()));
    assert!(socket.has_sent(start));
}

#[test]
fn plaintext_and_tampered_records_are_errors() {
    for spoil in
        [|bytes: &mut Vec<u8>| bytes[20] ^= 1, |bytes: &mut Vec<u8>| *bytes = b"HTTP/1.1 400\r\n".to_vec()]
    {
        let Some((mut socket, mut peer)) = TlsPeer::shake_hands(b"") else { return };
        let mut encrypted = peer.encrypt(&bulk(b"a secret"));
        spoil(&mut encrypted);
        peer.stream.write_all(&encrypted).unwrap();
        // Messages of the handshake may come first.
        while fill(&mut socket).is_ok() {}
        assert_eq!(text(&mut socket), None);
    }
}

#[test]
fn replies_before_the_end_of_the_tls_session_are_read() {
    let Some((mut socket, mut peer)) = TlsPeer::shake_hands(b"") else { return };
    let mut encrypted = peer.encrypt(&bulk(b"the last"));
    peer.connection.send_close_notify();
    encrypted.extend(peer.encrypt(b""));
    peer.stream.write_all(&encrypted).unwrap();
    drop(peer);
    while text(&mut socket).as_deref() != Some(b"the last") {
        fill(&mut socket).unwrap();
    }
    assert!(matches!(fill(&mut socket), Ok(Filled::Ended)));
}
