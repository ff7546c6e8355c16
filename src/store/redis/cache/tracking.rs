//! Turns on client tracking: the server then sends invalidations for the sessions that are read on a connection.

use super::super::resp::{Replies, Reply, Request};

/// Adds the commands that turn it on. Invalidations need RESP3: with RESP2 a server accepts the command, but sends
/// nothing.
pub fn begin_tracking(request: Request) -> Request {
    request.command(&[b"HELLO", b"3"]).command(&[b"CLIENT", b"TRACKING", b"ON", b"NOLOOP"])
}

/// Reads the replies to these commands, which are the last ones.
///
/// # Errors
/// Why the server does not track.
pub fn read_tracking(replies: &mut Replies) -> Result<(), String> {
    let (tracking, hello) = (replies.pop(), replies.pop());
    for (name, reply) in [("HELLO 3", hello), ("CLIENT TRACKING", tracking)] {
        match reply {
            Some(Reply::Array(_) | Reply::Okay) => {}
            Some(Reply::Error(error)) => {
                return Err(format!("the server refused {name}: {}", String::from_utf8_lossy(&error)));
            }
            _ => return Err(format!("the server sent an unexpected reply to {name}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracking_needs_both_commands() {
        let refused = || Reply::Error(b"NOPERM no".to_vec());
        let read = |hello, tracking| read_tracking(&mut Replies::from_iter([Reply::Nil, hello, tracking]));
        assert_eq!(read(Reply::Array(vec![]), Reply::Okay), Ok(()));
        assert_eq!(read(refused(), Reply::Okay), Err("the server refused HELLO 3: NOPERM no".into()));
        assert_eq!(
            read(Reply::Array(vec![]), refused()),
            Err("the server refused CLIENT TRACKING: NOPERM no".into())
        );
        assert!(read(Reply::Array(vec![]), Reply::Nil).is_err());
        assert!(read_tracking(&mut Replies::new()).is_err());
    }
}
