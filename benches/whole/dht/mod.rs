//! What answering others in the DHT costs: `ping`, `find_node` and `get_peers`, and the memory of stored peers.
//!
//! Each program has a full routing table (scripted nodes of every distance, which answered its own searches) and keeps
//! [`STORED`] peers of [`SWARMS`] swarms, all announced with tokens that it gave. Then queries come from [`load::SOURCES`]
//! addresses as fast as they are answered, [`load::WINDOW`] of them under way. All of them are on 127.0.0.0/8: there this
//! daemon's guard counts nobody, and libtorrent's limits are out of the way. What strangers get is far less, by design.
//!
//! The bare loop receives a datagram and sends as many bytes back as this daemon does, and looks at none.

mod load;
mod nodes;
mod store;

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use swarmtorrent::base::hash::{InfoHash, Sha1Hash};

use self::load::{Kind, Told};
use crate::common::{Running, free_port, wait};
use crate::machine::{self, Cpu};
use crate::peers::{self, Peer};
use crate::{Bench, PATIENCE};

const SWARMS: usize = 10_000;
const STORED: usize = 100_000;
/// How long each kind of query is asked in each round.
const ASKED: Duration = Duration::from_secs(3);
/// The unit that CPU time is told in.
const ANSWERS: f64 = 100_000.0;

/// It searches for each hash that it is told, and is throttled by nothing.
const LIBTORRENT: &str = "
import libtorrent as lt, sys
port, node = sys.argv[1:3]
s = lt.session({'listen_interfaces': '127.0.0.1:' + port, 'enable_dht': True, 'dht_bootstrap_nodes': node, 'alert_mask': 0,
    'dht_restrict_routing_ips': False, 'dht_restrict_search_ips': False, 'dht_enforce_node_id': False, 'dht_ignore_dark_internet': False,
    'dht_upload_rate_limit': 2000000000, 'dht_block_ratelimit': 100000000, 'dht_max_torrents': 20000, 'dht_max_peers': 500,
    'enable_lsd': False, 'enable_upnp': False, 'enable_natpmp': False})
for line in sys.stdin: s.dht_get_peers(lt.sha1_hash(bytes.fromhex(line.strip())))
";

/// One program, and what is around it.
struct Program {
    peer: Peer,
    home: PathBuf,
    running: Running,
    addr: SocketAddr,
}

/// What one round of one kind cost.
#[derive(Clone, Copy)]
struct Cost {
    /// Seconds of [`ANSWERS`]: of all, of the user and of the system.
    cpu: [f64; 3],
    /// Answers a second.
    speed: f64,
    /// Of all queries, those without an answer.
    lost: f64,
}

impl Cost {
    /// Of what `told` says; `[user, system]` are coarse, the sum is not.
    fn new(cpu: f64, [user, system]: [f64; 2], told: &Told) -> Self {
        let (answers, all) = (told.answers as f64, (user + system).max(f64::EPSILON));
        let of = |part: f64| cpu * part / all * ANSWERS / answers;
        let lost = told.lost as f64 / (told.lost as f64 + answers);
        Self { cpu: [cpu * ANSWERS / answers, of(user), of(system)], speed: answers / told.took.as_secs_f64(), lost }
    }
}

/// The row.
pub fn row(bench: &Bench) {
    println!(
        "\nDHT: {} queries under way from {} addresses, full table, {STORED} peers of {SWARMS} swarms",
        load::WINDOW,
        load::SOURCES
    );
    let chosen = bench.peers.iter().filter(|peer| matches!(peer, Peer::Ours | Peer::Libtorrent));
    let hashes: Vec<InfoHash> = (0..SWARMS as u64).map(|number| Sha1Hash::of(&number.to_be_bytes())).collect();
    let started = chosen.map(|&peer| {
        let program = Program::start(bench, peer);
        program.store(&hashes);
        program
    });
    let programs: Vec<Program> = started.collect();
    for kind in [Kind::Ping, Kind::FindNode, Kind::GetPeers] {
        answers(bench, &programs, kind, &hashes);
    }
}

/// Asks each in turns, so that a noisy minute spoils none alone, and prints medians.
fn answers(bench: &Bench, programs: &[Program], kind: Kind, hashes: &[InfoHash]) {
    println!("  {}: CPU s of 100,000 answers (user + system), answers/s of a whole core, answers/s", kind.name());
    let (mut bares, mut costs) = (Vec::new(), vec![Vec::new(); programs.len()]);
    for _ in 0..bench.rounds {
        let mut answer_len = 0;
        for (program, costs) in programs.iter().zip(&mut costs) {
            let (cpu, before) = (Cpu::of(program.pid()), machine::cpu_parts(program.pid()));
            let told = load::run(program.addr, kind, hashes, ASKED);
            let (cpu, after) = (cpu.spent(), machine::cpu_parts(program.pid()));
            answer_len = if answer_len == 0 { told.answer_len } else { answer_len };
            costs.push(Cost::new(cpu, [after[0] - before[0], after[1] - before[1]], &told));
        }
        bares.push(bare(kind, hashes, answer_len));
    }
    let least = median(&bares);
    let costs: Vec<Cost> = costs.iter().map(|costs| median(costs)).collect();
    let libtorrent = programs.iter().zip(&costs).find(|(program, _)| program.peer == Peer::Libtorrent);
    print_cost("bare loop", least, "");
    for (program, cost) in programs.iter().zip(&costs) {
        let mut ratios = format!("   {:.2} x bare", cost.cpu[0] / least.cpu[0]);
        if let (Peer::Ours, Some((_, theirs))) = (program.peer, libtorrent) {
            ratios += &format!(", {:.2} x libtorrent", cost.cpu[0] / theirs.cpu[0]);
        }
        print_cost(program.peer.name(), *cost, &ratios);
    }
}

fn print_cost(name: &str, Cost { cpu: [cpu, user, system], speed, lost }: Cost, more: &str) {
    let lost = if lost > 0.0 { format!(", {:.2} % not answered", 100.0 * lost) } else { String::new() };
    println!("    {name:<16} {cpu:>6.3} ({user:.3} + {system:.3}) {:>8.0} {speed:>8.0}{more}{lost}", ANSWERS / cpu);
}

fn median(costs: &[Cost]) -> Cost {
    let mut costs = costs.to_vec();
    costs.sort_by(|a, b| a.cpu[0].total_cmp(&b.cpu[0]));
    costs[costs.len() / 2]
}

/// The least that could answer: bytes in, as many bytes out as an answer has.
fn bare(kind: Kind, hashes: &[InfoHash], answer_len: usize) -> Cost {
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    IS_OVER.store(false, Ordering::Relaxed);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let addr = socket.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        let (cpu, before) = (Cpu::of_this_thread(), machine::cpu_parts_of_this_thread());
        let (mut query, answer) = ([0; 2048], vec![0; answer_len]);
        while !IS_OVER.load(Ordering::Relaxed) {
            if let Ok((_, from)) = socket.recv_from(&mut query) {
                let _ = socket.send_to(&answer, from);
            }
        }
        let after = machine::cpu_parts_of_this_thread();
        (cpu.spent(), [after[0] - before[0], after[1] - before[1]])
    });
    let told = load::run_unread(addr, kind, hashes, ASKED);
    IS_OVER.store(true, Ordering::Relaxed);
    let (cpu, parts) = answering.join().unwrap();
    Cost::new(cpu, parts, &told)
}

impl Program {
    /// Starts one, and has it fill its table.
    fn start(bench: &Bench, peer: Peer) -> Self {
        let (home, port) = (bench.home(peer), free_port());
        let sockets = nodes::bind(if peer == Peer::Ours { 1 } else { 2 });
        let node = sockets[0].local_addr().unwrap();
        let mut command = if peer == Peer::Ours {
            let here = home.display();
            let config = format!(
                "[paths]\nstate = \"{here}/state\"\ndownloads = \"{here}\"\n[control]\nsocket = \"{here}/control\"\n[http]\nlisten = []\n\
                 [peers]\nlisten = [\"127.0.0.1:{port}\"]\nlsd = false\n[dht]\nenabled = true\nbootstrap = [\"{node}\"]\n"
            );
            std::fs::write(home.join("config.toml"), config).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_swarmtorrentd"));
            command.arg("-c").arg(home.join("config.toml"));
            command
        } else {
            let mut command = Command::new("python3");
            command.args(["-c", LIBTORRENT, &port.to_string(), &node.to_string()]);
            command
        };
        let log = std::fs::File::create(home.join("log")).unwrap();
        command.env("HOME", &home).stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        let running = Running(command.spawn().unwrap());
        let mut program = Self { peer, home, running, addr: SocketAddr::from(([127, 0, 0, 1], port)) };
        program.fill_table(sockets);
        program
    }

    fn pid(&self) -> u32 {
        self.running.0.id()
    }

    /// Has it search for something at every distance, among nodes at every distance that tell of one another.
    fn fill_table(&mut self, sockets: Vec<mio::net::UdpSocket>) {
        let own = load::id_of(self.addr, PATIENCE);
        nodes::start(sockets, own);
        let targets = nodes::targets(own);
        for target in &targets {
            if self.peer == Peer::Ours {
                peers::ask(&self.home, &format!("dht find {target}"));
            } else {
                writeln!(self.running.0.stdin.as_mut().expect("a pipe"), "{target}").unwrap();
            }
        }
        let mut known = 0;
        wait("its table is full", PATIENCE.as_secs(), || {
            known = load::nodes_told(self.addr, &targets);
            known >= nodes::ENOUGH
        });
        println!("  {:<18} tells of {known} nodes", self.peer.name());
    }

    /// Has it keep peers, and prints what they take.
    fn store(&self, hashes: &[InfoHash]) {
        let before = machine::memory_kib(self.pid(), "RssAnon:");
        let stored = store::announce(self.addr, hashes, STORED);
        let after = machine::memory_kib(self.pid(), "RssAnon:");
        if self.peer == Peer::Ours {
            let line = format!("dht.peers {stored}");
            let stats = peers::ask(&self.home, "stats");
            assert!(stats.contains(&line), "{stats:?} has no {line}");
        }
        let each = (after as f64 - before as f64) * 1024.0 / stored as f64;
        println!(
            "  {:<18} keeps {stored} peers in {before} to {after} KiB of anonymous memory, {each:.0} bytes each",
            self.peer.name()
        );
    }
}
