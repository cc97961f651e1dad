//! What is said to a Redis or Valkey server and what it answers: RESP2, and the slot of a key in a cluster.
//!
//! A stream of replies is read item by item, so that nothing is read twice however it is cut, and a length is judged before
//! anything is kept. RESP3, inline commands and what servers push are not read: nobody asks for them.

use nom::Parser;
use nom::bytes::streaming::{tag, take, take_until};
use nom::character::streaming::one_of;
use nom::error::{Error as NomError, ErrorKind};
use nom::sequence::terminated;

/// Bytes of one reply. A longer one is [`Broken`] as soon as a length in it says so.
pub const REPLY_MAX: usize = 4 << 20;
/// Arrays within arrays. A deeper reply is [`Broken`].
pub const DEPTH_MAX: usize = 8;
/// Values in one reply, arrays among them. A reply of more is [`Broken`].
pub const VALUES_MAX: usize = 1 << 17;
/// Bytes of a line: a status, an error, a number. A longer one is [`Broken`].
pub const LINE_MAX: usize = 4096;
/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;

/// What came is no reply, or one beyond our bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// A reply, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A status as `OK`; no line break in it.
    Simple(Vec<u8>),
    /// An error: its code is the first word. No line break in it.
    Error(Vec<u8>),
    /// A number.
    Integer(i64),
    /// A string of bytes.
    Bulk(Vec<u8>),
    /// Several values.
    Array(Vec<Self>),
    /// Nothing: a null string or a null array.
    Null,
}

impl Value {
    /// The bytes of a string or a status.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(bytes) | Self::Bulk(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The number that it is, or that a string spells.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => std::str::from_utf8(self.bytes()?).ok()?.parse().ok(),
        }
    }

    /// The values of an array.
    #[must_use]
    pub fn array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }

    /// Appends it as a server would send it.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Simple(text) => write_line(b'+', text, out),
            Self::Error(text) => write_line(b'-', text, out),
            Self::Integer(number) => write_line(b':', number.to_string().as_bytes(), out),
            Self::Bulk(bytes) => write_bulk(bytes, out),
            Self::Array(values) => {
                write_line(b'*', values.len().to_string().as_bytes(), out);
                values.iter().for_each(|value| value.write(out));
            }
            Self::Null => out.extend_from_slice(b"$-1\r\n"),
        }
    }
}

/// A part of a reply: a value that holds no other, or the head of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// See [`Value::Simple`].
    Simple(&'a [u8]),
    /// See [`Value::Error`].
    Error(&'a [u8]),
    /// See [`Value::Integer`].
    Integer(i64),
    /// See [`Value::Bulk`].
    Bulk(&'a [u8]),
    /// An array of so many values, which follow; at most [`VALUES_MAX`].
    Array(usize),
    /// See [`Value::Null`].
    Null,
}

/// The first item of `input`, and how many bytes it has; none while it is not whole.
///
/// # Errors
/// [`Broken`], also for one longer than [`REPLY_MAX`], which is known from its head.
pub fn item(input: &[u8]) -> Result<Option<(Item<'_>, usize)>, Broken> {
    match item_of(input) {
        Ok((rest, item)) => Ok(Some((item, input.len() - rest.len()))),
        Err(nom::Err::Incomplete(_)) => Ok(None),
        Err(nom::Err::Error(_) | nom::Err::Failure(_)) => Err(Broken),
    }
}

fn item_of(input: &[u8]) -> nom::IResult<&[u8], Item<'_>> {
    let failed = || nom::Err::Failure(NomError::new(input, ErrorKind::Verify));
    let (rest, kind) = one_of("+-:$*").parse(input)?;
    let (rest, line) = match terminated(take_until("\r\n"), take(2_usize)).parse(rest) {
        Err(nom::Err::Incomplete(_)) if rest.len() > LINE_MAX => return Err(failed()),
        parsed => parsed?,
    };
    if line.len() > LINE_MAX {
        return Err(failed());
    }
    match kind {
        '+' => return Ok((rest, Item::Simple(line))),
        '-' => return Ok((rest, Item::Error(line))),
        _ => {}
    }
    let number: i64 = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok()).ok_or_else(failed)?;
    match (kind, usize::try_from(number)) {
        (':', _) => Ok((rest, Item::Integer(number))),
        (_, Err(_)) if number == -1 => Ok((rest, Item::Null)),
        ('$', Ok(len)) if len <= REPLY_MAX => {
            let (rest, bytes) = terminated(take(len), tag(&b"\r\n"[..])).parse(rest)?;
            Ok((rest, Item::Bulk(bytes)))
        }
        ('*', Ok(count)) if count <= VALUES_MAX => Ok((rest, Item::Array(count))),
        _ => Err(failed()),
    }
}

/// Appends a command as a client sends it: an array of strings.
pub fn write_command(command: &[&[u8]], out: &mut Vec<u8>) {
    write_line(b'*', command.len().to_string().as_bytes(), out);
    command.iter().for_each(|word| write_bulk(word, out));
}

fn write_line(kind: u8, text: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn write_bulk(bytes: &[u8], out: &mut Vec<u8>) {
    write_line(b'$', bytes.len().to_string().as_bytes(), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// The slot of a key, below [`SLOTS`]: of what stands between its first `{` and the next `}`, where that is something.
#[must_use]
pub fn key_slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        Some(&rest[..close]).filter(|tag| !tag.is_empty())
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_read_and_a_part_of_one_is_not() {
        for (bytes, wanted) in [
            (&b"+OK\r\n"[..], Item::Simple(b"OK")),
            (b"-ERR no\r\n", Item::Error(b"ERR no")),
            (b":-12\r\n", Item::Integer(-12)),
            (b"$5\r\na\r\nbc\r\n", Item::Bulk(b"a\r\nbc")),
            (b"$0\r\n\r\n", Item::Bulk(b"")),
            (b"*2\r\n", Item::Array(2)),
            (b"$-1\r\n", Item::Null),
            (b"*-1\r\n", Item::Null),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(item(&bytes[..end]), Ok(None), "{end} bytes of {wanted:?}");
            }
            let longer = [bytes, b"+x"].concat();
            assert_eq!(item(&longer), Ok(Some((wanted, bytes.len()))));
        }
    }

    #[test]
    fn what_is_no_reply_or_too_long_is_refused_at_once() {
        let line = [&b"+"[..], &[b'x'; LINE_MAX + 1]].concat();
        for bad in [&b"x"[..], b"$x\r\n", b"$-2\r\n", b":\r\n", b"$3\r\nabcde", b"$4194305\r\n", b"*131073\r\n", &line]
        {
            assert_eq!(item(bad), Err(Broken), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn commands_are_written_and_keys_have_the_slots_of_the_specification() {
        let mut out = Vec::new();
        write_command(&[b"GET", b"a\r\n"], &mut out);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$3\r\na\r\n\r\n");
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(key_slot(b"foo"), 12_182);
        assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"user1000"));
        assert_eq!(key_slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS, "an empty tag is none");
        assert_eq!(key_slot(b"foo{{bar}}zap"), key_slot(b"{bar"));
        assert_eq!(key_slot(b"foo{bar}{zap}"), key_slot(b"bar"));
    }
}
