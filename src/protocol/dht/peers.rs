//! Who announced itself as a peer of what (BEP 5, 33), and the tokens that allow it. Bounded in every direction, and forgotten
//! after half an hour.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::time::Duration;

use crate::base::hash::{InfoHash, Sha1Hash};
use crate::base::rng::Rng;
use crate::base::tally::Tally;
use crate::base::time::Time;
use crate::codec::compact::{parse_addr, write_addr};
use crate::codec::krpc::ErrorKind;
use crate::protocol::dht::filter::Filter;

/// Swarms that are remembered; one more is refused.
const SWARMS_MAX: usize = 20_000;
/// Peers of all swarms together; one more is refused.
const PEERS_MAX: usize = 200_000;
/// Peers of one swarm; a new one takes the place of the oldest.
const SWARM_PEERS_MAX: usize = 500;
/// What one address may announce; more is refused. Nobody is near to us in so many swarms.
const PER_IP_MAX: u32 = 2000;
/// A peer is forgotten so long after its announce.
const LIFETIME: Duration = Duration::from_mins(30);
/// How often a secret is replaced; the one before is accepted, too (BEP 5).
const SECRET_LIFETIME: Duration = Duration::from_mins(5);
/// Swarms that one look for what is forgotten passes over.
const SWEEP_MAX: usize = 256;
/// Bytes of a token.
const TOKEN_LEN: usize = 8;

/// What an address gets from us and must bring when it announces.
#[derive(Debug)]
pub(super) struct Tokens {
    /// The newest first.
    secrets: [[u8; 16]; 2],
    renew_at: Time,
    rng: Rng,
}

impl Tokens {
    pub(super) fn new(mut rng: Rng) -> Self {
        Self { secrets: [rng.bytes(), rng.bytes()], renew_at: Time::ZERO + SECRET_LIFETIME, rng }
    }

    fn renew(&mut self, now: Time) {
        if now >= self.renew_at {
            self.secrets = [self.rng.bytes(), self.secrets[0]];
            self.renew_at = now + SECRET_LIFETIME;
        }
    }

    fn made_with(secret: &[u8; 16], ip: IpAddr) -> [u8; TOKEN_LEN] {
        let mut input = secret.to_vec();
        write_addr(&mut input, SocketAddr::new(ip, 0));
        *Sha1Hash::of(&input).0.first_chunk().expect("a hash is longer")
    }

    /// The token of an address.
    pub(super) fn token(&mut self, now: Time, ip: IpAddr) -> [u8; TOKEN_LEN] {
        self.renew(now);
        Self::made_with(&self.secrets[0], ip)
    }

    /// True if we gave this address this token lately.
    pub(super) fn is_valid(&mut self, now: Time, ip: IpAddr, token: &[u8]) -> bool {
        self.renew(now);
        self.secrets.iter().any(|secret| Self::made_with(secret, ip) == token)
    }
}

/// A peer at an address of `N` bytes.
#[derive(Debug, Clone, Copy)]
struct Peer<const N: usize> {
    addr: [u8; N],
    /// The second of its announce, since the start.
    at_secs: u32,
    seed: bool,
}

/// The peers of one swarm in one family, the oldest first.
type Peers<const N: usize> = Vec<Peer<N>>;

#[derive(Debug, Default)]
struct Swarm {
    v4: Peers<6>,
    v6: Peers<18>,
}

fn seconds(time: Time) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// Puts a peer in, at the end; the address that had to go for it, if it is a new one.
fn put<const N: usize>(peers: &mut Peers<N>, peer: Peer<N>) -> Option<Option<[u8; N]>> {
    let known = peers.iter().position(|other| other.addr == peer.addr);
    let gone = match known {
        Some(at) => Some(peers.remove(at)),
        None if peers.len() >= SWARM_PEERS_MAX => Some(peers.remove(0)),
        None => None,
    };
    peers.push(peer);
    known.is_none().then_some(gone.map(|gone| gone.addr))
}

/// Up to `count` of the peers, from a random one on; no seeders if so many others are there.
fn some<const N: usize>(peers: &Peers<N>, count: usize, no_seeds: bool, rng: &mut Rng) -> Vec<SocketAddr> {
    if peers.is_empty() {
        return Vec::new();
    }
    let (before, from) = peers.split_at(rng.index(peers.len()));
    let mut in_order: Vec<&Peer<N>> = from.iter().chain(before).collect();
    if no_seeds {
        in_order.sort_by_key(|peer| peer.seed);
    }
    in_order.into_iter().take(count).filter_map(|peer| parse_addr(&peer.addr)).collect()
}

/// All that were announced to us.
#[derive(Debug, Default)]
pub(super) struct PeerStore {
    swarms: BTreeMap<InfoHash, Swarm>,
    peers: usize,
    by_ip: Tally<IpAddr>,
    /// Where the next look for what is forgotten begins.
    sweep_from: Option<InfoHash>,
}

fn compact<const N: usize>(addr: SocketAddr) -> [u8; N] {
    let mut bytes = Vec::with_capacity(N);
    write_addr(&mut bytes, addr);
    bytes.try_into().expect("the length of this family")
}

impl PeerStore {
    /// How many swarms are known.
    pub(super) fn swarms(&self) -> usize {
        self.swarms.len()
    }

    /// How many peers are known.
    pub(super) fn peers(&self) -> usize {
        self.peers
    }

    /// A peer has announced itself.
    pub(super) fn announce(
        &mut self,
        now: Time,
        info_hash: InfoHash,
        addr: SocketAddr,
        seed: bool,
    ) -> Result<(), ErrorKind> {
        let is_full = self.peers >= PEERS_MAX || self.by_ip.get(&addr.ip()) >= PER_IP_MAX;
        let knows_swarm = self.swarms.contains_key(&info_hash);
        if (!knows_swarm && self.swarms.len() >= SWARMS_MAX) || (is_full && !self.knows(info_hash, addr)) {
            return Err(ErrorKind::Full);
        }
        let swarm = self.swarms.entry(info_hash).or_default();
        let at_secs = seconds(now);
        let new = if addr.is_ipv4() {
            let peer = Peer { addr: compact(addr), at_secs, seed };
            put(&mut swarm.v4, peer).map(|gone| gone.and_then(|gone| parse_addr(&gone)))
        } else {
            let peer = Peer { addr: compact(addr), at_secs, seed };
            put(&mut swarm.v6, peer).map(|gone| gone.and_then(|gone| parse_addr(&gone)))
        };
        if let Some(gone) = new {
            self.peers += 1;
            self.by_ip.add(addr.ip());
            gone.into_iter().for_each(|gone| self.uncount(gone));
        }
        Ok(())
    }

    fn knows(&self, info_hash: InfoHash, addr: SocketAddr) -> bool {
        self.swarms.get(&info_hash).is_some_and(|swarm| {
            let v4 = || swarm.v4.iter().any(|peer| peer.addr == compact(addr));
            let v6 = || swarm.v6.iter().any(|peer| peer.addr == compact(addr));
            if addr.is_ipv4() { v4() } else { v6() }
        })
    }

    fn uncount(&mut self, addr: SocketAddr) {
        self.peers -= 1;
        self.by_ip.remove(&addr.ip());
    }

    /// Up to `count` peers of a swarm in one family.
    pub(super) fn some(
        &self,
        info_hash: InfoHash,
        v6: bool,
        count: usize,
        no_seeds: bool,
        rng: &mut Rng,
    ) -> Vec<SocketAddr> {
        match self.swarms.get(&info_hash) {
            Some(swarm) if v6 => some(&swarm.v6, count, no_seeds, rng),
            Some(swarm) => some(&swarm.v4, count, no_seeds, rng),
            None => Vec::new(),
        }
    }

    /// Who seeds a swarm, and who does not; none if it is not known.
    pub(super) fn filters(&self, info_hash: InfoHash) -> Option<[Filter; 2]> {
        let swarm = self.swarms.get(&info_hash)?;
        let v4 = swarm.v4.iter().map(|peer| (parse_addr(&peer.addr), peer.seed));
        let v6 = swarm.v6.iter().map(|peer| (parse_addr(&peer.addr), peer.seed));
        let mut filters = [Filter::default(); 2];
        for (addr, seed) in v4.chain(v6) {
            filters[usize::from(!seed)].insert(addr?.ip());
        }
        Some(filters)
    }

    /// Up to `count` of the swarms, by chance.
    pub(super) fn sample(&self, count: usize, rng: &mut Rng) -> Vec<[u8; 20]> {
        let all = self.swarms.keys().map(|hash| hash.0);
        if self.swarms.len() <= count {
            return all.collect();
        }
        let from = Sha1Hash(rng.bytes());
        let (after, before) = (self.swarms.range(from..), self.swarms.range(..from));
        after.chain(before).map(|(hash, _)| hash.0).take(count).collect()
    }

    /// What must hold at any time.
    ///
    /// # Panics
    /// If it does not.
    pub(super) fn check(&self) {
        let all = self.swarms.values();
        assert!(all.clone().all(|swarm| swarm.v4.len().max(swarm.v6.len()) <= SWARM_PEERS_MAX), "peers of a swarm");
        let peers: usize = all.map(|swarm| swarm.v4.len() + swarm.v6.len()).sum();
        assert!(peers == self.peers && peers <= PEERS_MAX, "{peers} peers, {} counted", self.peers);
        assert!(self.swarms.len() <= SWARMS_MAX && self.by_ip.len() <= peers, "swarms");
    }

    /// Forgets what is old, among the next few swarms.
    pub(super) fn sweep(&mut self, now: Time) {
        let from = self.sweep_from.take().map_or(Bound::Unbounded, Bound::Excluded);
        let limit = now.as_secs().saturating_sub(LIFETIME.as_secs());
        let (mut gone, mut emptied) = (Vec::new(), Vec::new());
        let mut last = None;
        for (at, (hash, swarm)) in self.swarms.range_mut((from, Bound::Unbounded)).enumerate() {
            if at == SWEEP_MAX {
                self.sweep_from = last;
                break;
            }
            last = Some(*hash);
            // The oldest stand first.
            let old_v4 = swarm.v4.partition_point(|peer| u64::from(peer.at_secs) < limit);
            let old_v6 = swarm.v6.partition_point(|peer| u64::from(peer.at_secs) < limit);
            gone.extend(swarm.v4.drain(..old_v4).filter_map(|peer| parse_addr(&peer.addr)));
            gone.extend(swarm.v6.drain(..old_v6).filter_map(|peer| parse_addr(&peer.addr)));
            if swarm.v4.is_empty() && swarm.v6.is_empty() {
                emptied.push(*hash);
            }
        }
        gone.into_iter().for_each(|addr| self.uncount(addr));
        emptied.into_iter().for_each(|hash| drop(self.swarms.remove(&hash)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(number: u32) -> SocketAddr {
        SocketAddr::new(IpAddr::from((0x0a00_0000 + number).to_be_bytes()), 6881)
    }

    fn hash(number: u32) -> InfoHash {
        Sha1Hash::of(&number.to_be_bytes())
    }

    #[test]
    fn a_token_is_good_for_its_address_and_for_a_while() {
        let mut tokens = Tokens::new(Rng::from_number(1));
        let (ip, other) = (addr(1).ip(), addr(2).ip());
        let token = tokens.token(Time::ZERO, ip);
        assert!(tokens.is_valid(Time::from_secs(10), ip, &token));
        assert!(!tokens.is_valid(Time::from_secs(10), other, &token) && !tokens.is_valid(Time::from_secs(10), ip, b""));
        assert!(tokens.is_valid(Time::from_secs(301), ip, &token), "the secret before");
        assert!(!tokens.is_valid(Time::from_secs(602), ip, &token));
    }

    #[test]
    fn peers_are_given_forgotten_and_bounded() {
        let (mut store, mut rng) = (PeerStore::default(), Rng::from_number(1));
        let v6: SocketAddr = "[2001:db8::1]:1".parse().unwrap();
        store.announce(Time::ZERO, hash(1), v6, false).unwrap();
        for number in 0..600 {
            store.announce(Time::from_secs(1), hash(1), addr(number), number % 2 == 0).unwrap();
        }
        assert_eq!((store.peers(), store.swarms()), (SWARM_PEERS_MAX + 1, 1));
        assert_eq!(store.some(hash(1), true, 10, false, &mut rng), [v6]);
        let given = store.some(hash(1), false, 30, true, &mut rng);
        assert_eq!(given.len(), 30);
        assert!(given.iter().all(|addr| !matches!(addr.ip(), IpAddr::V4(ip) if ip.octets()[3] % 2 == 0)), "no seeders");
        let [seeds, others] = store.filters(hash(1)).unwrap().map(|filter| filter.count());
        assert!((200..300).contains(&seeds) && (200..300).contains(&others), "{seeds} {others}");
        store.announce(Time::from_secs(100), hash(1), addr(599), false).unwrap();
        assert_eq!(store.peers(), SWARM_PEERS_MAX + 1, "it is known");
        store.sweep(Time::from_secs(1802));
        assert_eq!((store.peers(), store.some(hash(1), false, 9, false, &mut rng)), (1, vec![addr(599)]));
        store.sweep(Time::from_secs(2000));
        assert_eq!((store.peers(), store.swarms(), store.by_ip.len()), (0, 0, 0));
    }

    #[test]
    fn one_address_cannot_fill_the_store() {
        let mut store = PeerStore::default();
        let stored =
            (0..3000).filter(|&number| store.announce(Time::ZERO, hash(number), addr(1), false).is_ok()).count();
        assert_eq!(stored, PER_IP_MAX as usize);
        assert_eq!(store.announce(Time::ZERO, hash(5), addr(1), true), Ok(()), "what is known may be said again");
        assert_eq!(store.announce(Time::ZERO, hash(5000), addr(1), true), Err(ErrorKind::Full));
        assert_eq!(store.announce(Time::ZERO, hash(5000), addr(2), true), Ok(()));
        for at in 0..20 {
            store.sweep(Time::from_secs(5000 + at));
        }
        assert_eq!((store.peers(), store.swarms()), (0, 0));
    }

    #[test]
    fn samples_are_swarms_that_are_known() {
        let (mut store, mut rng) = (PeerStore::default(), Rng::from_number(1));
        (0..100).for_each(|number| store.announce(Time::ZERO, hash(number), addr(number), false).unwrap());
        let sample = store.sample(20, &mut rng);
        assert!(sample.len() == 20 && sample.iter().all(|hash| store.swarms.contains_key(&Sha1Hash(*hash))));
        assert_eq!(store.sample(200, &mut rng).len(), 100);
        assert_ne!(store.sample(20, &mut rng), sample);
    }
}
