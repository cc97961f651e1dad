use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn hash_of(text: &[u8; 20]) -> Sha1Hash {
    Sha1Hash(*text)
}

fn query(query: Query<'_>) -> Message<'_> {
    let id = hash_of(b"abcdefghij0123456789");
    Message { transaction: b"aa", seen_as: None, version: None, body: Body::Query { id, read_only: false, query } }
}

fn response(response: Response<'_>) -> Message<'_> {
    let body = Body::Response { id: hash_of(b"0123456789abcdefghij"), response: Box::new(response) };
    Message { transaction: b"aa", seen_as: None, version: None, body }
}

#[track_caller]
fn is_written(message: &Message<'_>, bytes: &[u8]) {
    let mut out = vec![1, 2, 3];
    message.write(&mut out);
    assert_eq!(out.escape_ascii().to_string(), bytes.escape_ascii().to_string());
    assert_eq!(Message::parse(bytes).as_ref(), Some(message));
}

#[test]
fn the_examples_of_bep_5_are_written_and_read() {
    let target = hash_of(b"mnopqrstuvwxyz123456");
    let want = Want::default();
    is_written(&query(Query::Ping), b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe");
    is_written(
        &query(Query::FindNode { target, want }),
        b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe",
    );
    is_written(
        &query(Query::GetPeers { info_hash: target, want, no_seeds: false, scrape: false }),
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe",
    );
    is_written(
        &query(Query::AnnouncePeer { info_hash: target, port: Some(6881), seed: false, token: b"aoeusnth" }),
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe\
          1:q13:announce_peer1:t2:aa1:y1:qe",
    );
    is_written(&response(Response::default()), b"d1:rd2:id20:0123456789abcdefghije1:t2:aa1:y1:re");
    let peers = vec!["97.120.106.101:11893".parse().unwrap(), "105.100.104.116:28269".parse().unwrap()];
    is_written(
        &response(Response { token: Some(b"aoeusnth"), peers, ..Response::default() }),
        b"d1:rd2:id20:0123456789abcdefghij5:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re",
    );
    let body = Body::Error { code: 201, text: b"A Generic Error Ocurred" };
    is_written(
        &Message { transaction: b"aa", seen_as: None, version: None, body },
        b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee",
    );
}

#[test]
fn what_lacks_an_argument_is_bad_and_an_unknown_query_with_a_target_is_answered() {
    let parsed = |bytes: &[u8]| match Message::parse(bytes).unwrap().body {
        Body::Query { query: Query::Bad(error), .. } => Err(error),
        Body::Query { query: Query::Unknown { target, .. }, .. } => Ok(target),
        other => panic!("{other:?}"),
    };
    let bad = b"d1:ad2:id20:abcdefghij0123456789e1:q9:find_node1:t2:aa1:y1:qe";
    assert_eq!(parsed(bad), Err(ErrorKind::Malformed));
    let unknown = b"d1:ad2:id20:abcdefghij0123456789e1:q4:vote1:t2:aa1:y1:qe";
    assert_eq!(parsed(unknown), Err(ErrorKind::UnknownMethod));
    let near = b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q4:vote1:t2:aa1:y1:qe";
    assert_eq!(parsed(near), Ok(hash_of(b"mnopqrstuvwxyz123456")));
    let port_0 = b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti0e5:token1:xe\
                   1:q13:announce_peer1:t2:aa1:y1:qe";
    assert_eq!(parsed(port_0), Err(ErrorKind::Malformed));
}

#[test]
fn nodes_of_half_a_length_are_none_and_peers_at_port_0_are_left_out() {
    fn parsed(bytes: &[u8]) -> Response<'_> {
        match Message::parse(bytes).unwrap().body {
            Body::Response { response, .. } => *response,
            other => panic!("{other:?}"),
        }
    }
    let half = b"d1:rd2:id20:0123456789abcdefghij5:nodes9:def456...e1:t2:aa1:y1:re";
    assert_eq!(parsed(half), Response::default());
    let port_0 = b"d1:rd2:id20:0123456789abcdefghij6:valuesl6:axje\x00\x006:idhtnm3:abcee1:t2:aa1:y1:re";
    assert_eq!(parsed(port_0).peers, ["105.100.104.116:28269".parse().unwrap()]);
}

#[test]
fn items_are_bounded_and_canonical() {
    let put = |v: &str, salt: &str| {
        let k = "k".repeat(32);
        let sig = "s".repeat(64);
        let salt = format!("{}:{salt}", salt.len());
        let text = format!(
            "d1:ad2:id20:abcdefghij01234567891:k32:{k}4:salt{salt}3:seqi1e3:sig64:{sig}5:token1:x1:v{v}e\
             1:q3:put1:t2:aa1:y1:qe"
        );
        match Message::parse(text.as_bytes()).unwrap().body {
            Body::Query { query: Query::Put { item, .. }, .. } => Ok(item.value.len()),
            Body::Query { query: Query::Bad(error), .. } => Err(error),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(put("12:Hello World!", "foobar"), Ok(15));
    assert_eq!(put(&format!("996:{}", "x".repeat(996)), ""), Ok(1000));
    assert_eq!(put(&format!("997:{}", "x".repeat(997)), ""), Err(ErrorKind::ValueTooLong));
    assert_eq!(put("1:x", &"s".repeat(65)), Err(ErrorKind::SaltTooLong));
    assert_eq!(put("d1:bi1e1:ai1ee", ""), Err(ErrorKind::Malformed));
}

fn addr() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), 1..u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn nodes(v4: bool) -> impl Strategy<Value = Option<Vec<Node>>> {
    let node = (any::<[u8; 20]>(), addr()).prop_map(|(id, addr)| Node { id: Sha1Hash(id), addr });
    let list = proptest::collection::vec(node, 0..9);
    proptest::option::of(list.prop_map(move |mut list| {
        list.retain(|node| node.addr.is_ipv4() == v4);
        list
    }))
}

proptest! {
    #[test]
    fn responses_are_read_as_they_were_written(
        nodes4 in nodes(true),
        nodes6 in nodes(false),
        peers in proptest::collection::vec(addr(), 0..20),
        token in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..TOKEN_MAX)),
        version in proptest::option::of(any::<i64>()),
        samples in proptest::option::of((proptest::collection::vec(any::<[u8; 20]>(), 0..5), any::<u32>(), any::<u32>())),
        signed in proptest::option::of((any::<[u8; 32]>(), any::<[u8; 32]>())),
        seen_as in proptest::option::of(addr()),
    ) {
        let signature = signed.map(|(_, half)| <[u8; 64]>::try_from([half, half].concat()).unwrap());
        let mut message = response(Response {
            token: token.as_deref(),
            nodes: nodes4,
            nodes6,
            peers,
            filters: Some([&[1; FILTER_LEN], &[2; FILTER_LEN]]).filter(|_| version.is_some()),
            value: Some(b"l1:ai3ee").filter(|_| version.is_some()).map(|value| &value[..]),
            version,
            signed: signed.as_ref().map(|(key, _)| key).zip(signature.as_ref()),
            samples: samples.as_ref().map(|(hashes, known, interval)| Samples {
                hashes, known: *known, interval_secs: *interval,
            }),
        });
        message.seen_as = seen_as;
        let mut out = Vec::new();
        message.write(&mut out);
        prop_assert_eq!(Message::parse(&out), Some(message));
    }

    #[test]
    fn queries_are_read_as_they_were_written(
        hash: [u8; 20], v4: bool, v6: bool, flag: bool, port: u16, version: Option<i64>, read_only: bool,
        token in proptest::collection::vec(any::<u8>(), 0..TOKEN_MAX),
    ) {
        let (hash, want) = (Sha1Hash(hash), Want { v4, v6 });
        let author = Author { key: &[7; 32], salt: &token, version: 5, signature: &[8; 64] };
        let all = [
            Query::FindNode { target: hash, want },
            Query::Sample { target: hash, want },
            Query::GetPeers { info_hash: hash, want, no_seeds: flag, scrape: !flag },
            Query::AnnouncePeer { info_hash: hash, port: Some(port).filter(|port| *port != 0), seed: flag, token: &token },
            Query::Get { target: hash, want, newer_than: version },
            Query::Put { token: &token, item: Item { value: b"i5e", author: None }, replaces: version },
            Query::Put { token: &token, item: Item { value: b"d1:a0:e", author: Some(author) }, replaces: version },
        ];
        for one in all {
            let mut message = query(one);
            message.version = Some(b"SW01");
            if let Body::Query { read_only: ro, .. } = &mut message.body {
                *ro = read_only;
            }
            let mut out = Vec::new();
            message.write(&mut out);
            prop_assert_eq!(Message::parse(&out), Some(message));
        }
    }

    #[test]
    fn garbage_is_never_more_than_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), at: usize, flip: u8) {
        drop(Message::parse(&bytes));
        let mut out = Vec::new();
        query(Query::AnnouncePeer { info_hash: Sha1Hash([1; 20]), port: None, seed: true, token: b"tok" }).write(&mut out);
        let at = at % out.len();
        out[at] ^= flip;
        drop(Message::parse(&out));
        drop(Message::parse(&out[..at]));
    }
}
