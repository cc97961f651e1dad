//! The machine: namespaces, CPU time, a file of noise.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

pub const GIB: f64 = (1_u64 << 30) as f64;
const INSIDE: &str = "SWARMTORRENT_BENCH_INSIDE";
const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Goes on in a network and a mount namespace of this bench's own, where `unshare` may make one.
pub fn enter_namespace() {
    if std::env::var_os(INSIDE).is_none() {
        for flags in ["-nm", "-rnm"] {
            let may = Command::new("unshare").args([flags, "true"]).status().is_ok_and(|status| status.success());
            if may {
                let program = std::env::current_exe().unwrap();
                let error = Command::new("unshare")
                    .arg(flags)
                    .arg(program)
                    .args(std::env::args().skip(1))
                    .env(INSIDE, "1")
                    .exec();
                panic!("unshare: {error}");
            }
        }
        println!("no network namespace may be made: what else is on loopback is felt");
        return;
    }
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.is_ok_and(|status| status.success()), "`ip link set lo up` failed");
    let add = Command::new("ip").args(["addr", "add", &format!("{}/32", address()), "dev", "lo"]).status();
    assert!(add.is_ok_and(|status| status.success()), "`ip addr add` failed");
    if let Err(error) = std::fs::write(CONGESTION, "reno") {
        println!("the congestion control stays as it is: {error}");
    }
}

/// Where a peer is that others are told of: some dial nobody on 127.0.0.0/8.
pub fn address() -> Ipv4Addr {
    if std::env::var_os(INSIDE).is_some() { Ipv4Addr::new(10, 99, 0, 1) } else { Ipv4Addr::LOCALHOST }
}

pub fn congestion_control() -> String {
    std::fs::read_to_string(CONGESTION).unwrap_or_default().trim().to_owned()
}

pub fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unknown processor");
    name.trim_start_matches([' ', '\t', ':']).to_owned()
}

/// CPU time of a process from now on.
#[derive(Debug)]
pub struct Cpu {
    clock: libc::clockid_t,
    before: f64,
}

impl Cpu {
    pub fn of(pid: u32) -> Self {
        let mut clock = 0;
        let pid = libc::pid_t::try_from(pid).unwrap();
        // SAFETY: it writes a number to `clock`.
        #[allow(unsafe_code, reason = "no crate has it")]
        let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
        assert_eq!(error, 0, "no process {pid}");
        Self { clock, before: read(clock) }
    }

    /// Of the calling thread.
    pub fn of_this_thread() -> Self {
        Self { clock: libc::CLOCK_THREAD_CPUTIME_ID, before: read(libc::CLOCK_THREAD_CPUTIME_ID) }
    }

    /// Seconds since this was made.
    pub fn spent(&self) -> f64 {
        read(self.clock) - self.before
    }
}

/// CPU seconds of a process by user and system, in ticks of some milliseconds.
pub fn cpu_parts(pid: u32) -> [f64; 2] {
    parts_in(&format!("/proc/{pid}/stat"))
}

/// The same of the calling thread.
pub fn cpu_parts_of_this_thread() -> [f64; 2] {
    parts_in("/proc/thread-self/stat")
}

fn parts_in(path: &str) -> [f64; 2] {
    let stat = std::fs::read_to_string(path).unwrap();
    // The name in brackets may hold spaces; user and system time are the twelfth and thirteenth field after it.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    [11, 12].map(|at: usize| fields[at].parse::<f64>().unwrap() / rustix::param::clock_ticks_per_second() as f64)
}

/// CPU seconds of all children that have ended.
pub fn cpu_of_children() -> f64 {
    // SAFETY: zeroes are a valid `rusage`, and it writes another.
    #[allow(unsafe_code, reason = "rustix does not have it")]
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage), 0);
        usage
    };
    [usage.ru_utime, usage.ru_stime].map(|time| time.tv_sec as f64 + time.tv_usec as f64 / 1e6).iter().sum()
}

/// A line of a process' status that counts memory, KiB.
pub fn memory_kib(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Has the kernel forget what it cached of a file. On tmpfs it cannot.
pub fn forget(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

fn read(clock: libc::clockid_t) -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to `time`.
    #[allow(unsafe_code, reason = "rustix knows no clock of another process")]
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "the process is gone");
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Writes `len` bytes of noise.
pub fn fill(path: &Path, len: u64) {
    let mut file = File::create(path).unwrap();
    for number in 0..len >> 20 {
        file.write_all(&crate::noise(number, 1 << 20)).unwrap();
    }
    file.sync_all().unwrap();
}
