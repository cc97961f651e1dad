//! A connection to the control socket over which requests are sent without waiting for their replies.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::is_closing;

/// A connection to the control socket. Replies are read in the order in which they arrive.
#[derive(Debug)]
pub struct Pipeline {
    stream: UnixStream,
    received: Vec<u8>,
    /// The lines received until now of the reply that is being received.
    lines: Vec<String>,
    is_closed: bool,
}

impl Pipeline {
    /// Connects to the daemon in `home`.
    pub fn connect(home: &Path) -> Self {
        let stream = UnixStream::connect(home.join("control")).unwrap();
        Self { stream, received: Vec::new(), lines: Vec::new(), is_closed: false }
    }

    /// Sends requests from a separate thread, because the daemon may not read all of them before its replies are read.
    /// If the daemon is killed before all are sent, the rest is dropped.
    pub fn send(&self, requests: String) -> JoinHandle<()> {
        self.send_and(requests, |_| {})
    }

    /// Sends the last requests as [`Self::send`] does, and closes the sending side after them.
    pub fn send_last(&self, requests: String) -> JoinHandle<()> {
        self.send_and(requests, |stream| drop(stream.shutdown(Shutdown::Write)))
    }

    #[expect(clippy::disallowed_methods, reason = "tests are outside the daemon")]
    fn send_and(&self, requests: String, then: fn(&UnixStream)) -> JoinHandle<()> {
        let mut stream = self.stream.try_clone().unwrap();
        std::thread::spawn(move || {
            let _ = stream.write_all(requests.as_bytes());
            then(&stream);
        })
    }

    /// Whether the daemon has closed the connection.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Returns the lines of the next reply, the closing line last. `None` if no complete reply arrives before
    /// `deadline`, or if the connection is closed.
    #[expect(clippy::disallowed_methods, reason = "tests are outside the daemon")]
    pub fn reply(&mut self, deadline: Instant) -> Option<Vec<String>> {
        loop {
            while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8(self.received.drain(..=end).collect()).unwrap().trim_end().to_owned();
                let is_last = is_closing(&line);
                self.lines.push(line);
                if is_last {
                    return Some(std::mem::take(&mut self.lines));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.is_closed || left.is_zero() {
                return None;
            }
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            let mut buf = [0; 64 * 1024];
            match self.stream.read(&mut buf) {
                Ok(0) => self.is_closed = true,
                Ok(len) => self.received.extend(&buf[..len]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => self.is_closed = true,
            }
        }
    }
}
