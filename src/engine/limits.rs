//! Rate limits of the whole node and of torrents, and who waits for them.
//!
//! A turn takes from two buckets, the node's and the torrent's. A connection that finds one of them empty is parked at the
//! end of a queue and woken in that order when there is something again, a block's worth for each: so peers get equal
//! shares, and nobody spins.

use crate::base::ids::ConnId;
use crate::base::queue::Queue;
use crate::base::rate::Bucket;
use crate::base::time::Time;

/// A turn under a limit moves at most so much: a block with its head, so that many peers take turns.
pub(crate) const LIMITED_TURN_BYTES: u64 = 16 * 1024 + 13;

/// One direction of payload.
#[derive(Debug)]
pub(crate) struct Limit {
    bucket: Bucket,
    /// Connections that found nothing. No longer than the table of connections.
    waiting: Queue<ConnId>,
    wake_at: Time,
}

impl Limit {
    /// No more than `rate_bytes` a second; 0 is no limit.
    pub(crate) fn new(now: Time, rate_bytes: u64) -> Self {
        Self { bucket: Bucket::new(now, rate_bytes), waiting: Queue::default(), wake_at: Time::NEVER }
    }

    /// Changes the limit and lets everybody try again.
    pub(crate) fn set_rate(&mut self, now: Time, rate_bytes: u64) {
        self.bucket.set_rate(now, rate_bytes);
        if !self.waiting.is_empty() {
            self.wake_at = now;
        }
    }

    /// Bytes a second; 0 is no limit.
    pub(crate) fn rate_bytes(&self) -> u64 {
        self.bucket.rate_bytes()
    }

    /// How much a turn may move now, here and in the torrent's own `bucket`.
    pub(crate) fn allowance(&mut self, now: Time, bucket: &mut Bucket) -> u64 {
        let available = self.bucket.available(now).min(bucket.available(now));
        match available {
            u64::MAX => available,
            // Crumbs are left to gather: a block or nothing, so that those who wait are never passed by.
            0..LIMITED_TURN_BYTES => 0,
            _ => LIMITED_TURN_BYTES,
        }
    }

    /// Takes what a turn moved.
    pub(crate) fn take(&mut self, bytes: u64, bucket: &mut Bucket) {
        self.bucket.take(bytes);
        bucket.take(bytes);
    }

    /// Parks `conn` until both buckets hold a block again.
    pub(crate) fn park(&mut self, now: Time, conn: ConnId, bucket: &mut Bucket) {
        self.waiting.push(conn);
        let here = self.bucket.available_at(now, LIMITED_TURN_BYTES);
        let there = bucket.available_at(now, LIMITED_TURN_BYTES);
        self.wake_at = self.wake_at.min(here.max(there));
    }

    /// Forgets a closed connection.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.waiting.remove(conn);
    }

    /// When somebody may go on.
    pub(crate) fn poll_timeout(&self) -> Time {
        self.wake_at
    }

    /// Takes those who may try again now: as many as the bucket feeds.
    pub(crate) fn wake(&mut self, now: Time, woken: &mut Vec<ConnId>) {
        if now < self.wake_at {
            return;
        }
        let feeds = self.bucket.available(now) / LIMITED_TURN_BYTES;
        let feeds = usize::try_from(feeds).unwrap_or(usize::MAX);
        woken.extend(std::iter::from_fn(|| self.waiting.pop()).take(feeds));
        self.wake_at = if self.waiting.is_empty() {
            Time::NEVER
        } else {
            self.bucket.available_at(now, LIMITED_TURN_BYTES).max(now + WAKE_STEP)
        };
    }
}

/// The shortest wait between two rounds of waking, so that a limit never becomes a busy loop.
const WAKE_STEP: std::time::Duration = std::time::Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arena::Id;

    #[test]
    fn those_who_wait_for_a_limit_go_on_in_the_order_they_came() {
        let mut limit = Limit::new(Time::ZERO, 32_794);
        let mut own = Bucket::new(Time::ZERO, 0);
        let conns: Vec<ConnId> = (0..4).map(Id::from_bits).collect();
        assert_eq!(limit.allowance(Time::ZERO, &mut own), 0);
        for &conn in &conns {
            limit.park(Time::ZERO, conn, &mut own);
            limit.park(Time::ZERO, conn, &mut own);
        }
        limit.forget(conns[2]);
        let (mut order, mut now) = (Vec::new(), Time::ZERO);
        while !limit.poll_timeout().is_never() {
            now = limit.poll_timeout();
            limit.wake(now, &mut order);
            let moved = limit.allowance(now, &mut own);
            limit.take(moved, &mut own);
        }
        assert_eq!(order, [conns[0], conns[1], conns[3]]);
        assert!(
            (Time::from_millis(1490)..Time::from_millis(1600)).contains(&now),
            "{now:?}: three blocks at two a second"
        );
    }
}
