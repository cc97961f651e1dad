//! Real Redis servers, alone and as a cluster.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Running, free_port, wait};

/// Says that it is left out where there is no server to be had.
pub fn is_left_out() -> bool {
    let is_here = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    let is_missing = !is_here("redis-server") || !is_here("redis-cli");
    if is_missing {
        eprintln!("left out: redis-server or redis-cli is not installed");
    }
    is_missing
}

/// A server in a directory of its own below `dir`.
pub fn serve(dir: &Path, port: u16, args: &[&str]) -> Running {
    let home = dir.join(port.to_string());
    std::fs::create_dir_all(&home).unwrap();
    let log = std::fs::File::options().create(true).append(true).open(home.join("log")).unwrap();
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no", "--dir"])
        .arg(&home)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let running = Running(child);
    wait("the server listens", 10, || TcpStream::connect(("127.0.0.1", port)).is_ok());
    running
}

pub fn cli(port: u16, args: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{args:?}: {text}");
    text.trim().to_owned()
}

/// A port whose cluster port, 10000 above it, is free, too.
pub fn cluster_port() -> u16 {
    let is_fit = |port: &u16| *port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok();
    (0..1000).map(|_| free_port()).find(is_fit).unwrap()
}

/// What makes a server one of a cluster.
pub const IN_A_CLUSTER: [&str; 6] =
    ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--cluster-node-timeout", "5000"];

/// Three servers that are a cluster, in directories of their own below `dir`.
pub fn serve_cluster(dir: &Path) -> ([u16; 3], [Running; 3]) {
    let ports = [(); 3].map(|()| cluster_port());
    let servers = ports.map(|port| serve(dir, port, &IN_A_CLUSTER));
    let addrs = ports.map(|port| format!("127.0.0.1:{port}"));
    let mut create = vec!["--cluster", "create"];
    create.extend(addrs.iter().map(String::as_str));
    create.push("--cluster-yes");
    cli(ports[0], &create);
    wait("the cluster stands", 20, || ports.iter().all(|port| cli(*port, &["cluster", "info"]).contains("state:ok")));
    (ports, servers)
}
