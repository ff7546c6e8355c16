//! What connections need from the system: streams and randomness. The simulator replaces it.

use std::hash::{BuildHasher, RandomState};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::abort;

/// A byte stream to a server.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Makes the system reset the connection when the stream is dropped, so that undelivered data is discarded.
    fn reset_on_drop(&self);
}

impl Stream for TcpStream {
    fn reset_on_drop(&self) {
        abort::reset_on_close(self);
    }
}

#[derive(Clone)]
pub enum System {
    Real,
    #[cfg(test)]
    Simulated(std::rc::Rc<dyn simulated::System>),
}

impl System {
    /// A random number from 0 to 1.
    pub fn chance(&self) -> f64 {
        match self {
            Self::Real => RandomState::new().hash_one(0) as f64 / u64::MAX as f64,
            #[cfg(test)]
            Self::Simulated(system) => system.chance(),
        }
    }
}

#[cfg(test)]
pub mod simulated {
    use std::io;
    use std::net::SocketAddr;

    use futures_util::future::LocalBoxFuture;

    use super::Stream;

    pub type Opening = LocalBoxFuture<'static, io::Result<Box<dyn Stream>>>;

    pub trait System {
        fn lookup(&self, host: &str, port: u16) -> LocalBoxFuture<'static, io::Result<Vec<SocketAddr>>>;
        fn connect(&self, address: SocketAddr) -> Opening;
        fn chance(&self) -> f64;
    }

    impl Stream for Box<dyn Stream> {
        fn reset_on_drop(&self) {
            (**self).reset_on_drop();
        }
    }
}
