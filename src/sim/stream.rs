//! Streams as the simulator has them: bytes in order, with a kernel's buffers and a congestion window.
//!
//! Content that is as it should be travels as a name (which truth, which range) and is copied once, into the receiver's
//! buffer; everything else travels as bytes. The model of TCP is slow start, one more packet a round trip, half at a loss:
//! enough to see what delay and loss do to a swarm, no more.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::base::time::Time;
use crate::sim::storage::Truth;

/// Bytes that a kernel takes of a stream before they are on the line.
pub const SEND_BUFFER: usize = 64 * 1024;
/// Bytes of a stream that may be on the line or unread at the other end.
pub const WINDOW: usize = 1024 * 1024;
/// Bytes of one packet.
pub const PACKET: usize = 1460;
/// What a congestion window begins with.
const WINDOW_FIRST: usize = 10 * PACKET;
/// And what it never falls below.
const WINDOW_LEAST: usize = 2 * PACKET;
/// How soon a lost packet is sent again where too little follows it to show the loss.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// Part of a stream.
#[derive(Debug, Clone)]
enum Run {
    Bytes(Vec<u8>),
    Content(Arc<Truth>, Range<usize>),
}

impl Run {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Content(_, range) => range.len(),
        }
    }

    /// Takes the first `count` bytes out.
    fn split_to(&mut self, count: usize) -> Self {
        match self {
            Self::Bytes(bytes) => {
                let rest = bytes.split_off(count);
                Self::Bytes(std::mem::replace(bytes, rest))
            }
            Self::Content(truth, range) => {
                let front = range.start..range.start + count;
                range.start += count;
                Self::Content(Arc::clone(truth), front)
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Content(truth, range) => &truth.bytes()[range.clone()],
        }
    }
}

/// Bytes in order.
#[derive(Debug, Clone, Default)]
pub struct Bytes {
    runs: VecDeque<Run>,
    /// Bytes of the first run that were read already.
    done: usize,
    len: usize,
}

impl Bytes {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Content among them, bytes.
    #[must_use]
    pub fn content_len(&self) -> usize {
        let content = self.runs.iter().filter(|run| matches!(run, Run::Content(..)));
        content.map(Run::len).sum()
    }

    /// Where in its content the first content among them is.
    #[must_use]
    pub fn content_at(&self) -> Option<usize> {
        self.runs.iter().find_map(|run| match run {
            Run::Content(_, range) => Some(range.start),
            Run::Bytes(_) => None,
        })
    }

    /// Appends `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        if let Some(Run::Bytes(last)) = self.runs.back_mut() {
            last.extend_from_slice(bytes);
        } else {
            self.runs.push_back(Run::Bytes(bytes.to_vec()));
        }
    }

    /// Appends a range of a truth.
    pub fn push_content(&mut self, truth: &Arc<Truth>, range: Range<usize>) {
        self.len += range.len();
        match self.runs.back_mut() {
            Some(Run::Content(last, before)) if Arc::ptr_eq(last, truth) && before.end == range.start => {
                before.end = range.end;
            }
            _ => self.runs.push_back(Run::Content(Arc::clone(truth), range)),
        }
    }

    /// Appends all of `more`, nothing of which was read.
    pub fn append(&mut self, mut more: Self) {
        self.len += more.len;
        self.runs.append(&mut more.runs);
    }

    /// Takes the first `count` bytes out, of bytes that are never read from here.
    #[must_use]
    pub fn cut(&mut self, count: usize) -> Self {
        let mut taken = Self::default();
        while taken.len < count {
            let Some(run) = self.runs.front_mut() else { break };
            let left = count - taken.len;
            let front =
                if run.len() <= left { self.runs.pop_front().expect("it was just there") } else { run.split_to(left) };
            taken.len += front.len();
            taken.runs.push_back(front);
        }
        self.len -= taken.len;
        taken
    }

    /// All of them, in order, of bytes that are never read from here.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &[u8]> {
        self.runs.iter().map(Run::bytes)
    }

    /// What identifies them: content by its place, everything else by its bytes.
    pub fn digest_into(&self, out: &mut Vec<u8>) {
        for run in &self.runs {
            match run {
                Run::Bytes(bytes) => {
                    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
                    out.extend_from_slice(bytes);
                }
                Run::Content(_, range) => {
                    out.extend_from_slice(&(range.start as u64).to_be_bytes());
                    out.extend_from_slice(&(range.end as u64).to_be_bytes());
                }
            }
        }
    }
}

impl Read for Bytes {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while read < buf.len()
            && let Some(run) = self.runs.front()
        {
            let bytes = &run.bytes()[self.done..];
            let count = bytes.len().min(buf.len() - read);
            buf[read..read + count].copy_from_slice(&bytes[..count]);
            read += count;
            if count == bytes.len() {
                self.runs.pop_front();
                self.done = 0;
            } else {
                self.done += count;
            }
        }
        self.len -= read;
        Ok(read)
    }
}

/// One end of a stream, as the engine sees it.
#[derive(Debug, Default)]
pub struct SimStream {
    /// Written and not yet on the line.
    pub(crate) out: Bytes,
    /// Delivered and not yet read.
    pub(crate) incoming: Bytes,
    /// The other end has closed.
    pub(crate) ended: bool,
    /// It broke.
    pub(crate) broken: bool,
    /// More was written than there was room for: the writer is told when there is room again.
    pub(crate) is_short: bool,
}

impl SimStream {
    /// How many bytes may be written.
    pub(crate) fn room(&self) -> usize {
        SEND_BUFFER.saturating_sub(self.out.len())
    }

    /// How many of `len` bytes are taken now; an error if none are.
    pub(crate) fn take(&mut self, len: usize) -> io::Result<usize> {
        if self.broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let taken = self.room().min(len);
        self.is_short |= taken < len;
        if taken == 0 && len > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(taken)
    }
}

impl Read for SimStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.incoming.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.incoming.read(buf)
    }
}

impl Write for SimStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.take(bytes.len())?;
        self.out.push(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What TCP knows of one direction of a stream, at its sender.
#[derive(Debug)]
pub(crate) struct Flow {
    /// On the line, or delivered and not yet acknowledged.
    in_flight: usize,
    window: usize,
    threshold: usize,
    /// Losses until then belong to one that was answered.
    recovers_until: Time,
    /// When the last bytes sent will be there: nothing overtakes them.
    pub(crate) last_arrival: Time,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            in_flight: 0,
            window: WINDOW_FIRST,
            threshold: WINDOW,
            recovers_until: Time::ZERO,
            last_arrival: Time::ZERO,
        }
    }
}

impl Flow {
    /// How many bytes may go on the line now; none rather than a crumb.
    pub(crate) fn room(&self) -> usize {
        let room = self.window.saturating_sub(self.in_flight);
        if room < PACKET && self.in_flight > 0 { 0 } else { room }
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.in_flight += bytes;
    }

    /// `bytes` were acknowledged.
    pub(crate) fn acknowledged(&mut self, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        let more = if self.window < self.threshold { bytes } else { PACKET * bytes / self.window };
        self.window = (self.window + more).min(WINDOW);
    }

    /// Something was lost, or the line's queue is too long: half the speed. Returns how long it takes until the loss is
    /// repaired.
    pub(crate) fn lost(&mut self, now: Time, round_trip: Duration) -> Duration {
        let repaired = if self.window < 4 * PACKET { round_trip + RETRANSMIT } else { round_trip };
        if now >= self.recovers_until {
            self.recovers_until = now + round_trip;
            self.threshold = (self.window / 2).max(WINDOW_LEAST);
            self.window = self.threshold;
        }
        repaired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_however_they_are_cut() {
        let truth = Arc::new(Truth::new("x".into(), (0..=255).collect(), 256));
        let mut bytes = Bytes::default();
        bytes.push(b"head");
        bytes.push_content(&truth, 10..50);
        bytes.push_content(&truth, 50..60);
        bytes.push(b"tail");
        let mut expected = b"head".to_vec();
        expected.extend(10..60);
        expected.extend(b"tail");
        assert_eq!((bytes.len(), bytes.content_len()), (58, 50));
        for cut in 0..=58 {
            let mut rest = bytes.clone();
            let mut whole = rest.cut(cut);
            assert_eq!((whole.len(), rest.len()), (cut, 58 - cut));
            whole.append(rest);
            let mut out: Vec<u8> = Vec::new();
            for step in [1, 7, 3, 100] {
                let mut buf = vec![0; step];
                let read = whole.read(&mut buf).unwrap();
                out.extend(&buf[..read]);
            }
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn a_window_grows_while_nothing_is_lost_and_halves_once_a_round_trip() {
        let mut flow = Flow::default();
        let trip = Duration::from_millis(50);
        for _ in 0..10 {
            let room = flow.room();
            flow.sent(room);
            assert_eq!(flow.room(), 0);
            flow.acknowledged(room);
        }
        assert_eq!(flow.window, WINDOW);
        flow.lost(Time::from_secs(1), trip);
        flow.lost(Time::from_secs(1), trip);
        assert_eq!(flow.window, WINDOW / 2);
        flow.acknowledged(WINDOW / 2);
        assert_eq!(flow.window, WINDOW / 2 + PACKET, "one packet more a round trip");
        for second in 2..40 {
            flow.lost(Time::from_secs(second), trip);
        }
        assert_eq!(flow.window, WINDOW_LEAST);
    }
}
