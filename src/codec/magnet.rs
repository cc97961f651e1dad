//! Magnet links: `magnet:?xt=urn:btih:…` (BEP 9, 53), a `.st`'s `x.st`, a publisher's key (BEP 46), and bare hashes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use url::form_urlencoded;

use crate::base::bytes::Bytes;
use crate::base::files::FileList;
use crate::base::geometry::Geometry;
use crate::base::hash::{InfoHash, PieceHashes, Sha1Hash, Sha256Hash, StId};
use crate::codec::followed::Publisher;
use crate::codec::metainfo::{Extras, Metainfo, URL_LEN_MAX};
use crate::codec::st;

/// Bytes of a link; a longer one is refused.
pub const LINK_LEN_MAX: usize = 64 * 1024;
/// Trackers, web seeds, peers or ranges of one link; what comes beyond is ignored.
const LIST_MAX: usize = 256;

/// What a link says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Magnet {
    /// `xt=urn:btih:`, 40 hex digits or 32 of base 32.
    pub info_hash: Option<InfoHash>,
    /// `x.st`.
    pub st_id: Option<StId>,
    /// `xs=urn:btpk:` and `s`: whose newest torrent is meant.
    pub publisher: Option<Publisher>,
    /// `dn`.
    pub name: Option<String>,
    /// `tr`.
    pub trackers: Vec<String>,
    /// `ws`.
    pub web_seeds: Vec<String>,
    /// `x.pe`: host and port.
    pub peers: Vec<String>,
    /// `so`: files, by index, inclusive (BEP 53).
    pub select: Vec<(usize, usize)>,
}

/// Why a link is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MagnetError {
    /// It does not begin with `magnet:?` and is no hash of 40 or 64 hex digits.
    NoMagnet,
    /// It is longer than [`LINK_LEN_MAX`].
    TooLong,
    /// It names no torrent.
    NoHash,
    /// Its hash is not one.
    BadHash,
    /// Its key or salt is not one.
    BadKey,
    /// It names a BitTorrent v2 torrent only.
    OnlyV2,
}

impl fmt::Display for MagnetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMagnet => "this is neither a magnet link nor a hash of 40 or 64 hex digits",
            Self::TooLong => "the magnet link is longer than 64 KiB",
            Self::NoHash => {
                "the magnet link names no torrent: it has neither `xt=urn:btih:` nor `x.st` nor `xs=urn:btpk:`"
            }
            Self::BadHash => "the magnet link's hash is damaged; it has 40 hex digits, 32 of base 32, or 64 for `x.st`",
            Self::BadKey => {
                "the magnet link's key is damaged; `xs=urn:btpk:` has 64 hex digits, and its salt `s` two a byte, 128 at most"
            }
            Self::OnlyV2 => "the magnet link names a BitTorrent v2 torrent, which this version cannot load",
        })
    }
}

impl std::error::Error for MagnetError {}

impl Magnet {
    /// Reads a link, or a bare hash: 40 hex digits of a wire hash, 64 of an `st-id`.
    ///
    /// # Errors
    /// See [`MagnetError`].
    pub fn parse(link: &str) -> Result<Self, MagnetError> {
        let link = link.trim();
        if link.len() > LINK_LEN_MAX {
            return Err(MagnetError::TooLong);
        }
        if let Some(info_hash) = Sha1Hash::from_hex(link) {
            return Ok(Self { info_hash: Some(info_hash), ..Self::default() });
        }
        if let Some(st_id) = Sha256Hash::from_hex(link) {
            return Ok(Self { st_id: Some(st_id), ..Self::default() });
        }
        let query = link.get(..8).filter(|start| start.eq_ignore_ascii_case("magnet:?")).map(|_| &link[8..]);
        let mut magnet = Self::default();
        let mut has_v2 = false;
        let (mut key_text, mut salt) = (None, String::new());
        for (key, value) in form_urlencoded::parse(query.ok_or(MagnetError::NoMagnet)?.as_bytes()) {
            // `tr.1=` and the like are a custom for keys that come several times.
            let key = if key.starts_with("x.") { &*key } else { key.split('.').next().expect("at least one part") };
            match key {
                "xt" => match value.split_once("urn:btih:") {
                    Some(("", hash)) => magnet.info_hash = Some(btih(hash).ok_or(MagnetError::BadHash)?),
                    _ => has_v2 |= value.starts_with("urn:btmh:"),
                },
                "x.st" => magnet.st_id = Some(Sha256Hash::from_hex(&value).ok_or(MagnetError::BadHash)?),
                // Of other sources to get the description from we know none.
                "xs" => key_text = value.strip_prefix("urn:btpk:").map(str::to_owned).or(key_text),
                "s" => salt = value.into_owned(),
                "dn" => magnet.name = Some(value.into_owned()),
                "tr" if magnet.trackers.len() < LIST_MAX => magnet.trackers.push(value.into_owned()),
                "ws" if magnet.web_seeds.len() < LIST_MAX => magnet.web_seeds.push(value.into_owned()),
                "x.pe" if magnet.peers.len() < LIST_MAX => magnet.peers.push(value.into_owned()),
                "so" => magnet.select = value.split(',').take(LIST_MAX).filter_map(range).collect(),
                _ => {}
            }
        }
        if let Some(key) = key_text {
            magnet.publisher = Some(Publisher::parse(&key, &salt).ok_or(MagnetError::BadKey)?);
        }
        match (magnet.names_torrent(), &magnet.publisher) {
            (false, None) if has_v2 => Err(MagnetError::OnlyV2),
            (false, None) => Err(MagnetError::NoHash),
            _ => Ok(magnet),
        }
    }

    /// It says by a hash which torrent is meant; otherwise only its publisher does.
    #[must_use]
    pub const fn names_torrent(&self) -> bool {
        self.info_hash.is_some() || self.st_id.is_some()
    }

    /// The hash by which peers name the torrent: that of the link, or what its `x.st` begins with. While only the publisher
    /// knows, where the item is found that names it: no torrent has that hash.
    ///
    /// # Panics
    /// If the link names no torrent, which `parse` refuses.
    #[must_use]
    pub fn wire_hash(&self) -> InfoHash {
        let of_st = || self.st_id.map(|st_id| st_id.truncated());
        let target = || self.publisher.as_ref().map(Publisher::target);
        self.info_hash.or_else(of_st).or_else(target).expect("a link names a torrent")
    }

    /// What the link says of its torrent, as if it were all: no files, no pieces. Trackers that are named twice have one place,
    /// each a tier of its own in the order of the link.
    #[must_use]
    pub fn stand_in(&self) -> Metainfo {
        let info_hash = self.wire_hash();
        let mut seen = BTreeSet::new();
        let fitting = self.trackers.iter().filter(|url| !url.is_empty() && url.len() <= URL_LEN_MAX);
        Metainfo {
            info_hash,
            st_id: self.st_id,
            name: self.name.clone().unwrap_or_else(|| info_hash.to_string()),
            files: Arc::new(FileList::new([])),
            is_single: true,
            geometry: Geometry::EMPTY,
            pieces: PieceHashes::Sha1(Bytes::default()),
            wire_pieces: None,
            trackers: fitting.filter(|url| seen.insert(st::identity(url))).map(|url| vec![url.clone()]).collect(),
            private: false,
            comment: None,
            created_by: None,
            creation_date: None,
            encoding: None,
            web_seeds: self.web_seeds.clone(),
            http_seeds: Vec::new(),
            nodes: Vec::new(),
            extras: Extras::default(),
            is_pure: self.info_hash.is_none(),
            info: Bytes::default(),
            others: Vec::new(),
        }
    }

    /// The link to a torrent.
    #[must_use]
    pub fn of(meta: &Metainfo) -> Self {
        Self {
            info_hash: (!meta.is_pure).then_some(meta.info_hash),
            st_id: meta.st_id,
            name: Some(meta.name.clone()),
            trackers: meta.trackers.iter().flatten().cloned().collect(),
            web_seeds: meta.web_seeds.clone(),
            ..Self::default()
        }
    }
}

impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "magnet:?";
        let mut part = |f: &mut fmt::Formatter<'_>, key: &str, value: &str| {
            write!(f, "{}{key}={value}", std::mem::replace(&mut separator, "&"))
        };
        if let Some(info_hash) = self.info_hash {
            part(f, "xt", &format!("urn:btih:{info_hash}"))?;
        }
        if let Some(st_id) = self.st_id {
            part(f, "x.st", &st_id.to_string())?;
        }
        if let Some(publisher) = &self.publisher {
            let publisher = publisher.to_string();
            let (key, value) = publisher.split_once('=').expect("it is written so");
            part(f, key, value)?;
        }
        let encoded =
            |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
        for (key, values) in
            [("dn", self.name.as_slice()), ("tr", &self.trackers), ("ws", &self.web_seeds), ("x.pe", &self.peers)]
        {
            for value in values {
                part(f, key, &encoded(value))?;
            }
        }
        if !self.select.is_empty() {
            let ranges: Vec<String> = self
                .select
                .iter()
                .map(|&(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
                .collect();
            part(f, "so", &ranges.join(","))?;
        }
        Ok(())
    }
}

fn range(text: &str) -> Option<(usize, usize)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

fn btih(hash: &str) -> Option<InfoHash> {
    if hash.len() == 32 { base32(hash).map(Sha1Hash) } else { Sha1Hash::from_hex(hash) }
}

/// Thirty-two digits of RFC 4648's base 32, as links of old clients have them.
fn base32(text: &str) -> Option<[u8; 20]> {
    let mut bytes = [0; 20];
    for (group, digits) in bytes.chunks_exact_mut(5).zip(text.as_bytes().chunks_exact(8)) {
        let mut bits = 0_u64;
        for &digit in digits {
            let value = match digit.to_ascii_uppercase() {
                upper @ b'A'..=b'Z' => upper - b'A',
                number @ b'2'..=b'7' => number - b'2' + 26,
                _ => return None,
            };
            bits = bits << 5 | u64::from(value);
        }
        group.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "d1ffad513fd9bb94abd949898d78ff9027504609";

    #[test]
    fn a_link_is_read_back_as_it_was_written() {
        let magnet = Magnet {
            info_hash: Sha1Hash::from_hex(HEX),
            st_id: Some(Sha256Hash::of(b"x")),
            publisher: Some(Publisher { key: [0xab; 32], salt: vec![0, 0xff] }),
            name: Some("a b&c=d/ü".into()),
            trackers: vec!["udp://t:1/announce?x=1&y".into(), "http://u/".into()],
            web_seeds: vec!["http://w/".into()],
            peers: vec!["10.0.0.1:6881".into(), "[::1]:5".into()],
            select: vec![(0, 0), (2, 5)],
        };
        assert_eq!(Magnet::parse(&magnet.to_string()), Ok(magnet));
    }

    #[test]
    fn a_publisher_s_link_has_a_key_and_maybe_a_salt() {
        let key = "8543d3e6115f0f98c944077a4493dcd543e49c739fd998550a1f614ab36ed63e";
        let link = Magnet::parse(&format!("magnet:?s=6e&xs=urn:btpk:{key}&xs=http://other/")).unwrap();
        assert!(!link.names_torrent());
        assert_eq!(link.wire_hash().to_string(), "59ee7c2cb9b4f7eb1986ee2d18fd2fdb8a56554f");
        assert_eq!(link.to_string(), format!("magnet:?xs=urn:btpk:{key}&s=6e"));
        let both = Magnet::parse(&format!("magnet:?xs=urn:btpk:{key}&xt=urn:btih:{HEX}")).unwrap();
        assert!(both.names_torrent() && both.publisher.is_some());
        assert_eq!(both.wire_hash().to_string(), HEX);
        // A salt that belongs to no key means nothing.
        assert_eq!(Magnet::parse(&format!("magnet:?xt=urn:btih:{HEX}&s=zz")).unwrap().publisher, None);
    }

    #[test]
    fn hashes_come_in_hex_in_base_32_and_bare() {
        let expected = Sha1Hash::from_hex(HEX);
        let base32 = "2H722UJ73G5ZJK6ZJGEY26H7SATVARQJ";
        for link in [
            HEX.to_owned(),
            HEX.to_uppercase(),
            format!("magnet:?xt=urn:btih:{HEX}"),
            format!("MAGNET:?dn=x&xt=urn:btih:{base32}"),
        ] {
            assert_eq!(Magnet::parse(&link).unwrap().info_hash, expected, "{link}");
        }
        assert!(Magnet::parse(&"0f".repeat(32)).unwrap().st_id.is_some());
    }

    #[test]
    fn what_names_no_torrent_is_refused_with_the_reason() {
        for (link, error) in [
            ("", MagnetError::NoMagnet),
            ("http://x/", MagnetError::NoMagnet),
            ("magnet:?dn=x", MagnetError::NoHash),
            ("magnet:?xt=urn:btih:12", MagnetError::BadHash),
            ("magnet:?x.st=12", MagnetError::BadHash),
            ("magnet:?xs=urn:btpk:12", MagnetError::BadKey),
            ("magnet:?xs=http://x/", MagnetError::NoHash),
            (
                "magnet:?xt=urn:btmh:1220caf1e1c30e81cb361b9ee167c4aa64228a7fa4fa9f6105232b28ad099f3a302e",
                MagnetError::OnlyV2,
            ),
        ] {
            assert_eq!(Magnet::parse(link), Err(error), "{link}");
        }
        assert_eq!(Magnet::parse(&"m".repeat(LINK_LEN_MAX + 1)), Err(MagnetError::TooLong));
    }
}
