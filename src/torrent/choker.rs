//! Who may download from us: the choker of one torrent.
//!
//! Ten-second rounds (BEP 3). While something is missing, slots go to those who give most (tit for tat); one optimistic
//! slot moves every third round, and with it those that nobody has earned. When seeding, slots go round: a peer keeps its
//! slot until it has had its share, then the one that has waited longest is next. Whoever took and gave next to nothing waits
//! behind all others, in both. Between two rounds a slot whose holder has
//! left, or wants nothing more, is given away, and nobody else is choked. It decides and reports; it sends nothing and knows no sockets.

use std::collections::BTreeMap;
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
/// Who has the fewest pieces is so many times as likely to get a slot that nobody has earned as who has the most: a swarm is
/// done when its last peer is.
const BEHIND: u64 = 7;
/// What a peer is given while seeding before its slot goes round, bytes.
const QUOTA_BYTES: u64 = 4 * 1024 * 1024;
/// And for how long it has the slot at least. It loses it then if it took nothing at all.
const QUOTA_TIME: Duration = Duration::from_secs(20);
/// And at most, however little it took: a slow peer starves nobody.
const QUOTA_TIME_MAX: Duration = Duration::from_secs(300);
/// Automatic slots: never fewer.
const SLOTS_MIN: u32 = 4;
/// Automatic slots: never more.
const SLOTS_MAX: u32 = 100;

/// What a peer may have been given beyond twice what it gave, bytes, or one piece if that is more, so that it has something
/// to give. Whoever owes more gets no slot while somebody who does not owe wants something.
const CREDIT_BYTES: u64 = 256 * 1024;

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
    /// Payload it ever gave us.
    pub downloaded: u64,
    /// How many pieces it has.
    pub pieces: u32,
    /// Since when it is connected.
    pub connected_at: Time,
}

impl Standing {
    /// It takes and gives next to nothing, with so much of credit.
    fn owes(&self, credit_bytes: u64) -> bool {
        self.uploaded > self.downloaded.saturating_mul(2).saturating_add(credit_bytes)
    }
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

/// The choker. Holds nothing a peer but its slot, or when it lost one.
#[derive(Debug)]
pub struct Choker {
    slots: UploadSlots,
    credit_bytes: u64,
    /// Automatic slots as they are now, and the upload rate when they were last changed.
    auto_slots: u32,
    auto_rate: u64,
    next_round: Time,
    rounds: u32,
    /// A slot became free between two rounds.
    vacant: bool,
    optimistic: Option<ConnId>,
    tenures: Vec<Tenure>,
    /// When connected peers lost their last slot; no more than there are connections.
    ended: BTreeMap<ConnId, Time>,
    rng: Rng,
}

impl Choker {
    /// A choker with this many slots, of a torrent with pieces of so many bytes.
    #[must_use]
    pub fn new(slots: UploadSlots, piece_len: u32, rng: Rng) -> Self {
        Self {
            slots,
            credit_bytes: CREDIT_BYTES.max(u64::from(piece_len)),
            auto_slots: SLOTS_MIN,
            auto_rate: 0,
            next_round: Time::ZERO,
            rounds: 0,
            vacant: false,
            optimistic: None,
            tenures: Vec::new(),
            ended: BTreeMap::new(),
            rng,
        }
    }

    /// So many slots from the next round on.
    pub fn set_slots(&mut self, slots: UploadSlots) {
        self.slots = slots;
    }

    /// Nothing is drawn for a while.
    pub(crate) fn rest(&mut self) {
        self.rng.rest();
    }

    /// Pieces have so many bytes.
    pub fn set_piece_len(&mut self, piece_len: u32) {
        self.credit_bytes = CREDIT_BYTES.max(u64::from(piece_len));
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
        self.vacant || now >= self.next_round
    }

    /// Decides one round over `peers` (any order) and appends what changed to `changes`. Before the next round is due it
    /// only gives vacant slots away.
    pub fn round(&mut self, now: Time, seeding: bool, up_rate: u64, peers: &[Standing], changes: &mut Vec<Change>) {
        let is_refill = now < self.next_round;
        self.vacant = false;
        if !is_refill {
            self.next_round = now + ROUND;
            self.adapt_slots(up_rate, peers);
        }
        let slots = self.slots() as usize;
        let chosen = match (is_refill, seeding) {
            (true, _) => self.refill(now, seeding, slots, peers),
            (false, true) => self.rotate(now, slots, peers),
            (false, false) => self.tit_for_tat(now, slots, peers),
        };
        self.rounds += u32::from(!is_refill);
        for peer in peers {
            match (peer.unchoked, chosen.contains(&peer.conn)) {
                (false, true) => changes.push(Change::Unchoke(peer.conn)),
                (true, false) => changes.push(Change::Choke(peer.conn)),
                _ => {}
            }
        }
        let lost = self.tenures.extract_if(.., |tenure| !chosen.contains(&tenure.conn));
        self.ended.extend(lost.map(|tenure| (tenure.conn, now)));
        for peer in peers.iter().filter(|peer| chosen.contains(&peer.conn)) {
            self.begin_tenure(now, peer);
        }
    }

    fn begin_tenure(&mut self, now: Time, peer: &Standing) {
        if !self.tenures.iter().any(|tenure| tenure.conn == peer.conn) {
            self.tenures.push(Tenure { conn: peer.conn, since: now, uploaded_before: peer.uploaded });
        }
    }

    /// Interest came or went: a free slot is given at once, and who wants nothing any more holds none.
    pub fn handle_interest(&mut self, now: Time, peer: &Standing, changes: &mut Vec<Change>) {
        if !peer.interested && peer.unchoked {
            changes.push(Change::Choke(peer.conn));
            self.tenures.retain(|tenure| tenure.conn != peer.conn);
            self.ended.insert(peer.conn, now);
            self.vacant = true;
        } else if peer.interested && !peer.unchoked && !self.vacant && self.tenures.len() < self.slots() as usize {
            self.begin_tenure(now, peer);
            changes.push(Change::Unchoke(peer.conn));
        }
    }

    /// Too few of those who have a slot keep us busy, and others would: one more automatic slot, at once.
    pub fn handle_idle(&mut self) {
        if self.slots == UploadSlots::Auto && self.tenures.len() >= self.auto_slots as usize {
            self.auto_slots = (self.auto_slots + 1).min(SLOTS_MAX);
            self.vacant = true;
        }
    }

    /// A peer is gone; if it had a slot, somebody gets it at once.
    pub fn handle_gone(&mut self, _now: Time, conn: ConnId) {
        let before = self.tenures.len();
        self.tenures.retain(|tenure| tenure.conn != conn);
        self.vacant |= self.tenures.len() < before;
        self.ended.remove(&conn);
        if self.optimistic == Some(conn) {
            self.optimistic = None;
        }
    }

    /// Automatic slots: one more while all are in use and the last one raised the upload rate by half of what a slot has on
    /// the average; one less when it falls without need.
    fn adapt_slots(&mut self, up_rate: u64, peers: &[Standing]) {
        let interested = peers.iter().filter(|peer| peer.interested).count();
        let in_use = peers.iter().filter(|peer| peer.unchoked && peer.interested).count();
        let enough = self.auto_rate + self.auto_rate / u64::from(2 * self.auto_slots);
        if in_use >= self.auto_slots as usize && interested > in_use && up_rate > enough {
            self.auto_slots = (self.auto_slots + 1).min(SLOTS_MAX);
            self.auto_rate = up_rate;
        } else if up_rate < self.auto_rate / 2 {
            self.auto_slots = self.auto_slots.saturating_sub(1).max(SLOTS_MIN);
            self.auto_rate = up_rate;
        }
    }

    /// The slots but one to those who give most, the last one to anybody, and so what is left over.
    fn tit_for_tat(&mut self, now: Time, slots: usize, peers: &[Standing]) -> Vec<ConnId> {
        let mut givers: Vec<&Standing> =
            peers.iter().filter(|peer| peer.interested && !peer.snubbed && peer.down_rate > 0).collect();
        givers.sort_by_key(|peer| (std::cmp::Reverse(peer.down_rate), peer.conn));
        let mut chosen: Vec<ConnId> = givers.iter().take(slots.saturating_sub(1)).map(|peer| peer.conn).collect();
        let is_waiting = |peer: &&Standing| peer.interested && !chosen.contains(&peer.conn);
        let mut others: Vec<&Standing> = peers.iter().filter(is_waiting).collect();
        if self.rounds.is_multiple_of(OPTIMISTIC_ROUNDS) {
            self.optimistic = None;
        } else {
            // The optimistic slot first, then the spare ones: they stay where they are until it moves.
            others.sort_by_key(|peer| (self.optimistic != Some(peer.conn), !peer.unchoked));
            let free = slots.saturating_sub(chosen.len());
            let kept = others.iter().take_while(|peer| peer.unchoked).count().min(free);
            chosen.extend(others.drain(..kept).map(|peer| peer.conn));
        }
        self.draw_into(now, slots, peers, others, &mut chosen);
        chosen
    }

    /// Those who have a slot keep it; the vacant ones go to those who would be next.
    fn refill(&mut self, now: Time, seeding: bool, slots: usize, peers: &[Standing]) -> Vec<ConnId> {
        let (holders, mut others): (Vec<&Standing>, Vec<&Standing>) =
            peers.iter().filter(|peer| peer.unchoked || peer.interested).partition(|peer| peer.unchoked);
        let mut chosen: Vec<ConnId> = holders.iter().map(|peer| peer.conn).collect();
        if seeding {
            let owes = self.debtors(peers);
            others.sort_by_key(|peer| (owes(peer), self.turn(peer)));
            chosen.extend(others.iter().take(slots.saturating_sub(holders.len())).map(|peer| peer.conn));
        } else {
            self.draw_into(now, slots, peers, others, &mut chosen);
        }
        chosen
    }

    /// While seeding: who took from us and gave too little when it could. Where nobody gave anything, nobody owes anything.
    fn debtors(&self, peers: &[Standing]) -> impl Fn(&Standing) -> bool + use<> {
        let (credit_bytes, others_give) = (self.credit_bytes, peers.iter().any(|peer| peer.downloaded > 0));
        move |peer| others_give && peer.owes(credit_bytes)
    }

    /// Fills `chosen` up to `slots` by drawing from `others`, of whom those who owe count only while nobody else in `peers` wants
    /// something; the first drawn has the optimistic slot if nobody has.
    fn draw_into(
        &mut self,
        now: Time,
        slots: usize,
        peers: &[Standing],
        mut others: Vec<&Standing>,
        chosen: &mut Vec<ConnId>,
    ) {
        self.optimistic = self.optimistic.filter(|conn| chosen.contains(conn));
        let credit_bytes = self.credit_bytes;
        if peers.iter().any(|peer| peer.interested && !peer.owes(credit_bytes)) {
            others.retain(|peer| !peer.owes(credit_bytes));
        }
        while chosen.len() < slots && !others.is_empty() {
            let peer = others.remove(self.draw(now, &others));
            chosen.push(peer.conn);
            self.optimistic.get_or_insert(peer.conn);
        }
    }

    /// An index into `peers`; newcomers are three times as likely, and so are, up to [`BEHIND`] times, those who have less than
    /// others.
    fn draw(&mut self, now: Time, peers: &[&Standing]) -> usize {
        let pieces = || peers.iter().map(|peer| u64::from(peer.pieces));
        let (least, most) = (pieces().min().unwrap_or(0), pieces().max().unwrap_or(0));
        let weight = |peer: &&Standing| {
            let newcomer = if now.since(peer.connected_at) < NEWCOMER { 3 } else { 1 };
            newcomer * (1 + (BEHIND - 1) * (most - u64::from(peer.pieces)) / (most - least).max(1))
        };
        let mut ticket = self.rng.below(peers.iter().map(weight).sum());
        for (index, peer) in peers.iter().enumerate() {
            match ticket.checked_sub(weight(peer)) {
                Some(rest) => ticket = rest,
                None => return index,
            }
        }
        unreachable!("the ticket is below the sum of weights")
    }

    /// Those who have a slot and not yet their share keep it; the others queue by how long they have waited.
    fn rotate(&self, now: Time, slots: usize, peers: &[Standing]) -> Vec<ConnId> {
        let has_had_its_share = |peer: &Standing| {
            self.tenures.iter().find(|tenure| tenure.conn == peer.conn).is_some_and(|tenure| {
                let (time, bytes) = (now.since(tenure.since), peer.uploaded.saturating_sub(tenure.uploaded_before));
                time >= QUOTA_TIME_MAX || (time >= QUOTA_TIME && (bytes == 0 || bytes >= QUOTA_BYTES))
            })
        };
        let owes = self.debtors(peers);
        let mut queue: Vec<&Standing> = peers.iter().filter(|peer| peer.interested).collect();
        queue.sort_by_cached_key(|peer| {
            let keeps = peer.unchoked && !has_had_its_share(peer);
            // Who has had its share goes behind all who wait.
            (owes(peer), !keeps, peer.unchoked, self.turn(peer))
        });
        queue.iter().take(slots).map(|peer| peer.conn).collect()
    }

    /// The order of those who wait: since when, then who was given least.
    fn turn(&self, peer: &Standing) -> (Time, u64, ConnId) {
        let since = self.ended.get(&peer.conn).copied().unwrap_or(peer.connected_at);
        (since, peer.uploaded, peer.conn)
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
            downloaded: 0,
            pieces: 0,
            connected_at: Time::ZERO,
        }
    }

    fn choker(slots: u32) -> Choker {
        Choker::new(UploadSlots::Fixed(slots), 16 * 1024, Rng::from_number(1))
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
    fn who_wants_nothing_any_more_loses_its_slot_to_the_next_at_once() {
        let mut choker = choker(1);
        let mut peers = vec![peer(1), peer(2)];
        assert_eq!(run(&mut choker, Time::ZERO, true, &mut peers), [1]);
        peers[0].interested = false;
        let mut changes = Vec::new();
        choker.handle_interest(Time::from_secs(1), &peers[0], &mut changes);
        assert_eq!(changes, [Change::Choke(Id::from_bits(1))]);
        apply(&mut peers, &changes);
        assert!(choker.is_due(Time::from_secs(1)));
        assert_eq!(run(&mut choker, Time::from_secs(1), true, &mut peers), [2]);
    }

    #[test]
    fn holder_that_flips_its_interest_in_one_turn_gives_its_slot_to_who_waits() {
        let mut choker = choker(1);
        let mut peers = vec![peer(1), peer(2)];
        assert_eq!(run(&mut choker, Time::ZERO, true, &mut peers), [1]);
        let now = Time::from_secs(1);
        for interested in [false, true] {
            peers[0].interested = interested;
            let mut changes = Vec::new();
            choker.handle_interest(now, &peers[0], &mut changes);
            apply(&mut peers, &changes);
        }
        assert_eq!(run(&mut choker, now, true, &mut peers), [2]);
    }

    #[test]
    fn whoever_only_takes_gets_a_spare_slot_only_where_nobody_else_wants_it() {
        let taker = |n| Standing { uploaded: CREDIT_BYTES + 1, ..peer(n) };
        let mut peers: Vec<_> = (0..8).map(|n| if n < 5 { taker(n) } else { peer(n) }).collect();
        let mut choker = choker(4);
        for round in 0..30 {
            let unchoked = run(&mut choker, Time::from_secs(1000 + round * 10), false, &mut peers);
            let takers = unchoked.iter().filter(|&&n| n < 5).count();
            assert_eq!(takers, 0, "others want something: {unchoked:?}");
        }
        peers.truncate(5);
        let unchoked = run(&mut choker, Time::from_secs(2000), false, &mut peers);
        assert_eq!(unchoked.len(), 4, "a slot that nobody else wants is not left empty");
    }

    #[test]
    fn who_gave_nothing_while_we_needed_it_waits_longest_once_we_have_everything() {
        let taker = |n| Standing { uploaded: CREDIT_BYTES + 1, ..peer(n) };
        let mut peers: Vec<_> = (0..6).map(taker).collect();
        let mut choker = choker(2);
        let unchoked = run(&mut choker, Time::from_secs(1000), true, &mut peers);
        assert_eq!(unchoked, [0, 1], "nobody ever gave us anything: nobody owes");
        peers[4].downloaded = CREDIT_BYTES;
        peers[5].downloaded = CREDIT_BYTES;
        assert_eq!(run(&mut choker, Time::from_secs(1010), true, &mut peers), [4, 5]);
    }

    #[test]
    fn a_peer_may_have_a_whole_piece_before_it_owes() {
        let mut peers = [Standing { uploaded: 4 << 20, ..peer(0) }, peer(1)].to_vec();
        let mut choker = Choker::new(UploadSlots::Fixed(2), 4 << 20, Rng::from_number(1));
        assert_eq!(run(&mut choker, Time::ZERO, false, &mut peers), [0, 1]);
        let mut choker = Choker::new(UploadSlots::Fixed(2), 2 << 20, Rng::from_number(1));
        peers.iter_mut().for_each(|peer| peer.unchoked = false);
        assert_eq!(run(&mut choker, Time::ZERO, false, &mut peers), [1]);
    }

    #[test]
    fn an_idle_line_gets_one_more_automatic_slot_at_once_and_a_fixed_number_stays() {
        let mut auto = Choker::new(UploadSlots::Auto, 16 * 1024, Rng::from_number(1));
        let mut peers: Vec<_> = (0..50).map(peer).collect();
        auto.handle_idle();
        assert_eq!(auto.slots(), SLOTS_MIN, "there are free ones");
        run(&mut auto, Time::ZERO, true, &mut peers);
        auto.handle_idle();
        assert!(auto.is_due(Time::from_secs(1)));
        assert_eq!(run(&mut auto, Time::from_secs(1), true, &mut peers).len(), SLOTS_MIN as usize + 1);
        let mut fixed = choker(4);
        run(&mut fixed, Time::ZERO, true, &mut peers);
        fixed.handle_idle();
        assert_eq!(fixed.slots(), 4);
    }

    #[test]
    fn a_peer_that_is_behind_is_drawn_more_often() {
        let peers: Vec<_> = [0, 50, 100].map(|pieces| Standing { pieces, ..peer(u64::from(pieces)) }).to_vec();
        let late = Time::from_secs(1000);
        let (mut choker, mut drawn) = (choker(1), [0_u32; 3]);
        for _ in 0..1200 {
            drawn[choker.draw(late, &peers.iter().collect::<Vec<_>>())] += 1;
        }
        let [least, middle, most] = drawn;
        assert!(least > middle && middle > most && (5 * most..9 * most).contains(&least), "{drawn:?}");
    }

    #[test]
    fn a_peer_that_sits_on_its_seeding_slot_and_takes_nothing_starves_nobody() {
        let mut peers: Vec<_> = (0..12).map(peer).collect();
        let mut choker = choker(3);
        for round in 0..200 {
            run(&mut choker, Time::from_secs(round * 10), true, &mut peers);
            for peer in peers[6..].iter_mut().filter(|peer| peer.unchoked) {
                peer.uploaded += 4 << 20; // the first six ask for nothing
            }
        }
        assert!(peers[6..].iter().all(|peer| peer.uploaded > 64 << 20), "{peers:?}");
    }

    #[test]
    fn leaving_peers_refill_slots_without_choking_those_who_stay() {
        let mut peers: Vec<_> = (0..20).map(|n| Standing { connected_at: Time::from_secs(n), ..peer(n) }).collect();
        let mut choker = choker(6);
        let mut unchoked = run(&mut choker, Time::from_secs(1000), false, &mut peers);
        for second in 1001..1008 {
            let gone = unchoked[0];
            peers.retain(|peer| peer.conn.to_bits() != gone);
            choker.handle_gone(Time::from_secs(second), Id::from_bits(gone));
            let after = run(&mut choker, Time::from_secs(second), false, &mut peers);
            assert!(unchoked[1..].iter().all(|conn| after.contains(conn)), "{unchoked:?} {after:?}");
            assert_eq!(after.len(), 6);
            unchoked = after;
        }
        assert!(!choker.is_due(Time::from_secs(1009)) && choker.is_due(Time::from_secs(1010)));
    }

    #[test]
    fn spare_slots_move_no_more_often_than_the_optimistic_one() {
        let mut peers: Vec<_> = (0..20).map(peer).collect();
        let mut choker = choker(6);
        let mut before = Vec::new();
        for round in 0..9 {
            let unchoked = run(&mut choker, Time::from_secs(1000 + round * 10), false, &mut peers);
            if round % 3 != 0 {
                assert_eq!(unchoked, before, "round {round}");
            }
            before = unchoked;
        }
    }

    #[test]
    fn automatic_slots_follow_the_rate_they_bring() {
        let mut choker = Choker::new(UploadSlots::Auto, 16 * 1024, Rng::from_number(1));
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
