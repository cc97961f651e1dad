//! A torrent of which only a link is known: its `info` is fetched from peers (BEP 9), and given to others once it is here.
//!
//! Until then it has no pieces and no files. What peers say that they have is kept as they said it, and judged when the number of
//! pieces is known, so that nobody has to be dialled twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::bitfield::Bitfield;
use crate::base::config::Config;
use crate::base::ids::{ConnId, StoreId};
use crate::base::rng::Rng;
use crate::base::steps;
use crate::base::time::Time;
use crate::codec::extension::ExtensionKind;
use crate::codec::magnet::Magnet;
use crate::codec::metadata::{METADATA_PIECE_LEN, MetadataMessage};
use crate::codec::metainfo::{INFO_LEN_MAX, Limit, Metainfo, MetainfoError, Parser};
use crate::codec::resume::Head;
use crate::codec::st::identity;
use crate::protocol::metadata::{MetadataFetch, Whole};
use crate::protocol::peer::Event;
use crate::torrent::candidates::Origin;
use crate::torrent::command::{AddOptions, Refusal};
use crate::torrent::dht_announces::DhtAnnounces;
use crate::torrent::layout::Layout;
use crate::torrent::path_conflict::SecondStage;
use crate::torrent::sleep::Body;
use crate::torrent::torrent::{Ask, Begin, Phase, Torrent, select_only};

/// Bytes of what peers say that they have, all together; who says more is parted with once the number of pieces is known,
/// and dialled again.
const CLAIMS_MAX: usize = 4 << 20;
/// How often a peer may ask us for all of `info`, counted in pieces; more is refused.
const SERVED_MAX: u32 = 4;

/// What a torrent needs only while its `info` is missing.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) link: Magnet,
    fetch: MetadataFetch,
    claims: BTreeMap<ConnId, Claim>,
    /// Bytes of `claims`, all together.
    claims_len: usize,
    pub(crate) begin: Begin,
    /// A whole `info` that is being judged.
    judged: Option<Whole>,
    /// All of it is here; only the storage does not know the files yet.
    is_over: bool,
    /// What came is what the link names, and cannot be loaded: why.
    pub(crate) broken: Option<String>,
}

/// What a peer says that it has while nobody knows how many pieces there are.
#[derive(Debug)]
enum Claim {
    Everything,
    /// A bit a piece, the first in the highest bit, as in a `bitfield`.
    Pieces(Vec<u8>),
    /// More than could be kept.
    Lost,
}

impl Description {
    fn claim(&mut self, conn: ConnId, event: &Event<'_>) {
        let claim = self.claims.entry(conn).or_insert(Claim::Pieces(Vec::new()));
        let (before, room) = (claim.len(), CLAIMS_MAX.saturating_sub(self.claims_len));
        match (event, &mut *claim) {
            (Event::HaveAll, claim) => *claim = Claim::Everything,
            (Event::HaveNone, claim) => *claim = Claim::Pieces(Vec::new()),
            (Event::Bitfield(bytes), claim) if bytes.len() <= room => *claim = Claim::Pieces(bytes.to_vec()),
            (Event::Bitfield(_), claim) => *claim = Claim::Lost,
            (Event::Have(piece), claim @ Claim::Pieces(_)) => {
                let Claim::Pieces(bytes) = claim else { unreachable!("it was just looked at") };
                let at = piece.index() / 8;
                if at >= bytes.len() + room {
                    *claim = Claim::Lost;
                } else {
                    bytes.resize(bytes.len().max(at + 1), 0);
                    bytes[at] |= 0x80 >> (piece.0 % 8);
                }
            }
            (Event::DontHave(piece), Claim::Pieces(bytes)) => {
                if let Some(byte) = bytes.get_mut(piece.index() / 8) {
                    *byte &= !(0x80 >> (piece.0 % 8));
                }
            }
            _ => {}
        }
        self.claims_len = self.claims_len - before + claim.len();
        // A field is copied, and grows as its owner says more.
        steps::add_bytes(claim.len().abs_diff(before));
    }

    fn forget_claim(&mut self, conn: ConnId) {
        self.claims_len -= self.claims.remove(&conn).map_or(0, |claim| claim.len());
    }
}

impl Claim {
    fn len(&self) -> usize {
        if let Self::Pieces(bytes) = self { bytes.len() } else { 0 }
    }

    /// What it means for a torrent of so many pieces; none if it cannot be.
    fn field(&self, pieces: u32) -> Option<Bitfield> {
        match self {
            Self::Everything => Some(Bitfield::full(pieces)),
            Self::Pieces(bytes) => {
                let mut bytes = bytes.clone();
                if bytes.len() > pieces.div_ceil(8) as usize {
                    return None;
                }
                bytes.resize(pieces.div_ceil(8) as usize, 0);
                Bitfield::from_bytes(&bytes, pieces)
            }
            Self::Lost => None,
        }
    }
}

/// True for whoever may name peers of a private torrent (BEP 27): its tracker, and what needs no naming.
fn is_private_source(origin: Origin) -> bool {
    matches!(origin, Origin::User | Origin::Tracker | Origin::Incoming | Origin::Resume)
}

impl Torrent {
    /// True if peers that became known so may be peers of this torrent.
    pub(crate) fn trusts(&self, origin: Origin) -> bool {
        !self.head.private || is_private_source(origin)
    }

    /// A torrent of which only `link` is known.
    ///
    /// # Errors
    /// As [`Torrent::new`].
    pub fn from_link(
        now: Time,
        link: Magnet,
        mut begin: Begin,
        config: &Config,
        rng: Rng,
        peer_id: [u8; 20],
    ) -> Result<Self, Refusal> {
        if begin.options.only.is_empty() {
            begin.options.only.clone_from(&link.select);
        }
        let mut empty = begin.clone();
        empty.verify = false;
        empty.options.only.clear();
        let mut torrent = Self::new(now, Arc::new(link.stand_in()), empty, config, rng, peer_id)?;
        let link = Magnet { select: begin.options.only.clone(), ..link };
        torrent.description = Some(Box::new(Description {
            link,
            fetch: MetadataFetch::new(u32::try_from(INFO_LEN_MAX).expect("a few MiB")),
            claims: BTreeMap::new(),
            claims_len: 0,
            begin,
            judged: None,
            is_over: false,
            broken: None,
        }));
        torrent.persistence.touch(now); // its directory and settings are nowhere else
        Ok(torrent)
    }

    /// True while only a link is known of it.
    #[must_use]
    pub fn is_link(&self) -> bool {
        self.description.is_some()
    }

    /// The link, while nothing else is known.
    #[must_use]
    pub fn link(&self) -> Option<String> {
        self.description.as_ref().map(|description| description.link.to_string())
    }

    /// How many connected peers say that they have its `info`, and the share of it that is here; none once all of it is.
    pub(crate) fn description_progress(&self) -> Option<(usize, f64)> {
        self.description.as_ref().map(|description| (description.fetch.offers(), description.fetch.progress()))
    }

    /// Why its `info` is not fetched from peers that offer it: theirs is longer than what is accepted.
    pub(crate) fn oversized_metadata(&self) -> Option<Limit> {
        let size = self.description.as_ref()?.fetch.oversized()?;
        Some(Limit::InfoLen(usize::try_from(size).unwrap_or(usize::MAX)))
    }

    /// Bytes of its `info`, if it is here and may be given to others: that of a private torrent is only for its tracker to
    /// hand out.
    pub(crate) fn metadata_size(&self) -> Option<u32> {
        let may = self.description.is_none() && !self.head.private;
        may.then_some(self.head.info_len)
    }

    /// A peer says something about pieces while nobody knows how many there are.
    pub(crate) fn handle_claim(&mut self, conn: ConnId, event: &Event<'_>) {
        if let Some(description) = self.description.as_mut().filter(|_| self.peers.contains_key(&conn)) {
            description.claim(conn, event);
        }
    }

    /// A peer has said what it can: whether it has the `info`, too.
    pub(crate) fn handle_metadata_offer(&mut self, now: Time, conn: ConnId) {
        let Some(peer) = self.peers.get(&conn) else { return };
        let said = peer.machine.extensions();
        if let (Some(_), Some(size)) = (said.id(ExtensionKind::Metadata), said.metadata_size)
            && let Some(description) = self.description.as_mut().filter(|description| !description.is_over)
        {
            description.fetch.handle_offer(now, conn, size);
            self.ask_for_metadata();
        }
    }

    /// A message of the metadata extension.
    pub(crate) fn handle_metadata(&mut self, now: Time, conn: ConnId, payload: &[u8]) {
        match MetadataMessage::parse(payload) {
            Some(MetadataMessage::Request(piece)) => self.serve_metadata(conn, piece),
            Some(MetadataMessage::Data { piece, total_size, bytes }) => {
                let Some(description) = self.description.as_mut().filter(|description| !description.is_over) else {
                    return;
                };
                description.fetch.handle_data(now, conn, piece, total_size, bytes);
                self.judge_metadata();
                self.ask_for_metadata();
            }
            Some(MetadataMessage::Reject(piece)) => {
                let Some(description) = &mut self.description else { return };
                description.fetch.handle_reject(now, conn, piece);
                self.ask_for_metadata();
            }
            None => {}
        }
    }

    /// Once a second while there are peers.
    pub(crate) fn tick_metadata(&mut self, now: Time) {
        if let Some(description) = &mut self.description {
            description.fetch.handle_timeout(now);
            self.ask_for_metadata();
        }
    }

    /// A peer has gone.
    pub(crate) fn handle_metadata_peer_gone(&mut self, now: Time, conn: ConnId) {
        if let Some(description) = &mut self.description {
            description.forget_claim(conn);
            description.fetch.handle_gone(now, conn);
        }
    }

    fn ask_for_metadata(&mut self) {
        let Some(description) = self.description.as_mut().filter(|description| !description.is_over) else {
            return;
        };
        while let Some((conn, piece)) = description.fetch.poll_transmit() {
            if let Some(peer) = self.peers.get_mut(&conn) {
                let mut payload = Vec::new();
                MetadataMessage::Request(piece).write(&mut payload);
                peer.machine.send_extended(ExtensionKind::Metadata, &payload);
                self.asks.push_back(Ask::Wake(conn));
            }
        }
    }

    /// A peer wants a piece of our `info`: it goes out once there is room. Who wants a piece that waits already waits on.
    fn serve_metadata(&mut self, conn: ConnId, piece: u32) {
        let size = self.metadata_size().unwrap_or(0);
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let pieces = size.div_ceil(METADATA_PIECE_LEN);
        if piece < pieces && peer.metadata_served < pieces * SERVED_MAX {
            peer.metadata_served += u32::from(peer.metadata_wanted.insert(piece));
            self.feed_metadata(conn);
        } else {
            let mut payload = Vec::new();
            MetadataMessage::Reject(piece).write(&mut payload);
            peer.machine.send_extended(ExtensionKind::Metadata, &payload);
        }
        self.asks.push_back(Ask::Wake(conn));
    }

    /// Gives a peer what it waits for of our `info`, as far as there is room for it.
    pub fn feed_metadata(&mut self, conn: ConnId) {
        let size = self.metadata_size().unwrap_or(0);
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let mut payload = Vec::new();
        while !peer.machine.outbuf().is_full()
            && let Some(piece) = peer.metadata_wanted.pop_first()
        {
            let start = (piece * METADATA_PIECE_LEN) as usize;
            steps::add_bytes(2 * METADATA_PIECE_LEN as usize);
            let bytes = &self.body.get().info[start..(size as usize).min(start + METADATA_PIECE_LEN as usize)];
            payload.clear();
            MetadataMessage::Data { piece, total_size: size, bytes }.write(&mut payload);
            peer.machine.send_extended(ExtensionKind::Metadata, &payload);
        }
    }

    /// Has a whole `info` judged if one is here, one at a time.
    fn judge_metadata(&mut self) {
        if let Some(description) = self.description.as_mut().filter(|description| description.judged.is_none())
            && let Some(whole) = description.fetch.poll_whole()
        {
            description.judged = Some(whole);
            self.asks.push_back(Ask::Judge);
        }
    }

    /// A parser of the `info` that is to be judged: it is what every hash of the link says, or somebody lied.
    #[must_use]
    pub fn metadata_parser(&self) -> Option<Parser> {
        let description = self.description.as_ref().filter(|description| !description.is_over)?;
        let whole = description.judged.as_ref()?;
        let Magnet { info_hash, st_id, .. } = description.link;
        Some(Parser::expecting(whole.info.clone(), info_hash, st_id))
    }

    /// The `info` that was to be judged was read.
    pub fn handle_metadata_judged(&mut self, now: Time, result: Result<Metainfo, MetainfoError>) {
        let Some(description) = self.description.as_mut().filter(|description| !description.is_over) else { return };
        let Some(whole) = description.judged.take() else { return };
        if result == Err(MetainfoError::Hash) {
            let guilty = description.fetch.handle_wrong(now, &whole);
            let addr = guilty.and_then(|conn| self.peers.get(&conn)).map(|peer| peer.addr);
            log::debug!("{}: what {} peers sent is not its description", self.display_name(), whole.givers.len());
            if let Some(addr) = addr {
                self.ban(now, addr);
            }
            self.judge_metadata();
            return self.ask_for_metadata();
        }
        // Nothing more is fetched: what others sent makes room for what is made of it.
        description.fetch = MetadataFetch::new(0);
        drop(whole);
        match result {
            Ok(meta) if meta.info_hash == self.info_hash() => self.describe(now, meta),
            Ok(_) => self.cannot_load("its link names it by a hash that is not the one of its kind"),
            Err(error) => self.cannot_load(&error.to_string()),
        }
    }

    fn cannot_load(&mut self, why: &str) {
        log::error!("{}: {why}", self.display_name());
        if let Some(description) = &mut self.description {
            description.broken = Some(format!("its description is here and cannot be used: {why}; remove it"));
        }
        self.turn_changed = true;
    }

    /// True if `meta` is what the link names by all of its hashes.
    #[must_use]
    pub fn is_link_to(&self, meta: &Metainfo) -> bool {
        let link = self.description.as_ref().map(|description| &description.link);
        link.is_some_and(|link| {
            meta.info_hash == link.wire_hash() && link.st_id.is_none_or(|st_id| meta.st_id == Some(st_id))
        })
    }

    /// The user gives its file. What `options` says counts, for the rest it goes on as the link was added.
    ///
    /// # Errors
    /// Refuses what `options` cannot mean for these files.
    pub fn describe_by_file(&mut self, now: Time, meta: Metainfo, options: &AddOptions) -> Result<(), Refusal> {
        let Some(description) = self.description.as_mut().filter(|description| !description.is_over) else {
            return Ok(());
        };
        if !options.only.is_empty() {
            select_only(&mut Layout::new(Arc::clone(&meta.files), meta.geometry), &options.only)?;
            description.begin.options.only.clone_from(&options.only);
        }
        description.begin.verify = options.verify.unwrap_or(description.begin.verify);
        if let Some(dir) = &options.dir {
            self.dir.clone_from(dir);
        }
        if !options.label.is_empty() {
            self.settings.label.clone_from(&options.label);
        }
        self.settings.sequential |= options.sequential;
        self.describe(now, meta);
        if options.paused {
            self.pause(now);
        }
        Ok(())
    }

    /// Its `info` is known now. What stands beside it, such as trackers, comes to what the link had. Nothing once it is known.
    pub fn describe(&mut self, now: Time, mut meta: Metainfo) {
        let Some(description) = self.description.as_mut().filter(|description| !description.is_over) else { return };
        description.is_over = true;
        description.broken = None;
        let mut only = description.begin.options.only.clone();
        if meta.web_seeds.is_empty() {
            meta.web_seeds.clone_from(&self.body.get().web_seeds);
        }
        self.announces.add(now, &meta.trackers);
        let known: BTreeSet<Vec<u8>> = meta.trackers.iter().flatten().map(|url| identity(url)).collect();
        let of_link =
            self.body.get().trackers.iter().filter(|tier| tier.iter().all(|url| !known.contains(&identity(url))));
        meta.trackers.extend(of_link.cloned());
        self.layout = Layout::new(Arc::clone(&meta.files), meta.geometry);
        only.retain(|(_, last)| *last < meta.files.len());
        if !only.is_empty() {
            select_only(&mut self.layout, &only).expect("files that there are");
        }
        self.have = Bitfield::new(meta.geometry.pieces());
        self.choker.set_piece_len(meta.geometry.piece_len());
        self.head = Head::of(&meta);
        self.body = Body(Some(Arc::new(meta)));
        log::info!("{}: its description is here", self.display_name());
        self.phase = Phase::Allocating; // nothing is asked for before the storage knows its files
        self.asks.push_back(Ask::Describe);
        self.persistence.touch(now);
        self.turn_changed = true;
    }

    /// The storage knows its files under `store`; something is there already, or nothing `is_new`.
    pub fn handle_described(&mut self, now: Time, store: StoreId, is_new: bool) {
        let Some(description) = self.description.take() else { return };
        self.store = Some(store);
        self.phase = Phase::Ready;
        self.disk.doubt_all();
        if self.head.private {
            self.keep_private(now);
        }
        self.learn_fields(now, &description.claims);
        if self.is_second() {
            // Whether it is hashed now or later was said when its owner was found.
            if self.second_stage() == Some(SecondStage::Checks) {
                self.begin_check();
                self.asks.push_back(Ask::Work);
            }
            self.reconsider(now);
        } else if description.begin.verify && !is_new {
            self.begin_check();
            self.asks.push_back(Ask::Work);
            self.reconsider(now);
        } else if self.running && !self.is_finished() {
            self.go_on(now);
        } else if self.running {
            self.finish_download(now);
        }
    }

    /// It turns out to be private: only its tracker may name peers (BEP 27).
    fn keep_private(&mut self, now: Time) {
        self.dht = DhtAnnounces::new(false);
        self.asks.push_back(Ask::LeaveDht);
        self.peers.values_mut().for_each(|peer| self.exchange.forget(peer));
        self.exchange.end();
        self.leave_lsd();
        self.lsd = false;
        let peers = self.peers.iter().filter(|(_, peer)| !self.trusts(peer.origin));
        let conns: Vec<ConnId> = peers.map(|(conn, _)| *conn).collect();
        conns.into_iter().for_each(|conn| self.drop_peer(now, conn));
        self.forget_untrusted();
        self.announces.hurry(now); // the tracker may know some of those who were just forgotten
    }

    /// Of a private torrent nobody is kept in mind whom only others than its tracker have named.
    pub(crate) fn forget_untrusted(&mut self) {
        if self.head.private {
            self.candidates.forget(|origin| !is_private_source(origin));
        }
    }

    /// What peers said that they have means something now; who said what cannot be is parted with.
    fn learn_fields(&mut self, now: Time, claims: &BTreeMap<ConnId, Claim>) {
        let pieces = self.geometry().pieces();
        let conns: Vec<ConnId> = self.peers.keys().copied().collect();
        for conn in conns {
            let field = claims.get(&conn).map(|claim| claim.field(pieces));
            let Some(peer) = self.peers.get_mut(&conn) else { continue };
            peer.machine.set_pieces(pieces);
            match field {
                Some(None) => self.drop_peer(now, conn),
                Some(Some(field)) => {
                    peer.field = field;
                    self.say_extensions(conn);
                }
                None => self.say_extensions(conn),
            }
        }
    }
}
