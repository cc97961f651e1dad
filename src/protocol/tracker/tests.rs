use super::*;
use crate::base::hash::InfoHash;
use crate::codec::udp_tracker::{AnnounceEvent, Request, Response, SwarmCounts};

fn announce() -> Announce {
    Announce {
        info_hash: InfoHash::of(b"x"),
        peer_id: [1; 20],
        downloaded: 0,
        left: 1,
        uploaded: 0,
        event: AnnounceEvent::Started,
        key: 1,
        num_want: 50,
        port: 6881,
    }
}

fn client() -> TrackerClient {
    TrackerClient::new(Duration::from_secs(15), &[], Rng::from_number(1))
}

fn start(client: &mut TrackerClient, url: &str) {
    client.start(Time::ZERO, AskId(1), url, announce(), None);
}

/// The next outcome, where it comes before anything else.
fn ended(client: &mut TrackerClient) -> Option<Outcome> {
    client.poll_event().map(|event| match event {
        Event::Announced(AskId(1), outcome) => outcome,
        event => panic!("{event:?}"),
    })
}

fn transmit(client: &mut TrackerClient, now: Time) -> Option<(SocketAddr, Request<'static>)> {
    let mut packet = Vec::new();
    let to = client.poll_transmit(now, &mut packet)?;
    Some((to, Request::parse(packet.leak()).expect("a request")))
}

fn answer(client: &mut TrackerClient, from: SocketAddr, response: &Response) -> bool {
    let mut packet = Vec::new();
    response.write(&mut packet);
    client.handle_packet(Time::ZERO, from, &packet)
}

/// The stream that is asked for.
fn connect(client: &mut TrackerClient) -> (ExchangeId, SocketAddr) {
    loop {
        match client.poll_need().expect("a stream is needed") {
            Need::Connect(exchange, to) => return (exchange, to),
            Need::Close(_) | Need::Wake(_) => {}
            need => panic!("{need:?}"),
        }
    }
}

fn respond(client: &mut TrackerClient, response: &[u8]) {
    let (exchange, _) = connect(client);
    client.handle_connected(Time::ZERO, exchange);
    assert!(client.outgoing(exchange).starts_with(b"GET /"));
    client.handle_input(Time::ZERO, exchange, response);
}

#[test]
fn udp_asks_for_a_connection_first_and_keeps_it() {
    let mut client = client();
    start(&mut client, "udp://10.0.0.1:6969/announce");
    assert!(client.poll_timeout().is_never(), "a datagram that waits to be sent is no timeout");
    let (to, request) = transmit(&mut client, Time::ZERO).unwrap();
    let Request::Connect { transaction } = request else { panic!("{request:?}") };
    assert!(!answer(&mut client, "10.0.0.2:6969".parse().unwrap(), &Response::Connect { transaction, connection: 6 }));
    assert!(!answer(&mut client, to, &Response::Connect { transaction: transaction ^ 1, connection: 6 }));
    assert!(answer(&mut client, to, &Response::Connect { transaction, connection: 5 }));
    let (_, request) = transmit(&mut client, Time::ZERO).unwrap();
    let Request::Announce { connection: 5, transaction, .. } = request else { panic!("{request:?}") };
    let peers = vec!["1.2.3.4:5".parse().unwrap()];
    assert!(answer(&mut client, to, &Response::Announce { transaction, interval: 9, leechers: 1, seeders: 2, peers }));
    assert_eq!(ended(&mut client).unwrap().unwrap().interval, 9);
    start(&mut client, "udp://10.0.0.1:6969");
    assert!(matches!(transmit(&mut client, Time::ZERO).unwrap().1, Request::Announce { connection: 5, .. }));
}

#[test]
fn a_silent_udp_tracker_is_asked_a_few_times_and_given_up() {
    let mut client = client();
    start(&mut client, "udp://10.0.0.1:6969");
    let (mut asked, mut now) = (0, Time::ZERO);
    loop {
        asked += usize::from(transmit(&mut client, now).is_some());
        now = client.poll_timeout();
        assert!(now <= Time::from_secs(16));
        client.handle_timeout(now);
        if let Some(outcome) = ended(&mut client) {
            assert_eq!(outcome, Err(TrackerError::Timeout));
            break;
        }
    }
    assert_eq!(asked, UDP_TRIES as usize);
}

#[test]
fn http_is_asked_and_its_answer_read() {
    let mut client = client();
    start(&mut client, "http://tracker.example/announce");
    assert_eq!(client.poll_need(), Some(Need::Resolve("tracker.example".into())));
    client.handle_resolved(
        Time::ZERO,
        "tracker.example",
        &Ok(vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()]),
    );
    let (exchange, _) = connect(&mut client);
    client.handle_closed(Time::ZERO, exchange);
    respond(&mut client, b"HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\nd8:intervali1800e5:peers0:e");
    assert!(client.poll_event().is_none(), "28 bytes were promised");
    client.handle_closed(Time::ZERO, ExchangeId(1));
    assert_eq!(ended(&mut client).unwrap(), Err(TrackerError::Http(HttpError::Cut)));
    start(&mut client, "http://10.0.0.1/announce");
    respond(&mut client, b"HTTP/1.1 200 OK\r\n\r\nd8:intervali1800e5:peers0:e");
    assert!(client.poll_event().is_none());
    client.handle_closed(Time::ZERO, ExchangeId(2));
    assert_eq!(ended(&mut client).unwrap().unwrap().interval, 1800);
    assert!(client.is_idle());
}

#[test]
fn redirects_end_and_never_lead_to_our_own_machine_or_away_from_tls() {
    let mut client = client();
    start(&mut client, "http://10.0.0.1/announce");
    for _ in 0..=REDIRECTS_MAX {
        respond(
            &mut client,
            b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/x?info_hash=1\r\nContent-Length: 0\r\n\r\n",
        );
    }
    assert_eq!(ended(&mut client).unwrap(), Err(TrackerError::Redirect));
    for location in
        ["http://127.0.0.1/", "http://[::1]/", "http://169.254.169.254/", "file:///etc/passwd", "udp://10.0.0.2:1"]
    {
        start(&mut client, "http://10.0.0.1/announce");
        respond(
            &mut client,
            format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").as_bytes(),
        );
        assert_eq!(ended(&mut client).unwrap(), Err(TrackerError::Redirect), "{location}");
    }
}

#[test]
fn hostile_answers_end_in_an_error() {
    let mut client = client();
    for (response, error) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<html/>"[..], TrackerError::NoTracker),
        (b"\0\0\0garbage\r\n\r\n", TrackerError::Http(HttpError::Malformed)),
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", TrackerError::Status(404)),
    ] {
        start(&mut client, "http://10.0.0.1/announce");
        respond(&mut client, response);
        assert_eq!(ended(&mut client).unwrap(), Err(error));
    }
    start(&mut client, "http://10.0.0.1/announce");
    let (exchange, _) = connect(&mut client);
    client.handle_connected(Time::ZERO, exchange);
    client.handle_input(Time::ZERO, exchange, b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n");
    let mut sent = 0;
    while client.poll_event().is_none() {
        client.handle_input(Time::ZERO, exchange, &[b'x'; 65536]);
        sent += 65536;
        assert!(sent <= BODY_MAX + 65536);
    }
    start(&mut client, "http://10.0.0.1/announce");
    let (exchange, _) = connect(&mut client);
    client.handle_connected(Time::ZERO, exchange);
    client.handle_input(Time::from_secs(14), exchange, b"H");
    client.handle_timeout(Time::from_secs(15));
    assert_eq!(ended(&mut client).unwrap(), Err(TrackerError::Timeout));
    start(&mut client, "gopher://x/");
    assert_eq!(ended(&mut client).unwrap(), Err(TrackerError::Url(UrlError::Scheme)));
}

#[test]
fn tls_waits_for_the_certificates_to_trust() {
    let mut client = client();
    start(&mut client, "https://10.0.0.1/announce");
    assert_eq!(client.poll_need(), Some(Need::Trust));
    client.handle_trust(Time::ZERO, crate::protocol::tls::config(Vec::new()));
    let (exchange, to) = connect(&mut client);
    assert_eq!(to.port(), 443);
    client.handle_connected(Time::ZERO, exchange);
    assert_eq!(client.outgoing(exchange).first(), Some(&22), "a handshake record");
    client.handle_input(Time::ZERO, exchange, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(ended(&mut client).unwrap(), Err(TrackerError::Tls));
}

/// Starts an announce to a tracker with an address of each family.
fn start_both(client: &mut TrackerClient, url: &str) {
    start(client, url);
    if client.poll_need() == Some(Need::Resolve("tracker.example".into())) {
        let ips = ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().unwrap());
        client.handle_resolved(Time::ZERO, "tracker.example", &Ok(ips.to_vec()));
    }
}

fn request_of(client: &mut TrackerClient, exchange: ExchangeId) -> String {
    client.handle_connected(Time::ZERO, exchange);
    String::from_utf8(client.outgoing(exchange).to_vec()).unwrap()
}

const OF_V4: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\nd8:intervali1800e5:peers6:\x01\x02\x03\x04\0\x05e";
const OF_V6: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 47\r\n\r\n\
    d8:intervali3600e6:peers618:\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\x06e";

#[test]
fn both_families_are_announced_to_and_their_peers_are_merged() {
    let mut client = client();
    start_both(&mut client, "http://tracker.example/announce");
    let (v4, to4) = connect(&mut client);
    let (v6, to6) = connect(&mut client);
    assert!(to4.is_ipv4() && to6.is_ipv6());
    assert_eq!(request_of(&mut client, v4), request_of(&mut client, v6), "the same announce, with the same key");
    client.handle_input(Time::ZERO, v6, OF_V6);
    let [peer4, peer6]: [SocketAddr; 2] = ["1.2.3.4:5", "[fd00::2]:6"].map(|peer| peer.parse().unwrap());
    assert_eq!(client.poll_event(), Some(Event::Found(AskId(1), vec![peer6])), "nobody waits for the other family");
    assert_eq!(client.poll_event(), None);
    client.handle_input(Time::ZERO, v4, OF_V4);
    let answer = ended(&mut client).unwrap().unwrap();
    assert_eq!((answer.interval, answer.peers), (3600, vec![peer4, peer6]));
    assert!(client.is_idle() && client.pairs.is_empty() && client.active == 0);
}

#[test]
fn a_family_that_fails_is_no_failure_and_is_left_alone_for_a_while() {
    let mut client = client();
    start_both(&mut client, "http://tracker.example/announce");
    let (v4, _) = connect(&mut client);
    let (v6, to6) = connect(&mut client);
    assert!(to6.is_ipv6());
    client.hurry(Time::ZERO);
    assert_eq!(client.legs.len(), 2, "neither has answered");
    client.handle_connected(Time::ZERO, v4);
    client.handle_input(Time::ZERO, v4, OF_V4);
    assert!(matches!(client.poll_event(), Some(Event::Found(..))));
    assert!(client.is_idle(), "a shutdown waits for no silent family");
    while client.poll_need().is_some() {}
    client.hurry(Time::ZERO);
    assert_eq!(client.poll_need(), Some(Need::Close(v6)));
    assert_eq!(ended(&mut client).unwrap().unwrap().peers.len(), 1);
    assert_eq!(client.poll_event(), None);
    while client.poll_need().is_some() {}
    start_both(&mut client, "http://tracker.example/announce");
    respond(&mut client, OF_V4);
    assert!(ended(&mut client).unwrap().is_ok(), "it was not asked over IPv6 again");
}

#[test]
fn two_families_that_fail_are_one_failure() {
    let mut client = client();
    start_both(&mut client, "udp://tracker.example:6969/announce");
    let mut now = Time::ZERO;
    let mut asked = BTreeMap::new();
    let outcome = loop {
        while let Some((to, _)) = transmit(&mut client, now) {
            *asked.entry(to.is_ipv6()).or_insert(0) += 1;
        }
        now = client.poll_timeout();
        client.handle_timeout(now);
        if let Some(outcome) = ended(&mut client) {
            break outcome;
        }
    };
    assert_eq!(outcome, Err(TrackerError::Timeout));
    assert_eq!(asked, BTreeMap::from([(false, UDP_TRIES), (true, UDP_TRIES)]));
    start_both(&mut client, "udp://tracker.example:6969/announce");
    let families = [(); 2].map(|()| transmit(&mut client, now).unwrap().0.is_ipv6());
    assert_eq!(families, [false, true], "both are tried again");
}

#[test]
fn a_redirect_of_one_family_stays_in_it() {
    let mut client = client();
    start_both(&mut client, "http://tracker.example/announce");
    let (v4, _) = connect(&mut client);
    let (v6, _) = connect(&mut client);
    client.handle_connected(Time::ZERO, v6);
    let elsewhere = b"HTTP/1.1 302 Found\r\nLocation: http://other.example/\r\nContent-Length: 0\r\n\r\n";
    client.handle_input(Time::ZERO, v6, elsewhere);
    let resolve = std::iter::from_fn(|| client.poll_need()).find(|need| matches!(need, Need::Resolve(_)));
    assert_eq!(resolve, Some(Need::Resolve("other.example".into())));
    let ips = ["10.0.0.9", "fd00::9"].map(|ip| ip.parse().unwrap());
    client.handle_resolved(Time::ZERO, "other.example", &Ok(ips.to_vec()));
    let (_, to) = connect(&mut client);
    assert_eq!((to.ip(), client.legs.len()), (ips[1], 2));
    client.handle_closed(Time::ZERO, v4);
    assert_eq!(client.poll_event(), None, "the other one is still asked");
}

#[test]
fn a_scrape_is_made_over_udp_and_http_in_one_family() {
    let mut client = client();
    client.connections.insert("10.0.0.1:6969".parse().unwrap(), (5, Time::NEVER));
    client.scrape(Time::ZERO, AskId(1), "udp://10.0.0.1:6969", InfoHash::of(b"x"));
    assert!(client.is_idle(), "a shutdown waits for no scrape");
    let (to, request) = transmit(&mut client, Time::ZERO).unwrap();
    let Request::Scrape { connection: 5, transaction, info_hashes } = request else { panic!("{request:?}") };
    assert_eq!(info_hashes, [InfoHash::of(b"x").0]);
    let announced = Response::Announce { transaction, interval: 9, leechers: 1, seeders: 2, peers: Vec::new() };
    assert!(!answer(&mut client, to, &announced), "that was not the question");
    let swarms = vec![SwarmCounts { seeders: 1, completed: 2, leechers: 3 }];
    assert!(answer(&mut client, to, &Response::Scrape { transaction, swarms }));
    let counts = ScrapeAnswer { seeders: Some(1), leechers: Some(3), downloaded: Some(2), min_interval: None };
    assert_eq!(client.poll_event(), Some(Event::Scraped(AskId(1), Ok(counts))));

    client.scrape(Time::ZERO, AskId(2), "http://tracker.example/scrape", InfoHash::of(b"x"));
    assert_eq!(client.poll_need(), Some(Need::Resolve("tracker.example".into())));
    let ips = ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().unwrap());
    client.handle_resolved(Time::ZERO, "tracker.example", &Ok(ips.to_vec()));
    let (exchange, to) = connect(&mut client);
    assert!(to.is_ipv4() && client.legs.len() == 1);
    assert!(request_of(&mut client, exchange).starts_with("GET /scrape?info_hash=%11"));
    client.handle_input(Time::ZERO, exchange, b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nd5:filesdee");
    assert_eq!(client.poll_event(), Some(Event::Scraped(AskId(2), Ok(ScrapeAnswer::default()))));

    client.scrape(Time::ZERO, AskId(3), "http://10.0.0.1/scrape", InfoHash::of(b"x"));
    respond(&mut client, b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.poll_event(), Some(Event::Scraped(AskId(3), Err(TrackerError::Status(404)))));
    assert!(client.active == 0 && client.legs.is_empty());
}
