//! What is asked, and why it is refused.

use super::{NodeId, SALT_MAX, TOKEN_MAX, VALUE_MAX, VALUES_MAX, array, hash, is_set};
use crate::base::hash::{InfoHash, Sha1Hash};
use crate::codec::bencode::{self, Dict, DictWriter, write_bytes};

/// Of which families a query wants nodes (BEP 32). Neither: of the family that it came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    /// `n4`.
    pub v4: bool,
    /// `n6`.
    pub v6: bool,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query<'b> {
    /// Whether the node is there.
    Ping,
    /// Nodes near `target`.
    FindNode {
        /// What they should be near to.
        target: NodeId,
        /// Of which families.
        want: Want,
    },
    /// Peers of a swarm, and nodes nearer to it.
    GetPeers {
        /// Which swarm.
        info_hash: InfoHash,
        /// Of which families nodes are wanted.
        want: Want,
        /// Seeders are of no use (BEP 33).
        no_seeds: bool,
        /// The counts of the swarm are wanted, as filters (BEP 33).
        scrape: bool,
    },
    /// The sender is a peer of a swarm.
    AnnouncePeer {
        /// Which swarm.
        info_hash: InfoHash,
        /// Where it listens; none: at the port that this came from.
        port: Option<u16>,
        /// It has everything (BEP 33).
        seed: bool,
        /// From an answer to `GetPeers`.
        token: &'b [u8],
    },
    /// An item (BEP 44), and nodes nearer to it.
    Get {
        /// Which.
        target: Sha1Hash,
        /// Of which families nodes are wanted.
        want: Want,
        /// Only one with a greater number is wanted.
        newer_than: Option<i64>,
    },
    /// An item to keep (BEP 44).
    Put {
        /// From an answer to `Get`.
        token: &'b [u8],
        /// What to keep.
        item: Item<'b>,
        /// It should replace the item with this number and no other.
        replaces: Option<i64>,
    },
    /// Some of the swarms that the node knows (BEP 51), and nodes near `target`.
    Sample {
        /// What the nodes should be near to.
        target: NodeId,
        /// Of which families.
        want: Want,
    },
    /// It is not known, but says what it looks for: it is answered like [`Query::FindNode`].
    Unknown {
        /// What the nodes should be near to.
        target: NodeId,
        /// Of which families.
        want: Want,
    },
    /// It cannot be answered, but by this error.
    Bad(ErrorKind),
}

/// Why a query is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// An argument is missing or has no sense, or a value is not bencoded canonically.
    Malformed,
    /// The token is not one that we gave this address lately.
    BadToken,
    /// Nobody knows this query.
    UnknownMethod,
    /// The node keeps no more.
    Full,
    /// The value is longer than [`VALUE_MAX`].
    ValueTooLong,
    /// The signature is none of this item.
    BadSignature,
    /// The salt is longer than [`SALT_MAX`].
    SaltTooLong,
    /// The item that should be replaced is not the one that is here.
    Replaced,
    /// A newer item is here.
    OlderItem,
}

impl ErrorKind {
    /// Its number and words (BEP 5, 44).
    #[must_use]
    pub const fn describe(self) -> (i64, &'static str) {
        match self {
            Self::Full => (202, "Server Error"),
            Self::Malformed => (203, "Protocol Error"),
            Self::BadToken => (203, "Protocol Error, bad token"),
            Self::UnknownMethod => (204, "Method Unknown"),
            Self::ValueTooLong => (205, "message (v field) too big"),
            Self::BadSignature => (206, "invalid signature"),
            Self::SaltTooLong => (207, "salt (salt field) too big"),
            Self::Replaced => (301, "the CAS hash mismatched, re-read value and try again"),
            Self::OlderItem => (302, "sequence number less than current"),
        }
    }
}

/// Something to keep (BEP 44).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'b> {
    /// What it is, bencoded.
    pub value: &'b [u8],
    /// Who may change it; none: nobody, and its target is the hash of its value.
    pub author: Option<Author<'b>>,
}

/// Who wrote a mutable item, and which version this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Author<'b> {
    /// The public key (ed25519).
    pub key: &'b [u8; 32],
    /// Tells apart the items of one key; empty in answers.
    pub salt: &'b [u8],
    /// Grows with each version.
    pub version: i64,
    /// Of salt, version and value.
    pub signature: &'b [u8; 64],
}

impl Want {
    fn parse(args: &Dict<'_>) -> Self {
        let list = args.list(b"want").unwrap_or_default();
        let has = |family: &[u8]| list.iter().any(|value| value.as_bytes() == Some(family));
        Self { v4: has(b"n4"), v6: has(b"n6") }
    }

    fn write(self, dict: &mut DictWriter<'_>) {
        if self != Self::default() {
            let out = dict.key("want");
            out.push(b'l');
            for (wanted, family) in [(self.v4, b"n4"), (self.v6, b"n6")] {
                if wanted {
                    write_bytes(out, family);
                }
            }
            out.push(b'e');
        }
    }
}

impl<'b> Query<'b> {
    /// The query that `method` is with these arguments; none if one of them is missing or has no sense.
    pub(super) fn parse(method: &[u8], args: &Dict<'b>, is_sorted: bool) -> Option<Self> {
        let want = Want::parse(args);
        let token = || args.bytes(b"token").filter(|token| token.len() <= TOKEN_MAX);
        Some(match method {
            b"ping" => Self::Ping,
            b"find_node" => Self::FindNode { target: hash(args, b"target")?, want },
            b"get_peers" => Self::GetPeers {
                info_hash: hash(args, b"info_hash")?,
                want,
                no_seeds: is_set(args, b"noseed"),
                scrape: is_set(args, b"scrape"),
            },
            b"announce_peer" => {
                let port = args.int(b"port").and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
                let port = if is_set(args, b"implied_port") { None } else { Some(port?) };
                let (info_hash, seed) = (hash(args, b"info_hash")?, is_set(args, b"seed"));
                Self::AnnouncePeer { info_hash, port, seed, token: token()? }
            }
            b"get" => Self::Get { target: hash(args, b"target")?, want, newer_than: args.int(b"seq") },
            b"put" => match Item::parse(args, is_sorted) {
                Ok(item) => Self::Put { token: token()?, item, replaces: args.int(b"cas") },
                Err(error) => Self::Bad(error),
            },
            b"sample_infohashes" => Self::Sample { target: hash(args, b"target")?, want },
            _ => match hash(args, b"target").or_else(|| hash(args, b"info_hash")) {
                Some(target) => Self::Unknown { target, want },
                None => Self::Bad(ErrorKind::UnknownMethod),
            },
        })
    }

    /// What it is called.
    #[must_use]
    pub const fn method(&self) -> &'static [u8] {
        match self {
            Self::Ping => b"ping",
            Self::FindNode { .. } => b"find_node",
            Self::GetPeers { .. } => b"get_peers",
            Self::AnnouncePeer { .. } => b"announce_peer",
            Self::Get { .. } => b"get",
            Self::Put { .. } => b"put",
            Self::Sample { .. } => b"sample_infohashes",
            Self::Unknown { .. } | Self::Bad(_) => b"unknown",
        }
    }

    pub(super) fn write_args(&self, id: NodeId, mut args: DictWriter<'_>) {
        if let Self::Put { replaces: Some(version), .. } = self {
            args.int("cas", *version);
        }
        args.bytes("id", &id.0);
        match self {
            Self::Ping | Self::Bad(_) => {}
            Self::FindNode { target, want } | Self::Sample { target, want } | Self::Unknown { target, want } => {
                args.bytes("target", &target.0);
                want.write(&mut args);
            }
            Self::GetPeers { info_hash, want, no_seeds, scrape } => {
                args.bytes("info_hash", &info_hash.0);
                if *no_seeds {
                    args.int("noseed", 1);
                }
                if *scrape {
                    args.int("scrape", 1);
                }
                want.write(&mut args);
            }
            Self::AnnouncePeer { info_hash, port, seed, token } => {
                if port.is_none() {
                    args.int("implied_port", 1);
                }
                args.bytes("info_hash", &info_hash.0);
                args.int("port", port.map_or(1, i64::from));
                if *seed {
                    args.int("seed", 1);
                }
                args.bytes("token", token);
            }
            Self::Get { target, want, newer_than } => {
                if let Some(version) = newer_than {
                    args.int("seq", *version);
                }
                args.bytes("target", &target.0);
                want.write(&mut args);
            }
            Self::Put { token, item, .. } => {
                if let Some(author) = &item.author {
                    args.bytes("k", author.key);
                    if !author.salt.is_empty() {
                        args.bytes("salt", author.salt);
                    }
                    args.int("seq", author.version);
                    args.bytes("sig", author.signature);
                }
                args.bytes("token", token);
                args.key("v").extend_from_slice(item.value);
            }
        }
        args.end();
    }
}

impl<'b> Item<'b> {
    pub(super) fn parse(args: &Dict<'b>, is_sorted: bool) -> Result<Self, ErrorKind> {
        let value = args.get(b"v").ok_or(ErrorKind::Malformed)?.raw;
        let salt = args.bytes(b"salt").unwrap_or_default();
        if value.len() > VALUE_MAX {
            return Err(ErrorKind::ValueTooLong);
        }
        if salt.len() > SALT_MAX {
            return Err(ErrorKind::SaltTooLong);
        }
        if !is_sorted && bencode::parse_canonical(value, VALUES_MAX).is_err() {
            return Err(ErrorKind::Malformed);
        }
        let author = match args.get(b"k") {
            None => None,
            Some(_) => {
                let needed = (array(args, b"k"), array(args, b"sig"), args.int(b"seq"));
                let (Some(key), Some(signature), Some(version)) = needed else { return Err(ErrorKind::Malformed) };
                Some(Author { key, salt, version, signature })
            }
        };
        Ok(Self { value, author })
    }
}
