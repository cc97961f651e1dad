//! Memory that strangers make us hold: unfinished messages that came, messages that wait to go out, and which pieces a peer has.
//!
//! Each is bounded by itself, and many together may still be more than there should be (`memory` in [limits]). Then whoever holds most
//! goes, until it is not. What is held is counted at the end of each turn, for that is when it changes.

use std::time::Duration;

use crate::base::ids::ConnId;
use crate::base::steps;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::Engine;
use crate::engine::connections::{Connection, Role};

/// What was shed is said so often at most.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What all connections hold together.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: usize,
    said_until: Time,
}

impl Held {
    /// A connection is gone that held so much.
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }
}

impl<S: Storage> Engine<S> {
    /// Counts what a connection holds after a turn; closes those that hold most while that is too much of all.
    pub(super) fn count_held(&mut self, now: Time, conn: ConnId) {
        let Some(connection) = self.connections.get(conn) else { return };
        let bytes = connection.buffered() + self.queued_for(conn, connection);
        let connection = self.connections.get_mut(conn).expect("it was just there");
        self.held.bytes = self.held.bytes - connection.held + bytes;
        connection.held = bytes;
        while self.held.bytes > self.config.memory_max {
            steps::add(self.connections.len());
            let most = self.connections.iter().max_by_key(|(_, connection)| connection.held).map(|(id, _)| id);
            let Some(greediest) = most else { return };
            self.stats.shed_heavy += 1;
            self.close(now, greediest);
            if now >= self.held.said_until {
                self.held.said_until = now + SAY_EVERY;
                log::warn!(
                    "connections made us hold more than {} KiB of unfinished and unsent messages and of pieces that peers have \
                     (`memory` in [limits]); those that hold most are closed (`stats` counts them)",
                    self.config.memory_max >> 10
                );
            }
        }
    }

    /// Encoded messages that wait for a peer, and what is known of its pieces.
    fn queued_for(&self, conn: ConnId, connection: &Connection) -> usize {
        match &connection.role {
            Role::Greeting(machine) => machine.outbuf().encoded_len(),
            Role::Waiting(caller) => caller.machine.outbuf().encoded_len(),
            Role::Peer(id) => self.torrents.get(*id).map_or(0, |torrent| torrent.held_for(conn)),
            _ => 0,
        }
    }
}
