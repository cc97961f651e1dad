//! The least HTTP tracker: it names one peer or none, and remembers what was announced.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::machine;

/// One announce.
#[derive(Debug, Clone)]
pub struct Said {
    pub at: Instant,
    pub left: Option<u64>,
    event: String,
}

impl Said {
    pub fn is_completed(&self) -> bool {
        self.event == "completed"
    }
}

#[derive(Debug)]
pub struct Tracker {
    port: u16,
    said: Arc<(Mutex<Vec<Said>>, Condvar)>,
}

impl Tracker {
    /// Starts one that names the peer at `peer` of this machine.
    pub fn start(peer: Option<u16>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let said = Arc::default();
        let tracker = Self { port, said: Arc::clone(&said) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let said = Arc::clone(&said);
                std::thread::spawn(move || answer(stream, peer, &said));
            }
        });
        tracker
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/announce", self.port)
    }

    /// Forgets what was announced so far.
    pub fn forget(&self) {
        self.said.0.lock().unwrap().clear();
    }

    /// Waits for an announce; when it came.
    pub fn wait_for(&self, patience: Duration, is_it: impl Fn(&Said) -> bool) -> Option<Instant> {
        self.wait_for_many(1, patience, is_it)
    }

    /// Waits for `count` announces; when the last of them came.
    pub fn wait_for_many(&self, count: usize, patience: Duration, is_it: impl Fn(&Said) -> bool) -> Option<Instant> {
        let (said, bell) = &*self.said;
        let missing = |said: &mut Vec<Said>| said.iter().filter(|said| is_it(said)).count() < count;
        let (said, _) = bell.wait_timeout_while(said.lock().unwrap(), patience, missing).unwrap();
        said.iter().filter(|said| is_it(said)).nth(count - 1).map(|said| said.at)
    }
}

fn answer(mut stream: TcpStream, peer: Option<u16>, heard: &(Mutex<Vec<Said>>, Condvar)) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    let field = |name: &str| {
        let query = request.split([' ', '?', '&']);
        query.into_iter().find_map(|pair| Some(pair.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    };
    let left = field("left").and_then(|left| left.parse().ok());
    heard.0.lock().unwrap().push(Said { at: Instant::now(), left, event: field("event").unwrap_or_default() });
    heard.1.notify_all();
    let mut body = b"d8:intervali1800e5:peers".to_vec();
    match peer {
        Some(port) => {
            body.extend(b"6:");
            body.extend(machine::address().octets());
            body.extend(port.to_be_bytes());
        }
        None => body.extend(b"0:"),
    }
    body.push(b'e');
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(&[head.as_bytes(), &body].concat());
}
