//! Bytes between streams, protocol machines and storage: the two lanes of every connection.
//!
//! **In**: the one receive buffer, stepped through by the connection's machine; payload is hashed while it is hot and
//! written, adjacent blocks together, before the buffer is used again. **Out**: encoded messages and content spans in one
//! vectored write. A turn ends by its budget, never by time.

use std::io::{self, ErrorKind, IoSlice, Read};
use std::time::Duration;

use crate::base::files::TOUCH_STEPS;
use crate::base::geometry::{BLOCK_LEN, Span};
use crate::base::ids::{ConnId, StoreId, TorrentId};
use crate::base::rate::Budget;
use crate::base::sabotage::{self, Sabotage};
use crate::base::steps;
use crate::base::storage::{Chunk, Fault, SendError, Storage};
use crate::base::time::Time;
use crate::codec::wire::Handshake;
use crate::engine::connections::{Connection, Ending, Role};
use crate::engine::lane::SEALED_MAX;
use crate::engine::loading::{Caller, Loaded};
use crate::engine::{Effect, Engine, Progress, Timer};
use crate::protocol::catalog;
use crate::protocol::peer::{Event, Peer};
use crate::torrent::download::Landing;
use crate::torrent::peers::Unwelcome;
use crate::torrent::torrent::Torrent;
use crate::torrent::touched_files::cut_to_few_files;

/// Chunks of one vectored write: 64 blocks and their heads.
const CHUNKS_MAX: usize = 128;
/// Whether content is in memory is asked for so many bytes at once, as far as the piece goes on.
const LOOK_AHEAD: u64 = 512 * 1024;
/// Steps of work of one turn: what a peer says beyond that is kept for its next turn, and so is what is to be sent to it.
///
/// The last message may cost more: a field of all pieces, then the choice of what to ask for, is 60,000 steps of the largest torrent.
const TURN_STEPS_MAX: u64 = steps::TURN_MAX / 4;
/// Steps of reading a message, whatever it says.
const MESSAGE_STEPS: usize = 4;
/// How soon content that is being read from the disk is looked at again.
const DISK_RETRY: Duration = Duration::from_millis(2);
/// After so long content is sent whether it is in memory or not: somebody evicts it faster than we look.
const DISK_PATIENCE: Duration = Duration::from_millis(500);

impl<S: Storage> Engine<S> {
    /// A turn to read. Errors and the end of the stream are met inside and answered by [`Effect::Close`].
    pub fn handle_readable(
        &mut self,
        now: Time,
        conn: ConnId,
        stream: &mut S::Stream,
        budget: &mut Budget,
    ) -> Progress {
        let Some(connection) = self.connections.get(conn) else { return Progress::Drained };
        self.turn_began = Some(steps::so_far());
        let progress = match connection.role {
            _ if connection.tunnel.is_some() => self.read_tunnel(now, conn, stream, budget),
            Role::Proxy => self.read_control(stream),
            Role::Served(_) => {
                self.turn_began = None;
                return self.handle_served(now, conn, stream, budget);
            }
            Role::Exchange(exchange) => self.read_exchange(now, conn, exchange, stream, budget),
            Role::Waiting(_) => Ok(Progress::Parked), // it is woken when the torrent is loaded
            Role::Greeting(_) | Role::Peer(_) | Role::Catalog(_) => self.read_peer(now, conn, stream, budget),
            Role::Dialling(_) => Ok(Progress::Drained),
        };
        let progress = progress.unwrap_or_else(|ending| {
            self.stats.peers_misbehaved += u64::from(matches!(ending, Ending::Misbehaved));
            self.close(now, conn);
            Progress::Drained
        });
        self.count_held(now, conn);
        self.settle(now);
        self.turn_began = None;
        progress
    }

    /// A turn to write.
    pub fn handle_writable(
        &mut self,
        now: Time,
        conn: ConnId,
        stream: &mut S::Stream,
        budget: &mut Budget,
    ) -> Progress {
        let Some(connection) = self.connections.get(conn) else { return Progress::Drained };
        let progress = match connection.role {
            _ if connection.tunnel.is_some() => self.write_tunnel(conn, stream),
            Role::Proxy => Ok(Progress::Drained),
            Role::Served(_) => return self.handle_served(now, conn, stream, budget),
            Role::Exchange(exchange) => self.write_exchange(exchange, stream),
            Role::Peer(id) => self.write_peer(now, conn, id, stream, budget),
            Role::Catalog(_) => self.write_catalog(now, conn, stream, budget),
            Role::Greeting(_) | Role::Waiting(_) => {
                let connection = self.connections.get_mut(conn).expect("it was just there");
                connection.sealed.flush(stream).map(|_| Progress::Drained)
            }
            Role::Dialling(_) => Ok(Progress::Drained),
        };
        let progress = progress.unwrap_or_else(|_| {
            self.close(now, conn);
            Progress::Drained
        });
        self.count_held(now, conn);
        self.settle(now);
        progress
    }

    fn read_peer(
        &mut self,
        now: Time,
        conn: ConnId,
        stream: &mut S::Stream,
        budget: &mut Budget,
    ) -> Result<Progress, Ending> {
        let steps_before = steps::so_far();
        loop {
            let Some(connection) = self.connections.get_mut(conn) else { return Ok(Progress::Drained) };
            let torrent = match &connection.role {
                Role::Catalog(end) if end.is_full() => {
                    connection.read_parked = true;
                    return Ok(Progress::Parked);
                }
                Role::Waiting(_) => return Ok(Progress::Parked),
                Role::Peer(id) => Some(self.torrents.get_mut(*id).ok_or(Ending::Closed)?),
                _ => None,
            };
            let mut allowance = budget.left();
            if let Some(torrent) = torrent {
                let machine = torrent.machine(conn).ok_or(Ending::Closed)?;
                if machine.outbuf().is_full() {
                    connection.read_parked = true;
                    return Ok(Progress::Parked);
                }
                let limit = self.down.allowance(now, &mut torrent.down_bucket);
                if limit == 0 {
                    self.down.park(now, conn, &mut torrent.down_bucket);
                    self.stats.turns_parked_for_limit += 1;
                    return Ok(Progress::Parked);
                }
                allowance = allowance.min(usize::try_from(limit).unwrap_or(usize::MAX));
            }
            if allowance == 0 {
                return Ok(Progress::Spent);
            }
            let kept = connection.tail.take_into(&mut self.receive);
            if std::mem::take(&mut connection.is_unread) {
                self.step(now, conn, kept, steps_before)?;
                if self.is_turn_over(conn, steps_before) {
                    return Ok(Progress::Spent);
                }
                continue;
            }
            let room = allowance.min(self.receive.len() - kept);
            let read = match stream.read(&mut self.receive[kept..kept + room]) {
                Ok(0) => return Err(Ending::Closed),
                Ok(read) => read,
                Err(error) => {
                    connection.tail.keep(&self.receive[..kept]);
                    match error.kind() {
                        ErrorKind::WouldBlock => return Ok(Progress::Drained),
                        ErrorKind::Interrupted => continue,
                        _ => return Err(Ending::Closed),
                    }
                }
            };
            budget.spend(read);
            self.stats.peer_bytes_in += read as u64;
            if let Role::Peer(id) = connection.role
                && let Some(torrent) = self.torrents.get_mut(id)
            {
                self.down.take(read as u64, &mut torrent.down_bucket);
            }
            if let Some(len) = self.pass_lane(now, conn, kept, kept + read)? {
                self.step(now, conn, len, steps_before)?;
            }
            if self.is_turn_over(conn, steps_before) {
                return Ok(Progress::Spent);
            }
        }
    }

    /// True if what a peer said has caused so much work that the rest waits for its next turn.
    fn is_turn_over(&self, conn: ConnId, steps_before: u64) -> bool {
        let is_unread = self.connections.get(conn).is_some_and(|connection| connection.is_unread);
        is_unread || steps::so_far() - steps_before >= TURN_STEPS_MAX
    }

    /// Lets the connection's machine step through the first `len` bytes of the receive buffer, in a turn that began at `steps_before`.
    fn step(&mut self, now: Time, conn: ConnId, len: usize, steps_before: u64) -> Result<(), Ending> {
        steps::add_bytes(len);
        let receive = std::mem::take(&mut self.receive);
        let mut input = &receive[..len];
        let result = self.step_through(now, conn, &mut input, steps_before);
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.tail.keep(input);
        }
        self.receive = receive;
        result
    }

    fn step_through(&mut self, now: Time, conn: ConnId, input: &mut &[u8], steps_before: u64) -> Result<(), Ending> {
        let connection = self.connections.get_mut(conn).ok_or(Ending::Closed)?;
        let id = match &mut connection.role {
            Role::Peer(id) => *id,
            Role::Greeting(machine) => match machine.handle_input(now, input) {
                Ok(None) => return Ok(()),
                Ok(Some(Event::Handshake(handshake))) if handshake.info_hash == catalog::hash() => {
                    self.greet_catalog(now, conn, &handshake)?;
                    return self.step_catalog(now, conn, input);
                }
                Ok(Some(Event::Handshake(handshake))) => match self.greet(now, conn, handshake)? {
                    Some(id) => id,
                    None => return Ok(()),
                },
                Ok(Some(_)) | Err(_) => return Err(Ending::Misbehaved),
            },
            Role::Catalog(_) => return self.step_catalog(now, conn, input),
            Role::Waiting(_) | Role::Dialling(_) | Role::Exchange(_) | Role::Served(_) | Role::Proxy => return Ok(()),
        };
        self.touched.push(id);
        let torrent = self.torrents.get_mut(id).ok_or(Ending::Closed)?;
        let down_before = torrent.down.total_bytes();
        let mut landings = Vec::with_capacity(input.len() / BLOCK_LEN as usize + 2);
        let result =
            step_peer(now, conn, torrent, input, &mut landings, &mut self.stats.peer_messages_in, steps_before);
        let store = torrent.store();
        if let Some(store) = store
            && let Err(fault) = land(now, conn, torrent, &mut self.storage, store, &landings)
        {
            torrent.fail(now, fault);
        }
        self.down_meter.add(now, torrent.down.total_bytes() - down_before);
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.is_unread = matches!(result, Ok(Stepped::Paused));
        }
        result.map(|_| ())
    }

    fn step_catalog(&mut self, now: Time, conn: ConnId, input: &mut &[u8]) -> Result<(), Ending> {
        loop {
            let Some(Connection { role: Role::Catalog(end), .. }) = self.connections.get_mut(conn) else {
                return Err(Ending::Closed);
            };
            let Some(news) = end.handle_input(now, input)? else { break };
            self.act_on_news(conn, news)?;
        }
        self.effects.push_back(Effect::Wake(conn));
        Ok(())
    }

    /// An accepted connection has said which torrent it wants. `None` if it has to wait until that is loaded.
    fn greet(&mut self, now: Time, conn: ConnId, handshake: Handshake) -> Result<Option<TorrentId>, Ending> {
        let Some(&id) = self.by_hash.get(&handshake.info_hash) else { return Err(Ending::Closed) };
        // Nobody is woken for a word that is not heard.
        if !self.torrents.get(id).is_some_and(Torrent::is_running) {
            return Err(Ending::Closed);
        }
        let loaded = self.load_for_peer(now, id, conn)?;
        let connection = self.connections.get_mut(conn).ok_or(Ending::Closed)?;
        let Role::Greeting(machine) = std::mem::replace(&mut connection.role, Role::Peer(id)) else {
            unreachable!("only a greeting connection greets");
        };
        if loaded == Loaded::Later {
            connection.role = Role::Waiting(Box::new(Caller { machine, handshake, id }));
            return Ok(None);
        }
        self.join(now, conn, id, machine, &handshake).map(|()| Some(id))
    }

    fn write_peer(
        &mut self,
        now: Time,
        conn: ConnId,
        id: TorrentId,
        stream: &mut S::Stream,
        budget: &mut Budget,
    ) -> Result<Progress, Ending> {
        let steps_before = steps::so_far();
        let connection = self.connections.get_mut(conn).ok_or(Ending::Closed)?;
        let torrent = self.torrents.get_mut(id).ok_or(Ending::Closed)?;
        let files = torrent.shared_files();
        loop {
            if !connection.sealed.flush(stream)? || !connection.is_open() {
                return Ok(Progress::Drained);
            }
            torrent.feed_metadata(conn);
            let waits_for_disk =
                feed(now, conn, torrent, &mut self.storage, &mut connection.disk_since, budget.left(), steps_before);
            if torrent.machine(conn).ok_or(Ending::Closed)?.outbuf().is_empty() {
                if !waits_for_disk {
                    return Ok(Progress::Drained);
                }
                self.stats.sends_parked_for_disk += 1;
                self.timers.set(Timer::Disk(conn), now + DISK_RETRY);
                return Ok(Progress::Parked);
            }
            let limit = self.up.allowance(now, &mut torrent.up_bucket);
            if limit == 0 {
                self.up.park(now, conn, &mut torrent.up_bucket);
                self.stats.turns_parked_for_limit += 1;
                return Ok(Progress::Parked);
            }
            let allowance = budget.left().min(usize::try_from(limit).unwrap_or(usize::MAX));
            if allowance == 0 {
                return Ok(Progress::Spent);
            }
            let machine = torrent.machine(conn).ok_or(Ending::Closed)?;
            let mut chunks: Vec<Chunk<'_>> = Vec::with_capacity(CHUNKS_MAX);
            let most = if connection.is_ciphered() { allowance.min(SEALED_MAX) } else { allowance };
            machine.outbuf().chunks(CHUNKS_MAX, most, &mut chunks);
            steps::add(cut_to_few_files(&files, &mut chunks) * TOUCH_STEPS);
            let offered =
                chunks.iter().map(|chunk| usize::try_from(chunk.len()).expect("a chunk is at most a block")).sum();
            let sent = match connection.lane.send(&mut connection.sealed, &mut self.storage, stream, &chunks) {
                Ok(sent) => sent,
                Err(SendError::Stream(error)) => return stream_error(&error),
                Err(SendError::Content(_, fault)) => {
                    torrent.fail(now, fault);
                    self.touched.push(id);
                    return Ok(Progress::Drained);
                }
            };
            budget.spend(sent);
            self.stats.peer_bytes_out += sent as u64;
            self.up.take(sent as u64, &mut torrent.up_bucket);
            let payload = torrent.handle_sent(now, conn, sent);
            self.up_meter.add(now, payload);
            if std::mem::take(&mut connection.read_parked) {
                self.effects.push_back(Effect::Wake(conn));
            }
            if sent < offered {
                return Ok(Progress::Drained); // the kernel takes no more, and will say so when it does
            }
            if steps::so_far() - steps_before >= TURN_STEPS_MAX {
                return Ok(Progress::Spent);
            }
        }
    }
}

pub(super) fn stream_error(error: &io::Error) -> Result<Progress, Ending> {
    match error.kind() {
        ErrorKind::WouldBlock => Ok(Progress::Drained),
        ErrorKind::Interrupted => Ok(Progress::Spent),
        _ => Err(Ending::Closed),
    }
}

/// How far a peer's machine was stepped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stepped {
    /// Until more bytes are needed.
    Through,
    /// Until it had caused [`TURN_STEPS_MAX`] steps of work, or as many bytes of answers as may wait.
    Paused,
}

/// Steps a peer's machine; payload that is to be written is collected in `landings`.
fn step_peer<'b>(
    now: Time,
    conn: ConnId,
    torrent: &mut Torrent,
    input: &mut &'b [u8],
    landings: &mut Vec<Landing<'b>>,
    messages: &mut u64,
    steps_before: u64,
) -> Result<Stepped, Ending> {
    let is_costly = sabotage::is_broken(Sabotage::CostlyTurn);
    loop {
        if steps::so_far() - steps_before >= TURN_STEPS_MAX && !is_costly {
            return Ok(Stepped::Paused);
        }
        let machine: &mut Peer = torrent.machine(conn).ok_or(Ending::Closed)?;
        if machine.outbuf().is_full() {
            return Ok(Stepped::Paused); // answers wait already: questions wait, too
        }
        // Payload for many files comes in parts, so that the turn can end between them.
        let to_come = machine.payload_to_come();
        let most = to_come.map_or(usize::MAX, |(block, from)| torrent.payload_at_once(block, from));
        let machine: &mut Peer = torrent.machine(conn).ok_or(Ending::Closed)?;
        let whole: &'b [u8] = input;
        let part = &whole[..whole.len().min(most)];
        let mut rest = part;
        let result = machine.handle_input(now, &mut rest);
        *input = &whole[part.len() - rest.len()..];
        match result {
            Ok(None) => return Ok(Stepped::Through),
            Ok(Some(event)) => {
                steps::add(MESSAGE_STEPS);
                if is_costly {
                    steps::add(torrent.geometry().pieces() as usize);
                }
                *messages += u64::from(!matches!(event, Event::BlockBytes { .. }));
                match torrent.handle_peer_event(now, conn, event) {
                    Ok(landing) => {
                        if let Some(landing) = &landing {
                            let span = Span { offset: landing.offset, len: landing.bytes.len() as u64 };
                            steps::add(torrent.more_files_in(span) * TOUCH_STEPS);
                        }
                        landings.extend(landing);
                    }
                    Err(unwelcome) => {
                        log::debug!("{}: a peer is not wanted: {unwelcome:?}", torrent.info_hash());
                        let is_broken = unwelcome == Unwelcome::Flood;
                        return Err(if is_broken { Ending::Misbehaved } else { Ending::Closed });
                    }
                }
            }
            Err(error) => {
                log::debug!("{}: a peer broke the protocol: {error:?}", torrent.info_hash());
                return Err(Ending::Misbehaved);
            }
        }
    }
}

/// Writes payload, adjacent blocks in one call, then tells the torrent which blocks are whole.
fn land<S: Storage>(
    now: Time,
    conn: ConnId,
    torrent: &mut Torrent,
    storage: &mut S,
    store: StoreId,
    landings: &[Landing<'_>],
) -> Result<(), Fault> {
    let is_adjacent = |a: &Landing<'_>, b: &Landing<'_>| a.offset + a.bytes.len() as u64 == b.offset;
    for run in landings.chunk_by(is_adjacent) {
        let slices: Vec<IoSlice<'_>> = run.iter().map(|landing| IoSlice::new(landing.bytes)).collect();
        storage.write(store, run[0].offset, &slices)?;
        for landing in run.iter().filter(|landing| landing.last) {
            torrent.handle_landed(now, conn, landing.block);
        }
    }
    Ok(())
}

/// Moves blocks that a peer asked for into its queue, as far as a turn that began at `steps_before` can send them and they are in
/// memory. True if the next one waits for the disk.
fn feed<S: Storage>(
    now: Time,
    conn: ConnId,
    torrent: &mut Torrent,
    storage: &mut S,
    disk_since: &mut Option<Time>,
    budget_bytes: usize,
    steps_before: u64,
) -> bool {
    let Some(store) = torrent.store() else { return false };
    let mut known = Span { offset: 0, len: 0 };
    while steps::so_far() - steps_before < TURN_STEPS_MAX
        && let Some((block, span)) = torrent.next_upload(conn, budget_bytes)
    {
        if !known.contains(span) {
            let piece_end = torrent.piece_span(block.piece).end();
            let ahead = Span { len: LOOK_AHEAD.min(piece_end - span.offset).max(span.len), ..span };
            let ahead = torrent.start_of(ahead);
            steps::add(torrent.more_files_in(ahead) * TOUCH_STEPS);
            if storage.resident(store, ahead) {
                known = ahead;
            }
        }
        if !known.contains(span) && !storage.resident(store, span) {
            storage.expect(store, span);
            let since = *disk_since.get_or_insert(now);
            if now.since(since) < DISK_PATIENCE {
                return true;
            }
        }
        *disk_since = None;
        torrent.send_block(now, conn, block, store, span);
    }
    false
}
