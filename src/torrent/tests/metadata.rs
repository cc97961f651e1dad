//! A torrent that came as a link.

use super::*;
use crate::codec::magnet::Magnet;
use crate::codec::metadata::{METADATA_PIECE_LEN, MetadataMessage};
use crate::codec::metainfo::Metainfo;
use crate::codec::pex::{Contact, Flags, PexMessage};
use crate::torrent::command::RefusalKind;
use crate::torrent::sleep::Body;
use crate::torrent::snapshot::{Priority, State};

/// A torrent of forty pieces in four files of ten pieces each.
fn four_files(private: bool) -> Metainfo {
    let len = u64::from(PIECES) * 32_768;
    let notes = Notes { name: b"x".to_vec(), private, ..Notes::default() };
    let files = (0..4).map(|file| (vec![vec![b'a' + file]], len / 4)).collect();
    let mut creator = Creator::new(Profile::V1, 32_768, files, notes);
    creator.update(&vec![7; usize::try_from(len).unwrap()]);
    creator.finish().unwrap().0
}

/// Only its link is known; it runs.
fn link_to(meta: &Metainfo, more: &str, config: &Config) -> Torrent {
    let link = Magnet::parse(&format!("magnet:?xt=urn:btih:{}{more}", meta.info_hash)).unwrap();
    let config = Config { allocate_full: false, ..config.clone() };
    let begin = Begin { dir: "/d".into(), verify: true, added: 0, options: AddOptions::default() };
    let mut torrent = Torrent::from_link(NOW, link, begin, &config, Rng::from_number(1), [99; 20]).unwrap();
    torrent.handle_opened(NOW, Id::from_bits(1));
    torrent.set_queued(NOW, false);
    assert!(torrent.running && torrent.state() == State::Metadata && !torrent.is_finished());
    torrent
}

/// A peer says how long its `info` is.
fn offer(torrent: &mut Torrent, number: u64, size: usize) {
    let mut payload = Vec::new();
    let mut ids = crate::codec::extension::ExtensionIds::default();
    ids.set(ExtensionKind::Metadata, 9);
    let metadata_size = u32::try_from(size).ok();
    ExtensionHandshake { ids, metadata_size, ..ExtensionHandshake::default() }.write(&mut payload);
    tell(torrent, number, &[Message::Extended { id: 0, payload: &payload }]);
}

/// A peer gives every piece of `info`.
fn give(torrent: &mut Torrent, number: u64, info: &[u8]) -> Result<(), Unwelcome> {
    let total_size = info.len() as u32;
    for (piece, bytes) in info.chunks(METADATA_PIECE_LEN as usize).enumerate() {
        let mut payload = Vec::new();
        MetadataMessage::Data { piece: piece as u32, total_size, bytes }.write(&mut payload);
        let mut bytes = Vec::new();
        Message::Extended { id: ExtensionKind::Metadata.id(), payload: &payload }.write(&mut bytes);
        hear(torrent, number, &bytes)?;
        if let Some(parser) = torrent.metadata_parser() {
            torrent.handle_metadata_judged(NOW, parser.run());
        }
    }
    Ok(())
}

/// What the engine does when the files are known, and none of them is there.
fn open(torrent: &mut Torrent) {
    assert!(asks(torrent).contains(&Ask::Describe));
    torrent.handle_described(NOW, Id::from_bits(2), true);
}

#[test]
fn what_peers_said_they_have_counts_once_the_pieces_are_known() {
    let meta = four_files(false);
    let mut torrent = link_to(&meta, "", &Config::default());
    let mut field = vec![0xff; 5];
    for number in [1, 2, 3, 4] {
        dialled(&mut torrent, number);
    }
    tell(&mut torrent, 1, &[Message::HaveAll]);
    tell(&mut torrent, 2, &[Message::Bitfield(&field), Message::Unchoke]);
    tell(&mut torrent, 3, &[Message::Have(Piece(7)), Message::Have(Piece(39)), Message::AllowedFast(Piece(1 << 31))]);
    field.push(1);
    tell(&mut torrent, 4, &[Message::Bitfield(&field), Message::Have(Piece(u32::MAX))]);
    offer(&mut torrent, 3, meta.info.len());
    assert!(said(&mut torrent, 3).iter().any(|message| message.starts_with("Extended { id: 9")), "it is asked");
    give(&mut torrent, 3, &meta.info).unwrap();
    open(&mut torrent);
    assert_eq!((torrent.state(), torrent.summary(NOW).name), (State::Downloading, "x".to_owned()));
    let counts: Vec<_> = torrent.peers.values().map(|peer| peer.field.count()).collect();
    assert_eq!(counts, [PIECES, PIECES, 2], "who claimed pieces that there are not is parted with");
    assert!(said(&mut torrent, 1).contains(&"Interested".to_owned()));
    assert!(begun(&mut torrent).0 < PIECES, "who has given us a slot is asked at once");
    tell(&mut torrent, 3, &[Message::Unchoke]);
    assert_eq!(recorded(&mut torrent), 0);
}

#[test]
fn files_that_the_link_selects_are_wanted_and_those_that_there_are_not_are_passed_over() {
    let meta = four_files(false);
    let mut torrent = link_to(&meta, "&so=1,3,7-9", &Config::default());
    assert_eq!(torrent.magnet(), format!("magnet:?xt=urn:btih:{}&so=1,3,7-9", meta.info_hash));
    torrent.describe(NOW, meta);
    open(&mut torrent);
    use Priority::{Normal, Off};
    assert_eq!([0, 1, 2, 3].map(|file| torrent.file_priority(file)), [Off, Normal, Off, Normal]);
    assert!(!torrent.is_finished());
}

#[test]
fn a_file_that_follows_its_link_may_say_where_and_what() {
    let meta = four_files(false);
    let mut torrent = link_to(&meta, "&so=1", &Config::default());
    let bad = AddOptions { only: vec![(7, 7)], ..AddOptions::default() };
    assert_eq!(torrent.describe_by_file(NOW, meta.clone(), &bad).unwrap_err().kind, RefusalKind::Invalid);
    assert!(torrent.is_link());
    let options = AddOptions {
        dir: Some("/e".into()),
        label: "l".into(),
        only: vec![(2, 3)],
        paused: true,
        ..AddOptions::default()
    };
    torrent.describe_by_file(NOW, meta, &options).unwrap();
    open(&mut torrent);
    assert_eq!((torrent.dir().to_str(), torrent.label(), torrent.state()), (Some("/e"), "l", State::Paused));
    use Priority::{Normal, Off};
    assert_eq!([0, 1, 2, 3].map(|file| torrent.file_priority(file)), [Off, Off, Normal, Normal]);
}

#[test]
fn who_alone_gives_something_else_is_banned_and_others_are_asked() {
    let meta = four_files(false);
    let mut torrent = link_to(&meta, "", &Config::default());
    for number in [1, 2] {
        dialled(&mut torrent, number);
        offer(&mut torrent, number.into(), meta.info.len());
    }
    let mut other = meta.info.to_vec();
    other[10] ^= 1;
    assert_eq!(hear(&mut torrent, 1, &[]), Ok(()));
    give(&mut torrent, 1, &other).unwrap();
    assert!(torrent.candidates.is_banned(addr(1)) && !torrent.peers.contains_key(&conn(1)));
    give(&mut torrent, 2, &meta.info).unwrap();
    assert!(asks(&mut torrent).contains(&Ask::Describe));
}

#[test]
fn a_torrent_that_turns_out_to_be_private_keeps_to_its_tracker() {
    let meta = four_files(true);
    let mut torrent = link_to(&meta, "", &Config::default());
    for (number, origin) in [(1, Origin::Dht), (2, Origin::Tracker)] {
        torrent.candidates.add(NOW, addr(number), origin);
        assert_eq!(torrent.next_candidate(NOW), Some(addr(number)));
        torrent.handle_dialled(NOW, conn(number.into()), addr(number), false).unwrap();
        let handshake = handshake(&torrent, number).to_bytes();
        hear(&mut torrent, number.into(), &handshake).unwrap();
    }
    torrent.handle_dht_peers(NOW, &[addr(3)]);
    offer(&mut torrent, 1, meta.info.len());
    give(&mut torrent, 1, &meta.info).unwrap();
    open(&mut torrent);
    assert_eq!(torrent.peers.keys().copied().collect::<Vec<_>>(), [conn(2)]);
    torrent.handle_dht_peers(NOW, &[addr(4)]);
    assert!(torrent.next_candidate(Time::from_secs(1000)).is_none_or(|next| next == addr(2)));
    assert!(!torrent.wants_dht(Time::from_secs(10_000)) && torrent.metadata_size().is_none());
}

#[test]
fn a_dial_that_is_under_way_when_it_turns_out_to_be_private_is_the_last_to_that_address() {
    let meta = four_files(true);
    let mut torrent = link_to(&meta, "", &Config::default());
    torrent.handle_dht_peers(NOW, &[addr(3), addr(4)]);
    assert!([addr(3), addr(4)].contains(&torrent.next_candidate(NOW).unwrap()));
    assert!([addr(3), addr(4)].contains(&torrent.next_candidate(NOW).unwrap()));
    torrent.describe(NOW, meta);
    torrent.handle_described(NOW, Id::from_bits(2), true);
    assert!(asks(&mut torrent).contains(&Ask::LeaveDht), "a search that is under way would announce it");
    assert_eq!(torrent.handle_dialled(NOW, conn(3), addr(3), false), Err(Unwelcome::Private));
    torrent.handle_dial_failed(NOW, addr(4));
    assert_eq!(torrent.next_candidate(Time::from_secs(100_000)), None);
}

#[test]
fn seeds_that_a_peer_tells_of_are_dialled_for_a_link() {
    let mut torrent = link_to(&four_files(false), "", &Config::default());
    dialled(&mut torrent, 1);
    let seed = Contact { addr: addr(2), flags: Flags::default().with(Flags::SEED, true) };
    let mut payload = Vec::new();
    PexMessage { added: vec![seed], dropped: vec![] }.write(&mut payload);
    tell(&mut torrent, 1, &[Message::Extended { id: ExtensionKind::Pex.id(), payload: &payload }]);
    assert_eq!(torrent.next_candidate(NOW), Some(addr(2)));
}

#[test]
fn trackers_of_a_file_come_to_those_of_the_link_and_are_asked_at_once() {
    let mut meta = four_files(false);
    meta.trackers = vec![vec!["udp://a:1".into(), "udp://b:1".into()]];
    let mut torrent = link_to(&meta, "&tr=udp%3A%2F%2Fa%3A1&tr=udp%3A%2F%2Fc%3A1", &Config::default());
    assert_eq!(torrent.poll_announce().map(|ask| ask.url), Some("udp://a:1".into()));
    torrent.handle_announced(NOW, 0, Err(crate::protocol::tracker::TrackerError::Timeout));
    torrent.describe(NOW, meta);
    let mut rows: Vec<String> = torrent.tracker_rows(NOW).into_iter().map(|row| row.url).collect();
    rows.sort();
    assert_eq!(rows, ["udp://a:1", "udp://b:1", "udp://c:1"]);
    assert_eq!(torrent.trackers(), ["udp://a:1", "udp://b:1", "udp://c:1"]);
}

#[test]
fn it_is_described_once_whoever_else_describes_it() {
    let meta = four_files(false);
    let mut torrent = link_to(&meta, "", &Config::default());
    dialled(&mut torrent, 1);
    torrent.describe(NOW, meta.clone());
    torrent.describe(NOW, meta.clone());
    offer(&mut torrent, 1, meta.info.len());
    give(&mut torrent, 1, &meta.info).unwrap();
    assert_eq!(asks(&mut torrent).iter().filter(|ask| **ask == Ask::Describe).count(), 1);
    assert!(!said(&mut torrent, 1).iter().any(|message| message.starts_with("Extended { id: 9")), "nobody is asked");
}

#[test]
fn who_asks_for_much_of_our_info_and_does_not_read_waits_in_little_room() {
    let mut torrent = torrent(0..0, &Config::default());
    let info = vec![7; 200 * METADATA_PIECE_LEN as usize];
    torrent.head.info_len = u32::try_from(info.len()).unwrap();
    torrent.body = Body(Some(std::sync::Arc::new(Metainfo { info: info.into(), ..torrent.body.get().clone() })));
    dialled(&mut torrent, 1);
    offer(&mut torrent, 1, 5);
    for piece in (0..200).chain(100..200) {
        let mut payload = Vec::new();
        MetadataMessage::Request(piece).write(&mut payload);
        tell(&mut torrent, 1, &[Message::Extended { id: ExtensionKind::Metadata.id(), payload: &payload }]);
    }
    let waits = torrent.machine(conn(1)).unwrap().outbuf().encoded_len();
    assert!(waits < 100 * 1024, "{waits}");
    let mut came = 0;
    while !torrent.machine(conn(1)).unwrap().outbuf().is_empty() {
        came += sent(&mut torrent, 1).len() / METADATA_PIECE_LEN as usize;
        torrent.feed_metadata(conn(1));
    }
    assert_eq!(came, 200, "each that waited came once");
}

#[test]
fn what_cannot_be_loaded_stops_the_torrent_and_says_why() {
    let info = b"d4:name1:x12:piece lengthi0e6:pieces0:e";
    let hash = crate::base::hash::Sha1Hash::of(info);
    let meta = Metainfo { info_hash: hash, info: info[..].into(), ..four_files(false) };
    let mut torrent = link_to(&meta, "", &Config::default());
    dialled(&mut torrent, 1);
    offer(&mut torrent, 1, info.len());
    give(&mut torrent, 1, info).unwrap();
    assert_eq!(torrent.state(), State::Error);
    assert!(why(&torrent)[0].contains("cannot be used"), "{:?}", why(&torrent));
    assert!(!torrent.wants_to_run());
}

#[test]
fn what_is_not_known_yet_is_refused_to_the_user() {
    let meta = four_files(false);
    let mut torrent = link_to(&meta, "", &Config::default());
    assert_eq!(torrent.export(true).unwrap_err().kind, RefusalKind::Busy);
    assert!(torrent.summary(NOW).progress() < 0.5);
    assert!(torrent.left_bytes() > 0, "who has everything is a seed");
    torrent.verify(NOW);
    assert_eq!(torrent.state(), State::Metadata);
}

#[test]
fn a_peer_gets_each_piece_of_our_info_a_few_times_and_then_no_more() {
    let mut torrent = torrent(0..0, &Config::default());
    dialled(&mut torrent, 1);
    offer(&mut torrent, 1, 5);
    said(&mut torrent, 1);
    let mut ask = |piece: u32| {
        let mut payload = Vec::new();
        MetadataMessage::Request(piece).write(&mut payload);
        tell(&mut torrent, 1, &[Message::Extended { id: ExtensionKind::Metadata.id(), payload: &payload }]);
        let said = said(&mut torrent, 1);
        assert_eq!(said.len(), 1, "{said:?}");
        said[0].len() > 500
    };
    assert!(ask(0) && !ask(1) && !ask(u32::MAX));
    assert_eq!((0..10).filter(|_| ask(0)).count(), 3);
}

#[test]
fn interested_peer_of_a_link_gets_a_slot_and_no_proposal() {
    let mut torrent = link_to(&four_files(false), "", &Config::default());
    dialled(&mut torrent, 1);
    tell(&mut torrent, 1, &[Message::HaveNone, Message::Interested]);
    torrent.handle_timeout(Time::from_secs(30));
    assert!(!torrent.peers[&conn(1)].machine.am_choking());
    assert!(torrent.peers[&conn(1)].proposed.is_empty());
}
