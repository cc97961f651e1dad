//! The loop with an engine that has no torrents: what the reactor owes to everybody, whatever is on the wire.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

use mio::net::UnixStream;
use socket2::{Domain, Socket, Type};

use super::*;
use crate::base::config::Config;
use crate::base::rng::Rng;
use crate::torrent::command::{AddOptions, Answer, Command, Source};
use crate::torrent::create::{Creator, Notes, Profile};

const LOCALHOST: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
/// No test waits longer.
const PATIENCE: Duration = Duration::from_secs(10);

fn pair() -> (Reactor, Engine<FileStorage>) {
    let clock = Clock::start();
    let reactor = Reactor::new(clock, &[LOCALHOST.into()], None).unwrap();
    let config = Config { listen: reactor.bound().to_vec(), dht: false, lsd: false, pex: false, ..Config::default() };
    let engine = Engine::new(config, clock.unix_nanos(), Rng::from_number(1), FileStorage::without_state());
    (reactor, engine)
}

/// Turns until `done` says so; what happened to outsiders goes by it.
fn turn_until(
    reactor: &mut Reactor,
    engine: &mut Engine<FileStorage>,
    mut done: impl FnMut(&Reactor, Turn, &[OutsideEvent]) -> bool,
) {
    let end = reactor.clock.now() + PATIENCE;
    let mut outside = Vec::new();
    loop {
        let turn = reactor.turn(engine, &mut outside).unwrap();
        if done(reactor, turn, &outside) {
            return;
        }
        assert!(reactor.now() < end, "it did not happen in {PATIENCE:?}");
    }
}

#[test]
fn a_deadline_ends_a_wait_once_and_nothing_spins_before_it() {
    let (mut reactor, mut engine) = pair();
    let at = reactor.now() + Duration::from_millis(100);
    reactor.set_deadline(at);
    let mut rounds = 0;
    turn_until(&mut reactor, &mut engine, |reactor, turn, _| {
        rounds += 1;
        assert_eq!(turn.deadline, reactor.now() >= at);
        turn.deadline
    });
    assert!(rounds < 50, "{rounds} rounds in a tenth of a second");
    assert!(reactor.deadline.is_never());
    let figures = reactor.stats();
    assert!(figures.contains(&("loop_rounds".to_owned(), rounds - 1)), "the last one has not ended: {figures:?}");
}

#[test]
fn outsiders_get_their_events_and_none_after_they_left() {
    let (mut reactor, mut engine) = pair();
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let id = reactor.register(&mut ours, Interest::READABLE).unwrap();
    theirs.write_all(b"hello").unwrap();
    reactor.set_deadline(reactor.now() + PATIENCE);
    turn_until(&mut reactor, &mut engine, |_, _, outside| {
        outside.contains(&OutsideEvent { id, readable: true, writable: false })
    });
    reactor.deregister(id, &mut ours).unwrap();
    theirs.write_all(b"again").unwrap();
    reactor.set_deadline(reactor.now() + Duration::from_millis(20));
    turn_until(&mut reactor, &mut engine, |_, turn, outside| {
        assert!(outside.is_empty());
        turn.deadline
    });
}

#[test]
fn a_stranger_at_every_door_neither_stops_nor_spins_the_loop() {
    let (mut reactor, mut engine) = pair();
    let addr = reactor.bound()[0];
    let mut stranger = TcpStream::connect(addr).unwrap();
    stranger.write_all(&[0xff; 4096]).unwrap();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[0xff; 512], addr).unwrap();
    reactor.set_deadline(reactor.now() + PATIENCE);
    turn_until(&mut reactor, &mut engine, |reactor, _, _| {
        reactor.accepted == 1 && reactor.datagrams.counts().received == 1 && reactor.sockets.len() == 0
    });
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    let end = stranger.read(&mut [0; 64]);
    assert!(!matches!(&end, Err(error) if error.kind() == ErrorKind::WouldBlock), "closed: {end:?}");
}

#[test]
fn a_connection_that_cannot_be_had_is_told_in_the_next_round() {
    let (mut reactor, mut engine) = pair();
    let conn = ConnId::from_bits(5);
    let mut turn = Turn::default();
    // No route leads to an unspecified IPv6 address with port 0.
    let nowhere = SocketAddr::from(([0_u16; 8], 0));
    reactor.act(&mut engine, Effect::Connect { conn, to: nowhere }, &mut turn);
    if reactor.stillborn.is_empty() {
        assert!(reactor.sockets.is_connecting(conn), "it waits for the kernel's word");
    }
    reactor.set_deadline(reactor.now() + PATIENCE);
    turn_until(&mut reactor, &mut engine, |reactor, _, _| reactor.sockets.len() == 0);
    assert!(reactor.stillborn.is_empty());
}

#[test]
fn a_closed_connection_is_gone_from_every_table() {
    let (mut reactor, mut engine) = pair();
    let conn = ConnId::from_bits(5);
    let to = reactor.bound()[0];
    let mut turn = Turn::default();
    reactor.act(&mut engine, Effect::Connect { conn, to }, &mut turn);
    reactor.act(&mut engine, Effect::Wake(conn), &mut turn);
    reactor.act(&mut engine, Effect::Close(conn), &mut turn);
    assert_eq!((reactor.sockets.len(), reactor.ready.len()), (0, 0));
}

/// A connection from an address of loopback of its own: one address may have only so many.
fn connect_from(host: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 2, host], 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[test]
fn a_round_gives_no_more_turns_than_fit_and_the_next_one_goes_on() {
    const TURNS_MAX: u64 = (ROUND_BYTES / TURN_LEAST_BYTES) as u64;
    let (mut reactor, mut engine) = pair();
    let mut streams: Vec<TcpStream> = (1..=100).map(|host| connect_from(host, reactor.bound()[0])).collect();
    turn_until(&mut reactor, &mut engine, |reactor, _, _| reactor.accepted == 100 && reactor.ready.is_empty());
    for stream in &mut streams {
        stream.write_all(&[19]).unwrap(); // how a handshake begins
    }
    reactor.set_deadline(reactor.now() + PATIENCE);
    let (mut outside, mut read) = (Vec::new(), 0);
    while read < 100 {
        assert!(!reactor.turn(&mut engine, &mut outside).unwrap().deadline, "read {read} of 100");
        let Ok(Answer::Stats(rows)) = engine.handle_command(reactor.now(), Command::Stats) else { panic!("stats") };
        let now = rows.iter().find(|(name, _)| name == "peers.bytes_in").unwrap().1;
        assert!(now - read <= TURNS_MAX, "{} turns in a round", now - read);
        read = now;
    }
}

/// A name server on loopback, both UDP and TCP at one port. Over UDP it says that nothing fits; over TCP, that every name is here.
#[expect(clippy::disallowed_methods, reason = "the server is no part of the daemon")]
fn truncating_name_server() -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::from(LOCALHOST)).unwrap();
    let addr = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(addr).unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut packet) {
            packet[2] |= 0x82; // an answer, cut short
            let _ = socket.send_to(&packet[..len], from);
        }
    });
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(len))];
            stream.read_exact(&mut question).unwrap();
            let reply = crate::codec::dns::answer(&question, &[], 60);
            let is_v4 = question[question.len() - 3] == 1;
            let reply = if is_v4 { crate::codec::dns::answer(&question, &[LOCALHOST.0.into()], 60) } else { reply };
            stream.write_all(&u16::try_from(reply.len()).unwrap().to_be_bytes()).unwrap();
            stream.write_all(&reply).unwrap();
        }
    });
    addr
}

/// Whether `addr` lets somebody in, by TCP and by UDP.
fn is_open(addr: SocketAddr) -> (bool, bool) {
    (TcpStream::connect(addr).is_ok(), UdpSocket::bind(addr).is_err())
}

#[test]
fn listening_moves_at_once_or_not_at_all() {
    let (mut reactor, mut engine) = pair();
    let first = reactor.bound()[0];
    // Port 0 is another one; what stays keeps its socket, whatever its place is then.
    let to = reactor.prepare_move(&[LOCALHOST.into(), first]).unwrap();
    let second = to.addrs().next().unwrap();
    assert!(to.addrs().eq([second, first]) && second != first && second.port() != 0);
    assert_eq!(reactor.bound(), [first], "nothing has happened yet");
    reactor.move_to(to);
    assert_eq!(reactor.bound(), [second, first]);
    let strangers: Vec<_> = [first, second].map(|addr| TcpStream::connect(addr).unwrap()).into();
    turn_until(&mut reactor, &mut engine, |reactor, _, _| reactor.accepted == 2);
    // One of several that is taken is enough for nothing to change.
    let taken = TcpListener::bind(SocketAddr::from(LOCALHOST)).unwrap().local_addr().unwrap();
    let holder = TcpListener::bind(taken).unwrap();
    let error = reactor.prepare_move(&[LOCALHOST.into(), taken]).unwrap_err();
    assert_eq!(error.addr, taken);
    assert_eq!([first, second].map(is_open), [(true, true); 2]);
    drop(holder);
    reactor.move_to(reactor.prepare_move(&[second, taken]).unwrap());
    assert_eq!([first, second, taken].map(is_open), [(false, false), (true, true), (true, true)]);
    assert_eq!(reactor.sockets.len(), strangers.len(), "who is connected stays so");
    // Nowhere is fine, too.
    reactor.move_to(reactor.prepare_move(&[]).unwrap());
    assert_eq!([second, taken].map(is_open), [(false, false); 2]);
}

#[test]
fn a_tracker_is_found_whose_name_does_not_fit_a_datagram() {
    let (mut reactor, engine) = pair();
    let tracker = TcpListener::bind(SocketAddr::from(LOCALHOST)).unwrap();
    tracker.set_nonblocking(true).unwrap();
    let config = Config { name_servers: vec![truncating_name_server()], ..engine.config().clone() };
    let mut engine = Engine::new(config, 0, Rng::from_number(1), FileStorage::without_state());
    let url = format!("http://tracker.test:{}/announce", tracker.local_addr().unwrap().port());
    let notes = Notes { name: b"content".to_vec(), trackers: vec![url], ..Notes::default() };
    let mut creator = Creator::new(Profile::Compatible, 1 << 16, vec![(vec![], 5)], notes);
    creator.update(b"bytes");
    let source = Source::Metainfo(creator.finish().unwrap().1);
    let temp = tempfile::tempdir().unwrap();
    let options = AddOptions { dir: Some(temp.path().to_owned()), verify: Some(false), ..AddOptions::default() };
    engine.handle_command(reactor.now(), Command::Add { source, options }).unwrap();
    reactor.set_deadline(reactor.now() + PATIENCE);
    turn_until(&mut reactor, &mut engine, |_, _, _| tracker.accept().is_ok());
}
