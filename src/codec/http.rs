//! HTTP/1.1: a request's bytes, and the answer as it comes in, piece by piece, never longer than allowed.
//!
//! The head is read by `httparse`, a gzipped body is inflated by `miniz_oxide`, both under a bound: a declared length reserves
//! nothing, and a bomb stops at the bound.

use std::fmt;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// Bytes of a head; a longer one fails.
pub const HEAD_MAX: usize = 8 * 1024;
/// Lines of a head; more fail.
const LINES_MAX: usize = 64;
/// Bytes of a chunk's line; a longer one fails.
const CHUNK_LINE_MAX: usize = 64;

/// What went wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpError {
    /// It is not HTTP, or its framing is broken.
    Malformed,
    /// Its head or body is longer than allowed.
    TooLong,
    /// It ended too early.
    Cut,
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it does not speak HTTP",
            Self::TooLong => "its answer is longer than allowed",
            Self::Cut => "its answer was cut short",
        })
    }
}

/// The bytes of a GET request. `path` and `authority` hold no blanks or control bytes.
#[must_use]
pub fn get_request(path: &str, authority: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: SwarmTorrent/{}\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    )
    .into_bytes()
}

/// The same without a word about who asks.
#[must_use]
pub fn anonymous_request(path: &str, authority: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n")
        .into_bytes()
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// `Location`, of a redirect.
    pub location: Option<String>,
    /// Its body, inflated.
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    /// A chunk's line comes next.
    ChunkLine,
    /// So many bytes of a chunk are still to come, and its line end.
    Chunk(u64),
    /// The lines after the last chunk.
    Trailer,
    /// Until the end of the stream.
    UntilEnd,
    /// Nothing more.
    Done,
}

/// An answer as it comes in.
#[derive(Debug)]
pub struct ResponseReader {
    /// Bytes that wait for the rest of a head or a line. Bounded by their maxima.
    pending: Vec<u8>,
    head: Option<(u16, Option<String>, bool)>,
    framing: Framing,
    body: Vec<u8>,
    body_max: usize,
}

impl ResponseReader {
    /// An answer whose body has at most `body_max` bytes, inflated or not.
    #[must_use]
    pub fn new(body_max: usize) -> Self {
        Self { pending: Vec::new(), head: None, framing: Framing::Done, body: Vec::new(), body_max }
    }

    /// More bytes came; the answer, once it is whole.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<Option<Response>, HttpError> {
        let mut bytes = bytes;
        while self.head.is_none() {
            if bytes.is_empty() {
                return Ok(None);
            }
            let room = HEAD_MAX + 1 - self.pending.len();
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.pending.extend_from_slice(now);
            match self.read_head()? {
                Some(consumed) => {
                    let surplus = self.pending.len() - consumed;
                    self.pending.clear();
                    bytes = &bytes[now.len() - surplus..];
                    if self.head.as_ref().is_some_and(|(status, ..)| (100..200).contains(status)) {
                        self.head = None;
                    }
                }
                None if self.pending.len() > HEAD_MAX => return Err(HttpError::TooLong),
                None => bytes = rest,
            }
        }
        self.read_body(bytes)?;
        if self.framing == Framing::Done { self.finish().map(Some) } else { Ok(None) }
    }

    /// The stream ended.
    ///
    /// # Errors
    /// [`HttpError::Cut`] unless that is how the body ends.
    pub fn handle_end(&mut self) -> Result<Response, HttpError> {
        if self.head.is_some() && matches!(self.framing, Framing::UntilEnd | Framing::Done) {
            self.finish()
        } else {
            Err(HttpError::Cut)
        }
    }

    fn read_head(&mut self) -> Result<Option<usize>, HttpError> {
        let mut lines = [httparse::EMPTY_HEADER; LINES_MAX];
        let mut response = httparse::Response::new(&mut lines);
        let parsed = response.parse(&self.pending).map_err(|error| match error {
            httparse::Error::TooManyHeaders => HttpError::TooLong,
            _ => HttpError::Malformed,
        })?;
        let httparse::Status::Complete(consumed) = parsed else { return Ok(None) };
        let status = response.code.ok_or(HttpError::Malformed)?;
        let line = |name: &str| {
            let found = response.headers.iter().find(|line| line.name.eq_ignore_ascii_case(name));
            found.and_then(|line| std::str::from_utf8(line.value).ok()).map(str::trim)
        };
        let gzip = line("content-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"));
        let chunked = line("transfer-encoding").is_some_and(|coding| coding.to_ascii_lowercase().contains("chunked"));
        self.framing = if matches!(status, 100..200 | 204 | 304) {
            Framing::Done
        } else if chunked {
            Framing::ChunkLine
        } else if let Some(length) = line("content-length") {
            Framing::Length(length.parse().map_err(|_| HttpError::Malformed)?)
        } else {
            Framing::UntilEnd
        };
        if self.framing == Framing::Length(0) {
            self.framing = Framing::Done;
        }
        self.head = Some((status, line("location").map(str::to_owned), gzip));
        Ok(Some(consumed))
    }

    fn read_body(&mut self, mut bytes: &[u8]) -> Result<(), HttpError> {
        while !bytes.is_empty() {
            match self.framing {
                Framing::Done => return Ok(()),
                Framing::UntilEnd => {
                    self.take(bytes)?;
                    return Ok(());
                }
                Framing::Length(left) => {
                    let now = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.take(&bytes[..now])?;
                    bytes = &bytes[now..];
                    let left = left - now as u64;
                    self.framing = if left == 0 { Framing::Done } else { Framing::Length(left) };
                }
                Framing::Chunk(left) => {
                    let now = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.take(&bytes[..now])?;
                    bytes = &bytes[now..];
                    let left = left - now as u64;
                    self.framing = if left == 0 { Framing::ChunkLine } else { Framing::Chunk(left) };
                }
                Framing::ChunkLine | Framing::Trailer => bytes = self.read_line(bytes)?,
            }
        }
        Ok(())
    }

    /// A line of chunked framing: a chunk's length, the empty line after a chunk, or a trailer.
    fn read_line<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], HttpError> {
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
            self.pending.extend_from_slice(&bytes[..bytes.len().min(CHUNK_LINE_MAX + 1)]);
            return if self.pending.len() > CHUNK_LINE_MAX { Err(HttpError::TooLong) } else { Ok(&[]) };
        };
        self.pending.extend_from_slice(&bytes[..end.min(CHUNK_LINE_MAX + 1)]);
        if self.pending.len() > CHUNK_LINE_MAX {
            return Err(HttpError::TooLong);
        }
        let line = std::mem::take(&mut self.pending);
        let line = std::str::from_utf8(&line).map_err(|_| HttpError::Malformed)?.trim();
        self.framing = match (self.framing, line) {
            (Framing::Trailer, "") => Framing::Done,
            (Framing::Trailer, _) => Framing::Trailer,
            (_, "") => Framing::ChunkLine,
            (_, line) => {
                let digits = line.split(';').next().expect("split gives at least one").trim();
                match u64::from_str_radix(digits, 16).map_err(|_| HttpError::Malformed)? {
                    0 => Framing::Trailer,
                    len => Framing::Chunk(len),
                }
            }
        };
        Ok(&bytes[end + 1..])
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        if self.body.len() + bytes.len() > self.body_max {
            return Err(HttpError::TooLong);
        }
        self.body.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self) -> Result<Response, HttpError> {
        let (status, location, gzip) = self.head.take().ok_or(HttpError::Cut)?;
        let mut body = std::mem::take(&mut self.body);
        if gzip && !body.is_empty() {
            body = gunzip(&body, self.body_max)?;
        }
        Ok(Response { status, location, body })
    }
}

/// Inflates a gzip member (RFC 1952) of at most `max` bytes.
fn gunzip(bytes: &[u8], max: usize) -> Result<Vec<u8>, HttpError> {
    let [0x1f, 0x8b, 8, flags, _, _, _, _, _, _, rest @ ..] = bytes else { return Err(HttpError::Malformed) };
    let mut rest = rest;
    if flags & 4 != 0 {
        let (len, after) = rest.split_first_chunk::<2>().ok_or(HttpError::Cut)?;
        rest = after.get(usize::from(u16::from_le_bytes(*len))..).ok_or(HttpError::Cut)?;
    }
    for text in [8, 16] {
        if flags & text != 0 {
            let end = rest.iter().position(|&byte| byte == 0).ok_or(HttpError::Cut)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & 2 != 0 {
        rest = rest.get(2..).ok_or(HttpError::Cut)?;
    }
    let mut out = vec![0; rest.len().saturating_mul(4).clamp(4096, max.max(4096))];
    let mut machine = Box::<DecompressorOxide>::default();
    let (mut read, mut written) = (0, 0);
    loop {
        let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | TINFL_FLAG_HAS_MORE_INPUT;
        let (status, more_read, more_written) = decompress(&mut machine, &rest[read..], &mut out, written, flags);
        read += more_read;
        written += more_written;
        match status {
            TINFLStatus::Done => {
                out.truncate(written);
                return Ok(out);
            }
            TINFLStatus::HasMoreOutput if out.len() < max => out.resize(out.len().saturating_mul(2).min(max), 0),
            TINFLStatus::HasMoreOutput => return Err(HttpError::TooLong),
            TINFLStatus::NeedsMoreInput => return Err(HttpError::Cut),
            _ => return Err(HttpError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nT: x\r\n\r\n";

    fn read(bytes: &[u8], max: usize) -> Result<Response, HttpError> {
        let mut reader = ResponseReader::new(max);
        match reader.handle_input(bytes)? {
            Some(response) => Ok(response),
            None => reader.handle_end(),
        }
    }

    #[test]
    fn bodies_are_framed_by_length_by_chunks_and_by_the_end() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world"[..],
            CHUNKED,
            b"HTTP/1.0 200 OK\r\n\r\nhello world",
        ] {
            assert_eq!(read(bytes, 11).unwrap().body, b"hello world");
            assert_eq!(read(bytes, 10), Err(HttpError::TooLong));
        }
        let redirect = read(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 10).unwrap();
        assert_eq!((redirect.status, redirect.location.as_deref()), (302, Some("/x")));
        assert_eq!(read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", 10).unwrap().status, 204);
    }

    #[test]
    fn a_gzipped_body_is_inflated_and_a_bomb_stops_at_the_bound() {
        let gzip = |bytes: &[u8]| {
            let mut out = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3];
            out.extend(b"name\0");
            out.extend(miniz_oxide::deflate::compress_to_vec(bytes, 6));
            out.extend([0; 8]);
            let mut whole =
                format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", out.len())
                    .into_bytes();
            whole.extend(out);
            whole
        };
        let text = b"hello ".repeat(5000);
        assert_eq!(read(&gzip(&text), 1 << 20).unwrap().body, text);
        assert_eq!(read(&gzip(&vec![0; 10 << 20]), 1 << 20), Err(HttpError::TooLong));
    }

    #[test]
    fn broken_answers_end_soon_and_hold_little() {
        assert_eq!(read(b"garbage\r\n\r\n", 10), Err(HttpError::Malformed));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", 10), Err(HttpError::Cut));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", 10), Err(HttpError::Malformed));
        let mut long = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
        long.extend(vec![b'a'; 9000]);
        assert_eq!(read(&long, 10), Err(HttpError::TooLong));
        let mut reader = ResponseReader::new(10);
        reader.handle_input(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert_eq!(reader.handle_input(&[b'1'; 100]), Err(HttpError::TooLong));
        let huge = b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nabc";
        assert_eq!(read(huge, 10), Err(HttpError::Cut));
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same_answer(cuts in proptest::collection::vec(0..CHUNKED.len(), 0..6)) {
            let mut cuts = cuts;
            cuts.extend([0, CHUNKED.len()]);
            cuts.sort_unstable();
            let mut reader = ResponseReader::new(100);
            let mut response = None;
            for pair in cuts.windows(2) {
                response = response.or(reader.handle_input(&CHUNKED[pair[0]..pair[1]]).unwrap());
            }
            prop_assert_eq!(response.unwrap().body, b"hello world");
        }
    }
}
