//! Peer exchange (BEP 11): peers are told of one another, and tell us of others. A private torrent has none of it (BEP 27).
//!
//! Whom others are told of: peers that have introduced themselves and whose listening address is known, because we dialled
//! it or they said it. What peers tell us is hearsay: it becomes candidates, of which it may only fill its share, and nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::base::addr::reach;
use crate::base::config::{Config, Encryption};
use crate::base::ids::ConnId;
use crate::base::steps;
use crate::base::time::Time;
use crate::codec::extension::{ExtensionIds, ExtensionKind};
use crate::codec::pex::{Contact, Flags, PexMessage};
use crate::protocol::pex::{Contacts, Flood, Pex};
use crate::torrent::candidates::Origin;
use crate::torrent::peers::{TorrentPeer, Unwelcome};
use crate::torrent::torrent::{Ask, Torrent};

/// What passed between peers and us.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ExchangeCounts {
    /// Messages that we sent.
    pub(crate) sent: u64,
    /// Messages that came in time.
    pub(crate) heard: u64,
    /// Messages that came too early, and were passed over.
    pub(crate) early: u64,
    /// Addresses of them that were not known.
    pub(crate) learned: u64,
}

/// Whom the peers of one torrent are told of.
#[derive(Debug)]
pub(crate) struct Exchange {
    may: bool,
    prefers_cipher: bool,
    contacts: Contacts,
    counts: ExchangeCounts,
}

impl Exchange {
    pub(crate) fn new(config: &Config, private: bool) -> Self {
        Self {
            may: config.pex && !private,
            prefers_cipher: matches!(config.encryption, Encryption::Prefer | Encryption::Require),
            contacts: Contacts::default(),
            counts: ExchangeCounts::default(),
        }
    }

    /// Whether there is any, and whether we would rather cipher, from now on. True if there is some and was none.
    pub(crate) fn set(&mut self, may: bool, prefers_cipher: bool, peers: &mut BTreeMap<ConnId, TorrentPeer>) -> bool {
        self.prefers_cipher = prefers_cipher;
        if !may {
            peers.values_mut().for_each(|peer| self.forget(peer));
        }
        !std::mem::replace(&mut self.may, may) && may
    }

    /// `ids`, and that of peer exchange if there is any.
    pub(crate) fn announced(&self, mut ids: ExtensionIds) -> ExtensionIds {
        if self.may {
            ids.set(ExtensionKind::Pex, ExtensionKind::Pex.id());
        }
        ids
    }

    /// What others should know of us (BEP 11): we would rather cipher.
    pub(crate) fn prefers_cipher(&self) -> bool {
        self.prefers_cipher
    }

    /// The torrent turns out to be private.
    pub(crate) fn end(&mut self) {
        self.may = false;
    }

    /// A peer is no more: others will be told.
    pub(crate) fn forget(&mut self, peer: &mut TorrentPeer) {
        if let Some(mut pex) = peer.pex.take() {
            pex.forget(&mut self.contacts);
        }
        if let Some(place) = peer.place.take() {
            self.contacts.leave(place);
        }
    }

    /// Nobody is told of, and nobody remembers anybody.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.contacts.is_empty()
    }

    /// What must hold at any time.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) fn check<'p>(&self, mut peers: impl Iterator<Item = &'p TorrentPeer>) {
        self.contacts.check();
        assert!(self.may || peers.all(|peer| peer.pex.is_none() && peer.place.is_none()), "who may not tells nobody");
    }
}

impl Torrent {
    /// Once a second: who came since is told of, and whose minute is over is told what is new.
    pub(crate) fn tick_exchange(&mut self, now: Time) {
        let Exchange { may, contacts, counts, .. } = &mut self.exchange;
        if !*may {
            return;
        }
        steps::add(2 * self.peers.len());
        for peer in self.peers.values_mut().filter(|peer| peer.established) {
            match peer.place {
                Some(place) => contacts.set_flags(place, flags(peer)),
                None => {
                    let addr = if peer.incoming { peer.listens_at } else { Some(peer.addr) };
                    peer.place = addr.and_then(|addr| contacts.enter(Contact { addr, flags: flags(peer) }));
                }
            }
        }
        let mut payload = Vec::new();
        for (&conn, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.established) {
            if peer.machine.extensions().id(ExtensionKind::Pex).is_none() {
                if let Some(pex) = &mut peer.pex {
                    pex.forget(contacts); // it does not want to hear any more
                }
                continue;
            }
            let pex = peer.pex.get_or_insert_with(|| Box::new(Pex::new(now)));
            if peer.machine.outbuf().is_full() {
                continue;
            }
            if let Some(message) = pex.poll_transmit(now, contacts, peer.place, reach(peer.addr.ip())) {
                payload.clear();
                message.write(&mut payload);
                peer.machine.send_extended(ExtensionKind::Pex, &payload);
                counts.sent += 1;
                self.asks.push_back(Ask::Wake(conn));
            }
        }
    }

    /// A peer tells us of others.
    ///
    /// # Errors
    /// It does so far too often, and was forgotten.
    pub(crate) fn handle_pex(&mut self, now: Time, conn: ConnId, payload: &[u8]) -> Result<(), Unwelcome> {
        let Some(peer) = self.peers.get_mut(&conn).filter(|_| self.exchange.may) else { return Ok(()) };
        let pex = peer.pex.get_or_insert_with(|| Box::new(Pex::new(now)));
        let most = match pex.handle_message(now) {
            Ok(Some(most)) => most,
            Ok(None) => {
                self.exchange.counts.early += 1;
                return Ok(());
            }
            Err(Flood) => {
                self.forget_peer(now, conn);
                return Err(Unwelcome::Flood);
            }
        };
        self.exchange.counts.heard += 1;
        let Some(message) = PexMessage::parse(payload, most) else { return Ok(()) };
        let from = reach(peer.addr.ip());
        steps::add(4 * message.added.len());
        let is_finished = self.is_finished();
        for Contact { addr, flags } in message.added {
            // Nobody knows better than we who is near us; what a stranger says of that would have us dial our own network.
            if reach(addr.ip()) < from || self.is_ours(addr) || !self.candidates.add(now, addr, Origin::Pex) {
                continue;
            }
            self.exchange.counts.learned += 1;
            if flags.has(Flags::SEED) && is_finished {
                self.candidates.mark_complete(addr); // two seeders have nothing to say to one another
            }
        }
        self.add_candidates(now, &[], Origin::Pex);
        Ok(())
    }

    /// True if we listen at `addr`, as far as we know.
    fn is_ours(&self, addr: SocketAddr) -> bool {
        let is_local = |listen: &SocketAddr| {
            self.candidates.local_ip().is_some_and(|ip| ip == addr.ip()) && listen.port() == addr.port()
        };
        self.listen.iter().any(|listen| *listen == addr || is_local(listen))
    }

    /// Adds what passed since the last call.
    pub(crate) fn add_exchange_counts(&mut self, all: &mut ExchangeCounts) {
        let ExchangeCounts { sent, heard, early, learned } = std::mem::take(&mut self.exchange.counts);
        all.sent += sent;
        all.heard += heard;
        all.early += early;
        all.learned += learned;
    }
}

/// What others are told of a peer.
fn flags(peer: &TorrentPeer) -> Flags {
    let said = peer.machine.extensions();
    Flags::default()
        .with(Flags::ENCRYPTION, peer.encrypted || said.prefers_cipher)
        .with(Flags::SEED, peer.is_seed() || said.upload_only)
        .with(Flags::REACHABLE, !peer.incoming)
}
