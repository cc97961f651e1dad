//! How a stream's bytes pass: plain, or by message stream encryption. What the lane hides, nobody above it sees.

use std::io::{ErrorKind, Write};

use crate::base::config::Encryption;
use crate::base::hash::InfoHash;
use crate::base::ids::ConnId;
use crate::base::steps;
use crate::base::storage::{Chunk, SendError, Storage};
use crate::base::time::Time;
use crate::codec::wire::PROTOCOL;
use crate::engine::connections::{Connection, Ending, Role};
use crate::engine::{Effect, Engine};
use crate::protocol::mse::{Ciphers, Mse, Step};

/// Bytes that are ciphered and handed to the kernel at once.
pub(super) const SEALED_MAX: usize = 128 * 1024;

/// Ciphered handshakes of strangers in a second, each of which costs us some 0.1 ms; one more is closed. Our own are as few as
/// what we dial.
const SHAKES_MAX: u32 = 200;

/// How many strangers began a ciphered handshake in the present second.
#[derive(Debug, Default)]
pub(super) struct Shakes {
    second: u64,
    count: u32,
}

impl Shakes {
    /// Counts one more; false if there were enough.
    fn admit(&mut self, now: Time) -> bool {
        if self.second != now.as_secs() {
            *self = Self { second: now.as_secs(), count: 0 };
        }
        self.count += 1;
        self.count <= SHAKES_MAX
    }
}

/// The lane of one stream.
#[derive(Debug)]
pub(super) enum Lane {
    /// Accepted; its first bytes will tell.
    Undecided,
    Plain,
    /// The handshake of MSE is under way.
    Shaking(Box<Mse>),
    Ciphered(Box<Ciphers>),
}

/// Bytes on their way to the kernel as they are; no more than a handshake's or [`SEALED_MAX`].
#[derive(Debug, Default)]
pub(super) struct Sealed {
    bytes: Vec<u8>,
    sent: usize,
}

impl Sealed {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that are still to be handed on.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Hands on what there is; false if the kernel takes no more of it now.
    pub(super) fn flush(&mut self, stream: &mut impl Write) -> Result<bool, Ending> {
        while self.sent < self.bytes.len() {
            match stream.write(&self.bytes[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Ending::Closed),
            }
        }
        *self = Self::default();
        Ok(true)
    }
}

impl Connection {
    /// True once messages may pass.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.lane, Lane::Plain | Lane::Ciphered(_))
    }

    pub(super) fn is_ciphered(&self) -> bool {
        self.lane.is_ciphered()
    }
}

impl Lane {
    pub(super) fn is_ciphered(&self) -> bool {
        matches!(self, Self::Ciphered(_))
    }

    /// Hands `chunks` on: to the stream where it is plain, ciphered to `sealed` where not. How many of their bytes are gone.
    pub(super) fn send<S: Storage>(
        &mut self,
        sealed: &mut Sealed,
        storage: &mut S,
        stream: &mut S::Stream,
        chunks: &[Chunk<'_>],
    ) -> Result<usize, SendError> {
        let Self::Ciphered(ciphers) = self else { return storage.send(stream, chunks) };
        let bytes = &mut sealed.bytes;
        let start = bytes.len();
        for chunk in chunks {
            match *chunk {
                Chunk::Bytes(more) => bytes.extend_from_slice(more),
                Chunk::Content(store, span) => {
                    let at = bytes.len();
                    bytes.resize(at + usize::try_from(span.len).expect("a chunk is at most a block"), 0);
                    if let Err(fault) = storage.read(store, span.offset, &mut bytes[at..]) {
                        bytes.truncate(start);
                        return Err(SendError::Content(store, fault));
                    }
                }
            }
        }
        steps::add_bytes(4 * (bytes.len() - start)); // RC4 is slower than a copy
        ciphers.seal(&mut bytes[start..]);
        Ok(bytes.len() - start)
    }
}

impl<S: Storage> Engine<S> {
    /// The lane that an accepted stream begins in.
    pub(super) fn first_lane(&self) -> Lane {
        if self.config.encryption == Encryption::Off { Lane::Plain } else { Lane::Undecided }
    }

    /// Whether we begin a stream of ours with the handshake of MSE, to a peer that may take it or not.
    pub(super) fn begins_ciphered(&self, takes_it: bool) -> bool {
        match self.config.encryption {
            Encryption::Off | Encryption::Allow => false,
            Encryption::Prefer => takes_it,
            Encryption::Require => true,
        }
    }

    /// Begins the handshake of a stream that we dialled.
    pub(super) fn begin_shaking(&mut self, conn: ConnId, info_hash: InfoHash) {
        let connection = self.connections.get_mut(conn).expect("it was just dialled");
        let may_be_plain = self.config.encryption != Encryption::Require;
        let mut mse = Mse::dialled(info_hash, may_be_plain, self.rng.fork("mse"));
        connection.sealed.push(&mse.take_output());
        connection.lane = Lane::Shaking(Box::new(mse));
    }

    /// The first `len` bytes of the receive buffer came, all but the first `kept` just now. How many plain bytes it holds
    /// now; none while the lane is being agreed on.
    pub(super) fn pass_lane(
        &mut self,
        now: Time,
        conn: ConnId,
        kept: usize,
        len: usize,
    ) -> Result<Option<usize>, Ending> {
        let connection = self.connections.get_mut(conn).ok_or(Ending::Closed)?;
        match &mut connection.lane {
            Lane::Plain => Ok(Some(len)),
            Lane::Ciphered(ciphers) => {
                ciphers.open(&mut self.receive[kept..len]);
                Ok(Some(len))
            }
            Lane::Shaking(_) => self.shake(conn, len),
            Lane::Undecided => {
                let shown = len.min(PROTOCOL.len());
                if self.receive[..shown] != PROTOCOL[..shown] {
                    if !self.shakes.admit(now) {
                        return Err(Ending::Closed);
                    }
                    let may_be_plain = self.config.encryption != Encryption::Require;
                    connection.lane = Lane::Shaking(Box::new(Mse::accepted(may_be_plain, self.rng.fork("mse"))));
                    return self.shake(conn, len);
                }
                if shown < PROTOCOL.len() {
                    connection.tail.keep(&self.receive[..len]);
                    return Ok(None);
                }
                if self.config.encryption == Encryption::Require {
                    return Err(Ending::Closed);
                }
                connection.lane = Lane::Plain;
                Ok(Some(len))
            }
        }
    }

    fn shake(&mut self, conn: ConnId, len: usize) -> Result<Option<usize>, Ending> {
        let connection = self.connections.get_mut(conn).expect("it is being read");
        let Lane::Shaking(mse) = &mut connection.lane else { unreachable!("only a handshake is shaken") };
        let mut step = mse.handle_input(&self.receive[..len]).map_err(|_| Ending::Misbehaved)?;
        if let Step::Torrent(named) = step {
            let info_hash = self.by_obfuscated.get(&named).ok_or(Ending::Closed)?;
            step = mse.set_torrent(*info_hash).map_err(|_| Ending::Misbehaved)?;
        }
        connection.sealed.push(&mse.take_output());
        self.effects.push_back(Effect::Wake(conn));
        let Step::Done { ciphers, rest } = step else { return Ok(None) };
        let is_ciphered = ciphers.is_some();
        connection.lane = ciphers.map_or(Lane::Plain, Lane::Ciphered);
        if let Role::Peer(id) = connection.role
            && let Some(torrent) = self.torrents.get_mut(id)
        {
            torrent.handle_lane(conn, is_ciphered);
        }
        self.receive[..rest.len()].copy_from_slice(&rest);
        Ok(Some(rest.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_get_so_many_handshakes_a_second() {
        let mut shakes = Shakes::default();
        assert_eq!((0..1000).filter(|_| shakes.admit(Time::from_secs(7))).count(), SHAKES_MAX as usize);
        assert!(shakes.admit(Time::from_secs(8)));
    }
}
