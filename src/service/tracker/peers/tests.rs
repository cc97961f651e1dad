use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::base::rng::Rng;

fn mix() -> Mix {
    Mix::new(&mut Rng::from_number(1))
}

fn addr(host: u32, port: u16) -> [u8; 6] {
    let mut addr = [0; 6];
    addr[..4].copy_from_slice(&host.to_be_bytes());
    addr[4..].copy_from_slice(&port.to_be_bytes());
    addr
}

/// So many downloaders, each at a host of its own.
fn crowd(count: u32) -> Peers<6> {
    let mut peers = Peers::default();
    for number in 0..count {
        peers.announce(mix(), addr(number, 1), Role::Downloader, 0, 0);
    }
    peers
}

fn check<const N: usize>(peers: &Peers<N>) {
    let table: Vec<usize> = peers.table.iter().filter(|&&slot| slot != 0).map(|&slot| usize::from(slot) - 1).collect();
    if !peers.table.is_empty() {
        let mut sorted = table;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..peers.all.len()).collect::<Vec<_>>());
    }
    let partials = peers.all[..peers.uploaders as usize].iter().filter(|peer| peer.mark.is_partial()).count();
    assert_eq!(partials, peers.partials as usize);
}

#[test]
fn a_peer_takes_eight_bytes_or_twenty() {
    assert_eq!((size_of::<Peer<6>>(), size_of::<Peer<18>>()), (8, 20));
}

#[test]
fn a_seeder_is_told_of_downloaders_only_and_nobody_of_itself() {
    let mut peers = Peers::<6>::default();
    peers.announce(mix(), addr(1, 1), Role::Seed, 0, 0);
    peers.announce(mix(), addr(2, 1), Role::PartialSeed, 0, 0);
    peers.announce(mix(), addr(3, 1), Role::Downloader, 0, 0);
    let told = |asker: u32, role| {
        let mut out = Vec::new();
        peers.pick(&addr(asker, 1), role, 50, 7, &mut out);
        let mut hosts: Vec<u8> = out.chunks(6).map(|addr| addr[3]).collect();
        hosts.sort_unstable();
        hosts
    };
    assert_eq!(told(1, Role::Seed), [3]);
    assert_eq!(told(2, Role::PartialSeed), [3]);
    assert_eq!(told(3, Role::Downloader), [1, 2]);
    assert_eq!(told(9, Role::Downloader), [1, 2, 3]);
    assert_eq!(peers.counts(), Counts { seeds: 1, partial_seeds: 1, downloaders: 1 });
}

#[test]
fn everybody_is_as_likely_as_anybody_else() {
    let peers = crowd(100);
    let mut told = [0_u32; 100];
    let mut rng = Rng::from_number(5);
    for _ in 0..20_000 {
        let mut out = Vec::new();
        assert_eq!(peers.pick(&addr(7, 1), Role::Downloader, 30, rng.u64(), &mut out), 30);
        let mut hosts: Vec<u8> = out.chunks(6).map(|addr| addr[3]).collect();
        hosts.sort_unstable();
        hosts.dedup();
        assert_eq!(hosts.len(), 30, "nobody twice");
        hosts.iter().for_each(|&host| told[usize::from(host)] += 1);
    }
    assert_eq!(told[7], 0, "the asker itself");
    let others: Vec<u32> = told.iter().copied().filter(|&count| count > 0).collect();
    // 20,000 × 30 / 99 = 6061, with a standard deviation of 65.
    assert!(others.len() == 99 && others.iter().all(|count| (5700..6400).contains(count)), "{told:?}");
}

#[test]
fn one_more_of_a_host_takes_the_place_of_its_oldest() {
    for strangers in [0, 200] {
        let mut peers = crowd(strangers);
        let host = 5000;
        for port in 0..=u16::try_from(HOST_PEERS_MAX).unwrap() {
            let change = peers.announce(mix(), addr(host, port + 1), Role::Seed, port, 0);
            let is_full = usize::from(port) == HOST_PEERS_MAX;
            assert_eq!(change, if is_full { Change::Displaced } else { Change::Joined });
        }
        assert_eq!(peers.counts().seeds, u32::try_from(HOST_PEERS_MAX).unwrap());
        assert_eq!(peers.remove(mix(), &addr(host, 1)), None, "the first of them is gone");
        check(&peers);
    }
}

#[test]
fn a_full_swarm_takes_in_whoever_comes_for_somebody() {
    let mut peers = crowd(u32::try_from(PEERS_MAX).unwrap());
    assert_eq!(peers.announce(mix(), addr(u32::MAX, 1), Role::Seed, 0, u64::MAX / 3), Change::Displaced);
    assert_eq!((peers.len(), peers.counts().seeds), (PEERS_MAX, 1));
    check(&peers);
}

#[test]
fn the_silent_are_forgotten_even_when_the_clock_wraps() {
    let mut peers = Peers::<6>::default();
    let early = TICKS - 10;
    for number in 0..300_u32 {
        let tick = if number % 2 == 0 { early } else { 5 };
        let role = if number % 3 == 0 { Role::Seed } else { Role::Downloader };
        peers.announce(mix(), addr(number, 1), role, tick, 0);
    }
    assert_eq!(peers.expire(mix(), 5, 20, usize::MAX), 0);
    assert_eq!(peers.expire(mix(), 20, 20, usize::MAX), 150);
    check(&peers);
    assert_eq!(peers.counts(), Counts { seeds: 50, partial_seeds: 0, downloaders: 100 });
    assert_eq!(peers.expire(mix(), 90, 20, usize::MAX), 150);
    assert_eq!((peers.len(), peers.table.len()), (0, 0));
    assert!(peers.all.capacity() <= 8, "memory is given back");
}

#[derive(Debug, Clone)]
enum Act {
    Announce(u8, u8, u16),
    Leave(u8),
    Expire(u16),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => (any::<u8>(), 0..3_u8, 0..40_u16).prop_map(|(peer, role, tick)| Act::Announce(peer, role, tick)),
        2 => any::<u8>().prop_map(Act::Leave),
        1 => (0..40_u16).prop_map(Act::Expire),
    ];
    proptest::collection::vec(act, 0..400)
}

proptest! {
    /// It knows the same peers as a plain map does.
    #[test]
    fn peers_come_change_and_go_as_in_a_plain_map(acts in acts()) {
        let (mut peers, mut model) = (Peers::<18>::default(), BTreeMap::new());
        let addr = |peer: u8| {
            let mut addr = [0; 18];
            // Four hosts of up to 64 peers each.
            (addr[7], addr[17]) = (peer % 4, peer / 4);
            addr
        };
        for act in acts {
            match act {
                Act::Announce(peer, role, tick) => {
                    let role = [Role::Seed, Role::PartialSeed, Role::Downloader][usize::from(role)];
                    let before = model.insert(addr(peer), (role, tick));
                    let change = peers.announce(mix(), addr(peer), role, tick, 0);
                    let completed = role == Role::Seed && before.is_some_and(|(role, _)| role != Role::Seed);
                    prop_assert_eq!(change, before.map_or(Change::Joined, |_| Change::Stayed { completed }));
                }
                Act::Leave(peer) => {
                    let gone = peers.remove(mix(), &addr(peer));
                    prop_assert_eq!(gone, model.remove(&addr(peer)).map(|(role, _)| role));
                }
                Act::Expire(since) => {
                    let before = model.len();
                    model.retain(|_, (_, tick)| 40 - *tick <= since);
                    prop_assert_eq!(peers.expire(mix(), 40, since, usize::MAX), before - model.len());
                }
            }
            check(&peers);
        }
        let known: BTreeMap<_, _> = peers.iter(40).map(|(addr, role, age)| (addr, (role as u8, 40 - age))).collect();
        let model: BTreeMap<_, _> = model.into_iter().map(|(addr, (role, tick))| (addr, (role as u8, tick))).collect();
        prop_assert_eq!(known, model);
    }
}
