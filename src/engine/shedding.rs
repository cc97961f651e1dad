//! Who goes when there is no room for who comes.
//!
//! In this order: of those that have not said which torrent they want, one of the network that has most of them, the oldest of it; of
//! peers, the one that has been here for longest of those that neither give nor want anything, at most a few in a second; and if nobody
//! is found, who comes. So a crowd that says nothing takes places from itself alone, and an honest peer, which introduces itself within a
//! round trip, gets in however fast the crowd comes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::base::ids::{ConnId, TorrentId};
use crate::base::steps;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::Engine;

/// Of all connections, so many may be of those that have not introduced themselves, and [`NEWCOMERS_LEAST`] whatever that is; one more
/// takes the place of another.
const NEWCOMERS_SHARE: usize = 4;
/// See [`NEWCOMERS_SHARE`].
const NEWCOMERS_LEAST: usize = 8;
/// Peers are looked through for one that nobody needs so often at most: there may be many, and so may those who come.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What was shed is said so often at most.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Connections that were accepted and are no peers yet, by network. No more than the table of connections holds.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    /// By network: the order in which they came.
    networks: BTreeMap<IpAddr, BTreeSet<(u64, ConnId)>>,
    /// How many of which network, and when the first of them came: the most crowded is last, of such the one that came first.
    crowds: BTreeSet<(usize, u64, IpAddr)>,
    known: BTreeMap<ConnId, (IpAddr, u64)>,
    next: u64,
    look_at: Time,
    said: (Time, u64),
}

/// What anybody who has many addresses has many addresses of.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::from((u32::from(ip) & 0xffff_ff00).to_be_bytes()),
        IpAddr::V6(ip) => IpAddr::from((u128::from(ip) >> 64 << 64).to_be_bytes()),
    }
}

impl Newcomers {
    fn len(&self) -> usize {
        self.known.len()
    }

    /// One more has come.
    pub(super) fn add(&mut self, conn: ConnId, ip: IpAddr) {
        let (network, number) = (network(ip), self.next);
        self.next += 1;
        self.known.insert(conn, (network, number));
        self.change(network, |crowd| crowd.insert((number, conn)));
    }

    /// It is one no more, if it was.
    pub(super) fn remove(&mut self, conn: ConnId) {
        if let Some((network, number)) = self.known.remove(&conn) {
            self.change(network, |crowd| crowd.remove(&(number, conn)));
        }
    }

    fn change(&mut self, network: IpAddr, what: impl FnOnce(&mut BTreeSet<(u64, ConnId)>) -> bool) {
        let place =
            |crowd: &BTreeSet<(u64, ConnId)>| crowd.first().map(|&(first, _)| (crowd.len(), u64::MAX - first, network));
        let crowd = self.networks.entry(network).or_default();
        if let Some(before) = place(crowd) {
            self.crowds.remove(&before);
        }
        what(crowd);
        match place(crowd) {
            Some(now) => drop(self.crowds.insert(now)),
            None => drop(self.networks.remove(&network)),
        }
    }

    /// Who goes first.
    fn first(&self) -> Option<ConnId> {
        let (_, _, network) = self.crowds.last()?;
        self.networks[network].first().map(|&(_, conn)| conn)
    }

    /// # Panics
    /// If what must hold does not.
    pub(super) fn check(&self) {
        assert_eq!(self.networks.values().map(BTreeSet::len).sum::<usize>(), self.known.len(), "newcomers");
        assert_eq!(self.networks.len(), self.crowds.len(), "networks of newcomers");
    }
}

impl<S: Storage> Engine<S> {
    /// Makes room for a connection that was accepted; false if there is none.
    pub(super) fn make_room(&mut self, now: Time) -> bool {
        let most = (self.config.connections_max / NEWCOMERS_SHARE).max(NEWCOMERS_LEAST);
        if self.newcomers.len() >= most {
            return self.shed_newcomer(now);
        }
        !self.is_full() || self.shed(now)
    }

    /// No descriptor is left for who waits to be accepted: somebody goes, if there is anybody.
    pub fn handle_starved(&mut self, now: Time) {
        if self.shed(now) {
            self.stats.shed_starved += 1;
            self.settle(now);
        }
    }

    /// Closes whoever is needed least; false if everybody is needed.
    pub(super) fn shed(&mut self, now: Time) -> bool {
        self.shed_newcomer(now) || self.shed_peer(now)
    }

    /// Closes one that has not introduced itself; false if there is none.
    pub(super) fn shed_newcomer(&mut self, now: Time) -> bool {
        let Some(conn) = self.newcomers.first() else { return false };
        self.stats.shed_silent += 1;
        self.close(now, conn);
        self.say_shed(now);
        true
    }

    fn shed_peer(&mut self, now: Time) -> bool {
        if now < self.newcomers.look_at {
            return false;
        }
        self.newcomers.look_at = now + LOOK_EVERY;
        steps::add(self.torrents.len() + self.connections.len());
        let idle = |id: TorrentId| self.torrents.get(id).and_then(|torrent| torrent.idlest(now));
        let Some((_, conn)) = self.torrents.ids().filter_map(idle).min() else { return false };
        self.stats.shed_idle += 1;
        self.close(now, conn);
        self.say_shed(now);
        true
    }

    fn say_shed(&mut self, now: Time) {
        let total = self.stats.shed_silent + self.stats.shed_idle;
        let (at, before) = self.newcomers.said;
        if before == 0 || now >= at {
            self.newcomers.said = (now + SAY_EVERY, total);
            log::warn!(
                "{} connections that said nothing, or that nobody needed, were closed for others (`max_connections`, LimitNOFILE; `stats` counts them)",
                total - before
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arena::Id;

    #[test]
    fn the_oldest_of_the_most_crowded_network_goes_first() {
        let mut newcomers = Newcomers::default();
        let ids: Vec<ConnId> = (0..6).map(Id::from_bits).collect();
        for (id, ip) in
            ids.iter().zip(["10.0.0.1", "10.0.1.1", "10.0.1.2", "2001:db8::1", "10.0.2.1", "2001:db8::ffff"])
        {
            newcomers.add(*id, ip.parse().unwrap());
            newcomers.check();
        }
        let mut order = Vec::new();
        while let Some(first) = newcomers.first() {
            newcomers.remove(first);
            newcomers.remove(first);
            newcomers.check();
            order.push(first);
        }
        assert_eq!(order, [1, 3, 0, 2, 4, 5].map(|at| ids[at]), "crowds first, then who came first");
    }
}
