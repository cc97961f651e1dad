//! What the process tests share: a daemon in a temporary directory, its control socket, and waiting for conditions.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test file uses some of it")]

pub mod changes;
pub mod loop_disk;
pub mod pipeline;
pub mod redis;

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Waits until `is_so`, at most `secs` seconds.
#[expect(
    clippy::disallowed_methods,
    reason = "tests are outside the daemon: they look again every while until a deadline"
)]
#[track_caller]
pub fn wait(what: &str, secs: u64, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(secs), "not in {secs} s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Does `inside` in a network of its own with these addresses, none of which is one of loopback: some clients talk with nobody on
/// 127.0.0.0/8, and dial nobody there. It is the test `name` itself that is run again in there.
pub fn in_a_network_of_its_own(name: &str, addrs: &[Ipv4Addr], inside: impl FnOnce()) {
    let is_inside = "SWARMTORRENT_TEST_INSIDE";
    if std::env::var_os(is_inside).is_some() {
        return inside();
    }
    let may = Command::new("unshare").args(["-rn", "ip", "link"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("left out: no network namespace may be made");
        return;
    }
    let add: String = addrs.iter().map(|addr| format!("ip addr add {addr}/32 dev lo && ")).collect();
    let script =
        format!("ip link set lo up && {add} ip route add default dev lo && exec \"$0\" --exact {name} --nocapture");
    let program = std::env::current_exe().unwrap();
    let status = Command::new("unshare").args(["-rn", "sh", "-c", &script]).arg(program).env(is_inside, "1").status();
    assert!(status.unwrap().success());
}

/// Does `inside` with a table of mounts of its own, where file systems in memory may be mounted. It is the test `name` itself that
/// is run again in there.
pub fn in_mounts_of_its_own(name: &str, inside: impl FnOnce()) {
    in_mounts("-rm", name, inside);
}

/// The same for root: loop devices may be mounted, too.
pub fn in_mounts_of_root(name: &str, inside: impl FnOnce()) {
    in_mounts("-m", name, inside);
}

fn in_mounts(flags: &str, name: &str, inside: impl FnOnce()) {
    let is_inside = "SWARMTORRENT_TEST_INSIDE";
    if std::env::var_os(is_inside).is_some() {
        return inside();
    }
    let may = Command::new("unshare").args([flags, "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("left out: no mount namespace may be made");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .arg(flags)
        .arg(program)
        .args(["--exact", name, "--nocapture"])
        .env(is_inside, "1")
        .status();
    assert!(status.unwrap().success());
}

/// Mounts a file system in memory of this `size` at `dir`, which is made.
pub fn mount_memory(dir: &Path, size: &str) {
    std::fs::create_dir_all(dir).unwrap();
    let options = format!("size={size}");
    let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir).status();
    assert!(status.unwrap().success());
}

/// Everything below `dir` that is no directory, as relative paths in order; and how many directories there are.
pub fn tree(dir: &Path) -> (Vec<PathBuf>, usize) {
    let (mut files, mut dirs, mut to_look) = (Vec::new(), 0, vec![dir.to_owned()]);
    while let Some(at) = to_look.pop() {
        for entry in std::fs::read_dir(at).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                dirs += 1;
                to_look.push(path);
            } else {
                files.push(path.strip_prefix(dir).unwrap().to_owned());
            }
        }
    }
    files.sort();
    (files, dirs)
}

/// The names under which the state directory `state` has metainfo or links, `torrents/HASH.meta` each.
pub fn saved_metainfo(state: &Path) -> Vec<String> {
    use swarmtorrent::codec::journal::{Verify, parse_head, scan};
    let pack = std::fs::read(state.join("metainfo")).unwrap_or_default();
    let Some((key, _)) = parse_head(&pack) else { return Vec::new() };
    let contents = scan(&pack[..], pack.len() as u64, &key, Verify::All).unwrap();
    let mut names = std::collections::BTreeSet::new();
    for entry in contents.entries {
        if entry.value.is_some() {
            names.insert(entry.name)
        } else {
            names.remove(&entry.name)
        };
    }
    names.into_iter().collect()
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Bytes without a pattern, different for each seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    swarmtorrent::base::rng::Rng::from_number(seed).fill(&mut bytes);
    bytes
}

/// Some bytes changed, and some of the end gone.
pub fn mangled(bytes: &[u8], flips: &[(usize, u8)], cut: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, byte) in flips {
        let at = at % bytes.len();
        bytes[at] = *byte;
    }
    bytes.truncate(bytes.len() - cut % bytes.len());
    bytes
}

/// A child that does not outlive its test.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the tool; what it printed.
#[track_caller]
pub fn tool(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_swarmtorrent")).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes a `.st` of `path` and a `.torrent` of it; their paths, and the hash.
pub fn make(path: &Path, out: &Path, extra: &[&str]) -> (PathBuf, PathBuf, String) {
    let (st, torrent) = (out.join("made.st"), out.join("made.torrent"));
    let mut args = vec!["create", path.to_str().unwrap(), "-o", st.to_str().unwrap()];
    args.extend(extra);
    let told = tool(&args);
    tool(&["convert", st.to_str().unwrap(), "-o", torrent.to_str().unwrap()]);
    let hash = told.lines().find_map(|line| line.strip_prefix("hash:")).unwrap().trim().to_owned();
    (st, torrent, hash)
}

/// Whether a line is the last one of a reply of the control socket.
pub fn is_closing(line: &str) -> bool {
    line == "OK" || line.starts_with("OK ") || line.starts_with("ERR ") || line.starts_with("{\"ok\":")
}

/// A daemon in a directory of its own.
#[derive(Debug)]
pub struct Daemon {
    child: Running,
    pub dir: PathBuf,
    pub listen: SocketAddr,
}

impl Daemon {
    /// Starts it in `dir`, listening at a free port of loopback; `extra` is appended to its config.
    pub fn start(dir: &Path, extra: &str) -> Self {
        Self::start_at(dir, SocketAddr::from(([127, 0, 0, 1], free_port())), extra)
    }

    /// Starts it in `dir`, with more keys of `[peers]`.
    pub fn start_with_peers(dir: &Path, keys: &str) -> Self {
        Self::launch(dir, SocketAddr::from(([127, 0, 0, 1], free_port())), keys, "")
    }

    /// Starts it in `dir`, listening at `listen`.
    pub fn start_at(dir: &Path, listen: SocketAddr, extra: &str) -> Self {
        Self::launch(dir, listen, "", extra)
    }

    /// Starts it in `dir`, listening at `listen`, with more keys of `[peers]`; `extra` is appended to its config.
    pub fn launch(dir: &Path, listen: SocketAddr, keys: &str, extra: &str) -> Self {
        Self::launch_with(dir, listen, keys, extra, &[])
    }

    /// The same, with more in its environment.
    pub fn launch_with(dir: &Path, listen: SocketAddr, keys: &str, extra: &str, env: &[(&str, &Path)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarmtorrentd"));
        command.envs(env.iter().copied());
        Self::launch_by(command, dir, listen, keys, extra)
    }

    /// The same by a `command` that becomes the daemon once its arguments are added.
    pub fn launch_by(mut command: Command, dir: &Path, listen: SocketAddr, keys: &str, extra: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let here = dir.display();
        let lsd = if keys.contains("lsd") { "" } else { "lsd = false\n" };
        let dht = if extra.contains("[dht]") { "" } else { "[dht]\nenabled = false\n" };
        let config = format!(
            "[paths]\nstate = \"{here}/state\"\ndownloads = \"{here}/downloads\"\n[[watch]]\npath = \"{here}/watch\"\n\
             [control]\nsocket = \"{here}/control\"\n[peers]\nlisten = [\"{listen}\"]\n{keys}{lsd}[http]\nlisten = []\n\
             [log]\nlevel = \"debug\"\n{extra}{dht}"
        );
        std::fs::write(dir.join("config.toml"), config).unwrap();
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let child = command
            .arg("-c")
            .arg(dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Self { child: Running(child), dir: dir.to_owned(), listen };
        wait("the daemon answers", 10, || daemon.try_ask("version").is_some());
        daemon
    }

    fn try_ask(&self, line: &str) -> Option<Vec<String>> {
        let mut stream = UnixStream::connect(self.dir.join("control")).ok()?;
        writeln!(stream, "{line}").ok()?;
        let mut lines = Vec::new();
        for line in BufReader::new(stream).lines() {
            let line = line.ok()?;
            let is_last = is_closing(&line);
            lines.push(line);
            if is_last {
                return Some(lines);
            }
        }
        None
    }

    /// The reply to a command, its closing line last.
    #[track_caller]
    pub fn ask(&self, line: &str) -> Vec<String> {
        self.try_ask(line).unwrap_or_else(|| panic!("no reply to {line}; the log:\n{}", self.log()))
    }

    /// The rows of a command that must succeed.
    #[track_caller]
    pub fn json(&self, line: &str) -> Vec<Value> {
        let mut rows: Vec<Value> =
            self.ask(&format!("json {line}")).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let closing = rows.pop().unwrap();
        assert_eq!(closing["ok"], true, "{line}: {closing}");
        rows
    }

    /// What `json show` says of the only torrent.
    #[track_caller]
    pub fn torrent(&self) -> Value {
        self.json("list").remove(0)
    }

    /// Adds a torrent file, with options; it must be taken.
    #[track_caller]
    pub fn add(&self, path: &Path, options: &str) {
        let reply = self.ask(&format!("add {} {options}", path.display()));
        assert!(reply.last().unwrap().starts_with("OK "), "{reply:?}");
    }

    #[track_caller]
    pub fn wait_state(&self, state: &str, secs: u64) {
        wait(&format!("{state}: {:?}", self.dir), secs, || self.torrent()["state"] == state);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// How many threads it has now.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().count()
    }

    /// Its anonymous memory, KiB.
    pub fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Ends it as a power cut would, for all that it can tell.
    pub fn kill(mut self) {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
    }

    /// Asks it to end; its exit status.
    pub fn terminate(mut self) -> i32 {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.0.wait().unwrap().code().unwrap_or(-1)
    }
}

/// Writes a line for each packet of TCP or UDP that comes in at an interface.
pub const CAPTURE: &str = "
import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind((sys.argv[1], 0))
out = open(sys.argv[2], 'a', buffering=1)
out.write('ready\\n')
while True:
    packet, where = s.recvfrom(65536)
    if where[2] == 4: continue
    kind = struct.unpack('!H', packet[12:14])[0]
    if kind == 0x800:
        kind, to, at = packet[23], socket.inet_ntop(2, packet[30:34]), 14 + (packet[14] & 15) * 4
    elif kind == 0x86dd:
        kind, to, at = packet[20], socket.inet_ntop(10, packet[38:54]), 54
    # A bare reset is the kernel's own answer, for a connection that nobody has any more; it goes by the routes.
    if kind == 17 or kind == 6 and packet[at + 13] not in (4, 20):
        out.write('%d %s %d\\n' % (kind, to, struct.unpack('!H', packet[at + 2:at + 4])[0]))
";

/// Whether `ip` did it.
pub fn ip(line: &str) -> bool {
    let status = Command::new("ip").args(line.split(' ')).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// For libtorrent's Python: a session that seeds or gets one torrent and announces it in the DHT, where it knows one node to begin with.
pub const LIBTORRENT_DHT: &str = "
import libtorrent as lt, sys, time
torrent, save, port, node = sys.argv[1:5]
s = lt.session({'listen_interfaces': '127.0.0.1:' + port, 'enable_dht': True, 'dht_bootstrap_nodes': '127.0.0.1:' + node,
    'dht_restrict_routing_ips': False, 'dht_restrict_search_ips': False, 'dht_enforce_node_id': False, 'dht_ignore_dark_internet': False,
    'enable_lsd': False, 'enable_upnp': False, 'enable_natpmp': False, 'enable_outgoing_utp': False, 'enable_incoming_utp': False,
    'allow_multiple_connections_per_ip': True, 'dht_announce_interval': 5, 'min_announce_interval': 5,
    'dht_block_ratelimit': 500})
p = lt.add_torrent_params(); p.ti = lt.torrent_info(torrent); p.save_path = save
h = s.add_torrent(p); h.resume()
while True:
    time.sleep(5)
    h.force_dht_announce()
";

/// False, and said so, where libtorrent's Python module is not installed.
pub fn has_libtorrent() -> bool {
    let has = Command::new("python3").args(["-c", "import libtorrent"]).stderr(Stdio::null()).status();
    let has = has.is_ok_and(|status| status.success());
    if !has {
        eprintln!("left out: libtorrent is not installed");
    }
    has
}
