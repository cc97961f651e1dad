//! What happened, and when: a hash over all of it, the latest of it for whoever must understand a failure.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;

use sha2::{Digest, Sha256};

use crate::base::time::Time;
use crate::sim::stream::Bytes;

/// Entries that are kept to be shown with a failure; older ones are forgotten.
const KEPT_MAX: usize = 20_000;
/// Entries of each node that a failure shows.
const SHOWN_MAX: usize = 30;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It dials an address.
    Dials(SocketAddr),
    /// A connection to this node stands.
    Connected(usize),
    /// Nobody took its connection.
    Refused,
    /// Bytes came, so many of them content.
    Bytes {
        /// From which node.
        from: usize,
        /// How many.
        len: usize,
        /// How many of them are content.
        content: usize,
        /// Where in its content the first of that is.
        at: Option<usize>,
    },
    /// A connection with this node ended.
    Ended(usize),
    /// A datagram came.
    Packet {
        /// From where.
        from: SocketAddr,
        /// How long it is.
        len: usize,
    },
    /// It claims so many more pieces, the last of which is this.
    Claims(u32, u32),
    /// Everything it wants is there.
    Finished,
    /// A job of the disk is done.
    Job,
    /// Something was done to it, or it came or went.
    Fate(&'static str),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dials(addr) => write!(f, "dials {addr}"),
            Self::Connected(node) => write!(f, "is connected with {node}"),
            Self::Refused => f.write_str("is refused"),
            Self::Bytes { from, len, at: None, .. } => write!(f, "gets {len} bytes of {from}"),
            Self::Bytes { from, len, content, at: Some(at) } => {
                write!(f, "gets {len} bytes of {from}, {content} of them content from {at} on")
            }
            Self::Ended(node) => write!(f, "loses a connection with {node}"),
            Self::Packet { from, len } => write!(f, "gets a datagram of {len} bytes from {from}"),
            Self::Claims(count, last) => write!(f, "has {count} more, piece {last}"),
            Self::Finished => f.write_str("has everything"),
            Self::Job => f.write_str("has done a job"),
            Self::Fate(fate) => f.write_str(fate),
        }
    }
}

/// When, to which node, what.
pub(crate) type Entry = (Time, usize, What);

/// The trace of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: Sha256,
    kept: VecDeque<Entry>,
    /// Everything from then on is printed by who asks for it.
    prints_from: Time,
    pub(crate) printed: Vec<String>,
    digest: Vec<u8>,
}

impl Trace {
    pub(crate) fn new(prints_from: Time) -> Self {
        Self { hash: Sha256::new(), kept: VecDeque::new(), prints_from, printed: Vec::new(), digest: Vec::new() }
    }

    /// A hash of everything so far.
    pub(crate) fn hash(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    /// Something happened; `bytes` are part of it.
    pub(crate) fn note(&mut self, now: Time, node: usize, what: What, bytes: &[u8]) {
        self.digest.extend_from_slice(&now.as_nanos().to_be_bytes());
        self.digest.extend_from_slice(&(node as u64).to_be_bytes());
        self.digest.extend_from_slice(what.to_string().as_bytes());
        self.digest.extend_from_slice(bytes);
        self.hash.update(&self.digest);
        self.digest.clear();
        self.keep(now, node, what);
    }

    /// Bytes came to `node`.
    pub(crate) fn note_bytes(&mut self, now: Time, node: usize, from: usize, bytes: &Bytes) {
        self.digest.extend_from_slice(&now.as_nanos().to_be_bytes());
        self.digest.extend_from_slice(&(node as u64).to_be_bytes());
        bytes.digest_into(&mut self.digest);
        self.hash.update(&self.digest);
        self.digest.clear();
        self.keep(
            now,
            node,
            What::Bytes { from, len: bytes.len(), content: bytes.content_len(), at: bytes.content_at() },
        );
    }

    fn keep(&mut self, now: Time, node: usize, what: What) {
        if now >= self.prints_from {
            self.printed.push(line(&(now, node, what.clone())));
        }
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back((now, node, what));
    }

    /// The latest of what happened to each of `nodes`, a line each.
    pub(crate) fn latest(&self, nodes: &[usize]) -> Vec<String> {
        let mut shown: Vec<&Entry> = Vec::new();
        for wanted in nodes {
            shown.extend(self.kept.iter().rev().filter(|(_, node, _)| node == wanted).take(SHOWN_MAX));
        }
        shown.sort_by_key(|(at, node, _)| (*at, *node));
        shown.into_iter().map(line).collect()
    }
}

fn line((at, node, what): &Entry) -> String {
    format!("{at:?} node {node} {what}")
}

/// A trace's hash as people compare it.
#[must_use]
pub fn shown_hash(hash: &[u8; 32]) -> String {
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
