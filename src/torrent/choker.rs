//! Who may download from us: the choker of one torrent.
//!
//! Ten-second rounds (BEP 3). While something is missing, slots go to those who give most (tit for tat); one optimistic
//! slot moves every third round. When seeding, slots go round: a peer keeps its slot until it has had its share, then the
//! one that has waited longest is next. It decides and reports; it sends nothing and knows no sockets.

use std::time::Duration;

use crate::base::config::UploadSlots;
use crate::base::ids::ConnId;
use crate::base::rng::Rng;
use crate::base::time::Time;

/// Between two rounds.
pub const ROUND: Duration = Duration::from_secs(10);
/// Rounds between two moves of the optimistic slot.
const OPTIMISTIC_ROUNDS: u32 = 3;
/// A peer that came so lately is three times as likely to get the optimistic slot.
const NEWCOMER: Duration = Duration::from_secs(60);
/// What a peer is given while seeding before its slot goes round, bytes.
const QUOTA_BYTES: u64 = 16 * 1024 * 1024;
/// And for how long it has the slot at least.
const QUOTA_TIME: Duration = Duration::from_secs(60);
/// Automatic slots: never fewer.
const SLOTS_MIN: u32 = 4;
/// Automatic slots: never more.
const SLOTS_MAX: u32 = 100;

/// One peer as the choker sees it.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// Who.
    pub conn: ConnId,
    /// It wants something of us.
    pub interested: bool,
    /// It has a slot.
    pub unchoked: bool,
    /// It gives nothing although we asked.
    pub snubbed: bool,
    /// Payload it gives us, bytes a second.
    pub down_rate: u64,
    /// Payload we give it, bytes a second.
    pub up_rate: u64,
    /// Payload we ever gave it.
    pub uploaded: u64,
    /// Since when it is connected.
    pub connected_at: Time,
}

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It loses its slot.
    Choke(ConnId),
    /// It gets a slot.
    Unchoke(ConnId),
}

/// A slot while seeding: since when, and what the peer had been given by then.
#[derive(Debug, Clone, Copy)]
struct Tenure {
    conn: ConnId,
    since: Time,
    uploaded_before: u64,
}

/// The choker. Holds nothing a peer but its slot.
#[derive(Debug)]
pub struct Choker {
    slots: UploadSlots,
    /// Automatic slots as they are now, and the upload rate when they were last changed.
    auto_slots: u32,
    auto_rate: u64,
    next_round: Time,
    rounds: u32,
    optimistic: Option<ConnId>,
    tenures: Vec<Tenure>,
    rng: Rng,
}

impl Choker {
    /// A choker with this many slots.
    #[must_use]
    pub fn new(slots: UploadSlots, rng: Rng) -> Self {
        Self {
            slots,
            auto_slots: SLOTS_MIN,
            auto_rate: 0,
            next_round: Time::ZERO,
            rounds: 0,
            optimistic: None,
            tenures: Vec::new(),
            rng,
        }
    }

    /// How many peers may have a slot now, the optimistic one among them.
    #[must_use]
    pub fn slots(&self) -> u32 {
        match self.slots {
            UploadSlots::Auto => self.auto_slots,
            UploadSlots::Fixed(count) => count,
        }
    }

    /// True when [`Choker::round`] should be called.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        now >= self.next_round
    }

    /// Decides one round over `peers` (any order) and appends what changed to `changes`.
    pub fn round(&mut self, now: Time, seeding: bool, up_rate: u64, peers: &[Standing], changes: &mut Vec<Change>) {
        self.next_round = now + ROUND;
        self.adapt_slots(up_rate, peers);
        let slots = self.slots() as usize;
        let chosen = if seeding { self.rotate(now, slots, peers) } else { self.tit_for_tat(now, slots, peers) };
        self.rounds += 1;
        for peer in peers {
            match (peer.unchoked, chosen.contains(&peer.conn)) {
                (false, true) => changes.push(Change::Unchoke(peer.conn)),
                (true, false) => changes.push(Change::Choke(peer.conn)),
                _ => {}
            }
        }
        self.tenures.retain(|tenure| chosen.contains(&tenure.conn));
        for peer in peers.iter().filter(|peer| chosen.contains(&peer.conn)) {
            self.begin_tenure(now, peer);
        }
    }

    fn begin_tenure(&mut self, now: Time, peer: &Standing) {
        if !self.tenures.iter().any(|tenure| tenure.conn == peer.conn) {
            self.tenures.push(Tenure { conn: peer.conn, since: now, uploaded_before: peer.uploaded });
        }
    }

    /// Interest came or went: a free slot is given at once, a slot without interest is free at the next round.
    pub fn handle_interest(&mut self, now: Time, peer: &Standing, changes: &mut Vec<Change>) {
        if peer.interested && !peer.unchoked && self.tenures.len() < self.slots() as usize {
            self.begin_tenure(now, peer);
            changes.push(Change::Unchoke(peer.conn));
        }
    }

    /// A peer is gone; if it had a slot, the next round comes at once.
    pub fn handle_gone(&mut self, now: Time, conn: ConnId) {
        let before = self.tenures.len();
        self.tenures.retain(|tenure| tenure.conn != conn);
        if self.tenures.len() < before {
            self.next_round = self.next_round.min(now);
        }
        if self.optimistic == Some(conn) {
            self.optimistic = None;
        }
    }

    /// Automatic slots: one more while all are in use and the last one still raised the upload rate; one less when it
    /// falls without need.
    fn adapt_slots(&mut self, up_rate: u64, peers: &[Standing]) {
        let interested = peers.iter().filter(|peer| peer.interested).count();
        let in_use = peers.iter().filter(|peer| peer.unchoked && peer.interested).count();
        if in_use >= self.auto_slots as usize && interested > in_use && up_rate > self.auto_rate / 20 * 21 {
            self.auto_slots = (self.auto_slots + 1).min(SLOTS_MAX);
            self.auto_rate = up_rate;
        } else if up_rate < self.auto_rate / 2 {
            self.auto_slots = self.auto_slots.saturating_sub(1).max(SLOTS_MIN);
            self.auto_rate = up_rate;
        }
    }

    /// The slots but one to those who give most, the last one to anybody.
    fn tit_for_tat(&mut self, now: Time, slots: usize, peers: &[Standing]) -> Vec<ConnId> {
        let mut givers: Vec<&Standing> =
            peers.iter().filter(|peer| peer.interested && !peer.snubbed && peer.down_rate > 0).collect();
        givers.sort_by_key(|peer| (std::cmp::Reverse(peer.down_rate), peer.conn));
        let mut chosen: Vec<ConnId> = givers.iter().take(slots.saturating_sub(1)).map(|peer| peer.conn).collect();
        let mut others: Vec<&Standing> =
            peers.iter().filter(|peer| peer.interested && !chosen.contains(&peer.conn)).collect();
        let keeps = !self.rounds.is_multiple_of(OPTIMISTIC_ROUNDS);
        if let Some(optimistic) = self.optimistic.filter(|conn| keeps && others.iter().any(|peer| peer.conn == *conn)) {
            chosen.push(optimistic);
            others.retain(|peer| peer.conn != optimistic);
        }
        let mut first = true;
        while chosen.len() < slots && !others.is_empty() {
            let peer = others.remove(self.draw(now, &others));
            chosen.push(peer.conn);
            if std::mem::take(&mut first) && !chosen.iter().any(|conn| Some(*conn) == self.optimistic && keeps) {
                self.optimistic = Some(peer.conn);
            }
        }
        chosen
    }

    /// An index into `peers`; newcomers are three times as likely.
    fn draw(&mut self, now: Time, peers: &[&Standing]) -> usize {
        let weight = |peer: &&Standing| if now.since(peer.connected_at) < NEWCOMER { 3_u64 } else { 1 };
        let mut ticket = self.rng.below(peers.iter().map(weight).sum());
        for (index, peer) in peers.iter().enumerate() {
            match ticket.checked_sub(weight(peer)) {
                Some(rest) => ticket = rest,
                None => return index,
            }
        }
        unreachable!("the ticket is below the sum of weights")
    }

    /// Those who have a slot and not yet their share keep it; the others queue behind those who had least.
    fn rotate(&self, now: Time, slots: usize, peers: &[Standing]) -> Vec<ConnId> {
        let has_had_its_share = |peer: &Standing| {
            self.tenures.iter().find(|tenure| tenure.conn == peer.conn).is_some_and(|tenure| {
                peer.uploaded.saturating_sub(tenure.uploaded_before) >= QUOTA_BYTES
                    && now.since(tenure.since) >= QUOTA_TIME
            })
        };
        let mut queue: Vec<&Standing> = peers.iter().filter(|peer| peer.interested).collect();
        queue.sort_by_key(|peer| {
            let keeps = peer.unchoked && !has_had_its_share(peer);
            (!keeps, peer.uploaded, peer.connected_at, peer.conn)
        });
        queue.iter().take(slots).map(|peer| peer.conn).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arena::Id;

    fn peer(number: u64) -> Standing {
        Standing {
            conn: Id::from_bits(number),
            interested: true,
            unchoked: false,
            snubbed: false,
            down_rate: 0,
            up_rate: 0,
            uploaded: 0,
            connected_at: Time::ZERO,
        }
    }

    fn choker(slots: u32) -> Choker {
        Choker::new(UploadSlots::Fixed(slots), Rng::from_number(1))
    }

    fn apply(peers: &mut [Standing], changes: &[Change]) {
        for change in changes {
            let (conn, unchoked) = match *change {
                Change::Choke(conn) => (conn, false),
                Change::Unchoke(conn) => (conn, true),
            };
            peers.iter_mut().find(|peer| peer.conn == conn).unwrap().unchoked = unchoked;
        }
    }

    fn run(choker: &mut Choker, now: Time, seeding: bool, peers: &mut [Standing]) -> Vec<u64> {
        let mut changes = Vec::new();
        choker.round(now, seeding, 0, peers, &mut changes);
        apply(peers, &changes);
        peers.iter().filter(|peer| peer.unchoked).map(|peer| peer.conn.to_bits()).collect()
    }

    #[test]
    fn those_who_give_most_get_the_slots_and_one_is_optimistic() {
        let mut peers: Vec<_> = (0..10).map(|n| Standing { down_rate: n * 1000, ..peer(n) }).collect();
        let mut choker = choker(4);
        let unchoked = run(&mut choker, Time::ZERO, false, &mut peers);
        assert_eq!(unchoked.len(), 4);
        assert_eq!(unchoked[1..], [7, 8, 9]);
    }

    #[test]
    fn the_optimistic_slot_moves_every_third_round_and_reaches_everybody() {
        let mut peers: Vec<_> =
            (0..6).map(|n| Standing { down_rate: if n > 3 { 1000 } else { 0 }, ..peer(n) }).collect();
        let mut choker = choker(3);
        let mut seen = std::collections::BTreeSet::new();
        let mut before = Vec::new();
        for round in 0..60 {
            let unchoked = run(&mut choker, Time::from_secs(1000 + round * 10), false, &mut peers);
            assert!(unchoked.contains(&4) && unchoked.contains(&5));
            if round % 3 != 0 {
                assert_eq!(unchoked, before, "round {round}");
            }
            seen.extend(unchoked.clone());
            before = unchoked;
        }
        assert_eq!(seen.len(), 6);
    }

    #[test]
    fn a_snubbing_or_uninterested_peer_gets_no_regular_slot() {
        let mut peers = vec![
            Standing { down_rate: 9000, snubbed: true, ..peer(0) },
            Standing { down_rate: 8000, interested: false, ..peer(1) },
            Standing { down_rate: 10, ..peer(2) },
        ];
        assert_eq!(run(&mut choker(2), Time::ZERO, false, &mut peers), [0, 2], "only optimistically");
        assert_eq!(run(&mut choker(1), Time::ZERO, true, &mut peers).len(), 1);
    }

    #[test]
    fn seeding_slots_go_round_and_starve_nobody() {
        let mut peers: Vec<_> = (0..12).map(peer).collect();
        let mut choker = choker(3);
        for round in 0..600 {
            run(&mut choker, Time::from_secs(round * 10), true, &mut peers);
            for peer in peers.iter_mut().filter(|peer| peer.unchoked) {
                peer.uploaded += 4 << 20;
            }
        }
        let (least, most) =
            (peers.iter().map(|peer| peer.uploaded).min(), peers.iter().map(|peer| peer.uploaded).max());
        assert!(least.unwrap() * 10 >= most.unwrap() * 9, "{least:?} {most:?}");
    }

    #[test]
    fn a_free_slot_is_given_at_once_and_refilled_when_its_holder_leaves() {
        let mut choker = choker(1);
        let mut changes = Vec::new();
        choker.handle_interest(Time::from_secs(1), &peer(1), &mut changes);
        choker.handle_interest(Time::from_secs(1), &peer(2), &mut changes);
        assert_eq!(changes, [Change::Unchoke(Id::from_bits(1))]);
        let mut peers = vec![Standing { unchoked: true, ..peer(1) }, peer(2)];
        run(&mut choker, Time::from_secs(2), true, &mut peers);
        assert!(!choker.is_due(Time::from_secs(3)));
        choker.handle_gone(Time::from_secs(3), Id::from_bits(1));
        assert!(choker.is_due(Time::from_secs(3)));
        assert_eq!(run(&mut choker, Time::from_secs(3), true, &mut peers[1..]), [2]);
    }

    #[test]
    fn automatic_slots_follow_the_rate_they_bring() {
        let mut choker = Choker::new(UploadSlots::Auto, Rng::from_number(1));
        let mut peers: Vec<_> = (0..50).map(peer).collect();
        let mut now = Time::ZERO;
        for _ in 0..40 {
            let rate = u64::from(choker.slots().min(10)) * 100_000; // more than ten slots bring nothing
            let mut changes = Vec::new();
            choker.round(now, true, rate, &peers, &mut changes);
            apply(&mut peers, &changes);
            now += ROUND;
        }
        assert!((10..=11).contains(&choker.slots()), "{}", choker.slots());
    }
}
