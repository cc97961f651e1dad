//! The Redis client against a real `redis-server`: alone, killed, stopped, and as a cluster of three.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use swarmtorrent::base::rng::Rng;
use swarmtorrent::base::time::Time;
use swarmtorrent::codec::resp::{Value, key_slot};
use swarmtorrent::protocol::redis::url::RedisUrl;
use swarmtorrent::protocol::redis::{Event, Failed, LinkId, Need, Redis};

mod common;

use common::redis::{IN_A_CLUSTER, cli, is_left_out, serve, serve_cluster};
use common::{free_port, wait};

/// The client with real streams.
struct Driver {
    redis: Redis,
    start: Instant,
    streams: BTreeMap<LinkId, TcpStream>,
    replies: BTreeMap<u64, Result<Value, Failed>>,
    ups: usize,
    downs: Vec<String>,
    next_token: u64,
}

impl Driver {
    #[expect(clippy::disallowed_methods, reason = "a driver owns the clock")]
    fn new(url: &str) -> Self {
        let mut redis = Redis::new(RedisUrl::parse(url).unwrap(), Rng::from_number(1));
        redis.start(Time::ZERO);
        let (streams, replies) = (BTreeMap::new(), BTreeMap::new());
        Self { redis, start: Instant::now(), streams, replies, ups: 0, downs: Vec::new(), next_token: 0 }
    }

    fn up(url: &str) -> Self {
        let mut driver = Self::new(url);
        driver.until("it is up", |driver| driver.redis.is_up());
        driver
    }

    fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    /// Turns until `is_so`.
    #[track_caller]
    fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let mut is_first = true;
        wait(what, 30, || {
            // Whatever is on its way comes before the next look, which is a while away.
            while self.turn() || std::mem::take(&mut is_first) {}
            is_so(self)
        });
    }

    /// One turn; false if nothing was to be done.
    fn turn(&mut self) -> bool {
        let now = self.now();
        let mut busy = false;
        if self.redis.poll_timeout() <= now {
            self.redis.handle_timeout(now);
            assert!(self.redis.poll_timeout() > now, "it spins");
        }
        let links: Vec<LinkId> = self.streams.keys().copied().collect();
        for link in links {
            let Some(stream) = self.streams.get_mut(&link) else { continue };
            let mut bytes = [0; 16 * 1024];
            while let Ok(count @ 1..) = stream.write(self.redis.outgoing(link)) {
                self.redis.advance(link, count);
                busy = true;
            }
            match stream.read(&mut bytes) {
                Ok(count @ 1..) => {
                    busy = true;
                    self.redis.handle_input(now, link, &bytes[..count]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => {
                    self.streams.remove(&link);
                    self.redis.handle_closed(now, link);
                }
            }
            self.drain(now);
        }
        self.drain(now);
        busy
    }

    fn drain(&mut self, now: Time) {
        while let Some(need) = self.redis.poll_need() {
            match need {
                Need::Resolve(name) => {
                    assert_eq!(name, "localhost");
                    self.redis.handle_resolved(now, &name, &Ok(vec![[127, 0, 0, 1].into()]));
                }
                Need::Connect(link, to) => match TcpStream::connect(to) {
                    Ok(stream) => {
                        stream.set_nonblocking(true).unwrap();
                        self.streams.insert(link, stream);
                        self.redis.handle_connected(now, link);
                    }
                    Err(_) => self.redis.handle_closed(now, link),
                },
                Need::Close(link) => drop(self.streams.remove(&link)),
                Need::Wake(_) => {} // it looks at all of them each turn
            }
        }
        while let Some(event) = self.redis.poll_event() {
            match event {
                Event::Reply(token, reply) => assert_eq!(self.replies.insert(token, reply), None, "one reply an ask"),
                Event::Up => self.ups += 1,
                Event::Down(reason) => self.downs.push(reason),
            }
        }
    }

    fn ask(&mut self, command: &[&str]) -> u64 {
        let words: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
        let token = self.next_token;
        self.next_token += 1;
        self.redis.ask(self.now(), token, words[1], &words);
        token
    }

    /// Asks and waits for what comes of it.
    #[track_caller]
    fn get(&mut self, command: &[&str]) -> Result<Value, Failed> {
        let token = self.ask(command);
        self.until("it is answered", |driver| driver.replies.contains_key(&token));
        self.replies.remove(&token).unwrap()
    }
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

#[test]
fn a_server_with_a_password_and_databases_is_asked_what_a_tracker_asks() {
    if is_left_out() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let port = free_port();
    let _server = serve(temp.path(), port, &["--requirepass", "pass word"]);
    let mut driver = Driver::up(&format!("redis://:pass%20word@localhost:{port}/3"));
    for (score, member) in [("10", "a"), ("20", "b"), ("30", "c")] {
        assert_eq!(driver.get(&["ZADD", "k", "GT", score, member]), Ok(Value::Integer(1)));
    }
    assert_eq!(driver.get(&["ZADD", "k", "GT", "5", "c"]), Ok(Value::Integer(0)));
    let range = driver.get(&["ZRANGE", "k", "15", "+inf", "BYSCORE", "LIMIT", "0", "10", "WITHSCORES"]);
    assert_eq!(range, Ok(Value::Array(["b", "20", "c", "30"].map(bulk).into())));
    assert_eq!(driver.get(&["ZREMRANGEBYSCORE", "k", "-inf", "(30"]), Ok(Value::Integer(2)));
    assert_eq!(driver.get(&["EXPIRE", "k", "100"]), Ok(Value::Integer(1)));
    assert_eq!(driver.get(&["INCRBY", "n", "7"]), Ok(Value::Integer(7)));
    assert_eq!(driver.get(&["GET", "n"]), Ok(bulk("7")));
    assert_eq!(driver.get(&["GET", "none"]), Ok(Value::Null));
    assert!(matches!(driver.get(&["GET", "k"]), Err(Failed::Refused(text)) if text.starts_with("WRONGTYPE")));
    // A round of many, one of them long.
    let long = "x".repeat(1_000_000);
    assert_eq!(driver.get(&["SET", "long", &long]), Ok(Value::Simple(b"OK".to_vec())));
    let tokens: Vec<u64> = (0..10_000).map(|_| driver.ask(&["INCRBY", "m", "1"])).collect();
    let last = driver.ask(&["GET", "long"]);
    driver.until("all are answered", |driver| driver.replies.contains_key(&last));
    for (number, token) in (1..).zip(tokens) {
        assert_eq!(driver.replies[&token], Ok(Value::Integer(number)), "in order");
    }
    assert_eq!(driver.replies[&last], Ok(bulk(&long)));
    assert_eq!(driver.redis.under_way(), 0);
    let mut other = Driver::up(&format!("redis://default:pass%20word@127.0.0.1:{port}"));
    assert_eq!(other.get(&["GET", "n"]), Ok(Value::Null), "it is in another database");
    for (login, reason) in [(":wrong@", "WRONGPASS"), ("", "it wants a login")] {
        let mut refused = Driver::new(&format!("redis://{login}127.0.0.1:{port}"));
        refused.until("it is refused", |driver| !driver.downs.is_empty());
        assert!(refused.downs[0].contains(reason) && !refused.downs[0].contains("wrong"), "{}", refused.downs[0]);
    }
    let mut missing = Driver::new(&format!("redis://:pass%20word@127.0.0.1:{port}/99"));
    missing.until("there is no such database", |driver| !driver.downs.is_empty());
    assert!(missing.downs[0].contains("database"), "{}", missing.downs[0]);
}

#[test]
fn a_server_that_is_killed_is_away_until_it_is_back() {
    if is_left_out() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let port = free_port();
    let server = serve(temp.path(), port, &[]);
    let mut driver = Driver::up(&format!("redis://127.0.0.1:{port}"));
    assert_eq!(driver.get(&["INCRBY", "n", "1"]), Ok(Value::Integer(1)));
    drop(server);
    assert_eq!(driver.get(&["GET", "n"]), Err(Failed::Away));
    driver.until("it is down", |driver| !driver.redis.is_up());
    assert_eq!(driver.get(&["GET", "n"]), Err(Failed::Away));
    driver.until("it was tried again", |driver| driver.downs.len() == 2);
    assert_eq!(driver.downs[1], format!("127.0.0.1:{port}: it cannot be reached"));
    let _server = serve(temp.path(), port, &[]);
    driver.until("it is back", |driver| driver.redis.is_up());
    assert_eq!((driver.get(&["GET", "n"]), driver.ups), (Ok(Value::Null), 2));
}

#[test]
fn a_server_that_stands_still_is_given_up_in_time() {
    if is_left_out() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let port = free_port();
    let server = serve(temp.path(), port, &[]);
    let pid = Pid::from_child(&server.0);
    let mut driver = Driver::up(&format!("redis://127.0.0.1:{port}"));
    kill_process(pid, Signal::STOP).unwrap();
    let asked = driver.now();
    assert_eq!(driver.get(&["GET", "n"]), Err(Failed::Timeout));
    assert!(driver.now().since(asked) < Duration::from_secs(4));
    assert_eq!(driver.downs, [format!("127.0.0.1:{port}: it did not answer in time")]);
    assert_eq!(driver.get(&["GET", "n"]), Err(Failed::Away));
    kill_process(pid, Signal::CONT).unwrap();
    driver.until("it is back", |driver| driver.redis.is_up());
    assert_eq!(driver.get(&["GET", "n"]), Ok(Value::Null));
}

#[test]
fn a_cluster_is_asked_slot_by_slot_and_followed_when_slots_move() {
    if is_left_out() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (ports, servers) = serve_cluster(temp.path());
    let mut servers = servers.map(Some);
    let addrs = ports.map(|port| format!("127.0.0.1:{port}"));

    // The first seed is nobody.
    let mut driver = Driver::up(&format!("redis://127.0.0.1:{},{},{}", free_port(), addrs[2], addrs[1]));
    let tokens: Vec<u64> = (0..3000).map(|key| driver.ask(&["INCRBY", &format!("k{key}"), &key.to_string()])).collect();
    driver.until("all are answered", |driver| driver.redis.under_way() == 0);
    for (number, token) in (0..).zip(tokens) {
        assert_eq!(driver.replies[&token], Ok(Value::Integer(number)));
    }
    assert_eq!(driver.redis.counters().redirected, 0, "each was asked where it is kept");
    let held = ports.map(|port| cli(port, &["dbsize"]).parse::<u32>().unwrap());
    assert!(held.iter().all(|count| *count > 500) && held.iter().sum::<u32>() == 3000, "{held:?}");

    // A slot on its way: what is not there yet is asked for where it goes.
    let ids = ports.map(|port| cli(port, &["cluster", "myid"]));
    let key = (0..).map(|number| format!("new{number}")).find(|key| key_slot(key.as_bytes()) < 5000).unwrap();
    let slot = key_slot(key.as_bytes()).to_string();
    cli(ports[1], &["cluster", "setslot", &slot, "importing", &ids[0]]);
    cli(ports[0], &["cluster", "setslot", &slot, "migrating", &ids[1]]);
    assert_eq!(driver.get(&["INCRBY", &key, "5"]), Ok(Value::Integer(5)));
    assert_eq!(driver.redis.counters().redirected, 1);
    // It has come.
    for port in [ports[1], ports[0]] {
        cli(port, &["cluster", "setslot", &slot, "node", &ids[1]]);
    }
    for total in [6, 7] {
        assert_eq!(driver.get(&["INCRBY", &key, "1"]), Ok(Value::Integer(total)));
    }
    assert_eq!(driver.redis.counters().redirected, 2, "it was moved once, and that was remembered");
    let reshard = ["--cluster", "reshard", &addrs[0], "--cluster-from", &ids[0], "--cluster-to", &ids[2]];
    cli(ports[0], &[&reshard[..], &["--cluster-slots", "300", "--cluster-yes"]].concat());
    for number in 0..3000 {
        driver.ask(&["GET", &format!("k{number}")]);
    }
    driver.until("all are answered", |driver| driver.redis.under_way() == 0);
    let counters = driver.redis.counters();
    assert!(counters.redirected > 2 && counters.failed == 0, "{counters:?}");
    driver.get(&["SELECT", "1"]).unwrap_err();

    // One of three is gone: its keys are away, the others' are not.
    servers[1] = None;
    for number in 0..300 {
        driver.ask(&["GET", &format!("k{number}")]);
    }
    driver.until("all have come back", |driver| driver.redis.under_way() == 0);
    let failed = driver.redis.counters().failed - 1;
    assert!((50..150).contains(&failed), "{failed} of 300 failed");
    assert!(driver.redis.is_up() && driver.downs.is_empty());
    servers[1] = Some(serve(temp.path(), ports[1], &IN_A_CLUSTER));
    driver.until("it is back", |driver| driver.get(&["GET", &key]).is_ok());
    let mut database = Driver::new(&format!("redis://{}/1", addrs[0]));
    database.until("there is but one", |driver| !driver.downs.is_empty());
    assert!(database.downs[0].contains("only database 0"), "{}", database.downs[0]);
}
