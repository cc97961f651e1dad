//! A tracker behind TLS, and the one thread that does it all.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

mod common;

use common::{Daemon, Running, free_port, make, noise, wait};

/// Answers every request with a peer, gzipped, by TLS; one that asks for `/away` is sent to `/announce` first.
const TRACKER: &str = r#"
import gzip, socket, ssl, sys
port, peer, cert, key = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(cert, key)
listener = socket.create_server(("127.0.0.1", port))
body = gzip.compress(b"d8:completei1e10:incompletei0e8:intervali1800e5:peers6:\x7f\0\0\x01" + peer.to_bytes(2, "big") + b"e")
while True:
    try:
        stream = context.wrap_socket(listener.accept()[0], server_side=True)
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += stream.recv(4096)
        if asked.startswith(b"GET /away"):
            there = asked.split(b" ")[1].replace(b"/away", b"/announce")
            stream.sendall(b"HTTP/1.1 302 Found\r\nLocation: " + there + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        else:
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        stream.close()
    except OSError:
        pass
"#;

fn openssl(dir: &Path, args: &[&str]) -> bool {
    let status =
        Command::new("openssl").args(args).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn peers_are_found_by_https_and_a_certificate_of_nobodys_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"];
    let authority = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test authority"];
    let server =
        ["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=tracker", "-CA", "ca.pem", "-CAkey", "ca.key"];
    let names = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"];
    let made = openssl(temp.path(), &[&new[..], &authority].concat())
        && openssl(temp.path(), &[&new[..], &server, &names].concat());
    if !made {
        eprintln!("left out: openssl is not installed, or too old");
        return;
    }
    let (port, home) = (free_port(), temp.path().join("seeder"));
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let tracker = Command::new("python3")
        .args(["-c", TRACKER, &port.to_string(), &listen.port().to_string(), "cert.pem", "key.pem"])
        .current_dir(temp.path())
        .stderr(Stdio::null())
        .spawn();
    let Ok(tracker) = tracker else {
        eprintln!("left out: python3 is not installed");
        return;
    };
    let _tracker = Running(tracker);
    wait("the tracker listens", 10, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    std::fs::create_dir_all(home.join("downloads")).unwrap();
    std::fs::write(home.join("downloads/content"), noise(7, 20_000_001)).unwrap();
    // A name, too, so that names are looked up while everything else goes on.
    let urls = [format!("https://127.0.0.1:{port}/away"), "http://tracker.invalid:1/announce".to_owned()];
    let args: Vec<&str> = urls.iter().flat_map(|url| ["--tracker", url.as_str()]).collect();
    let (st, _, _) = make(&home.join("downloads/content"), temp.path(), &args);
    let to_all = "[trackers]\nannounce_to_all = true\n";
    let trusting = [("SSL_CERT_FILE", temp.path().join("ca.pem"))];
    let trusting = trusting.each_ref().map(|(name, path)| (*name, path.as_path()));
    let seeder = Daemon::start_at(&home, listen, to_all);
    seeder.add(&st, "");
    wait("it says that it does not trust the tracker", 20, || {
        let row = &seeder.json("trackers all")[0];
        row["state"] == "failed" && row["message"].as_str().unwrap().contains("certificate")
    });
    let leecher = Daemon::launch_with(
        &temp.path().join("leecher"),
        SocketAddr::from(([127, 0, 0, 1], free_port())),
        "",
        to_all,
        &trusting,
    );
    leecher.add(&st, "");
    let mut threads = 1;
    wait("the tracker's peer gives everything", 30, || {
        threads = threads.max(leecher.threads()).max(seeder.threads());
        leecher.torrent()["state"] == "seeding"
    });
    assert_eq!(threads, 1, "looking up names, TLS, hashing, accepting and transferring");
    assert!(std::fs::read(temp.path().join("leecher/downloads/content")).unwrap() == noise(7, 20_000_001));
    assert_eq!(leecher.json("trackers all")[0]["state"], "working");
    assert_eq!(leecher.terminate(), 0);
}
