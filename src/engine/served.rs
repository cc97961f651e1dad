//! HTTP connections that strangers have opened to the tracker server: who is there, and what they are answered.
//!
//! A connection mostly lives for one turn: it is accepted, asks, is answered and closed. Those that stay are watched by their patience;
//! where there are too many, the one that was silent for longest makes room.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use crate::base::addr::canonical_addr;
use crate::base::ids::ConnId;
use crate::base::rate::Budget;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::base::timers::Timers;
use crate::engine::connections::{CONNECTIONS_PER_IP_MAX, Connection, Ending, Role};
use crate::engine::{Effect, Engine, Progress, Timer};
use crate::protocol::http::HttpServer;
use crate::service::tracker::Tracker;

/// Bytes that are read at once: a whole head, and some of the next ones.
const READ_LEN: usize = 16 * 1024;

/// Those that are there.
#[derive(Debug, Default)]
pub(super) struct Served {
    count: usize,
    /// When each has been silent for too long; not of those whose answer is being looked for.
    patience: Timers<ConnId>,
    /// A body, lent to one answer at a time.
    body: Vec<u8>,
}

impl Served {
    pub(super) fn poll_timeout(&self) -> Time {
        self.patience.next()
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) fn forget(&mut self, conn: ConnId) {
        self.count -= 1;
        self.patience.remove(conn);
    }
}

impl<S: Storage> Engine<S> {
    /// Somebody comes to the tracker server; none if there is no room.
    pub(super) fn accept_served(&mut self, now: Time, from: SocketAddr) -> Option<ConnId> {
        let addr = canonical_addr(from);
        let is_proxy = self.tracker.as_ref()?.is_proxy(addr.ip());
        if self.exiting || !is_proxy && self.with_ip.get(&addr.ip()) >= CONNECTIONS_PER_IP_MAX {
            self.stats.served_refused += 1;
            return None;
        }
        if self.served.count >= self.config.tracker.connections_max && !self.shed_served(now) {
            self.stats.served_refused += 1;
            return None;
        }
        self.stats.served_accepted += 1;
        self.served.count += 1;
        // Its first turn comes at once, and sets its patience if it stays.
        Some(self.keep(Connection::new(addr, Role::Served(Box::new(HttpServer::accepted(now))))))
    }

    /// Closes the one that is silent for longest; false if none is.
    pub(super) fn shed_served(&mut self, now: Time) -> bool {
        let silent = self.served.patience.pop(Time::NEVER - std::time::Duration::from_nanos(1));
        if let Some(silent) = silent {
            self.stats.served_shed += 1;
            self.close(now, silent);
        }
        silent.is_some()
    }

    /// Those that were silent for too long are closed.
    pub(super) fn handle_served_timeout(&mut self, now: Time) {
        while let Some(conn) = self.served.patience.pop(now) {
            let Some(Connection { role: Role::Served(server), .. }) = self.connections.get_mut(conn) else { continue };
            if server.handle_timeout(now) {
                self.close(now, conn);
            } else {
                let at = server.poll_timeout();
                self.served.patience.set(conn, at);
            }
        }
    }

    /// A turn in both directions. It leads to nothing that would have to be settled.
    pub(super) fn handle_served(
        &mut self,
        now: Time,
        conn: ConnId,
        stream: &mut S::Stream,
        budget: &mut Budget,
    ) -> Progress {
        let progress = self.serve(now, conn, stream, budget).unwrap_or_else(|_| {
            self.close(now, conn);
            Progress::Drained
        });
        self.act_on_store(now);
        progress
    }

    /// What came is answered, and what waits is sent.
    fn serve(
        &mut self,
        now: Time,
        conn: ConnId,
        stream: &mut S::Stream,
        budget: &mut Budget,
    ) -> Result<Progress, Ending> {
        let connection = self.connections.get_mut(conn).ok_or(Ending::Closed)?;
        let Role::Served(server) = &mut connection.role else { return Err(Ending::Closed) };
        let tracker = self.tracker.as_mut().ok_or(Ending::Closed)?;
        let mut kept = connection.tail.take_into(&mut self.receive);
        let mut has_ended = false;
        let progress = loop {
            let mut input = &self.receive[..kept];
            while let Some(request) = server.handle_input(now, &mut input) {
                if let Some(answered) = tracker.answer(now, conn, connection.addr, &request, &mut self.served.body) {
                    server.respond(now, answered.status, answered.kind, &self.served.body);
                }
            }
            let left = input.len();
            self.receive.copy_within(kept - left..kept, 0);
            kept = left;
            send(now, server, stream)?;
            if server.is_over() {
                return Err(Ending::Closed);
            }
            if server.is_full() || server.is_asked() || has_ended {
                break Progress::Drained; // room, or the answer, brings the next turn
            }
            if budget.is_spent() {
                break Progress::Spent;
            }
            let room = READ_LEN.min(self.receive.len() - kept);
            match stream.read(&mut self.receive[kept..kept + room]) {
                Ok(0) => {
                    server.handle_end();
                    has_ended = true;
                }
                Ok(count) => {
                    budget.spend(count);
                    kept += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Progress::Drained,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Ending::Closed),
            }
        };
        connection.tail.keep(&self.receive[..kept]);
        let at = server.poll_timeout();
        self.served.patience.set(conn, at);
        self.timers.set(Timer::Served, self.served.poll_timeout());
        Ok(progress)
    }

    /// Gives those their answers who had to wait for them.
    pub(super) fn hand_out_answers(&mut self, now: Time) {
        while let Some((conn, answered, body)) = self.tracker.as_mut().and_then(Tracker::poll_answer) {
            let Some(Connection { role: Role::Served(server), .. }) = self.connections.get_mut(conn) else { continue };
            server.respond(now, answered.status, answered.kind, &body);
            self.effects.push_back(Effect::Wake(conn));
        }
    }
}

/// Sends what waits, as far as the kernel takes it.
fn send(now: Time, server: &mut HttpServer, stream: &mut impl Write) -> Result<(), Ending> {
    while !server.outgoing().is_empty() {
        match stream.write(server.outgoing()) {
            Ok(count) => server.advance(now, count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(Ending::Closed),
        }
    }
    Ok(())
}
