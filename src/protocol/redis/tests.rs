use proptest::prelude::*;

use super::*;
use crate::base::rng::Rng;
use crate::protocol::redis::reader::ReplyReader;

/// What a scripted server says to a command, as it would be typed; nothing if it is silent.
type Script<'a> = &'a mut dyn FnMut(u16, &str) -> Option<&'static str>;

/// The client, and servers that are told apart by their port.
struct World {
    redis: Redis,
    now: Time,
    /// The port and what was sent to it.
    links: BTreeMap<LinkId, (u16, ReplyReader)>,
    /// Where nobody listens.
    closed: Vec<u16>,
    sent: Vec<(u16, String)>,
    wakes: usize,
}

const SINGLE: &str = "-ERR This instance has cluster support disabled\r\n";

/// A server alone that knows no key.
fn single(_: u16, command: &str) -> Option<&'static str> {
    Some(match command {
        "CLUSTER SLOTS" => SINGLE,
        "PING" => "+PONG\r\n",
        command if command.starts_with("GET") => "$-1\r\n",
        _ => "+OK\r\n",
    })
}

/// Two masters, at ports 1 and 2, each with a half of the slots.
fn halves(_: u16, command: &str) -> Option<&'static str> {
    Some(match command {
        "CLUSTER SLOTS" => {
            "*2\r\n*3\r\n:0\r\n:8191\r\n*2\r\n$0\r\n\r\n:1\r\n*3\r\n:8192\r\n:16383\r\n*2\r\n$0\r\n\r\n:2\r\n"
        }
        "PING" => "+PONG\r\n",
        _ => "+OK\r\n",
    })
}

/// A key whose slot lies in the half of port 1, and one of port 2.
const LOW: &[u8] = b"b";
const HIGH: &[u8] = b"a";

impl World {
    fn new(url: &str) -> Self {
        let mut redis = Redis::new(RedisUrl::parse(url).unwrap(), Rng::from_number(1));
        redis.start(Time::ZERO);
        let now = Time::ZERO;
        Self { redis, now, links: BTreeMap::new(), closed: Vec::new(), sent: Vec::new(), wakes: 0 }
    }

    /// One that is up.
    fn up(url: &str, script: Script<'_>) -> Self {
        let mut world = Self::new(url);
        assert_eq!(world.run(script), [Event::Up]);
        world.sent.clear();
        world.wakes = 0;
        world
    }

    fn ask(&mut self, token: u64, key: &[u8]) {
        self.redis.ask(self.now, token, key, &[b"GET", key]);
    }

    /// Does what is needed until nothing is; what was told.
    fn run(&mut self, script: Script<'_>) -> Vec<Event> {
        while let Some(need) = self.redis.poll_need() {
            match need {
                Need::Resolve(name) => {
                    let found = if name == "nowhere" { Err(DnsError::NoName) } else { Ok(vec![[10, 0, 0, 1].into()]) };
                    self.redis.handle_resolved(self.now, &name, &found);
                }
                Need::Connect(link, to) if self.closed.contains(&to.port()) => self.redis.handle_closed(self.now, link),
                Need::Connect(link, to) => {
                    self.links.insert(link, (to.port(), ReplyReader::default()));
                    self.redis.handle_connected(self.now, link);
                }
                Need::Close(link) => drop(self.links.remove(&link)),
                Need::Wake(link) => {
                    self.wakes += 1;
                    self.exchange(link, script);
                }
            }
        }
        std::iter::from_fn(|| self.redis.poll_event()).collect()
    }

    fn exchange(&mut self, link: LinkId, script: Script<'_>) {
        let Some((port, reader)) = self.links.get_mut(&link) else { return };
        let (port, mut commands) = (*port, Vec::new());
        let bytes = self.redis.outgoing(link).to_vec();
        assert!(!bytes.is_empty() || !self.redis.links.contains_key(&link), "nobody is woken for nothing");
        reader.read(&bytes, &mut commands).unwrap();
        self.redis.advance(link, bytes.len());
        for command in commands {
            let words = command.array().unwrap().iter().map(|word| String::from_utf8_lossy(word.bytes().unwrap()));
            let command = words.collect::<Vec<_>>().join(" ");
            if let Some(reply) = script(port, &command) {
                self.redis.handle_input(self.now, link, reply.as_bytes());
            }
            self.sent.push((port, command));
        }
    }

    /// Time passes until something is due.
    fn later(&mut self) {
        let due = self.redis.poll_timeout();
        assert!(due >= self.now && !due.is_never(), "{due:?} at {:?}", self.now);
        self.now = due;
        self.redis.handle_timeout(self.now);
    }

    /// The stream to a port ends.
    fn hang_up(&mut self, port: u16) {
        let link = self.link(port);
        self.links.remove(&link);
        self.redis.handle_closed(self.now, link);
    }

    fn link(&self, port: u16) -> LinkId {
        *self.links.iter().find(|(_, (at, _))| *at == port).expect("there is a stream to it").0
    }

    fn sent(&mut self) -> Vec<(u16, String)> {
        std::mem::take(&mut self.sent)
    }
}

fn nil(token: u64) -> Event {
    Event::Reply(token, Ok(Value::Null))
}

fn ok(token: u64) -> Event {
    Event::Reply(token, Ok(Value::Simple(b"OK".to_vec())))
}

fn failed(token: u64, why: Failed) -> Event {
    Event::Reply(token, Err(why))
}

#[test]
fn a_server_is_greeted_and_then_up() {
    let mut world = World::new("redis://me:secret@cache:7/3");
    assert!(!world.redis.is_up());
    assert_eq!(world.run(&mut single), [Event::Up]);
    let greeting = ["AUTH me secret", "SELECT 3", "CLUSTER SLOTS", "PING"].map(|command| (7, command.to_owned()));
    assert_eq!(world.sent(), greeting);
    assert_eq!(world.wakes, 1, "all of it leaves together");
    assert!(world.redis.is_up());
    let shown = format!("{:?}", world.redis);
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn what_is_asked_in_a_round_leaves_together_and_is_answered_in_order() {
    let mut world = World::up("redis://10.0.0.1:7", &mut single);
    for token in 0..5 {
        world.ask(token, b"k");
    }
    assert_eq!(world.run(&mut single), (0..5).map(nil).collect::<Vec<_>>());
    assert_eq!((world.wakes, world.redis.under_way(), world.redis.counters().answered), (1, 0, 5));
    let mut refuses = |_: u16, _: &str| Some("-WRONGTYPE it is\r\n");
    world.ask(9, b"k");
    assert_eq!(world.run(&mut refuses), [failed(9, Failed::Refused("WRONGTYPE it is".into()))]);
}

#[test]
fn what_is_asked_before_it_is_up_fails_at_once() {
    let mut world = World::new("redis://10.0.0.1:7");
    world.ask(1, b"k");
    assert_eq!(world.redis.poll_event(), Some(failed(1, Failed::Away)));
    assert_eq!(world.run(&mut single), [Event::Up]);
}

#[test]
fn a_lost_server_fails_what_was_under_way_and_is_tried_again_later_and_later() {
    let mut world = World::up("redis://10.0.0.1:7", &mut single);
    world.ask(1, b"k");
    assert_eq!(world.run(&mut |_, _| None), []);
    world.hang_up(7);
    world.closed = vec![7];
    let down = Event::Down("10.0.0.1:7: it closed the connection".into());
    assert_eq!(world.run(&mut single), [failed(1, Failed::Away), down]);
    let mut waits = Vec::new();
    for round in 0..8 {
        let before = world.now;
        world.later();
        waits.push(world.now.since(before));
        let told = world.run(&mut single);
        assert_eq!(told.len(), usize::from(round == 0), "the same reason is told once: {told:?}");
    }
    for (index, wait) in waits.iter().enumerate() {
        let most = (BACKOFF_FIRST * (1 << index)).min(BACKOFF_MAX);
        assert!(*wait >= most / 2 && *wait <= most, "{waits:?}");
    }
    world.closed.clear();
    world.later();
    assert_eq!(world.run(&mut single), [Event::Up]);
    assert_eq!(world.redis.counters().reconnects, 1);
}

#[test]
fn a_silent_server_is_given_up_and_an_idle_one_is_asked_whether_it_is_there() {
    let mut world = World::up("redis://10.0.0.1:7", &mut single);
    world.later();
    assert_eq!((world.now, world.run(&mut single)), (Time::from_secs(10), vec![]));
    assert_eq!(world.sent(), [(7, "PING".to_owned())]);
    world.later();
    assert_eq!((world.now, world.run(&mut |_, _| None)), (Time::from_secs(20), vec![]));
    world.ask(1, b"k");
    world.run(&mut |_, _| None);
    world.later();
    assert_eq!(world.now, Time::from_secs(22));
    let down = Event::Down("10.0.0.1:7: it did not answer in time".into());
    assert_eq!(world.run(&mut single), [failed(1, Failed::Timeout), down]);
    assert!(world.links.is_empty(), "its stream was closed");
}

#[test]
fn an_address_that_does_not_answer_and_a_name_that_is_none_are_given_up() {
    let mut world = World::new("redis://10.0.0.1:7");
    assert!(matches!(world.redis.poll_need(), Some(Need::Connect(..))));
    world.later();
    assert_eq!(world.now, Time::ZERO + CONNECT_PATIENCE);
    assert!(matches!(world.redis.poll_need(), Some(Need::Close(_))));
    assert_eq!(world.run(&mut single), [Event::Down("10.0.0.1:7: it did not answer in time".into())]);
    let mut world = World::new("redis://nowhere");
    assert_eq!(world.run(&mut single), [Event::Down("nowhere:6379: its name has no address".into())]);
    let mut world = World::new("redis://cache");
    assert!(matches!(world.redis.poll_need(), Some(Need::Resolve(_))));
    world.later();
    assert_eq!(world.run(&mut single), [Event::Down("cache:6379: no name server answered".into())]);
}

#[test]
fn a_server_that_refuses_says_why_and_no_password_is_repeated() {
    let tells = |url: &str, to: &str, reply: &'static str| {
        let mut world = World::new(url);
        let told = world.run(&mut |_, command| if command.starts_with(to) { Some(reply) } else { single(0, command) });
        let [Event::Down(reason)] = &told[..] else { panic!("{told:?}") };
        assert!(!reason.contains("secret"), "{reason}");
        reason.strip_prefix("10.0.0.1:7: ").unwrap().to_owned()
    };
    let (plain, login) = ("redis://10.0.0.1:7", "redis://:secret@10.0.0.1:7");
    let unknown = "-ERR unknown command 'AUTH', with args beginning with: 'secret' \r\n";
    assert_eq!(tells(login, "AUTH", unknown), "it does not know AUTH");
    assert_eq!(tells(login, "AUTH", "-WRONGPASS no secret\r\n"), "it refuses the login: WRONGPASS no …");
    assert!(tells(plain, "CLUSTER", "-NOAUTH Authentication required.\r\n").contains("it wants a login"));
    assert_eq!(tells(plain, "PING", "-LOADING Redis is loading\r\n"), "it is still reading its data");
    let full = "-ERR max number of clients reached\r\n";
    assert_eq!(tells(plain, "CLUSTER", full), "it refuses us: ERR max number of clients reached");
    let database = "redis://10.0.0.1:7/3";
    assert!(tells(database, "SELECT", "-ERR SELECT is not allowed in cluster mode\r\n").contains("only database 0"));
    assert!(tells(database, "SELECT", "-ERR DB index is out of range\r\n").contains("refuses the database"));
    assert!(tells(plain, "PING", "HTTP/1.1 400 Bad Request\r\n").contains("no reply of a Redis server"));
}

#[test]
fn replies_that_nobody_asked_for_end_the_stream() {
    let mut world = World::up("redis://10.0.0.1:7", &mut single);
    let link = world.link(7);
    world.redis.handle_input(world.now, link, b"+OK\r\n+OK\r\n");
    assert_eq!(world.redis.counters().broken, 1);
    assert!(matches!(world.run(&mut single)[..], [Event::Down(_)]));
}

#[test]
fn no_more_is_asked_than_there_is_room_for() {
    let mut world = World::up("redis://10.0.0.1:7", &mut single);
    for token in 0..=ASKS_MAX as u64 {
        world.ask(token, b"k");
    }
    assert_eq!(world.redis.poll_event(), Some(failed(ASKS_MAX as u64, Failed::Busy)));
    assert_eq!(world.redis.poll_event(), None);
    assert_eq!(world.run(&mut single).len(), ASKS_MAX);
    let long = vec![b'x'; OUT_MAX / 2];
    for token in 1..=2 {
        world.redis.ask(world.now, token, b"k", &[b"GET", &long]);
    }
    assert_eq!(world.redis.poll_event(), Some(failed(2, Failed::Busy)));
    let link = world.link(7);
    assert!(world.redis.outgoing(link).len() <= OUT_MAX);
    // A server that answers what it has not read yet makes nobody queue without end.
    for token in 3..20 {
        world.redis.handle_input(world.now, link, b"+OK\r\n");
        world.redis.ask(world.now, token, b"k", &[b"GET", &long]);
        assert!(world.redis.outgoing(link).len() <= OUT_MAX);
    }
}

#[test]
fn a_cluster_is_asked_where_each_key_is_kept() {
    let mut world = World::up("redis://10.0.0.1:1", &mut halves);
    world.ask(1, LOW);
    world.ask(2, HIGH);
    world.redis.ask(world.now, 3, b"x{a}", &[b"GET", b"x{a}"]);
    assert_eq!(world.run(&mut halves).len(), 3);
    assert_eq!(world.wakes, 2);
    assert_eq!(world.sent(), [(1, "GET b".into()), (2, "GET a".into()), (2, "GET x{a}".into())]);
}

#[test]
fn the_next_seed_is_tried_and_several_are_a_cluster_or_nothing() {
    let mut world = World::new("redis://10.0.0.1:9,nowhere,10.0.0.1:1");
    world.closed = vec![9];
    assert_eq!(world.run(&mut halves), [Event::Up]);
    let mut world = World::new("redis://10.0.0.1:1,10.0.0.1:2");
    let told = world.run(&mut single);
    assert!(matches!(&told[..], [Event::Down(reason)] if reason.contains("not part of a cluster")), "{told:?}");
}

#[test]
fn a_key_that_has_moved_is_followed_and_the_map_looked_up_again() {
    let mut world = World::up("redis://10.0.0.1:1", &mut halves);
    world.ask(1, LOW);
    let mut moves = |port: u16, command: &str| match (port, command) {
        (1, "GET b") => Some("-MOVED 3300 10.0.0.1:2\r\n"),
        (2, "GET b") => Some("$1\r\nx\r\n"),
        _ => halves(port, command),
    };
    assert_eq!(world.run(&mut moves), [Event::Reply(1, Ok(Value::Bulk(b"x".to_vec())))]);
    assert_eq!(world.sent(), [(1, "GET b".into()), (2, "GET b".into())]);
    world.ask(2, LOW);
    world.run(&mut moves);
    assert_eq!(world.sent(), [(2, "GET b".into())], "it is remembered");
    assert_eq!(world.redis.poll_timeout(), world.now, "the map is due");
    world.redis.handle_timeout(world.now);
    world.run(&mut moves);
    assert!(matches!(&world.sent()[..], [(_, command)] if command == "CLUSTER SLOTS"));
    assert_eq!(world.redis.counters().redirected, 1);
    world.ask(3, LOW);
    world.run(&mut moves);
    assert!(world.redis.poll_timeout() > world.now, "it is not looked up all the time");
}

#[test]
fn a_slot_on_its_way_is_asked_for_this_once_at_a_server_that_was_not_known() {
    let mut world = World::up("redis://10.0.0.1:1", &mut halves);
    let mut asks = |port: u16, command: &str| match (port, command) {
        (1, "GET b") => Some("-ASK 3300 10.0.0.1:3\r\n"),
        (3, "GET b") => Some("$1\r\nx\r\n"),
        _ => halves(port, command),
    };
    for token in 1..3 {
        world.ask(token, LOW);
    }
    assert_eq!(world.run(&mut asks).len(), 2);
    let at_3 = ["PING", "ASKING", "GET b", "ASKING", "GET b"].map(|command| (3, command.to_owned()));
    assert_eq!(world.sent()[2..], at_3);
    world.ask(3, LOW);
    world.run(&mut asks);
    assert_eq!(world.sent()[0], (1, "GET b".into()), "it is kept where it was");
    let streams = world.links.len();
    for _ in 0..6 {
        world.later();
        world.run(&mut asks);
    }
    assert_eq!((streams, world.links.len()), (3, 2), "who keeps nothing and is asked nothing is left");
}

#[test]
fn servers_that_send_us_round_and_round_are_away() {
    let mut world = World::up("redis://10.0.0.1:1", &mut halves);
    world.ask(1, LOW);
    let mut round = |port: u16, command: &str| match (port, command) {
        (1, "GET b") => Some("-MOVED 3300 10.0.0.1:2\r\n"),
        (2, "GET b") => Some("-MOVED 3300 10.0.0.1:1\r\n"),
        _ => halves(port, command),
    };
    assert_eq!(world.run(&mut round), [failed(1, Failed::Away)]);
    assert_eq!(world.sent().len(), usize::from(REDIRECTS_MAX) + 1);
}

#[test]
fn a_cluster_that_lost_one_of_its_servers_is_still_asked_for_the_rest() {
    let mut world = World::up("redis://10.0.0.1:1", &mut halves);
    world.ask(1, HIGH);
    world.run(&mut |_, _| None);
    world.closed = vec![2];
    world.hang_up(2);
    world.ask(2, HIGH);
    world.ask(3, LOW);
    assert_eq!(world.run(&mut halves), [failed(1, Failed::Away), failed(2, Failed::Away), ok(3)]);
    assert!(world.redis.is_up());
    world.closed.clear();
    for _ in 0..2 {
        world.later();
        assert_eq!(world.run(&mut halves), []);
    }
    world.ask(4, HIGH);
    assert_eq!(world.run(&mut halves), [ok(4)], "it is back");
    world.closed = vec![1, 2];
    world.hang_up(1);
    assert_eq!(world.run(&mut halves), []);
    world.hang_up(2);
    assert!(matches!(world.run(&mut halves)[..], [Event::Down(_)]), "nobody is left");
    world.later();
    world.run(&mut halves);
    world.closed = vec![1];
    world.later();
    assert_eq!(world.run(&mut halves).len(), 1, "the seed is away: {:?}", world.redis);
    assert!(world.sent().iter().any(|(port, command)| *port == 2 && command == "CLUSTER SLOTS"), "so another is asked");
    assert!(world.redis.is_up());
}

#[test]
fn a_server_whose_place_another_one_took_is_forgotten() {
    let mut world = World::up("redis://10.0.0.1:1", &mut halves);
    world.closed = vec![2];
    world.hang_up(2);
    let mut promoted = |port: u16, command: &str| match command {
        "CLUSTER SLOTS" => {
            Some("*2\r\n*3\r\n:0\r\n:8191\r\n*2\r\n$0\r\n\r\n:1\r\n*3\r\n:8192\r\n:16383\r\n*2\r\n$0\r\n\r\n:3\r\n")
        }
        _ => halves(port, command),
    };
    world.later();
    assert_eq!(world.run(&mut promoted), []);
    world.ask(1, HIGH);
    assert_eq!(world.run(&mut promoted), [ok(1)]);
    assert_eq!(world.sent().last(), Some(&(3, "GET a".to_owned())));
    assert!(world.redis.nodes.iter().flatten().all(|node| node.server.port != 2));
}

#[test]
fn a_cluster_that_is_down_and_a_slot_that_nobody_keeps_are_away() {
    let mut world = World::up("redis://10.0.0.1:1", &mut halves);
    for (token, reply) in [(1, "-CLUSTERDOWN The cluster is down\r\n"), (2, "-TRYAGAIN x\r\n"), (3, "-LOADING x\r\n")] {
        world.ask(token, LOW);
        assert_eq!(world.run(&mut |_, _| Some(reply)), [failed(token, Failed::Away)]);
    }
    let mut half = |_: u16, command: &str| match command {
        "CLUSTER SLOTS" => Some("*1\r\n*3\r\n:0\r\n:8191\r\n*2\r\n$0\r\n\r\n:1\r\n"),
        _ => Some("+OK\r\n"),
    };
    world.redis.handle_timeout(world.now);
    assert_eq!(world.run(&mut half), []);
    world.ask(4, HIGH);
    world.ask(5, LOW);
    assert_eq!(world.run(&mut half), [failed(4, Failed::Away), ok(5)]);
    let mut none = |_: u16, command: &str| if command == "CLUSTER SLOTS" { Some("*0\r\n") } else { Some("+OK\r\n") };
    let told = World::new("redis://10.0.0.1:1").run(&mut none);
    assert_eq!(told, [Event::Down("no server of the cluster keeps any slots".into())]);
}

#[test]
fn more_servers_than_there_may_be_are_left_out() {
    let mut map = format!("*{}\r\n", NODES_MAX + 9);
    for index in 0..NODES_MAX + 9 {
        map += &format!("*3\r\n:{index}\r\n:{index}\r\n*2\r\n$0\r\n\r\n:{}\r\n", index + 1);
    }
    let map: &'static str = map.leak();
    let mut many = |_: u16, command: &str| Some(if command == "CLUSTER SLOTS" { map } else { "+OK\r\n" });
    let world = World::up("redis://10.0.0.1:1", &mut many);
    assert_eq!(world.links.len(), NODES_MAX);
}

#[test]
fn what_waits_for_a_server_that_is_not_reached_does_not_wait_for_ever() {
    let mut world = World::up("redis://10.0.0.1:1", &mut halves);
    world.ask(1, LOW);
    let link = world.link(1);
    world.redis.handle_input(world.now, link, b"-MOVED 3300 10.0.0.1:5\r\n");
    while world.redis.under_way() > 0 {
        while world.redis.poll_need().is_some() {}
        world.later();
    }
    assert_eq!(world.now, Time::ZERO + REPLY_PATIENCE);
    assert_eq!(world.redis.poll_event(), Some(failed(1, Failed::Timeout)));
}

#[test]
fn a_client_that_is_stopped_closes_everything_and_may_begin_again() {
    let mut world = World::up("redis://10.0.0.1:1", &mut halves);
    world.ask(1, LOW);
    world.redis.stop();
    assert_eq!(world.run(&mut |_, _| None), [failed(1, Failed::Away)]);
    assert!(world.links.is_empty() && world.redis.poll_timeout().is_never());
    world.redis.start(world.now);
    assert_eq!(world.run(&mut halves), [Event::Up]);
}

proptest! {
    /// Whatever servers say: no panic, one reply for each ask, bounded, and nobody spins.
    #[test]
    fn whatever_comes_every_ask_has_one_reply(
        steps in proptest::collection::vec((0..9_u8, any::<u16>()), 1..80),
        cluster in any::<bool>(),
    ) {
        const REPLIES: [&str; 12] = [
            "+OK\r\n", "-MOVED 3300 10.0.0.1:2\r\n", "-MOVED 15495 :1\r\n", "-ASK 3300 x:3\r\n", "-ASK 3300 nowhere:3\r\n",
            "-MOVED 1 10.0.0.1:4\r\n", "$-1\r\n", "-CLUSTERDOWN\r\n", "-", "*1\r\n", "\r\n", "*1\r\n*3\r\n:0\r\n:99\r\n*2\r\n$1\r\nx\r\n:4\r\n",
        ];
        let mut sane: fn(u16, &str) -> Option<&'static str> = if cluster { halves } else { single };
        let mut world = World::new("redis://:pw@10.0.0.1:1");
        let (mut token, mut replied) = (0, 0);
        for (step, number) in steps {
            match step {
                0..=2 => {
                    world.ask(token, if number % 2 == 0 { LOW } else { HIGH });
                    token += 1;
                }
                3 => world.closed = vec![number % 5],
                4 => {
                    let links: Vec<LinkId> = world.links.keys().copied().collect();
                    if let Some(link) = links.get(usize::from(number) % links.len().max(1)) {
                        let reply = REPLIES[usize::from(number) % REPLIES.len()];
                        world.redis.handle_input(world.now, *link, reply.as_bytes());
                    }
                }
                5 if !world.redis.poll_timeout().is_never() => {
                    world.now = world.now.max(world.redis.poll_timeout());
                    world.redis.handle_timeout(world.now);
                    prop_assert!(world.redis.poll_timeout() > world.now, "it spins");
                }
                6 => {
                    let odd = REPLIES[usize::from(number) % REPLIES.len()];
                    let events = world.run(&mut |port, command| {
                        if command.starts_with("GET") { Some(odd) } else { sane(port, command) }
                    });
                    replied += events.iter().filter(|event| matches!(event, Event::Reply(..))).count();
                }
                7 => {
                    let events = world.run(&mut |_, _| None);
                    replied += events.iter().filter(|event| matches!(event, Event::Reply(..))).count();
                }
                _ => {
                    let events = world.run(&mut sane);
                    replied += events.iter().filter(|event| matches!(event, Event::Reply(..))).count();
                }
            }
            prop_assert!(world.redis.under_way() <= usize::try_from(token).unwrap());
            prop_assert!(world.redis.nodes.iter().flatten().count() <= NODES_MAX);
        }
        world.redis.stop();
        let events = world.run(&mut sane);
        replied += events.iter().filter(|event| matches!(event, Event::Reply(..))).count();
        prop_assert_eq!(token, replied as u64);
        prop_assert_eq!((world.redis.under_way(), world.redis.ask_bytes, world.links.len()), (0, 0, 0));
    }
}
