//! Counters of the whole node, for `stats`. Counted where things happen, never reset, decided on by nobody.

use crate::torrent::exchange::ExchangeCounts;

/// One number a fact since the start.
#[derive(Debug, Default, Clone)]
pub(crate) struct Stats {
    pub(crate) peers_accepted: u64,
    pub(crate) peers_refused: u64,
    /// Connections closed because strangers had hibernated torrents loaded too often.
    pub(crate) loads_refused: u64,
    /// Who came, was to be dialled or was there, and is in the blocklist.
    pub(crate) peers_blocked: u64,
    pub(crate) peers_dialled: u64,
    pub(crate) peers_failed: u64,
    pub(crate) peers_misbehaved: u64,
    /// Closed to make room for others, having said nothing.
    pub(crate) shed_silent: u64,
    /// The same of peers that neither gave nor wanted anything.
    pub(crate) shed_idle: u64,
    /// They held most when all together held too much.
    pub(crate) shed_heavy: u64,
    /// Of both, those that went as descriptors had run out.
    pub(crate) shed_starved: u64,
    pub(crate) served_accepted: u64,
    pub(crate) served_refused: u64,
    /// Closed, as they were silent and others wanted their place.
    pub(crate) served_shed: u64,
    pub(crate) peer_messages_in: u64,
    pub(crate) peer_bytes_in: u64,
    pub(crate) peer_bytes_out: u64,
    /// Pieces of torrents that are gone; those that are here count their own.
    pub(crate) pieces_passed: u64,
    /// See `pieces_passed`.
    pub(crate) pieces_failed: u64,
    /// See `pieces_passed`.
    pub(crate) pieces_checked: u64,
    pub(crate) announces_started: u64,
    pub(crate) announces_answered: u64,
    pub(crate) announces_failed: u64,
    pub(crate) scrapes_started: u64,
    pub(crate) dht_searches: u64,
    pub(crate) pex: ExchangeCounts,
    pub(crate) packets_in: u64,
    pub(crate) packets_ignored: u64,
    pub(crate) jobs_started: u64,
    pub(crate) jobs_failed: u64,
    /// Looks at torrents that stopped for trouble with the disk.
    pub(crate) probes: u64,
    pub(crate) sends_parked_for_disk: u64,
    pub(crate) turns_parked_for_limit: u64,
}

impl Stats {
    /// Every counter with its name; `pieces` that passed, failed and were checked of the torrents that are here.
    pub(crate) fn rows(&self, pieces: [u64; 3]) -> Vec<(String, u64)> {
        [
            ("peers.accepted", self.peers_accepted),
            ("peers.refused", self.peers_refused),
            ("loads.refused", self.loads_refused),
            ("peers.blocked", self.peers_blocked),
            ("peers.dialled", self.peers_dialled),
            ("peers.failed", self.peers_failed),
            ("peers.misbehaved", self.peers_misbehaved),
            ("peers.shed_silent", self.shed_silent),
            ("peers.shed_idle", self.shed_idle),
            ("peers.shed_heavy", self.shed_heavy),
            ("peers.shed_starved", self.shed_starved),
            ("http.accepted", self.served_accepted),
            ("http.refused", self.served_refused),
            ("http.shed", self.served_shed),
            ("peers.messages_in", self.peer_messages_in),
            ("peers.bytes_in", self.peer_bytes_in),
            ("peers.bytes_out", self.peer_bytes_out),
            ("pieces.passed", self.pieces_passed + pieces[0]),
            ("pieces.failed", self.pieces_failed + pieces[1]),
            ("pieces.checked", self.pieces_checked + pieces[2]),
            ("announces.started", self.announces_started),
            ("announces.answered", self.announces_answered),
            ("announces.failed", self.announces_failed),
            ("scrapes.started", self.scrapes_started),
            ("dht.searches", self.dht_searches),
            ("pex.messages_in", self.pex.heard),
            ("pex.messages_early", self.pex.early),
            ("pex.messages_out", self.pex.sent),
            ("pex.peers_learned", self.pex.learned),
            ("packets.in", self.packets_in),
            ("packets.ignored", self.packets_ignored),
            ("jobs.started", self.jobs_started),
            ("jobs.failed", self.jobs_failed),
            ("disk.probes", self.probes),
            ("sends.parked_for_disk", self.sends_parked_for_disk),
            ("turns.parked_for_limit", self.turns_parked_for_limit),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}
