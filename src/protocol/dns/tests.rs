use super::*;
use crate::codec::dns::answer;

fn server(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 53))
}

fn resolver() -> Resolver {
    Resolver::new(&[server(1), server(2)], &[("box".into(), "10.1.1.1".parse().unwrap())], Rng::from_number(1))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn sent(resolver: &mut Resolver) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut packet = Vec::new();
    std::iter::from_fn(|| resolver.poll_transmit(&mut packet).map(|to| (to, packet.clone()))).collect()
}

#[test]
fn both_families_are_asked_and_the_answer_is_kept() {
    let mut resolver = resolver();
    resolver.resolve(Time::ZERO, "T.example");
    let packets = sent(&mut resolver);
    assert_eq!(packets.len(), 2);
    assert!(packets.iter().all(|(to, _)| *to == server(1)));
    resolver.handle_packet(Time::ZERO, server(1), &answer(&packets[0].1, &[ip("1.2.3.4")], 100));
    assert_eq!(resolver.poll_event(), None);
    resolver.handle_packet(Time::ZERO, server(1), &answer(&packets[1].1, &[ip("::5")], 50));
    let expected = Some(("t.example".to_owned(), Ok(vec![ip("1.2.3.4"), ip("::5")])));
    assert_eq!(resolver.poll_event(), expected);
    resolver.resolve(Time::from_secs(49), "t.example");
    assert_eq!(resolver.poll_event(), expected);
    resolver.resolve(Time::from_secs(51), "t.example");
    assert_eq!((resolver.poll_event(), sent(&mut resolver).len()), (None, 2));
}

#[test]
fn an_answer_from_elsewhere_is_nothing() {
    let mut resolver = resolver();
    resolver.resolve(Time::ZERO, "t.example");
    let packets = sent(&mut resolver);
    for (_, packet) in &packets {
        resolver.handle_packet(Time::ZERO, server(9), &answer(packet, &[ip("6.6.6.6")], 100));
        resolver.handle_packet(Time::ZERO, server(1), b"garbage");
    }
    assert_eq!(resolver.poll_event(), None);
}

#[test]
fn silent_servers_are_passed_over_and_then_given_up() {
    let mut resolver = resolver();
    resolver.resolve(Time::ZERO, "t.example");
    let mut asked = Vec::new();
    while resolver.poll_event().is_none() {
        asked.extend(sent(&mut resolver).into_iter().map(|(to, _)| to));
        let now = resolver.poll_timeout();
        assert!(now < Time::from_secs(60));
        resolver.handle_timeout(now);
    }
    assert_eq!(asked.len(), 8);
    assert_eq!(asked.iter().filter(|to| **to == server(2)).count(), 4);
    resolver.resolve(Time::from_secs(8), "t.example");
    assert_eq!(resolver.poll_event(), Some(("t.example".into(), Err(DnsError::NoAnswer))), "remembered for a while");
}

#[test]
fn the_hosts_table_needs_no_server() {
    let mut resolver = Resolver::new(&[], &[("box".into(), ip("10.1.1.1"))], Rng::from_number(1));
    resolver.resolve(Time::ZERO, "BOX");
    assert_eq!(resolver.poll_event(), Some(("box".into(), Ok(vec![ip("10.1.1.1")]))));
    resolver.resolve(Time::ZERO, "other");
    assert_eq!(resolver.poll_event(), Some(("other".into(), Err(DnsError::NoServers))));
}

/// The answer to a question with the flag that says that more did not fit.
fn cut_short(query: &[u8], ips: &[IpAddr]) -> Vec<u8> {
    let mut packet = answer(query, ips, 100);
    packet[2] |= 0x02;
    packet
}

/// A resolver whose question for IPv4 addresses was answered in part, and whose question for IPv6 was answered.
fn resolver_with_a_stream(ips: &[IpAddr]) -> (Resolver, NameStreamId) {
    let mut resolver = resolver();
    resolver.resolve(Time::ZERO, "t.example");
    let packets = sent(&mut resolver);
    resolver.handle_packet(Time::ZERO, server(1), &cut_short(&packets[0].1, ips));
    resolver.handle_packet(Time::ZERO, server(1), &answer(&packets[1].1, &[], 100));
    assert_eq!((resolver.poll_event(), sent(&mut resolver).len()), (None, 0));
    let Some(NameNeed::Connect(stream, to)) = resolver.poll_need() else { panic!("no stream") };
    assert_eq!((to, resolver.poll_need()), (server(1), None));
    (resolver, stream)
}

#[test]
fn an_answer_that_was_cut_short_is_asked_for_by_stream() {
    let (mut resolver, stream) = resolver_with_a_stream(&[ip("1.1.1.1")]);
    let outgoing = resolver.outgoing(stream).to_vec();
    resolver.advance(stream, 5);
    assert_eq!(resolver.outgoing(stream), &outgoing[5..]);
    resolver.advance(stream, outgoing.len() - 5);
    let (len, question) = outgoing.split_at(2);
    assert_eq!(usize::from(u16::from_be_bytes([len[0], len[1]])), question.len());
    let reply = answer(question, &[ip("1.1.1.1"), ip("2.2.2.2")], 100);
    let reply = [&u16::try_from(reply.len()).unwrap().to_be_bytes()[..], &reply].concat();
    resolver.handle_input(Time::ZERO, stream, &reply[..9]);
    assert_eq!(resolver.poll_event(), None);
    resolver.handle_input(Time::ZERO, stream, &reply[9..]);
    let expected = Some(("t.example".to_owned(), Ok(vec![ip("1.1.1.1"), ip("2.2.2.2")])));
    assert_eq!((resolver.poll_event(), resolver.poll_need()), (expected, Some(NameNeed::Close(stream))));
    assert!(resolver.is_idle() && resolver.streams.is_empty() && resolver.poll_timeout().is_never());
    resolver.handle_closed(Time::ZERO, stream);
}

#[test]
fn a_stream_that_fails_leaves_what_there_was_or_the_next_server() {
    // It ends, it brings nonsense, it is silent.
    let ways: [fn(&mut Resolver, NameStreamId); 3] = [
        |resolver, stream| resolver.handle_closed(Time::ZERO, stream),
        |resolver, stream| resolver.handle_input(Time::ZERO, stream, b"\0\x02hi"),
        |resolver, _| resolver.handle_timeout(Time::ZERO + STREAM_PATIENCE),
    ];
    for fail in ways {
        let (mut resolver, stream) = resolver_with_a_stream(&[ip("1.1.1.1")]);
        fail(&mut resolver, stream);
        assert_eq!(resolver.poll_event(), Some(("t.example".to_owned(), Ok(vec![ip("1.1.1.1")]))));
        assert!(resolver.streams.is_empty());
        let (mut resolver, stream) = resolver_with_a_stream(&[]);
        fail(&mut resolver, stream);
        resolver.handle_timeout(resolver.poll_timeout().min(Time::ZERO + STREAM_PATIENCE));
        assert_eq!((resolver.poll_event(), resolver.streams.len()), (None, 0));
        assert_eq!(sent(&mut resolver).into_iter().map(|(to, _)| to).collect::<Vec<_>>(), [server(2)]);
    }
}

#[test]
fn streams_are_few() {
    let mut resolver = resolver();
    for number in 0..STREAMS_MAX {
        resolver.resolve(Time::ZERO, &format!("{number}.example"));
    }
    let packets = sent(&mut resolver);
    for (to, packet) in &packets {
        resolver.handle_packet(Time::ZERO, *to, &cut_short(packet, &[]));
    }
    assert_eq!(resolver.streams.len(), STREAMS_MAX);
    assert_eq!(std::iter::from_fn(|| resolver.poll_need()).count(), STREAMS_MAX);
    let found = std::iter::from_fn(|| {
        let now = resolver.poll_timeout();
        resolver.handle_timeout(now);
        sent(&mut resolver);
        resolver.poll_need();
        assert!(resolver.streams.len() <= STREAMS_MAX);
        (!now.is_never()).then_some(())
    });
    assert!(found.count() > 1);
    assert!(resolver.is_idle() && resolver.streams.is_empty());
}
