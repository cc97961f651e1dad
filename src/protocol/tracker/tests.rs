use super::*;
use crate::base::hash::InfoHash;
use crate::codec::udp_tracker::AnnounceEvent;

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
        path: String::new(),
    }
}

fn client() -> TrackerClient {
    TrackerClient::new(Duration::from_secs(15), Rng::from_number(1))
}

fn start(client: &mut TrackerClient, url: &str) {
    client.start(Time::ZERO, AskId(1), url, announce(), None);
}

fn transmit(client: &mut TrackerClient, now: Time) -> Option<(SocketAddr, Request)> {
    let mut packet = Vec::new();
    let to = client.poll_transmit(now, &mut packet)?;
    Some((to, Request::parse(&packet).expect("a request")))
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
    let (id, outcome) = client.poll_event().unwrap();
    assert_eq!((id, outcome.unwrap().interval), (AskId(1), 9));
    start(&mut client, "udp://10.0.0.1:6969");
    assert!(matches!(transmit(&mut client, Time::ZERO).unwrap().1, Request::Announce { connection: 5, .. }));
}

#[test]
fn a_silent_udp_tracker_is_asked_a_few_times_and_given_up() {
    let mut client = client();
    start(&mut client, "udp://10.0.0.1:6969");
    let (mut asked, mut now) = (0, Time::ZERO);
    while client.poll_event().is_none() {
        asked += usize::from(transmit(&mut client, now).is_some());
        now = client.poll_timeout();
        assert!(now <= Time::from_secs(16));
        client.handle_timeout(now);
        if let Some((_, outcome)) = client.poll_event() {
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
        &Ok(vec!["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()]),
    );
    let (exchange, _) = connect(&mut client);
    client.handle_closed(Time::ZERO, exchange);
    respond(&mut client, b"HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\nd8:intervali1800e5:peers0:e");
    assert!(client.poll_event().is_none(), "28 bytes were promised");
    client.handle_closed(Time::ZERO, ExchangeId(1));
    assert_eq!(client.poll_event().unwrap().1, Err(TrackerError::Http(HttpError::Cut)));
    start(&mut client, "http://10.0.0.1/announce");
    respond(&mut client, b"HTTP/1.1 200 OK\r\n\r\nd8:intervali1800e5:peers0:e");
    assert!(client.poll_event().is_none());
    client.handle_closed(Time::ZERO, ExchangeId(2));
    assert_eq!(client.poll_event().unwrap().1.unwrap().interval, 1800);
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
    assert_eq!(client.poll_event().unwrap().1, Err(TrackerError::Redirect));
    for location in
        ["http://127.0.0.1/", "http://[::1]/", "http://169.254.169.254/", "file:///etc/passwd", "udp://10.0.0.2:1"]
    {
        start(&mut client, "http://10.0.0.1/announce");
        respond(
            &mut client,
            format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").as_bytes(),
        );
        assert_eq!(client.poll_event().unwrap().1, Err(TrackerError::Redirect), "{location}");
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
        assert_eq!(client.poll_event().unwrap().1, Err(error));
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
    assert_eq!(client.poll_event().unwrap().1, Err(TrackerError::Timeout));
    start(&mut client, "gopher://x/");
    assert_eq!(client.poll_event().unwrap().1, Err(TrackerError::Url(UrlError::Scheme)));
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
    assert_eq!(client.poll_event().unwrap().1, Err(TrackerError::Tls));
}
