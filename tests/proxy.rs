//! Everything through a SOCKS5 proxy, or nowhere: real proxies, with passwords, and whatever could go around them.
//!
//! Three machines, made of namespaces: ours, the proxy's between us and the world, and the world. A cable leads from ours to the world
//! directly, and every route of ours to it. It needs root, `ip`, and the proxies; what cannot be had is said.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

mod common;

use common::{CAPTURE, Daemon, Running, ip, make, noise, wait};

const LEN: usize = 6_000_000;
const PASSWORD: &str = "se:cret";

struct World {
    name: String,
    captures: Vec<Running>,
    dir: PathBuf,
}

impl World {
    fn new(dir: &Path) -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("proxy-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let world = Self { name, captures: Vec::new(), dir: dir.to_owned() };
        let [ours, proxy, far] = ["ours", "proxy", "far"].map(|who| world.machine(who));
        if ![&ours, &proxy, &far].iter().all(|name| ip(&format!("netns add {name}"))) {
            eprintln!("left out: no network can be made here");
            return None;
        }
        for (cable, a, b, net) in [("way", &ours, &proxy, 6), ("out", &proxy, &far, 7), ("eth", &ours, &far, 9)] {
            assert!(ip(&format!("link add {cable} netns {a} type veth peer name {cable} netns {b}")));
            for (end, name) in [a, b].into_iter().enumerate() {
                assert!(ip(&format!("-n {name} addr add 10.9{net}.0.{}/24 dev {cable}", end + 1)));
                assert!(ip(&format!("-n {name} link set {cable} up")) && ip(&format!("-n {name} link set lo up")));
            }
        }
        // Whoever goes around finds everything.
        assert!(ip(&format!("-n {ours} route add default via 10.99.0.2")));
        // Names are known to the proxy alone, and so is who may use it.
        let etc = world.etc(&proxy);
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::write(etc.join("hosts"), "127.0.0.1 localhost\n10.97.0.2 tracker.test node.test\n").unwrap();
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        std::fs::write(etc.join("passwd"), format!("{passwd}\nswarm:x:4242:65534::/:/bin/false\n")).unwrap();
        let hash = "$6$swarm$APh9TlBWLc6odMQkX0DYFOzT04LYIcHZSMjx1m.6zWH8QOM9M5uAI2y4yhsuftODIJTlJBb4uhBDH.DhngK8I.";
        std::fs::write(etc.join("shadow"), format!("swarm:{hash}:19000:0:99999:7:::\n")).unwrap();
        let etc = world.etc(&ours);
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::write(etc.join("resolv.conf"), "nameserver 10.99.0.2\n").unwrap();
        Some(world)
    }

    fn machine(&self, who: &str) -> String {
        format!("{}-{who}", self.name)
    }

    fn etc(&self, machine: &str) -> PathBuf {
        PathBuf::from(format!("/etc/netns/{machine}"))
    }

    fn command(&self, who: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.machine(who), program]);
        command
    }

    fn capture(&mut self, who: &str, cable: &str) {
        let file = self.dir.join(cable);
        let mut command = self.command(who, "python3");
        command.args(["-c", CAPTURE, cable]).arg(&file).stdin(Stdio::null()).stderr(Stdio::null());
        self.captures.push(Running(command.spawn().unwrap()));
        wait("it is captured", 20, || std::fs::read_to_string(&file).is_ok_and(|text| text.contains("ready")));
    }

    /// Protocol, address and port of each packet.
    fn captured(&self, cable: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join(cable)).unwrap_or_default();
        text.lines().filter(|line| *line != "ready").map(str::to_owned).collect()
    }

    fn daemon(&self, who: &str, dir: &Path, keys: &str, extra: &str) -> Daemon {
        let program = self.command(who, env!("CARGO_BIN_EXE_swarmtorrentd"));
        Daemon::launch_by(program, dir, "0.0.0.0:6881".parse().unwrap(), keys, extra)
    }

    /// Whether somebody listens at the proxy's port.
    fn is_open(&self) -> bool {
        let told = self.command("proxy", "ss").args(["-Htln", "sport = :1080"]).output().unwrap();
        !told.stdout.is_empty()
    }

    fn microsocks(&self) -> Option<Running> {
        let mut command = self.command("proxy", "microsocks");
        command.args(["-i", "10.96.0.2", "-p", "1080", "-u", "swarm", "-P", PASSWORD]);
        self.proxy(command, "microsocks")
    }

    fn dante(&self) -> Option<Running> {
        let config = self.dir.join("danted.conf");
        let rules = "internal: 10.96.0.2 port = 1080\nexternal: 10.97.0.1\nsocksmethod: username\nclientmethod: none\n\
                     user.privileged: root\nuser.unprivileged: nobody\nlogoutput: stderr\n\
                     client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\nsocks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\n";
        std::fs::write(&config, rules).unwrap();
        let mut command = self.command("proxy", "danted");
        command.arg("-f").arg(&config).arg("-N").arg("1");
        self.proxy(command, "danted")
    }

    fn proxy(&self, mut command: Command, program: &str) -> Option<Running> {
        if Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("left out: {program} is not installed");
            return None;
        }
        let log = std::fs::File::create(self.dir.join(program)).unwrap();
        let running = Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        wait("the proxy listens", 20, || self.is_open());
        Some(running)
    }

    /// Ends a proxy and all that it has begun, at once.
    fn end(&self, mut proxy: Running) {
        let pids = Command::new("ip").args(["netns", "pids", &self.machine("proxy")]).output().unwrap().stdout;
        for pid in String::from_utf8(pids).unwrap().split_ascii_whitespace() {
            // Those who capture there stay.
            let is_proxy =
                std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| !name.starts_with("python"));
            let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
            if is_proxy {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = proxy.0.wait();
        wait("it is gone", 10, || !self.is_open());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.captures.clear();
        for who in ["ours", "proxy", "far"] {
            let machine = self.machine(who);
            let _ = ip(&format!("netns del {machine}"));
            let _ = std::fs::remove_dir_all(self.etc(&machine));
        }
    }
}

/// What leaves our machine goes to the proxy, and to nobody else.
fn nothing_goes_around(world: &World) {
    assert_eq!(world.captured("eth"), [""; 0]);
    let elsewhere: Vec<String> =
        world.captured("way").into_iter().filter(|line| !line.contains(" 10.96.0.2 ")).collect();
    assert_eq!(elsewhere, [""; 0]);
}

#[expect(clippy::disallowed_methods, reason = "that nothing happens takes its time")]
fn all_of_it(has_datagrams: bool, start: impl Fn(&World) -> Option<Running>) {
    let temp = tempfile::tempdir().unwrap();
    let Some(mut world) = World::new(temp.path()) else { return };
    let Some(proxy) = start(&world) else { return };
    world.capture("far", "eth");
    world.capture("proxy", "way");
    let content = temp.path().join("seed/downloads/content");
    std::fs::create_dir_all(content.parent().unwrap()).unwrap();
    std::fs::write(&content, noise(5, LEN)).unwrap();
    let trackers = ["--tracker", "http://tracker.test:6969/announce", "--tracker", "udp://tracker.test:6969/announce"];
    let (st, _, _) = make(&content, temp.path(), &trackers);
    let server =
        "[tracker]\nudp = [\"0.0.0.0:6969\"]\nhttp = [\"0.0.0.0:6969\"]\n[dht]\nenabled = true\nbootstrap = []\n";
    let far = world.daemon("far", &temp.path().join("seed"), "", server);
    far.add(&st, "");
    far.wait_state("seeding", 20);
    // Its trackers are names that the far end does not know.
    let announce = make(&content, &temp.path().join("seed"), &["--tracker", "http://10.97.0.2:6969/announce"]).0;
    assert!(far.ask("remove all").last().unwrap().starts_with("OK"));
    far.add(&announce, "");
    far.wait_state("seeding", 20);

    // Where the proxy does not know us nothing is tried.
    let keys = |password: &str| format!("lsd = true\nproxy = \"socks5://swarm:{password}@10.96.0.2\"\n");
    let extra = "[trackers]\nannounce_to_all = true\n[dht]\nenabled = true\nbootstrap = [\"node.test:6881\"]\n";
    let stranger = world.daemon("ours", &temp.path().join("stranger"), &keys("wrong"), extra);
    stranger.add(&st, "");
    wait("the password is refused", 20, || {
        stranger.json("status")[0]["trouble"]
            .as_str()
            .is_some_and(|trouble| trouble.contains("refuses the user or the password"))
    });
    assert!(!stranger.log().contains("wrong"), "the password is nobody's business");
    assert_eq!(stranger.terminate(), 0);

    let ours = world.daemon("ours", &temp.path().join("ours"), &keys("se%3acret"), extra);
    ours.ask("limit down 500K");
    ours.add(&st, "");
    wait("something comes", 60, || ours.torrent()["have_bytes"].as_u64() > Some(0));
    let status = &ours.json("status")[0];
    assert_eq!((&status["trouble"], &status["listen"]), (&serde_json::Value::Null, &serde_json::json!([])));
    assert!(ours.json("trackers all").iter().any(|row| row["state"] == "working"), "{:?}", ours.ask("trackers all"));
    if has_datagrams {
        wait("a DHT node answers", 30, || ours.json("status")[0]["dht_nodes"].as_u64() > Some(0));
        wait("both trackers answer", 30, || ours.json("trackers all").iter().all(|row| row["state"] == "working"));
    } else {
        assert!(ours.ask("trackers all").iter().any(|line| line.contains("passes no datagrams on")));
    }

    // The proxy goes in the middle of it.
    world.end(proxy);
    wait("it is said", 30, || {
        ours.json("status")[0]["trouble"]
            .as_str()
            .is_some_and(|trouble| trouble.contains("10.96.0.2:1080 cannot be reached"))
    });
    assert!(ours.ask("why all")[0].contains("cannot be reached"), "{:?}", ours.ask("why all"));
    let have = ours.torrent()["have_bytes"].clone();
    ours.ask("pause all");
    ours.ask("resume all");
    for _ in 0..3 {
        ours.ask("announce all");
        ours.ask("connect all 10.97.0.2:6881");
        ours.ask("connect all 10.99.0.2:6881");
        std::thread::sleep(Duration::from_millis(700));
    }
    assert!(
        ours.ask("trackers all").iter().any(|line| line.contains("was not asked")),
        "{:?}",
        ours.ask("trackers all")
    );
    assert_eq!(ours.torrent()["have_bytes"], have);
    nothing_goes_around(&world);

    // And comes back.
    let _proxy = start(&world).unwrap();
    ours.ask("limit down 0");
    ours.wait_state("seeding", 90);
    assert_eq!(std::fs::read(temp.path().join("ours/downloads/content")).unwrap(), noise(5, LEN));
    nothing_goes_around(&world);
    let way = world.captured("way");
    assert!(way.contains(&"6 10.96.0.2 1080".to_owned()));
    assert_eq!(way.iter().any(|line| line.starts_with("17 ")), has_datagrams);
    let log = ours.log();
    assert!(!log.contains(PASSWORD) && !log.contains("se%3acret"), "the password is nobody's business");
    assert_eq!(ours.terminate(), 0);
    nothing_goes_around(&world);
    assert_eq!(far.terminate(), 0);
}

#[test]
fn everything_goes_through_microsocks_or_nowhere() {
    all_of_it(false, World::microsocks);
}

#[test]
fn everything_goes_through_dante_or_nowhere() {
    all_of_it(true, World::dante);
}
