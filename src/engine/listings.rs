//! Long answers, collected in slices: rows of torrents, files, peers, pieces and catalogs, and figures that need a look at every
//! torrent.
//!
//! What a slice costs is bounded, whatever there is to list; the driver asks for the next one when the client has room for it.

use std::ops::Bound;

use crate::base::geometry::Piece;
use crate::base::ids::TorrentId;
use crate::base::steps;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::Engine;
use crate::torrent::command::{Answer, Command, Refusal, RefusalKind, Reply, Status};
use crate::torrent::dht_command::{DhtAnswer, DhtCommand};
use crate::torrent::listing::{ChangesEnd, Listing, Places, Slice, Slots, Torrents, Totals};
use crate::torrent::snapshot::{State, Summary};
use crate::torrent::torrent::Torrent;

/// Steps after which a slice ends: about 125 µs.
const SLICE_STEPS: u64 = steps::TURN_MAX / 16;
/// Rows of a slice, each kind so many that rendering them costs about as much as ten rows of JSON of torrents cost.
const TORRENTS_MAX: usize = 32;
/// See [`TORRENTS_MAX`].
const FILES_MAX: usize = 256;
/// Files of a slice whose paths are not wanted.
const LENGTHS_MAX: usize = 2048;
/// See [`TORRENTS_MAX`].
const PEERS_MAX: usize = 128;
/// See [`TORRENTS_MAX`]. Whole lines of the piece map.
const PIECES_MAX: u32 = 1024;
/// See [`TORRENTS_MAX`].
const ENTRIES_MAX: usize = 256;
/// See [`TORRENTS_MAX`].
const SWARMS_MAX: usize = 64;
/// Removed torrents of a slice.
const GONE_MAX: usize = 512;

/// Steps that a look at a torrent in a list costs: several cache lines.
const LOOK_STEPS: usize = 5;
/// Steps that copying out one torrent costs, without its peers.
const SUMMARY_STEPS: usize = 40;
/// Steps that copying out one peer costs.
const PEER_STEPS: usize = 15;
/// Steps that copying out one file costs, without its path.
const FILE_STEPS: usize = 4;

impl<S: Storage> Engine<S> {
    /// Begins a long answer, which [`Engine::collect`] gives. `None` if the command has a short one: see
    /// [`Engine::handle_command`].
    ///
    /// # Errors
    /// A [`Refusal`] says what kind it is and what to do.
    pub fn begin_listing(&mut self, now: Time, command: &Command) -> Result<Option<Listing>, Refusal> {
        if self.needs_loaded(command).is_some_and(|id| self.is_long(id)) {
            return Ok(None); // `handle_command` answers that it is loaded first
        }
        self.note_changes(false);
        let listing = self.listing_of(now, command);
        if !matches!(listing, Ok(None)) {
            self.settle(now);
            self.save_changed(now);
        }
        listing
    }

    /// The next rows of a long answer. In every call something is done, even if there is no row yet.
    ///
    /// # Errors
    /// The torrent whose rows these are is gone, or its description cannot be read.
    pub fn collect(&mut self, now: Time, listing: &mut Listing) -> Result<Slice, Refusal> {
        match listing {
            Listing::Torrents(torrents) => Ok(self.collect_torrents(now, torrents)),
            Listing::Files { torrent, next, without_paths } => self.collect_files(now, *torrent, next, *without_paths),
            Listing::Peers { torrent, conns, next } => {
                let torrent = self.torrents.get(*torrent).ok_or_else(gone)?;
                let some = &conns[*next..conns.len().min(*next + PEERS_MAX)];
                *next += some.len();
                steps::add(PEER_STEPS * some.len());
                let rows = some.iter().filter_map(|conn| torrent.peer_row(now, *conn)).collect();
                Ok(Slice { rows: Answer::Peers(rows), is_last: *next == conns.len() })
            }
            Listing::Pieces { torrent, next } => {
                let torrent = self.torrents.get(*torrent).ok_or_else(gone)?;
                let pieces = torrent.all_pieces();
                let some = (*next).min(pieces.end)..pieces.end.min(next.saturating_add(PIECES_MAX));
                *next = some.end;
                steps::add(some.len());
                let states = some.map(|index| torrent.piece_state(Piece(index))).collect();
                Ok(Slice { rows: Answer::Pieces(states), is_last: *next == pieces.end })
            }
            Listing::Catalog { of, next } => {
                let (rest, is_whole) = self.catalog_from(of, *next);
                let entries = rest[..rest.len().min(ENTRIES_MAX)].to_vec();
                *next += entries.len();
                steps::add(2 * entries.len());
                Ok(Slice { is_last: entries.len() == rest.len(), rows: Answer::Catalog { entries, is_whole } })
            }
            Listing::Swarms { swarms, next, progress } => {
                let some = &swarms[*next..swarms.len().min(*next + SWARMS_MAX)];
                *next += some.len();
                steps::add(2 * some.len());
                let rows = Answer::Dht(DhtAnswer::Swarms(some.to_vec(), *progress));
                Ok(Slice { rows, is_last: *next == swarms.len() })
            }
            Listing::Stats { slots, pieces } => {
                let is_last = self.visit(slots, |torrent| {
                    let more = [torrent.passed, torrent.failed, torrent.checked];
                    pieces.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
                    true
                });
                let rows = if is_last { Answer::Stats(self.stats_rows(*pieces)) } else { Answer::Done };
                Ok(Slice { rows, is_last })
            }
            Listing::Status(totals) => {
                let is_last = self.visit_for_status(totals);
                let rows = if is_last { Answer::Status(Box::new(self.status(now, totals))) } else { Answer::Done };
                Ok(Slice { rows, is_last })
            }
        }
    }

    /// The answer to a command that has a long one, all at once: for tests, simulations and tools, in which nobody waits.
    pub(super) fn collect_all(&mut self, now: Time, command: &Command) -> Reply {
        let mut listing = self.listing_of(now, command)?.expect("the command has a long answer");
        let mut whole = self.collect(now, &mut listing)?;
        while !whole.is_last {
            let slice = self.collect(now, &mut listing)?;
            whole = Slice { rows: joined(whole.rows, slice.rows), is_last: slice.is_last };
        }
        Ok(whole.rows)
    }

    fn listing_of(&mut self, now: Time, command: &Command) -> Result<Option<Listing>, Refusal> {
        Ok(Some(match command {
            Command::List { states, label } => Listing::Torrents(Box::new(Torrents {
                states: states.clone(),
                label: label.clone(),
                slots: self.slots(),
                only: None,
                next: 0,
                picked: None,
                end: None,
                next_gone: 0,
                places: self.places(),
            })),
            Command::Changes(since) => self.changes(*since),
            Command::Files(which) => {
                self.one_awake(now, which)?;
                Listing::Files { torrent: self.one_id(which)?, next: 0, without_paths: false }
            }
            Command::Peers(which) => {
                let torrent = self.one_id(which)?;
                let conns = self.torrents.get(torrent).map(Torrent::conns).unwrap_or_default();
                Listing::Peers { torrent, conns, next: 0 }
            }
            Command::Pieces(which) => Listing::Pieces { torrent: self.one_id(which)?, next: 0 },
            Command::Catalog { host, port } => Listing::Catalog { of: self.ask_catalog(now, host, *port)?, next: 0 },
            Command::Dht(sample @ DhtCommand::Sample(_)) => match self.ask_dht(now, sample.clone())? {
                Answer::Dht(DhtAnswer::Swarms(swarms, progress)) => Listing::Swarms { swarms, next: 0, progress },
                other => unreachable!("the answer to Sample has swarms, not {other:?}"),
            },
            Command::Stats => Listing::Stats { slots: self.slots(), pieces: [0; 3] },
            Command::Status => Listing::Status(Box::new(self.totals())),
            _ => return Ok(None),
        }))
    }

    /// All torrents of now.
    pub(super) fn slots(&self) -> Slots {
        Slots { next: 0, generation: self.torrents.next_generation() }
    }

    /// No position in the queue yet.
    pub(super) fn places(&self) -> Places {
        Places { is_wanted: true, of: vec![0; self.torrents.slots()], walked: None, is_open: true }
    }

    fn totals(&self) -> Totals {
        Totals { slots: self.slots(), torrents: Default::default(), peers: 0, dirs: Default::default() }
    }

    /// Visits torrents until a slice's steps are used up or `look` returns false; true if all of them were visited.
    fn visit(&self, slots: &mut Slots, mut look: impl FnMut(&Torrent) -> bool) -> bool {
        let end = steps::so_far() + SLICE_STEPS;
        while slots.next < self.torrents.slots() {
            if steps::so_far() >= end {
                return false;
            }
            steps::add(1);
            let id = self.torrents.id_at(slots.next).filter(|id| id.is_before(slots.generation));
            slots.next += 1;
            let Some(id) = id else { continue };
            steps::add(LOOK_STEPS);
            let torrent = self.torrents.get(id).expect("the arena just named it");
            if !look(torrent) {
                return slots.next >= self.torrents.slots();
            }
        }
        true
    }

    fn visit_for_status(&self, totals: &mut Totals) -> bool {
        let Totals { slots, .. } = totals;
        let mut slots = slots.clone();
        let is_last = self.visit(&mut slots, |torrent| {
            totals.peers += torrent.peer_count();
            if !torrent.is_peek() {
                let state = torrent.state();
                let index = State::ALL.iter().position(|&other| other == state).expect("all states are listed");
                totals.torrents[index] += 1;
                totals.add_dir(torrent.dir());
            }
            true
        });
        totals.slots = slots;
        is_last
    }

    fn status(&self, now: Time, totals: &Totals) -> Status {
        Status {
            uptime: now.as_secs(),
            torrents: totals.torrents,
            peers: totals.peers,
            connections: self.connections.len(),
            down_rate: self.down_meter.rate_bytes(now),
            up_rate: self.up_meter.rate_bytes(now),
            downloaded: self.down_meter.total_bytes(),
            uploaded: self.up_meter.total_bytes(),
            limits: (self.down.rate_bytes(), self.up.rate_bytes()),
            dht_nodes: self.dht_nodes(now),
            listen: self.config.listen.clone(),
            dht_listen: self.dht_listen(),
            trouble: self.trouble().map(str::to_owned),
        }
    }

    fn stats_rows(&self, pieces: [u64; 3]) -> Vec<(String, u64)> {
        [self.stats.rows(pieces), self.dht_rows(), self.lsd_rows(), self.tracker_rows()].concat()
    }

    /// Walks the queue for a slice; true if all positions are known.
    fn walk_places(&self, places: &mut Places) -> bool {
        if !places.is_open || !places.is_wanted {
            return true;
        }
        let end = steps::so_far() + SLICE_STEPS;
        let after = places.walked.map_or(Bound::Unbounded, |(place, _)| Bound::Excluded(place));
        let mut position = places.walked.map_or(0, |(_, position)| position);
        for place in self.turns.places_after(after) {
            steps::add(1);
            position += 1;
            places.walked = Some((place, position));
            if let Some(of) = places.of.get_mut(place.1.slot()) {
                *of = position;
            }
            if steps::so_far() >= end {
                return false;
            }
        }
        places.is_open = false;
        true
    }

    fn collect_torrents(&self, now: Time, torrents: &mut Torrents) -> Slice {
        if !self.walk_places(&mut torrents.places) {
            return Slice { rows: Answer::Done, is_last: false };
        }
        let Torrents { states, label, slots, only, next, picked, end, next_gone, places } = torrents;
        let mut rows = Vec::new();
        let mut take = |torrent: &Torrent| {
            let is_wanted = !torrent.is_peek()
                && (states.is_empty() || states.contains(&torrent.state()))
                && label.as_ref().is_none_or(|label| torrent.label() == label);
            if is_wanted {
                rows.push(self.row(now, torrent, places));
            }
            rows.len() < TORRENTS_MAX
        };
        let is_through = if let Some(picked) = picked {
            steps::add(LOOK_STEPS * picked.len());
            let ids = picked.iter().filter_map(|hash| self.by_hash.get(hash));
            ids.filter_map(|id| self.torrents.get(*id)).for_each(|torrent| _ = take(torrent));
            true
        } else if let Some(only) = only {
            let end = steps::so_far() + SLICE_STEPS;
            while let Some(id) = only.get(*next).filter(|_| steps::so_far() < end) {
                *next += 1;
                steps::add(LOOK_STEPS);
                if self.torrents.get(*id).is_some_and(|torrent| !take(torrent)) {
                    break;
                }
            }
            *next == only.len()
        } else {
            self.visit(slots, take)
        };
        self.followed.fill(&self.by_hash, &mut rows);
        let Some(ChangesEnd { gone, since, is_whole }) = end else {
            return Slice { rows: Answer::List(rows), is_last: is_through };
        };
        let left = if is_through { &gone[*next_gone..] } else { &[] };
        let gone = left[..left.len().min(GONE_MAX)].to_vec();
        *next_gone += gone.len();
        let is_last = is_through && gone.len() == left.len();
        Slice { rows: Answer::Changes { rows, gone, since: *since, is_whole: *is_whole }, is_last }
    }

    fn row(&self, now: Time, torrent: &Torrent, places: &Places) -> Summary {
        steps::add(SUMMARY_STEPS + torrent.peer_count());
        let mut row = torrent.summary(now);
        if places.is_wanted {
            let id = self.by_hash.get(&torrent.info_hash());
            let place = id.and_then(|id| places.of.get(id.slot())).copied().filter(|place| *place > 0);
            // Also of a torrent that was moved in the queue while that was walked.
            let now_at = || id.and_then(|id| self.turns.position(*id));
            row.queue = place.map(|place| place as usize).or_else(now_at);
        }
        row
    }

    fn collect_files(
        &mut self,
        now: Time,
        id: TorrentId,
        next: &mut usize,
        without_paths: bool,
    ) -> Result<Slice, Refusal> {
        if !self.torrents.contains(id) {
            return Err(gone());
        }
        if self.torrents.get(id).is_some_and(Torrent::is_asleep) {
            // It fell asleep while the client did not read.
            if self.is_long(id) {
                if let Some(why) = self.torrents.get(id).and_then(Torrent::lost) {
                    return Err(Refusal::new(RefusalKind::Io, why));
                }
                self.load_soon(now, id);
                self.settle(now);
                return Ok(Slice { rows: Answer::Files(Vec::new()), is_last: false });
            }
            self.awake(now, id)?;
            self.settle(now);
            self.save_changed(now);
        }
        let torrent = self.torrents.get(id).ok_or_else(gone)?;
        let end = steps::so_far() + SLICE_STEPS;
        let count = torrent.listed_files();
        let rows_max = if without_paths { LENGTHS_MAX } else { FILES_MAX };
        let mut rows = Vec::new();
        while *next < count && rows.len() < rows_max && steps::so_far() < end {
            steps::add(FILE_STEPS);
            rows.extend(torrent.file_row(*next, !without_paths));
            *next += 1;
        }
        Ok(Slice { rows: Answer::Files(rows), is_last: *next >= count })
    }
}

fn gone() -> Refusal {
    Refusal::new(RefusalKind::NotFound, "the torrent was removed meanwhile; see `list`")
}

/// Two slices of one answer as one.
fn joined(first: Answer, next: Answer) -> Answer {
    fn append<T>(mut first: Vec<T>, next: Vec<T>) -> Vec<T> {
        first.extend(next);
        first
    }
    match (first, next) {
        (Answer::List(first), Answer::List(next)) => Answer::List(append(first, next)),
        (Answer::Files(first), Answer::Files(next)) => Answer::Files(append(first, next)),
        (Answer::Peers(first), Answer::Peers(next)) => Answer::Peers(append(first, next)),
        (Answer::Pieces(first), Answer::Pieces(next)) => Answer::Pieces(append(first, next)),
        (Answer::Catalog { entries: first, .. }, Answer::Catalog { entries, is_whole }) => {
            Answer::Catalog { entries: append(first, entries), is_whole }
        }
        (Answer::Dht(DhtAnswer::Swarms(first, _)), Answer::Dht(DhtAnswer::Swarms(next, progress))) => {
            Answer::Dht(DhtAnswer::Swarms(append(first, next), progress))
        }
        (Answer::Changes { rows: first, gone: went, .. }, Answer::Changes { rows, gone, since, is_whole }) => {
            Answer::Changes { rows: append(first, rows), gone: append(went, gone), since, is_whole }
        }
        (first, Answer::Done) => first,
        (_, next) => next,
    }
}
