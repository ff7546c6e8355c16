//! What connections need of the system: streams to servers, and chance. The simulator has another system in its place.

use std::hash::{BuildHasher, RandomState};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::abort;

/// A connection to a server, as bytes.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Has the connection reset when it is dropped: what has not arrived then never does.
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
    /// A number from 0 to 1, by chance.
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
