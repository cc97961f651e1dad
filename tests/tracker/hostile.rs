//! Strangers who mean no good: what they send is answered with no more bytes than it had, takes a bounded part of the memory, and keeps
//! nobody honest waiting.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use swarmtorrent::base::hash::InfoHash;
use swarmtorrent::codec::http_tracker::parse_announce;
use swarmtorrent::codec::udp_tracker::{Announce, Request, Response};

use crate::common::{Daemon, noise, wait};
use crate::{Asker, Served, Web, announce, loopback, percent, target};

/// A longer datagram is not looked at.
const PACKET_MAX: usize = 8 * 1024;

/// Processor time that a process has used, in clock ticks of 10 ms.
fn cpu_ticks(daemon: &Daemon) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// What a second costs in which nobody says anything, in percent of a processor.
#[expect(clippy::disallowed_methods, reason = "what is measured is a span of time")]
fn idle_percent(daemon: &Daemon) -> f64 {
    let (start, before) = (Instant::now(), cpu_ticks(daemon));
    std::thread::sleep(Duration::from_secs(1));
    (cpu_ticks(daemon) - before) as f64 / start.elapsed().as_secs_f64()
}

/// How long each of so many announces took, by UDP, and by HTTP on a connection of its own; `meanwhile` happens between them.
#[expect(clippy::disallowed_methods, reason = "what is measured is a span of time")]
fn honest_announces(served: &Served, count: u16, mut meanwhile: impl FnMut()) -> Vec<Duration> {
    let hash = InfoHash::of(b"honest");
    let mut took = Vec::new();
    for number in 0..count {
        meanwhile();
        let start = Instant::now();
        let answer = Web::connect(loopback(60_000 + number), served.http).get(&target(hash, 6881, "left=1"));
        assert!(parse_announce(&answer.body).unwrap().is_ok());
        took.push(start.elapsed());
        let start = Instant::now();
        let told = Asker::connect(loopback(60_000 + number), served.udp).announce(&announce(hash, 6882, 1), "");
        assert!(matches!(told, Response::Announce { .. }));
        took.push(start.elapsed());
    }
    took.sort_unstable();
    took
}

fn p99(took: &[Duration]) -> Duration {
    took[took.len() * 99 / 100]
}

/// Connections from many addresses, fifty from each, on which nothing waits.
fn crowd(to: SocketAddr, count: u16) -> Vec<TcpStream> {
    let streams = (0..count).map(|number| Web::connect(loopback(1000 + number / 50), to).0.into_inner());
    streams.inspect(|stream| stream.set_nonblocking(true).unwrap()).collect()
}

/// A packet with a bad connection id, or with none.
fn bad_packets() -> Vec<Vec<u8>> {
    let (mut announced, mut scraped) = (Vec::new(), Vec::new());
    let hash = InfoHash::of(b"x");
    let path = "/some/path/announce".repeat(10);
    Request::Announce { connection: 5, transaction: 1, announce: announce(hash, 1, 1), path: path.as_bytes().into() }
        .write(&mut announced);
    Request::Scrape { connection: 5, transaction: 1, info_hashes: &[[7; 20]; 74] }.write(&mut scraped);
    let with_action = |action: u32| {
        let mut packet = announced.clone();
        packet[8..12].copy_from_slice(&action.to_be_bytes());
        packet
    };
    let mut packets: Vec<Vec<u8>> = (0..120).map(|len| announced[..len].to_vec()).collect();
    packets.extend((0..60).map(|len| scraped[..len].to_vec()));
    packets.extend([0, 3, 4, 5, 255, 1 << 16, u32::MAX].map(with_action));
    packets.extend([1, 2, 8, 15, 16, 17, 97, 98, 99, 1400, 60_000].map(|len| noise(len as u64, len)));
    packets.extend([1500, 60_000].map(|len| [&announced[..], &vec![2; len]].concat()));
    packets.extend([1500, 60_000].map(|len| [&scraped[..], &vec![2; len]].concat()));
    packets.extend([announced, scraped]);
    packets
}

#[test]
fn a_stranger_is_never_told_more_bytes_than_it_sent() {
    let temp = tempfile::tempdir().unwrap();
    let served = Served::start(temp.path(), "");
    for number in 0..200 {
        Asker::connect(loopback(number), served.udp).announce(&announce(InfoHash::of(b"x"), 6881, 1), "");
    }
    let stranger = Asker::stranger(loopback(5000), served.udp);
    let mut good = Vec::new();
    Request::Connect { transaction: 0xdead_beef }.write(&mut good);
    let (mut packets, mut answered) = (0, 0);
    for packet in bad_packets() {
        // What comes first when a good one is asked behind it: the answer to the bad one, or that there is none.
        stranger.socket.send(&packet).unwrap();
        stranger.socket.send(&good).unwrap();
        let first = stranger.hear();
        let is_good = |bytes: &[u8]| bytes.len() == 16 && bytes[4..8] == 0xdead_beef_u32.to_be_bytes();
        if !is_good(&first) {
            assert!(first.len() <= packet.len(), "{} bytes for {}", first.len(), packet.len());
            assert_eq!(first[..8], [0, 0, 0, 3, 0, 0, 0, 1], "a refusal");
            assert!(is_good(&stranger.hear()));
            answered += 1;
        }
        packets += 1;
    }
    let refused = served.state()["errors"]["connection_id"].as_u64().unwrap();
    let too_long = bad_packets().iter().filter(|packet| packet.len() > PACKET_MAX).count() as u64;
    assert_eq!((answered, served.row("tracker.packets_ignored")), (refused, packets - refused - too_long));
    assert!(answered > 20, "what can be read is told to connect again: {answered}");
    assert_eq!(served.state()["peers"], 200, "no stranger was taken in");
}

#[test]
fn a_connection_id_is_of_one_address() {
    let temp = tempfile::tempdir().unwrap();
    let served = Served::start(temp.path(), "");
    let (hash, good) = (InfoHash::of(b"x"), Asker::connect(loopback(1), served.udp));
    let mut other = Asker::stranger(loopback(2), served.udp);
    other.connection = good.connection;
    assert!(
        matches!(other.announce(&announce(hash, 1, 1), ""), Response::Error { message, .. } if message == "connect again")
    );
    let mut same = Asker::stranger(loopback(1), served.udp);
    same.connection = good.connection;
    assert!(matches!(same.announce(&announce(hash, 1, 1), ""), Response::Announce { .. }));
}

#[test]
fn one_peer_id_from_many_addresses_is_many_peers_and_one_address_is_not_too_many() {
    let temp = tempfile::tempdir().unwrap();
    let served = Served::start(temp.path(), "max_peers = 400\n");
    let hash = InfoHash::of(b"x");
    for number in 0..300 {
        Asker::connect(loopback(number), served.udp).announce(&announce(hash, 6881, 1), "");
    }
    assert_eq!(served.state()["peers"], 300);
    let mut asker = Asker::connect(loopback(9000), served.udp);
    for port in 1000..1200 {
        asker.announce(&announce(hash, port, 1), "");
    }
    assert_eq!(served.state()["peers"], 300 + 64);
    assert_eq!(served.row("tracker.peers_displaced"), 200 - 64);

    // However many it wants, an answer is one datagram, and holds nobody twice.
    let mut web = Web::connect(loopback(9000), served.http);
    for (wanted, expected) in [(i32::MIN, 50), (-7, 50), (0, 0), (7, 7), (i32::MAX, 200)] {
        let asked = Announce { num_want: wanted, ..announce(hash, 1199, 1) };
        let Response::Announce { mut peers, .. } = asker.announce(&asked, "") else { panic!("refused") };
        assert_eq!(peers.len(), expected, "{wanted} by UDP");
        peers.sort_unstable();
        peers.dedup();
        assert_eq!(peers.len(), expected, "somebody twice");
    }
    for (wanted, expected) in
        [("2147483648", 200), ("99999999999999999999999", 50), ("-7", 50), ("0", 0), ("7", 7), ("", 50), ("many", 50)]
    {
        let body = web.get(&target(hash, 1199, &format!("left=1&numwant={wanted}"))).body;
        assert_eq!(parse_announce(&body).unwrap().unwrap().peers.len(), expected, "{wanted} by HTTP");
    }

    // The table is full at some time: who comes then is told of others, and left out.
    for number in 400..500 {
        Asker::connect(loopback(number), served.udp).announce(&announce(hash, 6881, 1), "");
    }
    assert_eq!((&served.state()["peers"], served.row("tracker.peers_left_out")), (&400.into(), 100 - 36));
}

#[test]
fn numbers_of_bytes_that_are_none_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let served = Served::start(temp.path(), "");
    let mut web = Web::connect(loopback(1), served.http);
    for (rest, reason) in [
        ("left=-1", "left is not a number of bytes"),
        ("left=18446744073709551616", "left is not a number of bytes"),
        ("left=1e3", "left is not a number of bytes"),
        ("left=1&uploaded=-5", "uploaded is not a number of bytes"),
        ("left=1&downloaded=x", "downloaded is not a number of bytes"),
    ] {
        let body = web.get(&target(InfoHash::of(b"x"), 1, rest)).body;
        assert_eq!(crate::failure(&body), reason, "{rest}");
    }
    assert_eq!(served.state()["peers"], 0);
    // As UDP has it, a number below zero is one above everything: no seed.
    Asker::connect(loopback(1), served.udp).announce(&announce(InfoHash::of(b"x"), 1, -1_i64 as u64), "");
    let counts = Asker::connect(loopback(1), served.udp).scrape(&[InfoHash::of(b"x")])[0];
    assert_eq!((counts.seeders, counts.leechers), (0, 1));
}

#[test]
fn what_is_asked_at_once_is_answered_in_order_and_an_end_takes_no_answer_away() {
    let temp = tempfile::tempdir().unwrap();
    let served = Served::start(temp.path(), "");
    let hash = InfoHash::of(b"x");
    let mut web = Web::connect(loopback(1), served.http);
    let one = |number: u16| match number % 4 {
        0 => format!("GET {} HTTP/1.1\r\n\r\n", target(hash, 1000 + number, "left=1&numwant=0")),
        1 => format!("GET /scrape?info_hash={} HTTP/1.1\r\nHost: x\r\n\r\n", percent(&hash.0)),
        2 => "GET / HTTP/1.1\r\n\r\n".to_owned(),
        _ => "\r\nHEAD /nowhere HTTP/1.1\r\n\r\n".to_owned(),
    };
    let requests: String = (0..200).map(one).collect();
    // In pieces that end anywhere, and then nothing more.
    requests.as_bytes().chunks(777).for_each(|chunk| web.send(chunk));
    web.0.get_ref().shutdown(Shutdown::Write).unwrap();
    for number in 0..200_u16 {
        match number % 4 {
            0 => {
                let peers = parse_announce(&web.answer().body).unwrap().unwrap().leechers;
                assert_eq!(peers, Some(u32::from(number / 4 + 1).min(64)), "{number}");
            }
            1 => assert!(web.answer().body.starts_with(b"d5:filesd20:")),
            2 => assert!(web.answer().body.starts_with(b"This is a BitTorrent tracker")),
            _ => assert_eq!(web.head().0, 404),
        }
    }
    web.assert_ended();
}

#[test]
fn a_connection_ends_where_the_client_or_its_fault_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let served = Served::start(temp.path(), "");
    let page = "GET / HTTP/1.0\r\n\r\n";
    for (request, status) in [
        (page.to_owned(), 200),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n".into(), 200),
        (format!("POST /announce HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello{page}"), 405),
        (format!("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello{page}"), 413),
        (format!("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{page}"), 413),
        (format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n{page}", "a".repeat(100_000)), 431),
        (format!("GET /{} HTTP/1.1\r\n\r\n{page}", "a".repeat(1 << 20)), 414),
        (format!("\u{16}\u{3}\u{1}\u{0}{page}"), 400),
        (format!("GET / HTTP/2.0\r\n\r\n{page}"), 505),
    ] {
        let mut web = Web::connect(loopback(1), served.http);
        web.send(&request);
        let answer = web.answer();
        assert_eq!(answer.status, status, "{}", request.escape_default().take(60).collect::<String>());
        if status != 200 {
            assert!(answer.head.contains("Connection: close\r\n"), "{}", answer.head);
            web.0.get_ref().shutdown(Shutdown::Write).unwrap();
        }
        web.assert_ended();
    }
    let mut web = Web::connect(loopback(1), served.http);
    for _ in 0..3 {
        web.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert!(web.answer().head.contains("Connection: keep-alive\r\n"));
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "they trickle for some seconds of real time")]
fn five_hundred_who_trickle_keep_nobody_waiting() {
    let temp = tempfile::tempdir().unwrap();
    let served = Served::start(temp.path(), "");
    let alone = p99(&honest_announces(&served, 50, || {}));
    let before = served.daemon.memory_kib();
    let mut slow = crowd(served.http, 500);
    let head = "GET /announce?info_hash=aaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\n\r\n".as_bytes();
    let (start, mut said) = (Instant::now(), 0);
    let mut trickle = |slow: &mut [TcpStream]| {
        if start.elapsed().as_secs() >= said as u64 && said < 4 {
            slow.iter_mut().for_each(|stream| drop(stream.write(&head[said..=said])));
            said += 1;
        }
    };
    let mut took = Vec::new();
    while start.elapsed() < Duration::from_secs(4) {
        took.extend(honest_announces(&served, 50, || trickle(&mut slow)));
    }
    took.sort_unstable();
    let idle = idle_percent(&served.daemon);
    let grown = served.daemon.memory_kib().saturating_sub(before);
    println!("alone {alone:?}, among 500 {:?} of {}, {idle:.0} % idle, {grown} KiB", p99(&took), took.len());
    assert!(p99(&took) < Duration::from_millis(200), "{:?}", p99(&took));
    assert!(idle < 20.0, "{idle} %");
    assert!(grown < 4096, "{grown} KiB for 500 who say little");
    // None of them has a whole head after ten seconds; that ends them.
    wait("they were sent away", 20, || {
        slow.retain_mut(|stream| {
            let read = stream.read(&mut [0; 64]);
            matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
        });
        slow.is_empty()
    });
    assert!(start.elapsed() >= Duration::from_secs(9), "their time was ten seconds");
}

#[test]
fn who_asks_without_end_and_reads_nothing_costs_little() {
    let temp = tempfile::tempdir().unwrap();
    let served = Served::start(temp.path(), "");
    let before = served.daemon.memory_kib();
    // Answers of 6 KB, so that they fill what the kernel keeps long before the last request that a connection may make.
    let hashes: String = (10..84).map(|number| format!("info_hash=aaaaaaaaaaaaaaaaaa{number}&")).collect();
    let requests = format!("GET /scrape?{hashes} HTTP/1.1\r\n\r\n").repeat(10);
    assert!(Web::connect(loopback(1), served.http).get(&format!("/scrape?{hashes}")).body.len() > 6000);
    let mut greedy: Vec<(TcpStream, usize)> = crowd(served.http, 50).into_iter().map(|stream| (stream, 0)).collect();
    for (stream, _) in &greedy {
        socket2::SockRef::from(stream).set_recv_buffer_size(4096).unwrap();
        socket2::SockRef::from(stream).set_send_buffer_size(4096).unwrap();
    }
    let mut sent = 0;
    let mut full_for = 0;
    wait("nothing more is taken from any of them", 30, || {
        let before = sent;
        for (stream, at) in &mut greedy {
            match stream.write(&requests.as_bytes()[*at..]) {
                Ok(count) => (sent, *at) = (sent + count, (*at + count) % requests.len()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        full_for = if sent == before { full_for + 1 } else { 0 };
        full_for == 10
    });
    assert!(sent > 50 * 1024, "{sent}");
    let (idle, grown) = (idle_percent(&served.daemon), served.daemon.memory_kib().saturating_sub(before));
    println!("{grown} KiB for 50 who read nothing, {idle:.0} % idle");
    assert!(idle < 20.0, "{idle} %");
    assert!(grown < 50 * 256, "{grown} KiB");
    let took = honest_announces(&served, 20, || {});
    assert!(p99(&took) < Duration::from_millis(200), "{took:?}");
}

/// It has 64 descriptors, half of them for connections; whoever is silent for longest makes room.
#[test]
fn few_descriptors_and_many_connections_stop_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_swarmtorrentd")]);
    let served = Served::start_by(command, temp.path(), "");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", served.daemon.pid())).unwrap();
    let row = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert!(row.split_whitespace().any(|word| word == "64"), "{row}");
    let mut crowd = crowd(served.http, 200);
    crowd.iter_mut().for_each(|stream| drop(stream.write(b"GET /ann")));
    wait("all were accepted", 10, || served.row("http.accepted") + served.row("http.refused") == 200);
    let took = honest_announces(&served, 20, || {});
    assert!(p99(&took) < Duration::from_millis(200), "{took:?}");
    assert!(served.row("http.shed") >= 200 - 64, "{}", served.row("http.shed"));
    let idle = idle_percent(&served.daemon);
    assert!(idle < 20.0, "{idle} %");
    let open = std::fs::read_dir(format!("/proc/{}/fd", served.daemon.pid())).unwrap().count();
    assert!(open < 64, "{open}");
    drop(crowd);
    let mut web = Web::connect(loopback(1), served.http);
    assert_eq!(web.get("/").status, 200);
    wait("they are gone", 10, || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", served.daemon.pid())).unwrap().count();
        open < 32
    });
    assert_eq!(served.daemon.terminate(), 0);
}
