//! What we asked a peer for: which blocks are out, how many more to ask, whether it lets us wait.
//!
//! The depth of the queue follows the peer: slow start at first (one more for each block that comes, so it doubles each
//! round trip) until a second brings no more than the one before; from then on what the peer delivers in a round trip
//! and a quarter of a second. Which blocks to ask is the torrent's business.

use std::time::Duration;

use crate::base::geometry::{BLOCK_LEN, Block, Piece};
use crate::base::time::Time;
use crate::protocol::peer::queue::BlockQueue;

/// Blocks asked of one peer at once. No more are asked.
pub(super) const REQUESTS_MAX: usize = 512;
/// Blocks asked of a peer that does not say what it takes (`reqq`, BEP 10).
const REQUESTS_UNSAID_MAX: usize = 250;
/// Blocks asked at the start, and of a slow peer.
const REQUESTS_MIN: usize = 2;
/// Blocks that slow start begins with.
const REQUESTS_FIRST: usize = 4;
/// Requests taken back, or cancelled, whose answer may still come. Beyond it the oldest is forgotten: its block will then
/// count as never asked for.
const LATE_MAX: usize = 1024;
/// How long an answer to a request that was taken back may still come.
const LATE_AGE_MAX: Duration = Duration::from_secs(120);
/// A peer that has sent no block for so long while it could is snubbed: it gets one request at a time.
pub(super) const SNUBBED_AFTER: Duration = Duration::from_secs(60);
/// How much more than a round trip's worth is asked, so that the peer's queue never runs dry. More would only bind blocks to
/// a slow peer that a faster one could send sooner.
const AHEAD: Duration = Duration::from_millis(250);
/// How often the rate is looked at.
const EPOCH: Duration = Duration::from_secs(1);

/// Who a block that came belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// We wait for it.
    Awaited,
    /// We did once: waste, and nobody's fault.
    Late,
    /// We never did.
    Unasked,
}

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Requests {
    /// Awaited, in the order asked. No block twice.
    awaited: BlockQueue<Time>,
    /// Taken back or cancelled, in the order of that.
    late: BlockQueue<Time>,
    /// What the peer takes at once.
    most: usize,
    /// Slow start's depth, while it lasts.
    starting: Option<usize>,
    epoch_at: Time,
    epoch_bytes: u64,
    /// Bytes a second of the latest whole epoch.
    rate_bytes: u64,
    /// The shortest time from a request to the head of its block.
    round_trip: Option<Duration>,
    /// When payload came last, or the peer unchoked us, whichever was later.
    heard_at: Time,
    snubbed: bool,
}

impl Requests {
    pub(super) fn new(now: Time) -> Self {
        Self {
            awaited: BlockQueue::default(),
            late: BlockQueue::default(),
            most: REQUESTS_UNSAID_MAX,
            starting: Some(REQUESTS_FIRST),
            epoch_at: now,
            epoch_bytes: 0,
            rate_bytes: 0,
            round_trip: None,
            heard_at: now,
            snubbed: false,
        }
    }

    /// The peer says how many requests it takes at once (BEP 10, `reqq`).
    pub(super) fn set_most(&mut self, reqq: u32) {
        self.most = usize::try_from(reqq).unwrap_or(REQUESTS_MAX).clamp(1, REQUESTS_MAX);
    }

    /// Notes a request; false if that block is awaited already, or as many as the peer takes.
    pub(super) fn ask(&mut self, now: Time, block: Block) -> bool {
        if self.awaited.len() >= self.most || self.is_awaited(block) {
            return false;
        }
        if self.awaited.is_empty() {
            self.epoch_at = now;
            self.epoch_bytes = 0;
        }
        self.late.remove(block);
        self.awaited.push(block, now);
        true
    }

    pub(super) fn is_awaited(&self, block: Block) -> bool {
        self.awaited.contains(block)
    }

    /// The head of a block came; it stays awaited until [`Requests::landed`].
    pub(super) fn claim(&mut self, now: Time, block: Block) -> Claim {
        if let Some(at) = self.awaited.get(block) {
            let took = now.since(*at);
            self.round_trip = Some(self.round_trip.map_or(took, |best| best.min(took)));
            Claim::Awaited
        } else if self.forgive(block) {
            Claim::Late
        } else {
            Claim::Unasked
        }
    }

    /// Takes `block` from the late ones; false if it is not among them.
    pub(super) fn forgive(&mut self, block: Block) -> bool {
        self.late.remove(block)
    }

    /// Payload of an awaited block came.
    pub(super) fn received(&mut self, now: Time, bytes: u64) {
        self.heard_at = now;
        self.snubbed = false;
        self.epoch_bytes += bytes;
        let elapsed = now.since(self.epoch_at);
        if elapsed >= EPOCH {
            let nanos = elapsed.as_nanos();
            let rate = u64::try_from(u128::from(self.epoch_bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX);
            if rate <= self.rate_bytes + self.rate_bytes / 10 {
                self.starting = None;
            }
            self.rate_bytes = rate;
            self.epoch_at = now;
            self.epoch_bytes = 0;
        }
    }

    /// The whole of an awaited block came.
    pub(super) fn landed(&mut self, block: Block) {
        self.take(block);
        if let Some(depth) = &mut self.starting {
            *depth += 1;
        }
    }

    /// Takes `block` from the awaited ones, with nothing more to come (a reject); false if it is not among them.
    pub(super) fn take(&mut self, block: Block) -> bool {
        self.awaited.remove(block)
    }

    /// Takes `block` from the awaited ones, though it may still come; false if it is not among them.
    pub(super) fn give_up(&mut self, now: Time, block: Block) -> bool {
        let found = self.take(block);
        if found {
            self.add_late(now, block);
        }
        found
    }

    /// Takes every awaited block for which `which` holds, though they may still come.
    pub(super) fn give_up_where(&mut self, now: Time, which: impl Fn(Piece) -> bool) -> Vec<Block> {
        if self.is_snubbed(now) {
            self.snubbed = true;
        }
        let given_up = self.awaited.take_where(|block, _| which(block.piece));
        given_up.iter().for_each(|block| self.add_late(now, *block));
        given_up
    }

    fn add_late(&mut self, now: Time, block: Block) {
        while let Some((_, at)) = self.late.first()
            && (now.since(*at) > LATE_AGE_MAX || self.late.len() >= LATE_MAX)
        {
            self.late.pop_first();
        }
        self.late.push(block, now);
    }

    /// The peer unchoked us: begin again.
    pub(super) fn restart(&mut self, now: Time) {
        self.starting = Some(self.depth().max(REQUESTS_FIRST));
        self.rate_bytes = 0;
        self.heard_at = now;
        self.epoch_at = now;
        self.epoch_bytes = 0;
    }

    pub(super) fn outstanding(&self) -> usize {
        self.awaited.len()
    }

    pub(super) fn is_snubbed(&self, now: Time) -> bool {
        self.snubbed || self.awaited.first().is_some_and(|(_, at)| now.since((*at).max(self.heard_at)) >= SNUBBED_AFTER)
    }

    /// How many blocks should be out.
    fn depth(&self) -> usize {
        let depth = self.starting.unwrap_or_else(|| {
            let time = self.round_trip.unwrap_or_default() + AHEAD;
            let bytes = u128::from(self.rate_bytes) * time.as_millis() / 1000;
            usize::try_from(bytes / u128::from(BLOCK_LEN) + 1).unwrap_or(REQUESTS_MAX)
        });
        depth.clamp(REQUESTS_MIN, REQUESTS_MAX).min(self.most)
    }

    /// How many more blocks to ask.
    pub(super) fn wanted(&self, now: Time) -> usize {
        let depth = if self.is_snubbed(now) { 1 } else { self.depth() };
        depth.saturating_sub(self.awaited.len())
    }

    /// Gives back what an idle peer does not need.
    pub(super) fn release(&mut self, now: Time) {
        self.late.take_where(|_, at| now.since(*at) > LATE_AGE_MAX);
        self.late.release();
        self.awaited.release();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn block(index: u32) -> Block {
        Block { piece: Piece(index / 16), offset: index % 16 * BLOCK_LEN, len: BLOCK_LEN }
    }

    /// A peer with a round trip of `round_trip` that sends `rate_blocks` blocks a second; returns the depth after 20 s.
    fn settle(round_trip: Duration, rate_blocks: u64) -> usize {
        let mut requests = Requests::new(Time::ZERO);
        requests.set_most(512);
        let gap = Duration::from_nanos(1_000_000_000 / rate_blocks);
        let (mut next, mut free_at, mut arrivals) = (0, Time::ZERO, VecDeque::new());
        let mut now = Time::ZERO;
        while now < Time::from_secs(20) {
            for _ in 0..requests.wanted(now) {
                assert!(requests.ask(now, block(next)));
                free_at = free_at.max(now + round_trip) + gap;
                arrivals.push_back((free_at, block(next)));
                next += 1;
            }
            let (at, came) = arrivals.pop_front().unwrap();
            now = at;
            assert_eq!(requests.claim(now, came), Claim::Awaited);
            requests.received(now, u64::from(BLOCK_LEN));
            requests.landed(came);
        }
        requests.depth()
    }

    #[test]
    fn the_depth_follows_rate_and_round_trip() {
        assert!((2..=4).contains(&settle(Duration::from_millis(50), 2)));
        let medium = settle(Duration::from_millis(100), 100);
        assert!((30..=60).contains(&medium), "{medium}");
        assert_eq!(settle(Duration::from_millis(200), 10_000), 512);
    }

    #[test]
    fn a_silent_peer_is_snubbed_until_it_sends_again() {
        let mut requests = Requests::new(Time::ZERO);
        requests.ask(Time::ZERO, block(0));
        requests.ask(Time::ZERO, block(1));
        assert!(!requests.is_snubbed(Time::from_secs(59)));
        assert!(requests.is_snubbed(Time::from_secs(60)));
        assert_eq!(requests.give_up_where(Time::from_secs(60), |_| true).len(), 2);
        assert_eq!(requests.wanted(Time::from_secs(61)), 1, "one at a time");
        requests.ask(Time::from_secs(61), block(2));
        assert_eq!(requests.wanted(Time::from_secs(61)), 0);
        requests.received(Time::from_secs(62), 1);
        assert!(requests.wanted(Time::from_secs(62)) > 0 && !requests.is_snubbed(Time::from_secs(62)));
    }

    #[test]
    fn a_block_taken_back_is_late_and_asked_again_it_is_awaited() {
        let mut requests = Requests::new(Time::ZERO);
        assert!(requests.ask(Time::ZERO, block(0)) && !requests.ask(Time::ZERO, block(0)));
        assert!(requests.give_up(Time::ZERO, block(0)));
        assert_eq!(requests.claim(Time::ZERO, block(0)), Claim::Late);
        assert_eq!(requests.claim(Time::ZERO, block(0)), Claim::Unasked, "once");
        requests.ask(Time::ZERO, block(0));
        requests.give_up(Time::ZERO, block(0));
        requests.ask(Time::ZERO, block(0));
        assert_eq!(requests.claim(Time::ZERO, block(0)), Claim::Awaited);
        requests.landed(block(0));
        assert_eq!(requests.claim(Time::ZERO, block(0)), Claim::Unasked);
    }

    #[test]
    fn no_more_is_asked_than_the_peer_takes() {
        let mut requests = Requests::new(Time::ZERO);
        requests.set_most(1);
        assert_eq!(requests.wanted(Time::ZERO), 1);
        assert!(requests.ask(Time::ZERO, block(0)) && !requests.ask(Time::ZERO, block(1)));
        requests.set_most(u32::MAX);
        assert_eq!(requests.most, REQUESTS_MAX);
    }

    #[test]
    fn what_was_taken_back_is_remembered_within_bounds() {
        let mut requests = Requests::new(Time::ZERO);
        for index in 0..5000 {
            requests.ask(Time::ZERO, block(index));
            requests.give_up(Time::ZERO, block(index));
        }
        assert_eq!(requests.late.len(), LATE_MAX);
        requests.release(Time::from_secs(121));
        assert_eq!(requests.late.len(), 0);
    }
}
