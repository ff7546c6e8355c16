//! Replies in RESP2 and RESP3. One decoder serves every connection.
//!
//! Types that only RESP3 has are decoded as their RESP2 form: a map as an array of keys and values, a double as its
//! text. So callers need not know the protocol of a connection.

/// A reply. Its bytes are borrowed from the receive buffer (`&[u8]`), or owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<B = Vec<u8>> {
    /// `+OK`.
    Okay,
    /// Any other simple string.
    Status(B),
    /// An error, such as `ERR unknown command`.
    Error(B),
    Number(i64),
    Bytes(B),
    Nil,
    Array(Vec<Self>),
    /// A message that is not a reply to a command.
    Push(Vec<Self>),
}

/// The error for bytes that are not a reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// A reply and its length. `None` while it is incomplete.
pub type Decoded<'a> = Result<Option<(Reply<&'a [u8]>, usize)>, Malformed>;

/// The maximum nesting of arrays. `CLUSTER SLOTS` and `COMMAND` use four levels.
const MAX_DEPTH: usize = 16;

/// The maximum length of a line: an error, a number or a length.
const MAX_LINE: usize = 4096;

impl Reply<&[u8]> {
    /// Copies the borrowed bytes.
    pub fn to_owned(&self) -> Reply {
        match self {
            Self::Okay => Reply::Okay,
            Self::Status(text) => Reply::Status(text.to_vec()),
            Self::Error(text) => Reply::Error(text.to_vec()),
            Self::Number(number) => Reply::Number(*number),
            Self::Bytes(bytes) => Reply::Bytes(bytes.to_vec()),
            Self::Nil => Reply::Nil,
            Self::Array(items) => Reply::Array(items.iter().map(Reply::to_owned).collect()),
            Self::Push(items) => Reply::Push(items.iter().map(Reply::to_owned).collect()),
        }
    }
}

/// Decodes the replies of one connection.
///
/// It remembers how far it has scanned an incomplete array, so that no byte is scanned twice.
#[derive(Debug, Default)]
pub struct Decoder {
    scanned: usize,
    /// The number of values that are still missing from the array.
    missing: usize,
}

impl Decoder {
    /// Decodes the reply at the start of `bytes`. Returns it with its length, or `None` while it is incomplete. Then
    /// the caller calls again with the same bytes and more of them.
    ///
    /// # Errors
    /// `Malformed` for bytes that no server sends. Nothing after them can be decoded.
    pub fn decode<'a>(&mut self, bytes: &'a [u8]) -> Decoded<'a> {
        let Some(&kind) = bytes.first() else { return Ok(None) };
        if !is_aggregate(kind) {
            return scalar(bytes);
        }
        if self.scanned == 0 {
            self.missing = 1;
        }
        if !self.scan(bytes)? {
            return Ok(None);
        }
        self.scanned = 0;
        value(bytes, MAX_DEPTH).map(Some)
    }

    /// Returns whether the whole reply has arrived.
    fn scan(&mut self, bytes: &[u8]) -> Result<bool, Malformed> {
        while self.missing > 0 {
            let rest = bytes.get(self.scanned..).ok_or(Malformed)?;
            let Some(&kind) = rest.first() else { return Ok(false) };
            let (items, len) = if is_aggregate(kind) {
                let Some((line, len)) = line(rest)? else { return Ok(false) };
                // An attribute precedes the value that it belongs to.
                (item_count(line)? + usize::from(kind == b'|'), len)
            } else {
                let Some((_, len)) = scalar(rest)? else { return Ok(false) };
                (0, len)
            };
            self.scanned += len;
            self.missing = (self.missing - 1).checked_add(items).ok_or(Malformed)?;
        }
        Ok(true)
    }
}

fn is_aggregate(kind: u8) -> bool {
    matches!(kind, b'*' | b'%' | b'~' | b'>' | b'|')
}

/// The number of values in the array with this first line. The line may also be the RESP2 form of `nil`.
fn item_count(line: &[u8]) -> Result<usize, Malformed> {
    let (kind, count) = line.split_first().ok_or(Malformed)?;
    if line == b"*-1" {
        return Ok(0);
    }
    let count = usize::try_from(number(count)?).map_err(|_| Malformed)?;
    let values_each = if matches!(kind, b'%' | b'|') { 2 } else { 1 };
    // No memory can hold more.
    if count > usize::MAX / 8 { Err(Malformed) } else { Ok(count * values_each) }
}

/// Decodes the value at the start of `bytes`, which contain all of it.
fn value(bytes: &[u8], depth: usize) -> Result<(Reply<&[u8]>, usize), Malformed> {
    let kind = *bytes.first().ok_or(Malformed)?;
    if !is_aggregate(kind) {
        return scalar(bytes)?.ok_or(Malformed);
    }
    let (line, mut len) = line(bytes)?.ok_or(Malformed)?;
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    let mut items = Vec::new();
    for _ in 0..item_count(line)? {
        let (item, item_len) = value(&bytes[len..], depth)?;
        len += item_len;
        items.push(item);
    }
    let reply = match kind {
        b'|' => {
            let (reply, reply_len) = value(&bytes[len..], depth)?;
            len += reply_len;
            reply
        }
        b'>' => Reply::Push(items),
        _ if line == b"*-1" => Reply::Nil,
        _ => Reply::Array(items),
    };
    Ok((reply, len))
}

/// Decodes the scalar reply at the start of `bytes`. `None` while it is incomplete.
fn scalar(bytes: &[u8]) -> Decoded<'_> {
    let Some((line, mut len)) = line(bytes)? else { return Ok(None) };
    let (&kind, rest) = line.split_first().ok_or(Malformed)?;
    let reply = match kind {
        b'+' if rest == b"OK" => Reply::Okay,
        b'+' => Reply::Status(rest),
        b'-' => Reply::Error(rest),
        b':' => Reply::Number(number(rest)?),
        b'$' if rest == b"-1" => Reply::Nil,
        b'$' | b'!' | b'=' => {
            let size = usize::try_from(number(rest)?).map_err(|_| Malformed)?;
            let Some(text) = bytes[len..].get(..size.saturating_add(2)) else { return Ok(None) };
            let text = text.strip_suffix(b"\r\n").ok_or(Malformed)?;
            len += size + 2;
            match kind {
                b'!' => Reply::Error(text),
                // The text starts with its format, such as `txt:`.
                b'=' => Reply::Bytes(text.get(4..).ok_or(Malformed)?),
                _ => Reply::Bytes(text),
            }
        }
        b'_' if rest.is_empty() => Reply::Nil,
        b'#' if rest == b"t" => Reply::Number(1),
        b'#' if rest == b"f" => Reply::Number(0),
        b',' | b'(' if !rest.is_empty() => Reply::Bytes(rest),
        _ => return Err(Malformed),
    };
    Ok(Some((reply, len)))
}

/// The first line, and its length with the line break. `None` while it is incomplete.
fn line(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Malformed> {
    let window = &bytes[..bytes.len().min(MAX_LINE)];
    match window.iter().position(|&byte| byte == b'\n') {
        Some(end) => Ok(Some((window[..end].strip_suffix(b"\r").ok_or(Malformed)?, end + 1))),
        None if bytes.len() < MAX_LINE => Ok(None),
        None => Err(Malformed),
    }
}

fn number(text: &[u8]) -> Result<i64, Malformed> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Malformed)
}

/// Checks that bytes decode to the same replies in pieces as in one go. The first byte is the length of the pieces.
#[cfg(any(test, fuzzing))]
pub fn check_replies(bytes: &[u8]) {
    let Some((&piece, bytes)) = bytes.split_first() else { return };
    let decode_all = |piece: usize| {
        let (mut decoder, mut start, mut end, mut replies) = (Decoder::default(), 0, 0, Vec::new());
        loop {
            match decoder.decode(&bytes[start..end]) {
                Ok(Some((reply, len))) => {
                    assert!(len > 0 && start + len <= end, "a reply of {len} bytes");
                    replies.push(reply.to_owned());
                    start += len;
                }
                Ok(None) if end == bytes.len() => return (replies, Ok(start)),
                Ok(None) => end = bytes.len().min(end + piece),
                Err(Malformed) => return (replies, Err(Malformed)),
            }
        }
    };
    assert_eq!(decode_all(bytes.len().max(1)), decode_all(usize::from(piece).max(1)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Decoded<'_> {
        Decoder::default().decode(bytes)
    }

    fn bytes(text: &str) -> Reply<&[u8]> {
        Reply::Bytes(text.as_bytes())
    }

    #[test]
    fn replies_are_decoded() {
        let cases: [(&[u8], Reply<&[u8]>); 23] = [
            (b"+OK\r\n", Reply::Okay),
            (b"+PONG\r\n", Reply::Status(b"PONG")),
            (b":-12\r\n", Reply::Number(-12)),
            (b"$-1\r\n", Reply::Nil),
            (b"$0\r\n\r\n", bytes("")),
            (b"$4\r\n\r\n\r\n\r\n", bytes("\r\n\r\n")),
            (b"-ERR no\r\n", Reply::Error(b"ERR no")),
            (b"-\r\n", Reply::Error(b"")),
            (b"*-1\r\n", Reply::Nil),
            (b"*0\r\n", Reply::Array(vec![])),
            (
                b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n",
                Reply::Array(vec![bytes("a"), Reply::Array(vec![Reply::Number(1), Reply::Nil])]),
            ),
            (b"*2\r\n*-1\r\n:1\r\n", Reply::Array(vec![Reply::Nil, Reply::Number(1)])),
            (b"_\r\n", Reply::Nil),
            (b"#t\r\n", Reply::Number(1)),
            (b"#f\r\n", Reply::Number(0)),
            (b",1.5\r\n", bytes("1.5")),
            (b"(12345678901234567890\r\n", bytes("12345678901234567890")),
            (b"!5\r\nERR a\r\n", Reply::Error(b"ERR a")),
            (b"=6\r\ntxt:hi\r\n", bytes("hi")),
            (b"%1\r\n+OK\r\n:2\r\n", Reply::Array(vec![Reply::Okay, Reply::Number(2)])),
            (b"~1\r\n_\r\n", Reply::Array(vec![Reply::Nil])),
            (b">2\r\n$1\r\na\r\n:1\r\n", Reply::Push(vec![bytes("a"), Reply::Number(1)])),
            (b"|1\r\n+OK\r\n%0\r\n:3\r\n", Reply::Number(3)),
        ];
        for (text, reply) in cases {
            let mut decoder = Decoder::default();
            for len in 0..text.len() {
                assert_eq!(decoder.decode(&text[..len]), Ok(None), "{text:?}");
            }
            assert_eq!(decoder.decode(text), Ok(Some((reply.clone(), text.len()))));
            // The decoder starts again with the next reply.
            let twice = [text, text].concat();
            assert_eq!(decoder.decode(&twice), Ok(Some((reply, text.len()))));
        }
    }

    #[test]
    fn invalid_bytes_are_malformed() {
        let long = [b'-'; MAX_LINE];
        let deep = b"*1\r\n".repeat(MAX_DEPTH + 1);
        let deep = [&deep[..], b":1\r\n"].concat();
        for text in [
            &b"\r\n"[..],
            b"$x\r\n",
            b"$-2\r\n",
            b"$1\r\nabc",
            b":\r\n",
            b"HTTP\n",
            b"$9999999999999999999999\r\n",
            b"*-2\r\n",
            b"*x\r\n",
            b"*9223372036854775807\r\n",
            b"*1\r\nHTTP/1.1\r\n",
            b"#x\r\n",
            b"=3\r\ntxt\r\n",
            b"_x\r\n",
            b",\r\n",
            &long,
            &deep,
        ] {
            assert_eq!(decode(text), Err(Malformed), "{text:?}");
        }
        // Such a reply never completes, but it is not malformed yet.
        assert_eq!(decode(b"$9223372036854775807\r\n"), Ok(None));
        assert_eq!(decode(b"*1000000000000\r\n"), Ok(None));
    }

    /// A reply and its encoding.
    fn encoded() -> impl Strategy<Value = (Reply, Vec<u8>)> {
        let line = "[ -~]{1,20}".prop_filter("another status", |text| text != "OK");
        let scalar = prop_oneof![
            Just((Reply::Okay, b"+OK\r\n".to_vec())),
            Just((Reply::Nil, b"$-1\r\n".to_vec())),
            Just((Reply::Nil, b"_\r\n".to_vec())),
            any::<i64>().prop_map(|number| (Reply::Number(number), format!(":{number}\r\n").into_bytes())),
            line.prop_map(|text| (Reply::Status(text.clone().into()), format!("+{text}\r\n").into_bytes())),
            "[ -~]{0,20}".prop_map(|text| {
                (Reply::Error(text.clone().into()), format!("-{text}\r\n").into_bytes())
            }),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| {
                let encoded = [format!("${}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat();
                (Reply::Bytes(bytes), encoded)
            }),
        ];
        scalar.prop_recursive(4, 64, 6, |inner| {
            (proptest::collection::vec(inner, 0..6), prop_oneof![Just('*'), Just('~'), Just('>')]).prop_map(
                |(items, kind)| {
                    let mut encoded = format!("{kind}{}\r\n", items.len()).into_bytes();
                    encoded.extend(items.iter().flat_map(|(_, bytes)| bytes.clone()));
                    let items = items.into_iter().map(|(reply, _)| reply).collect();
                    (if kind == '>' { Reply::Push(items) } else { Reply::Array(items) }, encoded)
                },
            )
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn arbitrary_bytes_decode_the_same_in_pieces(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            check_replies(&bytes);
        }

        #[test]
        fn bytes_like_replies_decode_the_same_in_pieces(text in "[\\x01-\\x05]([*%~>|$:+_#,-][0-4]{0,2}\r\n){0,12}") {
            check_replies(text.as_bytes());
        }

        #[test]
        fn replies_may_arrive_in_any_pieces(
            replies in proptest::collection::vec(encoded(), 1..8),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let stream: Vec<u8> = replies.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            ends.push(stream.len());
            ends.sort_unstable();
            let (mut decoder, mut start, mut decoded) = (Decoder::default(), 0, Vec::new());
            for end in ends {
                while let Some((reply, len)) = decoder.decode(&stream[start..end]).unwrap() {
                    decoded.push(reply.to_owned());
                    start += len;
                }
            }
            prop_assert_eq!(start, stream.len());
            prop_assert_eq!(decoded, replies.into_iter().map(|(reply, _)| reply).collect::<Vec<_>>());
        }
    }
}
