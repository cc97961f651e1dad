//! Why a torrent does not move, and what would help: plain sentences from its state, in a fixed order.
//!
//! First what it does instead, then its description, its peers and where they come from, what they have and whether they give it,
//! then what makes it slow. What the engine knows of the node comes in as [`Around`].

use std::time::Duration;

use crate::base::bitfield::Bitfield;
use crate::base::geometry::Piece;
use crate::base::storage::FaultKind;
use crate::base::time::Time;
use crate::codec::control::escape;
use crate::codec::units::{human_duration, human_size};
use crate::torrent::goals::Goal;
use crate::torrent::policy::Held;
use crate::torrent::settings::source;
use crate::torrent::torrent::{FAULT_RETRY, Phase, Torrent};

/// Files that a sentence names; of more it says how many there are.
const FILES_SHOWN: usize = 3;
/// A limit is what holds a torrent up if nine tenths of it are used.
const USED_TENTHS: u64 = 9;
/// Who has had no visitors for so long may not be reachable.
pub const VISITORS_AFTER: Duration = Duration::from_mins(10);

/// A reason, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What it is about, in a word for scripts.
    pub topic: &'static str,
    /// What is so, and what would help.
    pub sentence: String,
}

impl Reason {
    /// A reason.
    #[must_use]
    pub fn new(topic: &'static str, sentence: impl Into<String>) -> Self {
        Self { topic, sentence: sentence.into() }
    }
}

/// What the node is like around a torrent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Around {
    /// Torrents that wait for a turn before it, and so many have one at once.
    pub waits_behind: Option<(usize, usize)>,
    /// DHT nodes that answer; none where it is off.
    pub dht_nodes: Option<usize>,
    /// The node's limits in bytes a second, down and up; 0 is none.
    pub limits: (u64, u64),
    /// What passes of all torrents, bytes a second.
    pub rates: (u64, u64),
    /// Those limits are the alternative ones.
    pub is_alternative: bool,
    /// Peers have connected to us since the start.
    pub has_visitors: bool,
    /// No more connections may be made.
    pub is_full: bool,
}

/// A number of things, in words.
fn count(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("one {one}") } else { format!("{number} {many}") }
}

fn count_bytes(bytes: u64) -> String {
    if bytes == 1 { "one byte".to_owned() } else { format!("{bytes} bytes") }
}

fn is_used(rate: u64, limit: u64) -> bool {
    limit > 0 && rate >= limit / 10 * USED_TENTHS
}

impl Torrent {
    /// Why it does not move, and what would help.
    #[must_use]
    pub fn why(&self, now: Time, around: &Around) -> Vec<Reason> {
        if let Some(instead) = self.why_it_stands(around) {
            return vec![instead];
        }
        let mut reasons = Vec::new();
        self.why_of_description(&mut reasons);
        self.why_of_peers(now, around, &mut reasons);
        if self.is_link() {
            // What peers have and give is known when the pieces are.
        } else if self.is_finished() {
            self.why_nobody_takes(now, &mut reasons);
        } else {
            self.why_of_swarm(&mut reasons);
            self.why_nobody_gives(now, &mut reasons);
        }
        self.why_of_limits(now, around, &mut reasons);
        self.why_of_lengths(&mut reasons);
        if reasons.is_empty() {
            reasons.push(self.nothing_holds_it(now));
        }
        reasons
    }

    /// What it does instead, or waits for: then nothing else matters.
    fn why_it_stands(&self, around: &Around) -> Option<Reason> {
        if let Some(fault) = &self.fault {
            let help = match fault.kind {
                FaultKind::Full => "free some space, or `move` it to another disk; ",
                _ => "",
            };
            let again = format!("{fault}; {help}it is tried again every {} s", FAULT_RETRY.as_secs());
            return Some(Reason::new("disk", again));
        }
        if let Some(broken) = self.broken() {
            return Some(Reason::new("disk", broken));
        }
        if let Some(done) = self.check_progress().filter(|_| self.phase == Phase::Checking) {
            let sentence = format!("its content is being hashed, {:.0} % of it is; it goes on by itself", done * 100.0);
            return Some(Reason::new("checking", sentence));
        }
        if self.relocation.holds_writes() {
            return Some(Reason::new("moving", "its content is being moved; it goes on by itself"));
        }
        if self.paused {
            return Some(self.why_paused());
        }
        if self.queued {
            return Some(self.why_queued(around));
        }
        (self.phase == Phase::Allocating)
            .then(|| Reason::new("allocating", "room is being made for it on the disk; it goes on by itself"))
    }

    fn why_paused(&self) -> Reason {
        if !self.has_seeded_enough() {
            return Reason::new("paused", "it is paused; `resume` starts it");
        }
        let policy = &self.policy;
        let (goal, from) = self.goal_reached(Time::ZERO).unwrap_or((Goal::Ratio, policy.ratio.from));
        let what = match goal {
            Goal::Ratio => format!("its ratio is {:.2}, and {} was asked for", self.ratio(), policy.ratio.value),
            Goal::Time => format!(
                "it has seeded {}, and {} was asked for",
                human_duration(self.seeded_before.as_secs()),
                human_duration(policy.seed_time.value.as_secs())
            ),
            Goal::Idle => format!("nobody took anything for {}", human_duration(policy.idle_time.value.as_secs())),
        };
        let sentence = format!(
            "it has seeded enough: {what} ({}); `resume` lets it seed on, `set ID {}` changes the goal",
            source(from),
            goal.key()
        );
        Reason::new("goal", sentence)
    }

    fn why_queued(&self, around: &Around) -> Reason {
        let (verb, key) = if self.is_finished() { ("seed", "active_seeds") } else { ("download", "active_downloads") };
        let sentence = match around.waits_behind {
            Some((before, max)) => format!(
                "it waits for its turn: {max} may {verb} at once (`{key}` in [limits]), and {} before it; `set ID queue top` \
                 lets it go first",
                if before == 0 { "none waits".to_owned() } else { count(before, "waits", "wait") }
            ),
            None => "it waits for its turn, which comes by itself".to_owned(),
        };
        Reason::new("queue", sentence)
    }

    fn why_of_description(&self, reasons: &mut Vec<Reason>) {
        let Some((offers, share)) = self.description_progress() else { return };
        let from = count(offers, "peer", "peers");
        reasons.push(Reason::new(
            "metadata",
            if offers > 0 {
                format!("its description is being fetched from {from}; {:.0} % of it is here", share * 100.0)
            } else if let Some(limit) = self.oversized_metadata() {
                format!("only its link is known, and what peers offer as its description is not accepted: {limit}")
            } else if self.peers.values().any(|peer| peer.established) {
                "only its link is known, and no connected peer says that it has the description; they may be waiting for it \
                 themselves"
                    .to_owned()
            } else {
                "only its link is known; its description comes from the first peer that has it".to_owned()
            },
        ));
    }

    /// Nobody is connected: where peers would come from, and what those sources say.
    fn why_of_peers(&self, now: Time, around: &Around, reasons: &mut Vec<Reason>) {
        let is_alone = !self.peers.values().any(|peer| peer.established);
        let mut all_failed = true;
        for row in self.tracker_rows(now) {
            let url = escape(&row.url).into_owned();
            let again =
                row.next.map_or_else(String::new, |secs| format!("; it is asked again in {}", human_duration(secs)));
            match row.state {
                "failed" => {
                    let said = row.message.unwrap_or_default();
                    reasons.push(Reason::new("tracker", format!("tracker {url} failed: {said}{again}")));
                }
                "announcing" if is_alone => {
                    all_failed = false;
                    reasons.push(Reason::new("tracker", format!("tracker {url} is being asked")));
                }
                "working" if is_alone && row.peers == 0 => {
                    all_failed = false;
                    reasons.push(Reason::new("tracker", format!("tracker {url} answers, and names no peer{again}")));
                }
                state => all_failed &= state == "idle",
            }
        }
        if !is_alone {
            return;
        }
        self.why_without_trackers(around, all_failed, reasons);
        reasons.push(if around.is_full {
            Reason::new("peers", "no more connections may be made (`max_connections` in [peers])")
        } else if self.dialling > 0 {
            Reason::new("peers", format!("{} being dialled", count(self.dialling, "peer is", "peers are")))
        } else if self.candidates.is_empty() {
            Reason::new("peers", "no peers are known; `announce` asks again, `connect ID HOST:PORT` dials one")
        } else {
            let known = count(self.candidates.len(), "peer is", "peers are");
            let sentence =
                format!("{known} known, and none is connected; they may be offline, or not be reachable from here");
            Reason::new("peers", sentence)
        });
    }

    /// The sources of peers that are not trackers.
    fn why_without_trackers(&self, around: &Around, all_failed: bool, reasons: &mut Vec<Reason>) {
        if self.head.private {
            if all_failed {
                let sentence = "it is private, so that only its trackers may name peers, and none of them does; `announce` asks again";
                reasons.push(Reason::new("private", sentence));
            }
            return;
        }
        if !self.announces.has_trackers() {
            reasons.push(Reason::new("tracker", "it has no tracker"));
        }
        match around.dht_nodes {
            None => reasons.push(Reason::new("dht", "the DHT is off; `enabled` in [dht] lets it find peers there")),
            Some(0) => reasons.push(Reason::new("dht", "no DHT node answers, so nobody is found there; see `dht`")),
            Some(_) => {}
        }
    }

    /// What the connected peers lack together.
    fn why_of_swarm(&self, reasons: &mut Vec<Reason>) {
        let Some(download) = &self.download else { return };
        let peers = self.peers.values().filter(|peer| peer.established).count();
        if peers == 0 || self.peers.values().any(|peer| peer.is_seed()) {
            return;
        }
        let mut nowhere = Bitfield::new(self.geometry().pieces());
        for piece in self.missing_pieces().filter(|piece| download.picker.availability(*piece) == 0) {
            nowhere.set(piece.0);
        }
        if nowhere.count() == 0 {
            return;
        }
        let entries = self.layout.files().entries().filter(|entry| !entry.pad);
        let lacking = entries.filter(|entry| self.geometry().pieces_of(entry.span).any(|piece| nowhere.get(piece)));
        let mut names: Vec<String> = lacking.map(|entry| escape(&entry.path.to_string_lossy()).into_owned()).collect();
        let more = names.len().saturating_sub(FILES_SHOWN);
        names.truncate(FILES_SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let sentence = format!(
            "no seed is connected, and {} at no connected peer, of {}{more}; somebody who has them must come",
            count(nowhere.count() as usize, "missing piece is", "missing pieces are"),
            names.join(", ")
        );
        reasons.push(Reason::new("swarm", sentence));
    }

    /// Peers are here, and nothing comes from them.
    fn why_nobody_gives(&self, now: Time, reasons: &mut Vec<Reason>) {
        let peers = || self.peers.values().filter(|peer| peer.established);
        let able = peers().filter(|peer| peer.machine.am_interested());
        let (all, able) = (peers().count(), able.collect::<Vec<_>>());
        if all == 0 {
            return;
        }
        if able.is_empty() {
            let sentence =
                format!("none of {} has a piece that is missing here", count(all, "connected peer", "connected peers"));
            reasons.push(Reason::new("interest", sentence));
        } else if able.iter().all(|peer| peer.machine.peer_choking()) {
            let since = able.iter().map(|peer| peer.choked_at).max().unwrap_or(now);
            let sentence = format!(
                "{} us something, and chokes us, for {} now; slots go to others first, and to us in turn",
                if able.len() == 1 {
                    "one peer could give".to_owned()
                } else {
                    format!("each of {} peers could give", able.len())
                },
                human_duration(now.since(since).as_secs())
            );
            reasons.push(Reason::new("choked", sentence));
        } else if able.iter().filter(|peer| !peer.machine.peer_choking()).all(|peer| peer.machine.is_snubbed(now)) {
            let sentence = "whoever lets us ask sends nothing of what it was asked for; others are asked as they come";
            reasons.push(Reason::new("slow-peers", sentence));
        }
    }

    /// It has everything, and nothing goes out.
    fn why_nobody_takes(&self, now: Time, reasons: &mut Vec<Reason>) {
        let mut peers = self.peers.values().filter(|peer| peer.established).peekable();
        if peers.peek().is_some() && !peers.any(|peer| peer.machine.peer_interested()) && self.up.rate_bytes(now) == 0 {
            reasons.push(Reason::new("interest", "no connected peer wants anything"));
        }
    }

    /// Complete files that are longer than they should be: they were found so, and are left alone.
    fn why_of_lengths(&self, reasons: &mut Vec<Reason>) {
        let mut names: Vec<String> = Vec::new();
        let mut more = 0;
        for (entry, excess) in self.excesses() {
            if names.len() < FILES_SHOWN {
                let path = escape(&entry.path.to_string_lossy()).into_owned();
                names.push(format!("{path} is {} too long", count_bytes(excess)));
            } else {
                more += 1;
            }
        }
        if names.is_empty() {
            return;
        }
        let more = if more > 0 { format!(", and so are {more} more files") } else { String::new() };
        let sentence = format!(
            "{}{more}: the content was found so and is complete; cut it if another program needs the exact length",
            names.join(", ")
        );
        reasons.push(Reason::new("length", sentence));
    }

    /// What it moves no faster for.
    fn why_of_limits(&self, now: Time, around: &Around, reasons: &mut Vec<Reason>) {
        if self.is_super_seeding() && self.peers.values().any(|peer| peer.shown.is_some()) {
            let sentence = "it super-seeds, so peers are shown one piece at a time; `set ID super-seed no` ends that";
            reasons.push(Reason::new("super-seed", sentence));
        }
        if self.throttle.is_some() {
            let sentence = format!(
                "it has seeded enough, so it sends no more than {}/s; `set ID ratio` or `seed-time` changes the goal",
                human_size(self.up_bucket.rate_bytes())
            );
            reasons.push(Reason::new("goal", sentence));
        }
        let finished = self.is_finished();
        let rates = if finished { self.up.rate_bytes(now) } else { self.down.rate_bytes(now) };
        let (own, key): (Held<u64>, _) =
            if finished { (self.policy.up, "up-limit") } else { (self.policy.down, "down-limit") };
        if is_used(rates, own.value) {
            let sentence = format!(
                "its own limit of {}/s is used up ({}); `set ID {key}` changes it",
                human_size(own.value),
                source(own.from)
            );
            reasons.push(Reason::new("limit", sentence));
        }
        let (all, limit, way) =
            if finished { (around.rates.1, around.limits.1, "up") } else { (around.rates.0, around.limits.0, "down") };
        if is_used(all, limit) {
            let which = if around.is_alternative { "alternative limit" } else { "limit" };
            let help = if around.is_alternative {
                "`limit alternative off` ends it".to_owned()
            } else {
                format!("`limit {way}` changes it")
            };
            let sentence = format!("the node's {which} of {}/s for all torrents is used up; {help}", human_size(limit));
            reasons.push(Reason::new("limit", sentence));
        }
        if !around.has_visitors && rates == 0 && now >= Time::ZERO + VISITORS_AFTER {
            let port = self.listen.first().map_or(0, std::net::SocketAddr::port);
            let sentence = format!(
                "nobody has connected to us since the start, {} ago; port {port} may not be reachable, so let the router or \
                 firewall forward it",
                human_duration(now.as_secs())
            );
            reasons.push(Reason::new("port", sentence));
        }
    }

    fn nothing_holds_it(&self, now: Time) -> Reason {
        let (down, up) = (self.down.rate_bytes(now), self.up.rate_bytes(now));
        if down == 0 && up == 0 {
            return Reason::new("moving", "nothing holds it up; data was asked for and should come");
        }
        let (down, up) = (human_size(down), human_size(up));
        Reason::new("moving", format!("it is moving, {down}/s down and {up}/s up; nothing here makes it slower"))
    }

    /// Pieces that are wanted and not here.
    fn missing_pieces(&self) -> impl Iterator<Item = Piece> {
        let pieces = self.all_pieces().map(Piece);
        pieces.filter(|piece| self.layout.is_wanted(*piece) && !self.have.get(piece.0))
    }
}
