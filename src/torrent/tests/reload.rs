//! Settings of the node that change while a torrent runs.

use super::*;
use crate::base::config::{Encryption, UploadSlots};

fn lsd_asks(torrent: &mut Torrent) -> Vec<Ask> {
    let asks = std::iter::from_fn(|| torrent.poll_ask());
    asks.filter(|ask| matches!(ask, Ask::JoinLsd | Ask::LeaveLsd)).collect()
}

#[test]
fn the_local_network_is_joined_and_left_once() {
    let on = Config { lsd: true, ..Config::default() };
    let off = Config { lsd: false, ..Config::default() };
    let mut torrent = torrent(0..1, &off);
    lsd_asks(&mut torrent);
    torrent.reconfigure(NOW, &on);
    assert!(matches!(lsd_asks(&mut torrent)[..], [Ask::JoinLsd]));
    torrent.reconfigure(NOW, &on);
    assert!(lsd_asks(&mut torrent).is_empty());
    torrent.reconfigure(NOW, &off);
    assert!(matches!(lsd_asks(&mut torrent)[..], [Ask::LeaveLsd]));
    // Whoever is private has nothing to do with it.
    torrent.head.private = true;
    torrent.reconfigure(NOW, &on);
    assert!(lsd_asks(&mut torrent).is_empty() && !torrent.lsd);
}

#[test]
fn peers_are_told_of_a_new_port_and_of_peer_exchange_once_there_is_some() {
    let listen = |port| vec![SocketAddr::from(([0, 0, 0, 0], port))];
    let before = Config { pex: false, listen: listen(1000), ..Config::default() };
    let mut torrent = torrent(0..1, &before);
    dialled(&mut torrent, 1);
    said(&mut torrent, 1);
    torrent.reconfigure(NOW, &before);
    assert!(said(&mut torrent, 1).is_empty());
    let after = Config { pex: true, listen: listen(2000), encryption: Encryption::Off, ..before.clone() };
    torrent.reconfigure(NOW, &after);
    let told = String::from_utf8_lossy(&sent(&mut torrent, 1)).into_owned();
    assert!(told.contains("6:ut_pex") && told.contains("1:pi2000e") && told.contains("1:ei0e"), "{told}");
    assert_eq!(torrent.announced_port, 2000);
    torrent.tick_exchange(NOW);
    assert!(!torrent.exchange.is_empty());
    torrent.reconfigure(NOW, &before);
    assert!(torrent.exchange.is_empty(), "nobody is told of any more");
    torrent.exchange.check(torrent.peers.values());
}

#[test]
fn what_the_user_has_set_goes_before_the_config() {
    let mut torrent = torrent(0..1, &Config::default());
    let config = |most, slots| Config {
        connections_per_torrent_max: most,
        upload_slots: UploadSlots::Fixed(slots),
        allocate_full: true,
        ..Config::default()
    };
    (1..=5).for_each(|number| dialled(&mut torrent, number));
    torrent.reconfigure(NOW, &config(3, 2));
    assert_eq!((torrent.peers.len(), torrent.choker.slots(), torrent.allocate_full), (3, 2, true));
    torrent.set(NOW, &crate::torrent::settings::Change::MaxPeers(Some(2)));
    torrent.reconfigure(NOW, &config(9, 4));
    assert_eq!((torrent.peers.len(), torrent.connections_max, torrent.choker.slots()), (2, 2, 4));
    torrent.set(NOW, &crate::torrent::settings::Change::MaxPeers(None));
    assert_eq!(torrent.connections_max, 9);
}
