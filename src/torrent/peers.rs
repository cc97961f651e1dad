//! The peers of a torrent: coming, introducing themselves, going; and what each of them has.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::addr::canonical;
use crate::base::bitfield::Bitfield;
use crate::base::geometry::Piece;
use crate::base::ids::ConnId;
use crate::base::time::Time;
use crate::codec::extension::{ExtensionHandshake, ExtensionIds, ExtensionKind};
use crate::codec::wire::Handshake;
use crate::protocol::peer::{ALLOWED_FAST_LEN, Event, Hello, Peer, UPLOADS_MAX, allowed_fast_set};
use crate::protocol::pex::{Pex, Place};
use crate::torrent::candidates::Origin;
use crate::torrent::command::{Refusal, RefusalKind};
use crate::torrent::download::Landing;
use crate::torrent::event::What;
use crate::torrent::interest::Offer;
use crate::torrent::super_seed::Shown;
use crate::torrent::torrent::{Ask, LOOK_SOON, TICK, Torrent};

/// Two connections with one peer are of one moment if no more lies between them.
const TWIN_MAX: Duration = Duration::from_secs(30);

/// Choked peers that may have pieces of ours nevertheless (BEP 6), at once; newcomers beyond wait for a slot. What they take
/// comes on top of what the slots give.
const ALLOWED_FAST_PEERS_MAX: usize = 4;

/// A peer that neither gives nor wants anything is idle after so long: until then it may still be about to say what it has.
const IDLE_MIN: Duration = Duration::from_secs(60);

/// Bytes of a peer's field that do not count as held: that of 32,768 pieces.
const USUAL_FIELD_LEN: usize = 4096;

/// Pieces that a peer suggested and that are remembered; beyond it the oldest is forgotten.
const SUGGESTED_MAX: usize = 16;

/// What a torrent knows of one connection.
#[derive(Debug)]
pub(crate) struct TorrentPeer {
    pub(crate) machine: Peer,
    pub(crate) addr: SocketAddr,
    pub(crate) origin: Origin,
    pub(crate) incoming: bool,
    /// Handshakes were exchanged.
    pub(crate) established: bool,
    /// What it has. No allocation until it says so.
    pub(crate) field: Bitfield,
    /// What is known of what it has and we want.
    pub(crate) offer: Offer,
    /// It is in `due_peers`.
    pub(crate) is_due: bool,
    /// What it was shown of what we have, while that is not all.
    pub(crate) shown: Option<Box<Shown>>,
    /// What it proposes to be asked for (BEP 6), the oldest first; at most [`SUGGESTED_MAX`].
    pub(crate) suggested: Vec<Piece>,
    /// What we proposed to it, and it has not.
    pub(crate) proposed: Vec<Piece>,
    pub(crate) connected_at: Time,
    /// Since then it chokes us, while it does.
    pub(crate) choked_at: Time,
    /// It let us wait when it was last looked at.
    pub(crate) snubbed: bool,
    /// Its id, to find it twice.
    pub(crate) peer_id: [u8; 20],
    /// Where one that dialled us says that it listens; nobody dials it there while it is connected.
    pub(crate) listens_at: Option<SocketAddr>,
    /// We began ciphered, and it has not answered so.
    pub(crate) shaking: bool,
    /// What passes is ciphered.
    pub(crate) encrypted: bool,
    /// Pieces of our `info` that it was, or will be, sent.
    pub(crate) metadata_served: u32,
    /// Those that it waits for: no more than there are.
    pub(crate) metadata_wanted: BTreeSet<u32>,
    /// Under which number others are told of it; none while they are not.
    pub(crate) place: Option<Place>,
    /// What it was told of others, once it wants to hear, or tells us.
    pub(crate) pex: Option<Box<Pex>>,
}

impl TorrentPeer {
    pub(crate) fn is_seed(&self) -> bool {
        !self.field.is_empty() && self.field.is_full()
    }
}

/// Why the torrent will not have a peer. The connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwelcome {
    /// It is ourselves.
    Ourselves,
    /// It is connected already.
    Twice,
    /// There are enough.
    Full,
    /// It has sent corrupt pieces.
    Banned,
    /// The torrent is not running.
    Stopped,
    /// It became known in a way that a private torrent does not trust (BEP 27).
    Private,
    /// Its `info` is another one than ours: another wire hash, or another `st-id`.
    OtherTorrent,
    /// It tells of others more often than it may.
    Flood,
}

impl Torrent {
    /// How many peers are connected.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// The protocol machine of a peer, for the pump.
    pub fn machine(&mut self, conn: ConnId) -> Option<&mut Peer> {
        self.peers.get_mut(&conn).map(|peer| &mut peer.machine)
    }

    /// Bytes of messages that wait to go out to a peer, and of the fields of its pieces that are longer than usual.
    #[must_use]
    pub fn held_for(&self, conn: ConnId) -> usize {
        self.peers.get(&conn).map_or(0, |peer| {
            let fields = peer.field.as_bytes().len() * if peer.shown.is_some() { 2 } else { 1 };
            peer.machine.outbuf().encoded_len() + if fields > USUAL_FIELD_LEN { fields } else { 0 }
        })
    }

    /// How we introduce ourselves.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello { info_hash: self.info_hash(), peer_id: self.peer_id, dht: self.dht.may() }
    }

    /// The next address to dial; the caller makes the connection and calls `handle_dialled` or `handle_dial_failed`.
    pub fn next_candidate(&mut self, now: Time) -> Option<SocketAddr> {
        if !self.running || self.peers.len() + self.dialling >= self.connections_max {
            return None;
        }
        let addr = self.candidates.next(now)?;
        self.dialling += 1;
        Some(addr)
    }

    /// Whether the peer at `addr` may take a ciphered handshake: it has not yet hung up on one.
    #[must_use]
    pub fn takes_cipher(&self, addr: SocketAddr) -> bool {
        self.candidates.takes_cipher(addr)
    }

    /// The handshakes below ours are over, and so it is known whether what follows is ciphered.
    pub fn handle_lane(&mut self, conn: ConnId, encrypted: bool) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            (peer.shaking, peer.encrypted) = (false, encrypted);
        }
    }

    /// The connection to `addr` stands; we begin `ciphered` or not.
    ///
    /// # Errors
    /// It is not wanted any more.
    pub fn handle_dialled(
        &mut self,
        now: Time,
        conn: ConnId,
        addr: SocketAddr,
        ciphered: bool,
    ) -> Result<(), Unwelcome> {
        self.dialling -= 1;
        let origin = self.candidates.handle_connected(addr);
        let welcome = if self.trusts(origin) { self.may_join(addr) } else { Err(Unwelcome::Private) };
        if let Err(unwelcome) = welcome {
            self.candidates.handle_closed(now, addr, true);
            self.forget_untrusted();
            return Err(unwelcome);
        }
        let machine = Peer::dialled(now, self.hello());
        self.join(now, conn, machine, addr, origin, false);
        self.peers.get_mut(&conn).expect("it has just joined").shaking = ciphered;
        Ok(())
    }

    /// The connection to `addr` could not be made.
    pub fn handle_dial_failed(&mut self, now: Time, addr: SocketAddr) {
        self.dialling -= 1;
        self.candidates.handle_failed(now, addr);
        self.forget_untrusted();
    }

    /// A peer that connected to us asks for this torrent; `machine` has read its handshake and not answered it.
    ///
    /// # Errors
    /// It is not wanted.
    pub fn handle_incoming(
        &mut self,
        now: Time,
        conn: ConnId,
        machine: Box<Peer>,
        addr: SocketAddr,
        handshake: &Handshake,
    ) -> Result<(), Unwelcome> {
        if !self.running {
            return Err(Unwelcome::Stopped);
        }
        if let (Err(Unwelcome::Full), Some((_, idle))) = (self.may_join(addr), self.idlest(now)) {
            self.drop_peer(now, idle);
        }
        self.may_join(addr)?;
        let mut machine = *machine;
        machine.greet(now, self.hello());
        self.join(now, conn, machine, addr, Origin::Incoming, true);
        self.establish(now, conn, handshake)
    }

    /// The peer that has been here for longest, since when, of those that neither give nor want anything.
    #[must_use]
    pub fn idlest(&self, now: Time) -> Option<(Time, ConnId)> {
        let idle = self.peers.iter().filter(|(_, peer)| self.is_idle(now, peer));
        idle.map(|(conn, peer)| (peer.connected_at, *conn)).min()
    }

    /// All peers in the order in which they may go: those that neither give nor want anything first, the oldest of them first; then
    /// the rest, who came last first.
    pub fn least_needed(&self, now: Time) -> impl Iterator<Item = ((bool, u64), ConnId)> {
        self.peers.iter().map(move |(conn, peer)| {
            let at = peer.connected_at.as_nanos();
            let is_needed = !self.is_idle(now, peer);
            ((is_needed, if is_needed { u64::MAX - at } else { at }), *conn)
        })
    }

    /// True if it neither gives nor wants anything, and has been here for a while.
    fn is_idle(&self, now: Time, peer: &TorrentPeer) -> bool {
        let machine = &peer.machine;
        let gives = machine.am_interested() && !peer.snubbed;
        let wants = machine.peer_interested() && !self.is_link();
        peer.established && !gives && !wants && now.since(peer.connected_at) >= IDLE_MIN
    }

    fn may_join(&self, addr: SocketAddr) -> Result<(), Unwelcome> {
        if !self.running {
            return Err(Unwelcome::Stopped);
        }
        if self.candidates.is_banned(addr) {
            return Err(Unwelcome::Banned);
        }
        if self.peers.len() >= self.connections_max {
            return Err(Unwelcome::Full);
        }
        Ok(())
    }

    fn join(&mut self, now: Time, conn: ConnId, machine: Peer, addr: SocketAddr, origin: Origin, incoming: bool) {
        let mut machine = machine;
        if !self.is_link() {
            machine.set_pieces(self.geometry().pieces());
        }
        let peer = TorrentPeer {
            machine,
            snubbed: false,
            addr,
            origin,
            incoming,
            established: false,
            field: Bitfield::default(),
            offer: Offer::Unknown,
            is_due: false,
            shown: None,
            suggested: Vec::new(),
            proposed: Vec::new(),
            connected_at: now,
            choked_at: now,
            peer_id: [0; 20],
            listens_at: None,
            shaking: false,
            encrypted: false,
            metadata_served: 0,
            metadata_wanted: BTreeSet::new(),
            place: None,
            pex: None,
        };
        self.peers.insert(conn, peer);
        self.asks.push_back(Ask::Wake(conn));
        self.look_at = self.look_at.min(now + LOOK_SOON);
        self.tick_at = self.tick_at.min(now + TICK);
    }

    /// The other end's handshake is here: finds ourselves and peers that come twice, then says what we have.
    fn establish(&mut self, now: Time, conn: ConnId, handshake: &Handshake) -> Result<(), Unwelcome> {
        let mut result = self.examine(conn, handshake);
        if result == Err(Unwelcome::Twice) && self.goes_before_its_twin(now, conn, handshake) {
            result = Ok(());
        }
        if let Err(unwelcome) = result {
            if unwelcome == Unwelcome::Ourselves
                && let Some(peer) = self.peers.get(&conn)
                && !peer.incoming
            {
                self.candidates.mark_ourselves(peer.addr);
            }
            let dialled = self.peers.get(&conn).filter(|peer| !peer.incoming).map(|peer| peer.addr);
            self.forget_peer(now, conn);
            if unwelcome == Unwelcome::Twice
                && let Some(addr) = dialled
            {
                self.note_twice(now, handshake.peer_id, addr);
            }
            return Err(unwelcome);
        }
        let peer = self.peers.get_mut(&conn).expect("it was just examined");
        peer.established = true;
        self.news.push(What::Peer(peer.addr, true));
        peer.peer_id = handshake.peer_id;
        self.say_extensions(conn);
        self.introduce(conn);
        let peer = self.peers.get_mut(&conn).expect("it was just there");
        let port = self.dht_ports[usize::from(peer.addr.is_ipv6())];
        if let Some(port) = port.filter(|_| self.dht.may() && handshake.reserved.dht()) {
            peer.machine.send_dht_port(port);
        }
        self.asks.push_back(Ask::Wake(conn));
        Ok(())
    }

    /// Says what we can (BEP 10). Once more when there is more to say: handshakes are additive.
    pub(crate) fn say_extensions(&mut self, conn: ConnId) {
        // Who shows one piece at a time does not say that it has all.
        let (metadata_size, is_finished) = (self.metadata_size(), self.is_finished() && !self.is_super_seeding());
        let Some(peer) = self.peers.get_mut(&conn).filter(|peer| peer.machine.is_extended() && peer.established) else {
            return;
        };
        let mut kinds = vec![ExtensionKind::DontHave];
        if !self.head.private {
            kinds.push(ExtensionKind::Metadata);
        }
        let needed = ExtensionHandshake {
            ids: self.exchange.announced(ExtensionIds::of(&kinds)),
            metadata_size,
            upload_only: Some(is_finished),
            ..ExtensionHandshake::default()
        };
        // The rest says who we are, or lets it be guessed.
        let told = ExtensionHandshake {
            prefers_cipher: Some(self.exchange.prefers_cipher()),
            client: Some(concat!("SwarmTorrent ", env!("CARGO_PKG_VERSION")).as_bytes()),
            port: self.listen.first().map(SocketAddr::port).filter(|_| !peer.incoming),
            your_ip: Some(peer.addr.ip()),
            reqq: u32::try_from(UPLOADS_MAX).ok(),
            st_id: self.head.st_id,
            ..needed
        };
        peer.machine.send_extension_handshake(if self.anonymous { &needed } else { &told });
        self.asks.push_back(Ask::Wake(conn));
    }

    fn examine(&self, conn: ConnId, handshake: &Handshake) -> Result<(), Unwelcome> {
        if handshake.info_hash != self.info_hash() {
            return Err(Unwelcome::OtherTorrent);
        }
        if handshake.peer_id == self.peer_id {
            return Err(Unwelcome::Ourselves);
        }
        let twice =
            |(&id, peer): (&ConnId, &TorrentPeer)| id != conn && peer.established && peer.peer_id == handshake.peer_id;
        if self.peers.iter().any(twice) { Err(Unwelcome::Twice) } else { Ok(()) }
    }

    /// Two that dial one another at the same moment have two connections, and both must give up the same one: the one that
    /// the smaller id dialled. True if `conn` stays and the other one was given up.
    fn goes_before_its_twin(&mut self, now: Time, conn: ConnId, handshake: &Handshake) -> bool {
        let Some(peer) = self.peers.get(&conn) else { return false };
        let (incoming, dialled) = (peer.incoming, (!peer.incoming).then_some(peer.addr));
        let is_twin = |(&id, twin): (&ConnId, &TorrentPeer)| {
            let is_same = id != conn && twin.established && twin.peer_id == handshake.peer_id;
            let is_young = now.since(twin.connected_at) < TWIN_MAX;
            (is_same && is_young && twin.incoming != incoming).then_some((id, twin.addr))
        };
        let stays = incoming == (handshake.peer_id > self.peer_id);
        let Some((twin, addr)) = self.peers.iter().find_map(is_twin).filter(|_| stays) else { return false };
        self.drop_peer(now, twin);
        if dialled.is_none()
            && self.candidates.mark_connected(now, addr)
            && let Some(peer) = self.peers.get_mut(&conn)
        {
            peer.listens_at = Some(addr);
        }
        true
    }

    /// A peer that is here was found at `addr` as well: if it came to us, that is where it listens.
    fn note_twice(&mut self, now: Time, peer_id: [u8; 20], addr: SocketAddr) {
        let mut same = self.peers.values_mut().filter(|peer| peer.established && peer.peer_id == peer_id);
        if let Some(peer) = same.find(|peer| peer.incoming && peer.listens_at.is_none())
            && self.candidates.mark_connected(now, addr)
        {
            peer.listens_at = Some(addr);
        }
    }

    /// Something came from a peer. What it returns is payload that must be written before anything else is told.
    ///
    /// # Errors
    /// The peer is not wanted any more and was forgotten.
    pub fn handle_peer_event<'b>(
        &mut self,
        now: Time,
        conn: ConnId,
        event: Event<'b>,
    ) -> Result<Option<Landing<'b>>, Unwelcome> {
        match event {
            Event::Bitfield(_) | Event::HaveAll | Event::HaveNone | Event::Have(_) | Event::DontHave(_)
                if self.is_link() =>
            {
                self.handle_claim(conn, &event);
            }
            Event::Suggest(_) if self.is_link() => {}
            Event::Handshake(handshake) => self.establish(now, conn, &handshake)?,
            Event::BlockHead(block) => self.handle_head(now, conn, block),
            Event::BlockBytes { block, offset, bytes, last } => {
                return Ok(self.handle_bytes(now, conn, block, offset, bytes, last));
            }
            Event::Waste(len) => {
                self.down.add(now, u64::from(len));
                self.wasted += u64::from(len);
            }
            Event::Bitfield(bytes) => {
                if let Some(field) = Bitfield::from_bytes(bytes, self.geometry().pieces()) {
                    self.replace_field(now, conn, field);
                }
            }
            Event::HaveAll => self.replace_field(now, conn, Bitfield::full(self.geometry().pieces())),
            Event::HaveNone => self.replace_field(now, conn, Bitfield::new(self.geometry().pieces())),
            Event::Have(piece) => self.handle_have(now, conn, piece),
            Event::DontHave(piece) => self.handle_dont_have(now, conn, piece),
            Event::Unchoke | Event::AllowedFast(_) => self.reconsider_peer(conn),
            Event::Choke => self.handle_choked(now, conn),
            Event::Reject(block) => self.handle_rejected(conn, block),
            Event::Interested | Event::NotInterested => self.handle_interest(now, conn),
            Event::Request(block) => self.handle_request(conn, block),
            Event::ExtensionHandshake(theirs) => return self.handle_extension_handshake(now, conn, &theirs),
            Event::Extended { kind: ExtensionKind::Pex, payload } => self.handle_pex(now, conn, payload)?,
            Event::Suggest(piece) => self.handle_suggested(conn, piece),
            Event::Port(port) if self.dht.may() => {
                let node = self.peers.get(&conn).map(|peer| SocketAddr::new(peer.addr.ip(), port));
                self.asks.extend(node.map(Ask::Node));
            }
            Event::Extended { kind: ExtensionKind::Metadata, payload } => self.handle_metadata(now, conn, payload),
            Event::Cancel(_) | Event::Port(_) | Event::Extended { .. } => {}
        }
        Ok(None)
    }

    fn handle_extension_handshake<'b>(
        &mut self,
        now: Time,
        conn: ConnId,
        theirs: &ExtensionHandshake<'_>,
    ) -> Result<Option<Landing<'b>>, Unwelcome> {
        let differs = |theirs| self.head.st_id.is_some_and(|ours| ours != theirs);
        if theirs.st_id.is_some_and(differs) {
            self.forget_peer(now, conn);
            return Err(Unwelcome::OtherTorrent);
        }
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(None) };
        if let Some(port) = theirs.port
            && peer.incoming
            && peer.listens_at.is_none()
        {
            let mut addr = peer.addr;
            addr.set_port(port);
            self.candidates.add(now, addr, Origin::Incoming);
            peer.listens_at = self.candidates.mark_connected(now, addr).then_some(addr);
        }
        self.handle_metadata_offer(now, conn);
        Ok(None)
    }

    /// The connection of a peer ended.
    pub fn handle_peer_closed(&mut self, now: Time, conn: ConnId) {
        self.forget_peer(now, conn);
    }

    /// Drops a peer from our side.
    pub(crate) fn drop_peer(&mut self, now: Time, conn: ConnId) {
        if self.forget_peer(now, conn) {
            self.asks.push_back(Ask::Drop(conn));
        }
    }

    pub(crate) fn drop_all_peers(&mut self, now: Time) {
        let conns: Vec<ConnId> = self.peers.keys().copied().collect();
        for conn in conns {
            self.drop_peer(now, conn);
        }
    }

    /// Drops the peer at `addr` and takes it never again.
    pub(crate) fn ban(&mut self, now: Time, addr: SocketAddr) {
        log::info!("{}: {addr} sent corrupt data and is banned", self.display_name());
        self.candidates.ban(addr);
        let banned = |peer: &TorrentPeer| self.candidates.is_banned(peer.addr);
        let conns: Vec<ConnId> = self.peers.iter().filter(|(_, peer)| banned(peer)).map(|(&conn, _)| conn).collect();
        for conn in conns {
            self.drop_peer(now, conn);
        }
    }

    /// The user wants this peer dialled now.
    ///
    /// # Errors
    /// The torrent is not running.
    pub fn connect(&mut self, now: Time, addr: SocketAddr) -> Result<(), Refusal> {
        if !crate::base::addr::is_dialable(addr) {
            return Err(Refusal::new(RefusalKind::Invalid, format!("{addr} is no address that a peer can have")));
        }
        self.candidates.add(now, addr, Origin::User);
        if self.running {
            self.look_for_peers(now);
            self.tick_at = self.tick_at.min(now + TICK);
        }
        Ok(())
    }

    /// Our end of a connection.
    pub fn handle_local_addr(&mut self, local: SocketAddr) {
        self.candidates.set_local(local);
    }

    pub(crate) fn forget_peer(&mut self, now: Time, conn: ConnId) -> bool {
        let Some(mut peer) = self.peers.remove(&conn) else { return false };
        if peer.is_due {
            self.due_peers.retain(|due| *due != conn);
        }
        if peer.established {
            self.news.push(What::Peer(peer.addr, false));
        }
        if peer.machine.up().total_bytes() > 0 {
            self.persistence.touch(now); // what it got counts in the totals
        }
        self.exchange.forget(&mut peer);
        if let Some(download) = &mut self.download {
            self.all_peers_due |= download.handle_peer_gone(conn, &peer.field);
        }
        self.handle_metadata_peer_gone(now, conn);
        self.downloaded_from(&peer);
        self.choker.handle_gone(now, conn);
        if peer.shaking && self.running && self.candidates.handle_no_cipher(now, peer.addr) {
            self.look_for_peers(now);
            return true;
        }
        if !peer.established && peer.origin == Origin::User && !self.candidates.has_failed(peer.addr) {
            log::warn!(
                "{}: {} closed the connection at once; it may not have this torrent, or be banned from it",
                self.display_name(),
                peer.addr
            );
        }
        let addr = peer.listens_at.unwrap_or(peer.addr);
        self.candidates.handle_closed(now, addr, peer.established);
        if peer.is_seed() && self.is_finished() {
            self.candidates.mark_complete(addr);
        }
        self.tick_at = self.tick_at.min(now + TICK);
        true
    }

    fn downloaded_from(&mut self, peer: &TorrentPeer) {
        log::debug!(
            "{}: {} left after {} bytes in, {} out",
            self.display_name(),
            peer.addr,
            peer.machine.down().total_bytes(),
            peer.machine.up().total_bytes()
        );
    }

    fn replace_field(&mut self, now: Time, conn: ConnId, field: Bitfield) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let old = std::mem::replace(&mut peer.field, field);
        if let Some(download) = &mut self.download {
            download.picker.replace_field(&old, &peer.field);
        }
        peer.offer = Offer::Unknown;
        self.allow_fast(conn);
        self.handle_field_seen(now, conn);
        self.reconsider_peer(conn);
    }

    fn handle_have(&mut self, now: Time, conn: ConnId, piece: Piece) {
        let geometry = self.geometry();
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if !geometry.contains(piece) {
            return;
        }
        if peer.field.is_empty() {
            peer.field = Bitfield::new(geometry.pieces());
        }
        if peer.field.set(piece.0) {
            if let Some(download) = &mut self.download {
                download.picker.add_piece(piece);
            }
            if !self.have.get(piece.0) {
                if peer.offer == Offer::Nothing {
                    peer.offer = Offer::Piece(piece);
                }
                self.reconsider_peer(conn);
            }
            self.handle_taken(conn, piece);
            self.handle_seen(now, conn, piece);
        }
    }

    /// It lost a piece (BEP 54): what it was asked of it is asked of others.
    fn handle_dont_have(&mut self, now: Time, conn: ConnId, piece: Piece) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if !peer.field.get(piece.0) {
            return;
        }
        peer.field.clear(piece.0);
        let asked = peer.machine.take_requests_of(now, piece);
        if let Some(download) = &mut self.download {
            download.picker.remove_piece(piece);
            for &block in &asked {
                download.partials.rejected(block, conn);
            }
        }
        self.reconsider_peer(conn);
        if !asked.is_empty() {
            self.reconsider_peers();
        }
    }

    /// It would rather send this piece than another (BEP 6): kept for when a piece is begun.
    fn handle_suggested(&mut self, conn: ConnId, piece: Piece) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if self.have.get(piece.0) || peer.suggested.contains(&piece) {
            return;
        }
        if peer.suggested.len() >= SUGGESTED_MAX {
            peer.suggested.remove(0);
        }
        peer.suggested.push(piece);
    }

    /// Lets a peer that has next to nothing have a few pieces though it is choked (BEP 6), so that it has something to give.
    fn allow_fast(&mut self, conn: ConnId) {
        let allowed = self.peers.values().filter(|peer| peer.machine.has_allowance()).count();
        if self.peers.get(&conn).is_some_and(|peer| peer.shown.is_some()) {
            return; // it gets what it was shown
        }
        if allowed >= ALLOWED_FAST_PEERS_MAX || self.choker.slots() == 0 {
            return;
        }
        let (info_hash, geometry) = (self.info_hash(), self.geometry());
        let Some(peer) = self.peers.get(&conn) else { return };
        let IpAddr::V4(ip) = canonical(peer.addr.ip()) else { return }; // BEP 6 has no set for others
        if !peer.machine.is_fast() || peer.field.count() as usize >= ALLOWED_FAST_LEN || self.have.is_empty() {
            return;
        }
        // What nobody else has yet goes to those who have a slot, once.
        let mut allowed = allowed_fast_set(ip, info_hash, geometry.pieces(), ALLOWED_FAST_LEN);
        allowed.retain(|piece| self.have.get(piece.0) && self.is_spread(*piece));
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        allowed.retain(|piece| !peer.field.get(piece.0));
        for piece in allowed {
            peer.machine.allow_fast(piece, geometry.blocks_of(piece));
        }
        self.asks.push_back(Ask::Wake(conn));
    }

    /// Deadlines of all peers; interest where pieces came; requests where there is room.
    pub(crate) fn tick_peers(&mut self, now: Time) {
        let conns: Vec<ConnId> = self.peers.keys().copied().collect();
        for conn in conns {
            let peer = self.peers.get_mut(&conn).expect("ticks drop only the peer they look at");
            if let Err(error) = peer.machine.handle_timeout(now) {
                log::debug!("{}: {} dropped: {error:?}", self.head.info_hash, peer.addr);
                self.drop_peer(now, conn);
                continue;
            }
            if !peer.machine.outbuf().is_empty() {
                self.asks.push_back(Ask::Wake(conn));
            }
            let snubbed = peer.machine.is_snubbed(now);
            if std::mem::replace(&mut peer.snubbed, snubbed) != snubbed && snubbed {
                self.handle_snubbed(now, conn);
            }
            self.reconsider_peer(conn);
        }
    }

    /// Asks for connections while there are too few and somebody to dial.
    pub(crate) fn look_for_peers(&mut self, now: Time) {
        if self.running && self.peers.len() + self.dialling < self.connections_max && self.candidates.is_due(now) {
            self.asks.push_back(Ask::Dial);
        }
    }

    /// Addresses that somebody told us.
    pub fn add_candidates(&mut self, now: Time, addrs: &[SocketAddr], origin: Origin) {
        if !self.trusts(origin) {
            return;
        }
        for &addr in addrs {
            self.candidates.add(now, addr, origin);
        }
        if self.running {
            self.look_for_peers(now);
            self.tick_at = self.tick_at.min(now + TICK);
        }
    }
}
