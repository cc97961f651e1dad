// What a SOCKS5 proxy, or whoever sits in its place, may say: for the fuzzer and for the tests of every day.

use swarmtorrent::codec::socks::{Command, Login, Place, parse_datagram, write_datagram_head};
use swarmtorrent::protocol::socks::Socks;

/// Any bytes are answers, an error, or less than an answer; the same however they are cut, and no byte behind them is touched.
pub(crate) fn feed(bytes: &[u8]) {
    if let Some((from, at)) = parse_datagram(bytes) {
        // An address of IPv4 in IPv6 is written as one of IPv4.
        if let Some(addr) = from.filter(|addr| addr.ip() == addr.ip().to_canonical()) {
            let mut head = Vec::new();
            write_datagram_head(&Place::Addr(addr), &mut head);
            assert_eq!(head[2..], bytes[2..at]);
        }
        assert!(at <= bytes.len());
    }
    let login = || Some(Login { user: "user".into(), password: "password".into() });
    for login in [None, login()] {
        let ends = [1, 3, usize::MAX].map(|most| run(login.clone(), bytes, most));
        assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
    }
}

/// How a request ends that is lent at most so many bytes at once, and how many are left; none if it does not.
fn run(login: Option<Login>, bytes: &[u8], most: usize) -> Option<(bool, usize)> {
    let (mut socks, mut rest) = (Socks::new(login, Command::Associate), bytes);
    while !rest.is_empty() && socks.needed() > 0 {
        let (now, later) = rest.split_at(rest.len().min(socks.needed()).min(most));
        rest = later;
        let said = socks.outgoing().len();
        assert!(said < 1024, "what waits for the proxy is bounded");
        socks.advance(said);
        match socks.handle_input(now) {
            Ok(None) => {}
            Ok(Some(_)) => return Some((true, rest.len())),
            // Where it is noticed depends on how much is seen of it at once.
            Err(_) => return Some((false, 0)),
        }
    }
    None
}
