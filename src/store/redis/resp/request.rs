//! Requests: commands in RESP encoding.

use super::reply::Reply;
use smallvec::SmallVec;

use super::script::Script;

/// The replies to the commands of a request, in order.
pub type Replies = SmallVec<[Reply; 2]>;

/// Whether a server has refused a whole request: each command, or the transaction that they form.
pub fn are_refused(replies: &[Reply]) -> bool {
    let is_refused = |reply: &Reply| matches!(reply, Reply::Error(_));
    replies.iter().all(is_refused) || matches!(replies, [Reply::Okay, .., end] if is_refused(end))
}

/// How to encode a request this time.
#[derive(Debug, Default, Clone, Copy)]
pub struct RequestMode {
    /// Sends scripts as text, because the server does not know their digests.
    pub in_full: bool,
    /// Adds `ASKING`, for a node that is receiving the slot.
    pub asking: bool,
}

/// Commands for one server, which it gets one after the other without others in between.
#[derive(Debug)]
pub struct Request {
    pub bytes: Vec<u8>,
    pub commands: usize,
    /// Whether a store with `wait_replicas` waits until replicas have its effect.
    pub is_write: bool,
    mode: RequestMode,
}

impl Request {
    pub fn read(mode: RequestMode) -> Self {
        Self { bytes: Vec::new(), commands: 0, is_write: false, mode }
    }

    pub fn write(mode: RequestMode) -> Self {
        Self { is_write: true, ..Self::read(mode) }
    }

    /// The number of replies to each command. `ASKING` has a reply of its own before it.
    pub fn answers_of_each(&self) -> usize {
        if self.mode.asking { 2 } else { 1 }
    }

    /// Adds a command.
    pub fn command(mut self, args: &[&[u8]]) -> Self {
        self.reserve_for(args, 0);
        self.start(args.len());
        args.iter().for_each(|arg| self.arg(arg));
        self
    }

    /// Adds a command that the server answers only with a push message. The request must contain another command.
    pub fn pushed_command(mut self, args: &[&[u8]]) -> Self {
        self = self.command(args);
        self.commands -= 1;
        self
    }

    /// Adds a call of a script on one key.
    pub fn script(self, script: &Script, key: &[u8], args: &[&[u8]]) -> Self {
        self.script_on(script, &[key], args)
    }

    /// Adds a call of a script on several keys. In a cluster they must be in one slot.
    pub fn script_on(mut self, script: &Script, keys: &[&[u8]], args: &[&[u8]]) -> Self {
        let text = if self.mode.in_full { script.text } else { script.digest };
        let keys_len: usize = keys.iter().map(|key| key.len() + Self::FRAME).sum();
        self.reserve_for(args, keys_len + text.len() + 3 * Self::FRAME);
        self.start(3 + keys.len() + args.len());
        self.arg(if self.mode.in_full { b"EVAL" } else { b"EVALSHA" });
        self.arg(text.as_bytes());
        self.arg(&number(keys.len() as i64));
        keys.iter().chain(args).for_each(|arg| self.arg(arg));
        self
    }

    /// The maximum overhead of an argument.
    const FRAME: usize = 1 + 20 + 2 + 2;

    /// Reserves memory for a whole command.
    fn reserve_for(&mut self, args: &[&[u8]], more: usize) {
        let bytes: usize = args.iter().map(|arg| arg.len() + Self::FRAME).sum();
        self.bytes.reserve(bytes + more + 2 * Self::FRAME);
    }

    fn start(&mut self, args: usize) {
        if self.mode.asking {
            self.bytes.extend_from_slice(b"*1\r\n$6\r\nASKING\r\n");
        }
        self.commands += 1;
        self.bytes.push(b'*');
        self.write_len(args);
    }

    fn arg(&mut self, arg: &[u8]) {
        self.bytes.push(b'$');
        self.write_len(arg.len());
        self.bytes.extend_from_slice(arg);
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn write_len(&mut self, len: usize) {
        self.bytes.extend_from_slice(&number(i64::try_from(len).unwrap_or(i64::MAX)));
        self.bytes.extend_from_slice(b"\r\n");
    }
}

/// Formats a number as an argument.
pub fn number(number: i64) -> SmallVec<[u8; 20]> {
    let mut digits = [0; 20];
    let (mut rest, mut at) = (number.unsigned_abs(), digits.len());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    SmallVec::from_slice(&digits[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_these_bytes() {
        let request = Request::write(RequestMode::default()).command(&[b"GET", b"k"]).command(&[b"DEL", b""]);
        assert_eq!(request.bytes, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*2\r\n$3\r\nDEL\r\n$0\r\n\r\n");
        assert_eq!((request.commands, request.answers_of_each()), (2, 1));
    }

    #[test]
    fn asking_precedes_each_command() {
        let mode = RequestMode { asking: true, ..RequestMode::default() };
        let request = Request::read(mode).command(&[b"A"]).command(&[b"B"]);
        let announced = |name: &str| format!("*1\r\n$6\r\nASKING\r\n*1\r\n$1\r\n{name}\r\n");
        assert_eq!(request.bytes, (announced("A") + &announced("B")).as_bytes());
        assert_eq!((request.commands, request.answers_of_each()), (2, 2));
    }

    #[test]
    fn a_request_is_refused_if_all_of_it_is() {
        let refused = || Reply::Error(b"OOM no".to_vec());
        for (replies, is_whole) in [
            (vec![refused()], true),
            (vec![refused(), refused()], true),
            (vec![Reply::Okay, Reply::Status(b"QUEUED".to_vec()), refused()], true),
            (vec![Reply::Okay], false),
            (vec![refused(), Reply::Number(1), refused()], false),
            (vec![Reply::Okay, Reply::Status(b"QUEUED".to_vec()), Reply::Array(vec![refused()])], false),
        ] {
            assert_eq!(are_refused(&replies), is_whole, "{replies:?}");
        }
    }

    #[test]
    fn numbers_are_formatted_as_decimals() {
        for (given, text) in [(0, "0"), (-12, "-12"), (i64::MIN, "-9223372036854775808")] {
            assert_eq!(&number(given)[..], text.as_bytes());
        }
    }
}
