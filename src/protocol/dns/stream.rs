//! One question and its answer over a stream: each with its length in two bytes before it (RFC 1035 4.2.2, RFC 7766).

/// A question under way.
#[derive(Debug)]
pub(super) struct NameStream {
    outgoing: Vec<u8>,
    sent: usize,
    /// Never longer than the message that its first two bytes announce.
    incoming: Vec<u8>,
}

impl NameStream {
    pub(super) fn new(question: &[u8]) -> Self {
        let len = u16::try_from(question.len()).expect("a question is short");
        let outgoing = [&len.to_be_bytes(), question].concat();
        Self { outgoing, sent: 0, incoming: Vec::new() }
    }

    pub(super) fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.sent..]
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.sent += count;
    }

    /// Bytes came; the message, once it is whole. What follows it is not kept.
    pub(super) fn handle_input(&mut self, mut bytes: &[u8]) -> Option<&[u8]> {
        loop {
            let missing = match self.incoming[..] {
                [high, low, ref rest @ ..] => {
                    let missing = usize::from(u16::from_be_bytes([high, low])) - rest.len();
                    if missing == 0 {
                        return Some(&self.incoming[2..]);
                    }
                    missing
                }
                ref short => 2 - short.len(),
            };
            if bytes.is_empty() {
                return None;
            }
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            self.incoming.extend_from_slice(now);
            bytes = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_however_it_is_cut_and_nothing_more_is_kept() {
        let bytes = b"\0\x05helloand more";
        for cut in 0..bytes.len() {
            let mut stream = NameStream::new(b"q");
            assert_eq!(stream.outgoing(), b"\0\x01q");
            let first = stream.handle_input(&bytes[..cut]).map(<[u8]>::to_vec);
            assert_eq!(first.as_deref(), (cut >= 7).then_some(&b"hello"[..]), "cut at {cut}");
            assert_eq!(stream.handle_input(&bytes[cut..]), Some(&b"hello"[..]), "cut at {cut}");
            assert_eq!(stream.incoming.len(), 7);
        }
        assert_eq!(NameStream::new(b"q").handle_input(b"\0\0"), Some(&b""[..]));
    }
}
