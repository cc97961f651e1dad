//! Replies out of a stream that may be cut anywhere.
//!
//! What is whole is read in place; of an unfinished item only its bytes are kept, and of an unfinished array what it has so
//! far. All that one reply may grow to is bounded by `REPLY_MAX`, `VALUES_MAX` and `DEPTH_MAX` of [`crate::codec::resp`].

use crate::codec::resp::{Broken, DEPTH_MAX, Item, REPLY_MAX, VALUES_MAX, Value, item};

/// Room that is kept for the next unfinished item; more goes back at once.
const KEPT_MAX: usize = 4096;

/// The reader of one stream.
#[derive(Default)]
pub struct ReplyReader {
    /// The bytes of an unfinished item.
    kept: Vec<u8>,
    /// Arrays that are not whole, the outermost first: what they have, and how many they will.
    open: Vec<(Vec<Value>, usize)>,
    /// Bytes of this reply before what is kept.
    len: usize,
    /// Values of this reply that have begun or been promised.
    values: usize,
}

impl std::fmt::Debug for ReplyReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReplyReader({} bytes)", self.len + self.kept.len())
    }
}

impl ReplyReader {
    /// Reads `input` and appends the replies that are whole to `replies`.
    ///
    /// # Errors
    /// [`Broken`]: the stream is of no use any more. Replies before that were appended.
    pub fn read(&mut self, input: &[u8], replies: &mut Vec<Value>) -> Result<(), Broken> {
        if self.kept.is_empty() {
            let used = self.consume(input, replies)?;
            self.kept.extend_from_slice(&input[used..]);
        } else {
            let mut bytes = std::mem::take(&mut self.kept);
            bytes.extend_from_slice(input);
            let used = self.consume(&bytes, replies)?;
            bytes.drain(..used);
            bytes.shrink_to(if bytes.is_empty() { KEPT_MAX } else { usize::MAX });
            self.kept = bytes;
        }
        if self.len + self.kept.len() > REPLY_MAX { Err(Broken) } else { Ok(()) }
    }

    /// Reads all items that are whole; how many bytes they have.
    fn consume(&mut self, bytes: &[u8], replies: &mut Vec<Value>) -> Result<usize, Broken> {
        let mut used = 0;
        while let Some((item, len)) = item(&bytes[used..])? {
            used += len;
            self.len += len;
            if self.len > REPLY_MAX {
                return Err(Broken);
            }
            let value = match item {
                Item::Simple(text) => Some(Value::Simple(text.to_vec())),
                Item::Error(text) => Some(Value::Error(text.to_vec())),
                Item::Integer(number) => Some(Value::Integer(number)),
                Item::Bulk(bytes) => Some(Value::Bulk(bytes.to_vec())),
                Item::Null => Some(Value::Null),
                Item::Array(count) => {
                    self.values += count;
                    if self.values > VALUES_MAX || self.open.len() >= DEPTH_MAX {
                        return Err(Broken);
                    }
                    self.open.push((Vec::new(), count));
                    None
                }
            };
            if let Some(reply) = self.place(value) {
                replies.push(reply);
                (self.len, self.values) = (0, 0);
            }
        }
        Ok(used)
    }

    /// Puts a value where it belongs and closes the arrays that are whole; the reply, if it is.
    fn place(&mut self, mut value: Option<Value>) -> Option<Value> {
        loop {
            let Some((values, count)) = self.open.last_mut() else { return value };
            values.extend(value.take());
            if values.len() < *count {
                return None;
            }
            value = self.open.pop().map(|(values, _)| Value::Array(values));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..40);
        let leaf = prop_oneof![
            "[ -~]{0,20}".prop_map(|text| Value::Simple(text.into_bytes())),
            "[ -~]{0,20}".prop_map(|text| Value::Error(text.into_bytes())),
            any::<i64>().prop_map(Value::Integer),
            bytes.prop_map(Value::Bulk),
            Just(Value::Null),
        ];
        leaf.prop_recursive(5, 60, 6, |inner| proptest::collection::vec(inner, 0..6).prop_map(Value::Array))
    }

    fn read(pieces: &[&[u8]]) -> Result<Vec<Value>, Broken> {
        let (mut reader, mut replies) = (ReplyReader::default(), Vec::new());
        for piece in pieces {
            reader.read(piece, &mut replies)?;
        }
        assert!(reader.kept.is_empty() && reader.open.is_empty(), "all of it was read");
        Ok(replies)
    }

    #[test]
    fn a_reply_beyond_a_bound_is_broken_before_it_has_come() {
        let mut replies = Vec::new();
        let deep = b"*1\r\n".repeat(DEPTH_MAX + 1);
        assert_eq!(ReplyReader::default().read(&deep, &mut replies), Err(Broken));
        let wide = format!("*{0}\r\n*{0}\r\n", VALUES_MAX / 2 + 1);
        assert_eq!(ReplyReader::default().read(wide.as_bytes(), &mut replies), Err(Broken));
        let mut long = b"*3\r\n$3000000\r\n".to_vec();
        long.extend(vec![7; 3_000_000]);
        long.extend_from_slice(b"\r\n$3000000\r\n");
        let mut reader = ReplyReader::default();
        assert_eq!(reader.read(&long, &mut replies), Ok(()));
        assert_eq!(reader.read(&vec![7; 2_000_000], &mut replies), Err(Broken), "both are too long together");
        assert!(replies.is_empty());
    }

    #[test]
    fn nothing_is_kept_of_what_was_read() {
        let mut reader = ReplyReader::default();
        let mut replies = Vec::new();
        let mut bytes = Vec::new();
        Value::Bulk(vec![1; 1_000_000]).write(&mut bytes);
        for piece in bytes.repeat(3).chunks(16_384) {
            reader.read(piece, &mut replies).unwrap();
        }
        assert_eq!(replies.len(), 3);
        assert!(reader.kept.capacity() <= KEPT_MAX, "{}", reader.kept.capacity());
    }

    proptest! {
        #[test]
        fn every_split_of_a_stream_gives_the_same_values(
            values in proptest::collection::vec(value(), 0..6),
            cuts in proptest::collection::vec(any::<usize>(), 0..8),
        ) {
            let mut bytes = Vec::new();
            values.iter().for_each(|value| value.write(&mut bytes));
            prop_assert_eq!(read(&[&bytes]), Ok(values.clone()));
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(read(&single), Ok(values.clone()));
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let mut start = 0;
            let pieces: Vec<&[u8]> = cuts.iter().map(|&cut| &bytes[std::mem::replace(&mut start, cut)..cut]).collect();
            prop_assert_eq!(read(&pieces), Ok(values));
        }

        #[test]
        fn mangled_replies_are_read_or_refused_alike_however_they_are_cut(
            values in proptest::collection::vec(value(), 1..4),
            flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
            step in 1_usize..9,
        ) {
            let mut bytes = Vec::new();
            values.iter().for_each(|value| value.write(&mut bytes));
            for (at, byte) in flips {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            let (mut whole, mut cut) = (ReplyReader::default(), ReplyReader::default());
            let (mut of_whole, mut of_cut) = (Vec::new(), Vec::new());
            let ended = whole.read(&bytes, &mut of_whole);
            let cut_ended = bytes.chunks(step).try_for_each(|piece| cut.read(piece, &mut of_cut));
            prop_assert_eq!(ended, cut_ended);
            prop_assert_eq!(of_whole, of_cut);
        }
    }
}
