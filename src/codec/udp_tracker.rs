//! UDP tracker messages (BEP 15, 41): both directions.

use std::borrow::Cow;
use std::net::SocketAddr;

use nom::IResult;
use nom::Parser;
use nom::bytes::complete::take;
use nom::number::complete::{be_i32, be_u16, be_u32, be_u64};

use crate::base::hash::{InfoHash, Sha1Hash};
use crate::codec::compact::{parse_addrs, write_addr};

/// The magic number that a connect request begins with.
const PROTOCOL: u64 = 0x0417_2710_1980;
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;
/// Peers of one answer that are read; more do not fit a datagram.
pub const PEERS_MAX: usize = 4096;
/// Swarms of one scrape (BEP 15).
pub const SCRAPES_MAX: usize = 74;
/// Not in BEP 15; what libtorrent sends for the event of BEP 21.
const PAUSED: u32 = 4;
/// BEP 41: the next bytes are a part of the path and query.
const OPTION_URL_DATA: u8 = 2;

/// Why an announce is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AnnounceEvent {
    /// It is time.
    #[default]
    Regular,
    /// The content became complete.
    Completed,
    /// The first one.
    Started,
    /// The last one.
    Stopped,
    /// It is time, and the peer downloads nothing more although it is not complete: a partial seed (BEP 21).
    Paused,
}

/// What a peer tells a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announce {
    /// Which swarm.
    pub info_hash: InfoHash,
    /// Who.
    pub peer_id: [u8; 20],
    /// Payload received since `Started`.
    pub downloaded: u64,
    /// Wanted bytes still missing.
    pub left: u64,
    /// Payload sent since `Started`.
    pub uploaded: u64,
    /// Why.
    pub event: AnnounceEvent,
    /// The same in every announce of one peer.
    pub key: u32,
    /// How many peers it wants; -1 is the tracker's choice.
    pub num_want: i32,
    /// Where it listens.
    pub port: u16,
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// Wants a connection id.
    Connect {
        /// Echoed.
        transaction: u32,
    },
    /// Announces.
    Announce {
        /// From the answer to `Connect`.
        connection: u64,
        /// Echoed.
        transaction: u32,
        /// What it says.
        announce: Announce,
        /// Path and query of the tracker's address (BEP 41); empty for none.
        path: Cow<'a, [u8]>,
    },
    /// Asks about swarms.
    Scrape {
        /// From the answer to `Connect`.
        connection: u64,
        /// Echoed.
        transaction: u32,
        /// Which; at most [`SCRAPES_MAX`].
        info_hashes: &'a [[u8; 20]],
    },
}

/// A swarm in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SwarmCounts {
    /// Complete peers.
    pub seeders: u32,
    /// Downloads ever completed.
    pub completed: u32,
    /// Incomplete peers.
    pub leechers: u32,
}

/// What a tracker answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To `Connect`.
    Connect {
        /// As it was asked.
        transaction: u32,
        /// Good for a minute.
        connection: u64,
    },
    /// To `Announce`.
    Announce {
        /// As it was asked.
        transaction: u32,
        /// Seconds until the next one.
        interval: u32,
        /// Incomplete peers.
        leechers: u32,
        /// Complete peers.
        seeders: u32,
        /// Of the family of the address that sent it.
        peers: Vec<SocketAddr>,
    },
    /// To `Scrape`, in the order of the question.
    Scrape {
        /// As it was asked.
        transaction: u32,
        /// The swarms.
        swarms: Vec<SwarmCounts>,
    },
    /// A refusal.
    Error {
        /// As it was asked.
        transaction: u32,
        /// For people.
        message: String,
    },
}

impl<'a> Request<'a> {
    /// The datagram's bytes replace what is in `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::Connect { transaction } => {
                put(out, &[&PROTOCOL.to_be_bytes(), &CONNECT.to_be_bytes(), &transaction.to_be_bytes()]);
            }
            Self::Announce { connection, transaction, announce, path } => {
                let event: u32 = match announce.event {
                    AnnounceEvent::Regular => 0,
                    AnnounceEvent::Completed => 1,
                    AnnounceEvent::Started => 2,
                    AnnounceEvent::Stopped => 3,
                    AnnounceEvent::Paused => PAUSED,
                };
                put(out, &[&connection.to_be_bytes(), &ANNOUNCE.to_be_bytes(), &transaction.to_be_bytes()]);
                put(out, &[&announce.info_hash.0, &announce.peer_id, &announce.downloaded.to_be_bytes()]);
                put(out, &[&announce.left.to_be_bytes(), &announce.uploaded.to_be_bytes(), &event.to_be_bytes()]);
                put(out, &[&[0; 4], &announce.key.to_be_bytes(), &announce.num_want.to_be_bytes()]);
                put(out, &[&announce.port.to_be_bytes()]);
                for part in path.chunks(255) {
                    let len = u8::try_from(part.len()).expect("chunks of 255");
                    put(out, &[&[OPTION_URL_DATA, len], part]);
                }
            }
            Self::Scrape { connection, transaction, info_hashes } => {
                put(out, &[&connection.to_be_bytes(), &SCRAPE.to_be_bytes(), &transaction.to_be_bytes()]);
                info_hashes.iter().take(SCRAPES_MAX).for_each(|hash| out.extend_from_slice(hash));
            }
        }
    }

    /// Reads a client's datagram; none if it is not one.
    #[must_use]
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let (rest, (connection, action, transaction)) = head(packet).ok()?;
        match action {
            CONNECT if connection == PROTOCOL => Some(Self::Connect { transaction }),
            ANNOUNCE => {
                let (rest, announce) = announce(rest).ok()?;
                Some(Self::Announce { connection, transaction, announce: announce?, path: options(rest) })
            }
            SCRAPE if !rest.is_empty() && rest.len().is_multiple_of(20) && rest.len() / 20 <= SCRAPES_MAX => {
                Some(Self::Scrape { connection, transaction, info_hashes: rest.as_chunks().0 })
            }
            _ => None,
        }
    }
}

/// The connection id and the transaction of what may be a broken request; none if it is too short for these.
#[must_use]
pub fn claim(packet: &[u8]) -> Option<(u64, u32)> {
    head(packet).ok().map(|(_, (connection, _, transaction))| (connection, transaction))
}

type Head = (u64, u32, u32);

fn head(input: &[u8]) -> IResult<&[u8], Head> {
    (be_u64, be_u32, be_u32).parse(input)
}

fn announce(input: &[u8]) -> IResult<&[u8], Option<Announce>> {
    let (rest, (info_hash, peer_id)) = (take(20_usize), take(20_usize)).parse(input)?;
    let numbers = (be_u64, be_u64, be_u64, be_u32, be_u32, be_u32, be_i32, be_u16);
    let (rest, (downloaded, left, uploaded, event, _ip, key, num_want, port)) = { numbers }.parse(rest)?;
    let event = match event {
        0 => AnnounceEvent::Regular,
        1 => AnnounceEvent::Completed,
        2 => AnnounceEvent::Started,
        3 => AnnounceEvent::Stopped,
        PAUSED => AnnounceEvent::Paused,
        _ => return Ok((rest, None)),
    };
    let info_hash = Sha1Hash(info_hash.try_into().expect("twenty were taken"));
    let peer_id = peer_id.try_into().expect("twenty were taken");
    Ok((rest, Some(Announce { info_hash, peer_id, downloaded, left, uploaded, event, key, num_want, port })))
}

/// BEP 41: the parts of path and query; what is not understood ends it.
fn options(mut input: &[u8]) -> Cow<'_, [u8]> {
    let mut path = Cow::Borrowed(&[][..]);
    while let [kind, rest @ ..] = input {
        input = match (kind, rest) {
            (1, rest) => rest,
            (&OPTION_URL_DATA, [len, rest @ ..]) if rest.len() >= usize::from(*len) => {
                let (part, rest) = rest.split_at(usize::from(*len));
                // One part is all that most have.
                if path.is_empty() {
                    path = part.into()
                } else {
                    path.to_mut().extend_from_slice(part)
                }
                rest
            }
            _ => break,
        };
    }
    path
}

impl Response {
    /// The datagram's bytes replace what is in `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::Connect { transaction, connection } => write_connect(out, *transaction, *connection),
            Self::Announce { transaction, interval, leechers, seeders, peers } => {
                write_announce(out, *transaction, *interval, *leechers, *seeders);
                peers.iter().for_each(|peer| write_addr(out, *peer));
            }
            Self::Scrape { transaction, swarms } => write_scrape(out, *transaction, swarms.iter().copied()),
            Self::Error { transaction, message } => write_error(out, *transaction, message),
        }
    }

    /// Reads a tracker's datagram; none if it is not one. `v6` says of which family its peers are.
    #[must_use]
    pub fn parse(packet: &[u8], v6: bool) -> Option<Self> {
        let (rest, (action, transaction)) = reply_head(packet).ok()?;
        match action {
            CONNECT => {
                let connection = u64::from_be_bytes(*rest.first_chunk()?);
                Some(Self::Connect { transaction, connection })
            }
            ANNOUNCE => {
                let (rest, (interval, leechers, seeders)) = triple(rest).ok()?;
                let peers = parse_addrs(rest, v6, PEERS_MAX);
                Some(Self::Announce { transaction, interval, leechers, seeders, peers })
            }
            SCRAPE => {
                let swarm = |chunk: &[u8; 12]| {
                    let number =
                        |at: usize| u32::from_be_bytes([chunk[at], chunk[at + 1], chunk[at + 2], chunk[at + 3]]);
                    SwarmCounts { seeders: number(0), completed: number(4), leechers: number(8) }
                };
                let swarms = rest.as_chunks::<12>().0.iter().take(SCRAPES_MAX).map(swarm).collect();
                Some(Self::Scrape { transaction, swarms })
            }
            ERROR => Some(Self::Error { transaction, message: String::from_utf8_lossy(rest).into_owned() }),
            _ => None,
        }
    }
}

/// Appends an answer to `Connect`.
pub fn write_connect(out: &mut Vec<u8>, transaction: u32, connection: u64) {
    put(out, &[&CONNECT.to_be_bytes(), &transaction.to_be_bytes(), &connection.to_be_bytes()]);
}

/// Appends the head of an answer to `Announce`; compact addresses follow.
pub fn write_announce(out: &mut Vec<u8>, transaction: u32, interval: u32, leechers: u32, seeders: u32) {
    put(out, &[&ANNOUNCE.to_be_bytes(), &transaction.to_be_bytes(), &interval.to_be_bytes()]);
    put(out, &[&leechers.to_be_bytes(), &seeders.to_be_bytes()]);
}

/// Appends an answer to `Scrape`.
pub fn write_scrape(out: &mut Vec<u8>, transaction: u32, swarms: impl Iterator<Item = SwarmCounts>) {
    put(out, &[&SCRAPE.to_be_bytes(), &transaction.to_be_bytes()]);
    for swarm in swarms {
        put(out, &[&swarm.seeders.to_be_bytes(), &swarm.completed.to_be_bytes(), &swarm.leechers.to_be_bytes()]);
    }
}

/// Appends a refusal.
pub fn write_error(out: &mut Vec<u8>, transaction: u32, message: &str) {
    put(out, &[&ERROR.to_be_bytes(), &transaction.to_be_bytes(), message.as_bytes()]);
}

fn reply_head(input: &[u8]) -> IResult<&[u8], (u32, u32)> {
    (be_u32, be_u32).parse(input)
}

fn triple(input: &[u8]) -> IResult<&[u8], (u32, u32, u32)> {
    (be_u32, be_u32, be_u32).parse(input)
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce() -> Announce {
        Announce {
            info_hash: InfoHash::of(b"x"),
            peer_id: *b"-SW0100-abcdefghijkl",
            downloaded: 1,
            left: 2,
            uploaded: 3,
            event: AnnounceEvent::Started,
            key: 4,
            num_want: -1,
            port: 6881,
        }
    }

    #[test]
    fn requests_are_read_back_as_they_were_written() {
        let mut out = Vec::new();
        let long = "/announce?".to_owned() + &"k".repeat(300);
        let paused = Announce { event: AnnounceEvent::Paused, ..announce() };
        for request in [
            Request::Connect { transaction: 7 },
            Request::Announce { connection: 9, transaction: 8, announce: announce(), path: b"/x"[..].into() },
            Request::Announce { connection: 9, transaction: 8, announce: announce(), path: long.as_bytes().into() },
            Request::Announce { connection: 9, transaction: 8, announce: paused, path: b""[..].into() },
            Request::Scrape { connection: 9, transaction: 8, info_hashes: &[[7; 20], [8; 20]] },
        ] {
            request.write(&mut out);
            assert_eq!(Request::parse(&out), Some(request.clone()));
            for cut in 0..out.len().min(98) {
                assert_ne!(Request::parse(&out[..cut]), Some(request.clone()));
            }
        }
    }

    #[test]
    fn responses_are_read_back_as_they_were_written() {
        let mut out = Vec::new();
        for (response, v6) in [
            (Response::Connect { transaction: 1, connection: u64::MAX }, false),
            (
                Response::Announce {
                    transaction: 1,
                    interval: 2,
                    leechers: 3,
                    seeders: 4,
                    peers: vec!["1.2.3.4:5".parse().unwrap()],
                },
                false,
            ),
            (
                Response::Announce {
                    transaction: 1,
                    interval: 2,
                    leechers: 3,
                    seeders: 4,
                    peers: vec!["[::5]:6".parse().unwrap()],
                },
                true,
            ),
            (
                Response::Scrape {
                    transaction: 1,
                    swarms: vec![SwarmCounts { seeders: 1, completed: 2, leechers: 3 }],
                },
                false,
            ),
            (Response::Error { transaction: 1, message: "no".into() }, false),
        ] {
            response.write(&mut out);
            assert_eq!(Response::parse(&out, v6), Some(response));
        }
        assert_eq!(Response::parse(&[0; 7], false), None);
        assert_eq!(Response::parse(&[9; 20], false), None);
    }

    #[test]
    fn a_paused_peer_announces_the_number_that_libtorrent_sends() {
        let (mut out, paused) = (Vec::new(), Announce { event: AnnounceEvent::Paused, ..announce() });
        Request::Announce { connection: 9, transaction: 8, announce: paused.clone() }.write(&mut out);
        assert_eq!(out[80..84], [0, 0, 0, 4]);
        assert!(matches!(Request::parse(&out), Some(Request::Announce { announce, .. }) if announce == paused));
        out[83] = 5;
        assert_eq!(Request::parse(&out), None);
    }

    #[test]
    fn a_connect_request_has_the_bytes_of_bep_15() {
        let mut out = Vec::new();
        Request::Connect { transaction: 0x0102_0304 }.write(&mut out);
        assert_eq!(out, [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 1, 2, 3, 4]);
    }
}
