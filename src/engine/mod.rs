//! A whole BitTorrent node without sockets, files, threads or a clock.
//!
//! **Drain contract**: after any round of `handle_*`, the driver drains [`Engine::poll_effect`] and
//! [`Engine::poll_transmit`] before it waits, and waits no longer than [`Engine::poll_timeout`].

use std::marker::PhantomData;
use std::net::SocketAddr;

use crate::base::config::Config;
use crate::base::ids::{ConnId, JobId, ListenerId, SocketId};
use crate::base::rate::Budget;
use crate::base::rng::Rng;
use crate::base::storage::{Fault, Job, Storage};
use crate::base::time::Time;
use crate::torrent::command::{Command, Reply};

/// How a turn of a connection ended, in the direction it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The kernel has no more (reading), takes no more, or there is nothing to send: wait for its edge, or for a wake.
    Drained,
    /// The budget is used up: give it another turn, after the others.
    Spent,
    /// It waits for something else than the kernel (a rate limit, the disk, our own queue): wait for a [`Effect::Wake`].
    Parked,
}

/// What the driver should do.
#[derive(Debug)]
pub enum Effect {
    /// Begin a TCP connection; answer with `handle_connected` or `handle_closed`.
    Connect {
        /// What it will be called.
        conn: ConnId,
        /// Where to.
        to: SocketAddr,
    },
    /// Close the connection's socket; the engine has forgotten it. No `handle_closed` follows.
    Close(ConnId),
    /// Give the connection a writing and a reading turn: it may have something to send, or may read again.
    Wake(ConnId),
    /// Carry out a job; answer with `handle_job`.
    Job(JobId, Job),
    /// Bind this socket anew, at a random port (the resolver's); open it if it is not.
    Rebind(SocketId),
    /// Everything that was saved is running: tell whoever started us.
    Ready,
    /// Everything is saved: end.
    Exit,
}

/// A datagram to send; its bytes are in the buffer that was passed to `poll_transmit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// From which socket.
    pub socket: SocketId,
    /// Where to.
    pub to: SocketAddr,
}

/// The node.
#[derive(Debug)]
pub struct Engine<S: Storage> {
    storage: S,
    of: PhantomData<S>,
}

#[expect(unused_variables, reason = "the shape, before its contents")]
impl<S: Storage> Engine<S> {
    /// A node with no torrents. `unix_nanos` is the wall clock's time at [`Time::ZERO`], since the Unix epoch.
    #[must_use]
    pub fn new(config: Config, unix_nanos: u64, rng: Rng, storage: S) -> Self {
        Self { storage, of: PhantomData }
    }

    /// The storage, for the driver that has jobs to do with it.
    pub fn storage(&mut self) -> &mut S {
        &mut self.storage
    }

    /// Carries out a user's command, or refuses it and changes nothing.
    pub fn handle_command(&mut self, now: Time, command: Command) -> Reply {
        unreachable!()
    }

    /// A stream was accepted; none if it is not wanted and should be closed at once.
    pub fn handle_accept(&mut self, now: Time, listener: ListenerId, from: SocketAddr) -> Option<ConnId> {
        None
    }

    /// The connection that [`Effect::Connect`] began stands; `local` is our end's address.
    pub fn handle_connected(&mut self, now: Time, conn: ConnId, local: SocketAddr) {}

    /// The connection could not be made, failed, or ended, other than by an error that a turn of it met itself.
    pub fn handle_closed(&mut self, now: Time, conn: ConnId) {}

    /// A turn to read. Errors and the end of the stream are met inside and answered by [`Effect::Close`].
    pub fn handle_readable(
        &mut self,
        now: Time,
        conn: ConnId,
        stream: &mut S::Stream,
        budget: &mut Budget,
    ) -> Progress {
        Progress::Drained
    }

    /// A turn to write.
    pub fn handle_writable(
        &mut self,
        now: Time,
        conn: ConnId,
        stream: &mut S::Stream,
        budget: &mut Budget,
    ) -> Progress {
        Progress::Drained
    }

    /// A datagram came. It may be changed in place.
    pub fn handle_packet(&mut self, now: Time, socket: SocketId, from: SocketAddr, packet: &mut [u8]) {}

    /// [`Engine::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time) {}

    /// A job is done.
    pub fn handle_job(&mut self, now: Time, job: JobId, result: Result<(), Fault>) {}

    /// One slice of background work (hashing); true while more waits.
    pub fn work(&mut self, now: Time) -> bool {
        false
    }

    /// The next thing the driver should do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        None
    }

    /// The next datagram to send; its bytes replace what is in `packet`.
    pub fn poll_transmit(&mut self, now: Time, packet: &mut Vec<u8>) -> Option<Transmit> {
        None
    }

    /// When `handle_timeout` wants to be called, at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        Time::NEVER
    }
}
