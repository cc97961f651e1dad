//! Fetching an `info` dictionary from peers (BEP 9): who is asked for which piece of it, and what becomes of what they send.
//!
//! All peers that claim the same size fill one draft together. A whole draft is handed out and judged by its owner, which may
//! take a while: what comes meanwhile for other drafts counts. If it is wrong and came from one peer, that one lied; if it came
//! from several, each of that size fills a draft alone from then on. Nothing is allocated for what a peer only claims.
//!
//! Methods: `handle_offer`, `handle_data`, `handle_reject`, `handle_wrong`, `handle_gone`, `handle_timeout` (once a second);
//! `poll_transmit`, `poll_whole`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::base::bitfield::Bitfield;
use crate::base::bytes::Bytes;
use crate::base::ids::ConnId;
use crate::base::steps;
use crate::base::time::Time;
use crate::codec::metadata::METADATA_PIECE_LEN;

/// Pieces that one peer is asked for at once.
const PIPELINE: usize = 4;
/// After so long a piece is asked of others as well: of one more than have been silent about it.
const SILENCE: Duration = Duration::from_secs(3);
/// After so long the same peer may be asked for it again: it has lost the question.
const LOST: Duration = Duration::from_secs(20);
/// A peer that refuses is not asked for so long: it may be fetching itself.
const REFUSED: Duration = Duration::from_secs(30);
/// Drafts at once. Peers of further sizes wait until one is given up, the one that had its time first.
const DRAFTS_MAX: usize = 16;
/// Of these, drafts of one size that one peer fills alone.
const ALONE_MAX: usize = 2;
/// A draft to which nothing came for so long makes room for those who wait.
const IDLE: Duration = Duration::from_secs(3);
/// And one that is not whole after so long. It gets its turn again after them, with twice as much time of both kinds.
const TURN: Duration = Duration::from_secs(20);
/// So often at most.
const DOUBLINGS_MAX: u32 = 8;
/// Bytes by which a draft grows.
const GROWTH: usize = 256 << 10;
/// Bytes in all drafts together: the longest `info` twice. Beyond it the draft that the fewest peers fill is given up.
const BYTES_MAX: usize = 64 << 20;

/// A whole `info`, not yet judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// Its bytes.
    pub info: Bytes,
    /// Who sent them, each once.
    pub givers: Vec<ConnId>,
}

/// A peer that says it has the `info`.
#[derive(Debug)]
struct Offer {
    size: u32,
    /// What it was asked for and when, the oldest first; at most [`PIPELINE`].
    asked: Vec<(u32, Time)>,
    not_before: Time,
    /// How often its draft was given up; who had the fewest turns goes first.
    turns: u32,
    /// It has sent a piece; of those with as many turns it goes before who has not.
    gave: bool,
}

/// What has come of an `info` of one size.
#[derive(Debug)]
struct Draft {
    size: u32,
    /// Only this peer fills it.
    by: Option<ConnId>,
    /// As far as pieces came, zeros where one did not. They are asked for from the front on, so that is not much more than came.
    bytes: Vec<u8>,
    /// By piece: it is here.
    here: Bitfield,
    /// Its bytes were handed out to be judged. It stays, so that no other draft is begun of its size.
    is_judged: bool,
    givers: BTreeSet<ConnId>,
    /// When its turn is over.
    until: Time,
    /// When it began, or the last piece came; and how long it may be until the next.
    grew_at: Time,
    patience: Duration,
}

impl Draft {
    fn new(now: Time, size: u32, by: Option<ConnId>, turns: u32) -> Self {
        let here = Bitfield::new(pieces_of(size));
        let times = 1 << turns.min(DOUBLINGS_MAX);
        Self {
            size,
            by,
            bytes: Vec::new(),
            here,
            is_judged: false,
            givers: BTreeSet::new(),
            until: now + TURN * times,
            grew_at: now,
            patience: IDLE * times,
        }
    }

    /// It has to make room if others wait.
    fn is_over(&self, now: Time) -> bool {
        !self.here.is_full() && (self.until <= now || now.since(self.grew_at) >= self.patience)
    }

    fn is_filled_by(&self, conn: ConnId, size: u32) -> bool {
        self.size == size && self.by.is_none_or(|by| by == conn)
    }

    /// Puts a piece in its place; false if it was there.
    fn put(&mut self, piece: u32, bytes: &[u8]) -> bool {
        if !self.here.set(piece) {
            return false;
        }
        steps::add_bytes(bytes.len());
        let start = piece as usize * METADATA_PIECE_LEN as usize;
        let end = start + bytes.len();
        if end > self.bytes.len() {
            // A little at a time: what was made room for is held, whatever comes.
            let room = end.next_multiple_of(GROWTH).min(self.size as usize);
            self.bytes.reserve_exact(room - self.bytes.len());
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        true
    }
}

/// What is missing in a draft and asked of nobody, or only of peers that are silent about it.
#[derive(Debug)]
struct Open {
    /// By piece, how many were asked lately, less those that are silent.
    asked: BTreeMap<u32, i32>,
    /// The first of the pieces: more than all peers together will be asked for.
    pieces: BTreeSet<u32>,
}

impl Open {
    fn of(now: Time, draft: &Draft, offers: &BTreeMap<ConnId, Offer>) -> Self {
        let mut asked: BTreeMap<u32, i32> = BTreeMap::new();
        for (_, offer) in offers.iter().filter(|(other, offer)| draft.is_filled_by(**other, offer.size)) {
            for (piece, at) in &offer.asked {
                *asked.entry(*piece).or_default() += if now.since(*at) < SILENCE { 1 } else { -1 };
            }
        }
        // Besides what a peer is asked for, those are passed over that it was asked for already.
        let most = 2 * PIPELINE * offers.len();
        let is_open = |piece: &u32| asked.get(piece).is_none_or(|asked| *asked <= 0);
        let pieces: BTreeSet<u32> = draft.here.zeros().filter(is_open).take(most).collect();
        steps::add(2 * asked.len() + pieces.len() + draft.here.len() as usize / 16);
        Self { asked, pieces }
    }

    fn handle_asked(&mut self, pieces: &[u32]) {
        for piece in pieces {
            let asked = self.asked.entry(*piece).or_default();
            *asked += 1;
            if *asked > 0 {
                self.pieces.remove(piece);
            }
        }
    }
}

fn pieces_of(size: u32) -> u32 {
    size.div_ceil(METADATA_PIECE_LEN)
}

/// One fetch. Invariant: what a peer was asked for belongs to the draft that it fills.
#[derive(Debug)]
pub struct MetadataFetch {
    /// A longer `info` is not believed in.
    size_max: u32,
    /// The largest size beyond it that a peer has offered.
    oversized: Option<u32>,
    offers: BTreeMap<ConnId, Offer>,
    drafts: Vec<Draft>,
    /// Sizes of which a draft of several peers was wrong; of the last [`DRAFTS_MAX`].
    doubted: VecDeque<u32>,
    outgoing: VecDeque<(ConnId, u32)>,
}

impl MetadataFetch {
    /// A fetch that knows nobody, of an `info` of at most `size_max` bytes.
    #[must_use]
    pub fn new(size_max: u32) -> Self {
        Self {
            size_max,
            oversized: None,
            offers: BTreeMap::new(),
            drafts: Vec::new(),
            doubted: VecDeque::new(),
            outgoing: VecDeque::new(),
        }
    }

    /// A peer says that it has an `info` of `size` bytes. What cannot be is not listened to; neither is a change of mind.
    pub fn handle_offer(&mut self, now: Time, conn: ConnId, size: u32) {
        if size > self.size_max {
            self.oversized = self.oversized.max(Some(size));
        } else if size > 0 && !self.offers.contains_key(&conn) {
            self.offers.insert(conn, Offer { size, asked: Vec::new(), not_before: now, turns: 0, gave: false });
            self.advance(now);
        }
    }

    /// A peer has gone.
    pub fn handle_gone(&mut self, now: Time, conn: ConnId) {
        if self.offers.remove(&conn).is_some() {
            self.drafts.retain(|draft| draft.by != Some(conn));
            self.outgoing.retain(|(to, _)| *to != conn);
            self.advance(now);
        }
    }

    /// A piece came: perhaps there is a whole `info` now. What was not asked for, or has another length than it must, is not
    /// looked at.
    pub fn handle_data(&mut self, now: Time, conn: ConnId, piece: u32, total_size: u32, bytes: &[u8]) {
        let Some(offer) = self.offers.get_mut(&conn) else { return };
        let size = offer.size;
        let Some(at) = offer.asked.iter().position(|(asked, _)| *asked == piece) else { return };
        offer.asked.remove(at);
        let len = METADATA_PIECE_LEN.min(size.saturating_sub(piece * METADATA_PIECE_LEN));
        let index = self.drafts.iter().position(|draft| draft.is_filled_by(conn, size));
        if let Some(index) = index.filter(|_| total_size == size && bytes.len() == len as usize) {
            let draft = &mut self.drafts[index];
            if draft.put(piece, bytes) {
                draft.givers.insert(conn);
                draft.grew_at = now;
                offer.gave = true;
            }
            self.keep_bound();
        } else if index.is_some() {
            // Another size than it said, or no whole piece: of no use.
            self.offers.remove(&conn);
            self.drafts.retain(|draft| draft.by != Some(conn));
        }
        self.advance(now);
    }

    /// A whole `info`, to be judged before the next one is taken.
    pub fn poll_whole(&mut self) -> Option<Whole> {
        let draft = self.drafts.iter_mut().find(|draft| draft.here.is_full() && !draft.is_judged)?;
        draft.is_judged = true;
        let info = std::mem::take(&mut draft.bytes).into();
        Some(Whole { info, givers: draft.givers.iter().copied().collect() })
    }

    /// A peer refuses a piece.
    pub fn handle_reject(&mut self, now: Time, conn: ConnId, piece: u32) {
        let Some(offer) = self.offers.get_mut(&conn) else { return };
        let before = offer.asked.len();
        offer.asked.retain(|(asked, _)| *asked != piece);
        if offer.asked.len() < before {
            offer.not_before = now + REFUSED;
            self.advance(now);
        }
    }

    /// The whole that `givers` sent was wrong. Who is guilty beyond doubt: the only one; it is not asked again.
    pub fn handle_wrong(&mut self, now: Time, whole: &Whole) -> Option<ConnId> {
        self.drafts.retain(|draft| !draft.is_judged);
        if let [only] = whole.givers[..] {
            self.handle_gone(now, only);
            return Some(only);
        }
        let size = u32::try_from(whole.info.len()).expect("no longer than the longest");
        if !self.doubted.contains(&size) {
            self.doubted.push_back(size);
            if self.doubted.len() > DRAFTS_MAX {
                self.doubted.pop_front();
            }
        }
        for offer in self.offers.values_mut().filter(|offer| offer.size == size) {
            offer.asked.clear(); // what still comes was for the draft that is gone
        }
        self.advance(now);
        None
    }

    /// Once a second: asks others for what does not come, and gives up a draft that others wait for.
    pub fn handle_timeout(&mut self, now: Time) {
        for offer in self.offers.values_mut() {
            offer.asked.retain(|(_, at)| now.since(*at) < LOST);
        }
        let waits = |drafts: &[Draft], conn: ConnId, offer: &Offer| {
            offer.not_before <= now && !drafts.iter().any(|draft| draft.is_filled_by(conn, offer.size))
        };
        // One a second, the one that has not grown for longest: those that do grow are not given up for one more who waits.
        if self.offers.iter().any(|(conn, offer)| waits(&self.drafts, *conn, offer)) {
            let over = (0..self.drafts.len()).filter(|&index| self.drafts[index].is_over(now));
            if let Some(index) = over.min_by_key(|&index| self.drafts[index].grew_at) {
                let draft = self.drafts.swap_remove(index);
                self.give_up(&draft);
            }
        }
        self.advance(now);
    }

    /// The next piece to ask for, and whom.
    pub fn poll_transmit(&mut self) -> Option<(ConnId, u32)> {
        self.outgoing.pop_front()
    }

    /// Peers that say they have the `info`.
    #[must_use]
    pub fn offers(&self) -> usize {
        self.offers.len()
    }

    /// The largest size that a peer has offered, if that is larger than what is accepted.
    #[must_use]
    pub const fn oversized(&self) -> Option<u32> {
        self.oversized
    }

    /// The share of it that is here, 0 to 1: of the draft that is nearest to its end.
    #[must_use]
    pub fn progress(&self) -> f64 {
        let share = |draft: &Draft| f64::from(draft.here.count()) / f64::from(draft.here.len());
        self.drafts.iter().map(share).fold(0.0, f64::max)
    }

    fn give_up(&mut self, draft: &Draft) {
        for (conn, offer) in &mut self.offers {
            if draft.is_filled_by(*conn, offer.size) {
                offer.asked.clear();
                offer.turns += 1;
            }
        }
    }

    /// Gives up the draft with the fewest peers while there is too much.
    fn keep_bound(&mut self) {
        while self.drafts.iter().map(|draft| draft.bytes.len()).sum::<usize>() > BYTES_MAX {
            let peers = |draft: &Draft| {
                self.offers.iter().filter(|(conn, offer)| draft.is_filled_by(**conn, offer.size)).count()
            };
            let held = (0..self.drafts.len()).filter(|&index| !self.drafts[index].bytes.is_empty());
            let fewest = held.min_by_key(|&index| peers(&self.drafts[index]));
            let draft = self.drafts.swap_remove(fewest.expect("there is much in them"));
            self.give_up(&draft);
        }
    }

    /// Begins drafts for peers that have none, and asks everybody for what they should send.
    fn advance(&mut self, now: Time) {
        let mut order: Vec<(u32, bool, ConnId)> =
            self.offers.iter().map(|(conn, offer)| (offer.turns, !offer.gave, *conn)).collect();
        steps::add(4 * order.len());
        order.sort_unstable();
        let mut open_of: BTreeMap<usize, Open> = BTreeMap::new();
        for (_, _, conn) in order {
            let offer = &self.offers[&conn];
            if offer.not_before > now {
                continue;
            }
            let size = offer.size;
            let Some(index) = self.draft_of(now, conn, size) else { continue };
            let own = &self.offers[&conn].asked;
            let room = PIPELINE - own.len();
            if room == 0 {
                continue;
            }
            let draft = &self.drafts[index];
            let open = open_of.entry(index).or_insert_with(|| Open::of(now, draft, &self.offers));
            let is_own = |piece: u32| own.iter().any(|(own, _)| *own == piece);
            let asks: Vec<u32> = open.pieces.iter().copied().filter(|piece| !is_own(*piece)).take(room).collect();
            open.handle_asked(&asks);
            let offer = self.offers.get_mut(&conn).expect("it was just there");
            offer.asked.extend(asks.iter().map(|piece| (*piece, now)));
            self.outgoing.extend(asks.into_iter().map(|piece| (conn, piece)));
        }
    }

    /// The draft that a peer fills, begun if there may be one more.
    fn draft_of(&mut self, now: Time, conn: ConnId, size: u32) -> Option<usize> {
        if let Some(index) = self.drafts.iter().position(|draft| draft.is_filled_by(conn, size)) {
            return Some(index);
        }
        let is_doubted = self.doubted.contains(&size);
        let alone = self.drafts.iter().filter(|draft| draft.size == size).count();
        if self.drafts.len() >= DRAFTS_MAX || (is_doubted && alone >= ALONE_MAX) {
            return None;
        }
        let turns = self.offers.get(&conn).map_or(0, |offer| offer.turns);
        self.drafts.push(Draft::new(now, size, is_doubted.then_some(conn), turns));
        Some(self.drafts.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arena::Id;

    fn conn(number: u64) -> ConnId {
        Id::from_bits(number)
    }

    fn info(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    /// What each peer does with a question: the bytes it has of the piece, or nothing at all.
    type Answers<'a> = &'a dyn Fn(ConnId, u32) -> Option<Vec<u8>>;

    /// Lets peers answer at once, for so many seconds; wrong wholes are judged by `good`. The whole, and who was found guilty.
    fn run(fetch: &mut MetadataFetch, good: &[u8], secs: u64, answers: Answers<'_>) -> (Option<u64>, Vec<ConnId>) {
        let mut guilty = Vec::new();
        for second in 0..secs {
            let now = Time::from_secs(second);
            fetch.handle_timeout(now);
            while let Some((to, piece)) = fetch.poll_transmit() {
                let Some(bytes) = answers(to, piece) else { continue };
                let size = fetch.offers.get(&to).map_or(0, |offer| offer.size);
                fetch.handle_data(now, to, piece, size, &bytes);
                if let Some(whole) = fetch.poll_whole() {
                    if *whole.info == *good {
                        return (Some(second), guilty);
                    }
                    guilty.extend(fetch.handle_wrong(now, &whole));
                }
            }
        }
        (None, guilty)
    }

    fn piece_of(info: &[u8], piece: u32) -> Vec<u8> {
        let start = (piece * METADATA_PIECE_LEN) as usize;
        info[start..info.len().min(start + METADATA_PIECE_LEN as usize)].to_vec()
    }

    #[test]
    fn several_peers_fill_one_draft() {
        let good = info(100_000);
        let mut fetch = MetadataFetch::new(1 << 20);
        (0..3).for_each(|peer| fetch.handle_offer(Time::ZERO, conn(peer), 100_000));
        let asked: Vec<_> = std::iter::from_fn(|| fetch.poll_transmit()).collect();
        assert_eq!(asked.len(), 7, "every piece is asked for once");
        for (to, piece) in asked {
            assert_eq!(fetch.poll_whole(), None);
            fetch.handle_data(Time::ZERO, to, piece, 100_000, &piece_of(&good, piece));
        }
        assert_eq!(fetch.poll_whole(), Some(Whole { info: good.into(), givers: vec![conn(0), conn(1)] }));
        assert_eq!(fetch.poll_whole(), None);
    }

    #[test]
    fn who_claims_absurd_sizes_costs_nothing() {
        let mut fetch = MetadataFetch::new(1 << 20);
        for (peer, size) in [(0, 0), (1, u32::MAX), (2, (1 << 20) + 1)] {
            fetch.handle_offer(Time::ZERO, conn(peer), size);
        }
        assert_eq!((fetch.offers(), fetch.poll_transmit()), (0, None));
    }

    #[test]
    fn what_was_not_asked_for_or_has_another_length_is_not_taken() {
        let mut fetch = MetadataFetch::new(1 << 20);
        fetch.handle_offer(Time::ZERO, conn(0), 20_000);
        fetch.handle_offer(Time::ZERO, conn(1), 20_000);
        fetch.handle_data(Time::ZERO, conn(0), 7, 20_000, &[0; 16_384]);
        fetch.handle_data(Time::ZERO, conn(2), 0, 20_000, &[0; 16_384]);
        assert_eq!(fetch.drafts[0].here.count(), 0);
        fetch.handle_data(Time::ZERO, conn(0), 0, 20_000, &[0; 16_383]);
        assert_eq!(fetch.offers(), 1, "who sends half a piece is not asked again");
        let asked: BTreeSet<_> =
            std::iter::from_fn(|| fetch.poll_transmit()).filter(|(to, _)| *to == conn(1)).collect();
        assert_eq!(asked.len(), 2, "its pieces are asked of another");
    }

    #[test]
    fn liars_of_the_right_size_are_told_from_the_honest_one() {
        let good = info(50_000);
        let mut fetch = MetadataFetch::new(1 << 20);
        (0..9).for_each(|peer| fetch.handle_offer(Time::ZERO, conn(peer), 50_000));
        let (done, guilty) = run(&mut fetch, &good, 60, &|who, piece| {
            let bytes = piece_of(&good, piece);
            Some(if who == conn(8) { bytes } else { vec![who.to_bits() as u8; bytes.len()] })
        });
        assert!(done.is_some_and(|secs| secs <= 10), "{done:?}");
        assert!(!guilty.is_empty() && !guilty.contains(&conn(8)), "{guilty:?}");
    }

    #[test]
    fn liars_of_every_size_and_the_silent_do_not_keep_the_honest_one_from_giving() {
        let good = info(50_000);
        for (silent, liars) in [(false, 40), (true, 6)] {
            let mut fetch = MetadataFetch::new(1 << 20);
            let size = |peer: u64| 50_000 + if silent { 0 } else { (liars - peer) as u32 };
            (0..=liars).for_each(|peer| fetch.handle_offer(Time::ZERO, conn(peer), size(peer)));
            let (done, guilty) = run(&mut fetch, &good, 120, &|who, piece| match who.to_bits() {
                honest if honest == liars => Some(piece_of(&good, piece)),
                _ if silent => None,
                liar => {
                    let len = METADATA_PIECE_LEN.min(size(liar) - piece * METADATA_PIECE_LEN);
                    Some(vec![0; len as usize])
                }
            });
            assert!(done.is_some_and(|secs| secs <= 10), "{done:?}");
            assert!(!guilty.contains(&conn(liars)));
        }
    }

    #[test]
    fn the_silent_of_the_right_size_do_not_take_the_turns_of_the_honest_one() {
        let good = info(50_000);
        let mut fetch = MetadataFetch::new(1 << 20);
        (0..8).for_each(|peer| fetch.handle_offer(Time::ZERO, conn(peer), 50_000));
        // One that lies about half of it makes all of that size doubtful; six of them never say anything.
        let (done, guilty) = run(&mut fetch, &good, 120, &|who, piece| match who.to_bits() {
            7 => Some(piece_of(&good, piece)),
            6 if piece % 2 == 0 => Some(vec![0; piece_of(&good, piece).len()]),
            _ => None,
        });
        assert!(done.is_some_and(|secs| secs <= 10), "{done:?}");
        assert!(!guilty.contains(&conn(7)));
    }

    #[test]
    fn what_comes_while_a_whole_is_judged_counts() {
        let good = info(50_000);
        let mut fetch = MetadataFetch::new(1 << 20);
        let offers = [(0, 50_000), (1, 40_000)];
        offers.into_iter().for_each(|(peer, size)| fetch.handle_offer(Time::ZERO, conn(peer), size));
        let (late, soon): (Vec<_>, Vec<_>) =
            std::iter::from_fn(|| fetch.poll_transmit()).partition(|(to, _)| *to == conn(0));
        for (to, piece) in soon {
            let len = METADATA_PIECE_LEN.min(40_000 - piece * METADATA_PIECE_LEN) as usize;
            fetch.handle_data(Time::ZERO, to, piece, 40_000, &vec![0; len]);
        }
        let wrong = fetch.poll_whole().expect("one is whole");
        for (to, piece) in late {
            fetch.handle_data(Time::ZERO, to, piece, 50_000, &piece_of(&good, piece));
        }
        // However long it takes to judge the first: no other of its size is begun, and the second one waits.
        fetch.handle_offer(Time::ZERO, conn(2), 40_000);
        (1..100).for_each(|second| fetch.handle_timeout(Time::from_secs(second)));
        assert_eq!(fetch.poll_transmit(), None);
        assert_eq!(fetch.handle_wrong(Time::from_secs(100), &wrong), Some(conn(1)));
        assert_eq!(fetch.poll_whole().map(|whole| whole.info), Some(good.into()));
        assert_eq!(fetch.poll_transmit().map(|(to, _)| to), Some(conn(2)));
    }

    #[test]
    fn who_gives_slowly_comes_to_an_end_however_many_wait() {
        let good = info(40 * METADATA_PIECE_LEN as usize);
        let size = good.len() as u32;
        let mut fetch = MetadataFetch::new(1 << 24);
        fetch.handle_offer(Time::ZERO, conn(0), size);
        let mut asked = VecDeque::new();
        for second in 0..600 {
            let now = Time::from_secs(second);
            // Somebody new who claims another size, and says no more, every second.
            fetch.handle_offer(now, conn(second + 1), size + second as u32 + 1);
            fetch.handle_timeout(now);
            asked.extend(std::iter::from_fn(|| fetch.poll_transmit()).filter(|(to, _)| *to == conn(0)));
            if let Some((_, piece)) = asked.pop_front() {
                fetch.handle_data(now, conn(0), piece, size, &piece_of(&good, piece));
            }
            if fetch.poll_whole().is_some() {
                return;
            }
        }
        panic!("a piece a second, and not here after ten minutes");
    }

    #[test]
    fn who_refuses_is_asked_again_later() {
        let good = info(10_000);
        let mut fetch = MetadataFetch::new(1 << 20);
        fetch.handle_offer(Time::ZERO, conn(0), 10_000);
        assert_eq!(fetch.poll_transmit(), Some((conn(0), 0)));
        fetch.handle_reject(Time::ZERO, conn(0), 0);
        fetch.handle_timeout(Time::from_secs(29));
        assert_eq!(fetch.poll_transmit(), None);
        fetch.handle_timeout(Time::from_secs(30));
        assert_eq!(fetch.poll_transmit(), Some((conn(0), 0)));
        fetch.handle_data(Time::from_secs(30), conn(0), 0, 10_000, &good);
        assert!(fetch.poll_whole().is_some());
    }

    #[test]
    fn drafts_hold_no_more_than_their_bound() {
        let size = (32 << 20) as u32;
        let mut fetch = MetadataFetch::new(size);
        (0..4).for_each(|peer| fetch.handle_offer(Time::ZERO, conn(peer), size - peer as u32));
        let piece = vec![0; METADATA_PIECE_LEN as usize];
        let mut most = 0;
        for _ in 0..9000 {
            let Some((to, number)) = fetch.poll_transmit() else { break };
            let size = fetch.offers[&to].size;
            let len = METADATA_PIECE_LEN.min(size - number * METADATA_PIECE_LEN) as usize;
            fetch.handle_data(Time::ZERO, to, number, size, &piece[..len]);
            if fetch.poll_whole().is_some() {
                break;
            }
            most = most.max(fetch.drafts.iter().map(|draft| draft.bytes.len()).sum());
        }
        assert!(most > BYTES_MAX / 2 && most <= BYTES_MAX, "{most}");
    }
}
