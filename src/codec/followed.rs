//! Links to the newest version of something (BEP 46): whose it is, what the DHT's item says, and what is kept of them over
//! restarts.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::base::hash::{InfoHash, Sha1Hash, hex, unhex};
use crate::codec::bencode::{self, Dict, DictWriter, write_int};
use crate::codec::krpc::SALT_MAX;

/// Values of an item that names a torrent; one of more names none.
const ITEM_VALUES_MAX: usize = 64;
/// Values of the document: nine for each link, of which there are a few hundred. One of more is none of ours.
const VALUES_MAX: usize = 10_000;

/// Who says in the DHT which torrent is meant: `xs=urn:btpk:` and `s` of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// The public key (ed25519).
    pub key: [u8; 32],
    /// Tells apart what one key publishes; 64 bytes at most.
    pub salt: Vec<u8>,
}

impl Publisher {
    /// Reads 64 hex digits, and an even number of them, 128 at most.
    #[must_use]
    pub fn parse(key: &str, salt: &str) -> Option<Self> {
        if !salt.is_ascii() || !salt.len().is_multiple_of(2) || salt.len() > 2 * SALT_MAX {
            return None;
        }
        let byte = |at: usize| unhex::<1>(&salt[2 * at..2 * at + 2]).map(|[byte]| byte);
        Some(Self { key: unhex(key)?, salt: (0..salt.len() / 2).map(byte).collect::<Option<_>>()? })
    }

    /// Where the item is found (BEP 44).
    #[must_use]
    pub fn target(&self) -> Sha1Hash {
        Sha1Hash::of(&[&self.key[..], &self.salt].concat())
    }
}

impl fmt::Display for Publisher {
    /// The part of a link.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "xs=urn:btpk:{}", hex(&self.key))?;
        if self.salt.is_empty() { Ok(()) } else { write!(f, "&s={}", hex(&self.salt)) }
    }
}

/// The torrent that an item names: its value is a dictionary with a hash in `ih`.
#[must_use]
pub fn torrent_of(value: &[u8]) -> Option<InfoHash> {
    let value = bencode::parse(value, ITEM_VALUES_MAX).ok()?;
    Some(Sha1Hash(value.as_dict()?.bytes(b"ih")?.try_into().ok()?))
}

/// A version as its publisher signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Grows with each.
    pub seq: i64,
    /// Of salt, number and value.
    pub signature: [u8; 64],
    /// Which torrent it is, bencoded.
    pub value: Vec<u8>,
}

/// What is kept of one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The link itself.
    pub link: String,
    /// Where the content of its first version goes.
    pub dir: PathBuf,
    /// The torrent that is its newest version, or stands for it.
    pub torrent: InfoHash,
    /// The newest version, once one was found.
    pub newest: Option<Version>,
}

/// The document: a list of dictionaries.
///
/// # Panics
/// If a directory is relative.
#[must_use]
pub fn write<'k>(links: impl Iterator<Item = &'k Kept>) -> Vec<u8> {
    let mut out = vec![b'l'];
    for kept in links {
        assert!(kept.dir.is_absolute(), "what is kept must not depend on the daemon's working directory");
        let mut dict = DictWriter::begin(&mut out);
        dict.bytes("dir", kept.dir.as_os_str().as_bytes());
        dict.bytes("link", kept.link.as_bytes());
        if let Some(newest) = &kept.newest {
            write_int(dict.key("seq"), newest.seq);
            dict.bytes("sig", &newest.signature);
        }
        dict.bytes("torrent", &kept.torrent.0);
        if let Some(newest) = &kept.newest {
            dict.bytes("v", &newest.value);
        }
        dict.end();
    }
    out.push(b'e');
    out
}

/// What the document says; none if it is damaged.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Vec<Kept>> {
    let document = bencode::parse_canonical(bytes, VALUES_MAX).ok()?;
    document.as_list()?.iter().map(|link| read(link.as_dict()?)).collect()
}

fn read(dict: &Dict<'_>) -> Option<Kept> {
    let version = |seq| {
        let signature = dict.bytes(b"sig")?.try_into().ok()?;
        Some(Version { seq, signature, value: dict.bytes(b"v")?.to_vec() })
    };
    Some(Kept {
        link: String::from_utf8(dict.bytes(b"link")?.to_vec()).ok()?,
        dir: PathBuf::from(OsStr::from_bytes(dict.bytes(b"dir")?)),
        torrent: Sha1Hash(dict.bytes(b"torrent")?.try_into().ok()?),
        newest: dict.int(b"seq").and_then(version),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "8543d3e6115f0f98c944077a4493dcd543e49c739fd998550a1f614ab36ed63e";

    #[test]
    fn targets_are_those_of_bep_46() {
        for (salt, target) in
            [("", "cc3f9d90b572172053626f9980ce261a850d050b"), ("6e", "59ee7c2cb9b4f7eb1986ee2d18fd2fdb8a56554f")]
        {
            let publisher = Publisher::parse(KEY, salt).unwrap();
            assert_eq!(publisher.target().to_string(), target);
        }
        for (key, salt) in [("85", ""), (KEY, "6"), (KEY, "6g"), (KEY, "ü"), (KEY, &"00".repeat(65))] {
            assert_eq!(Publisher::parse(key, salt), None, "{key} {salt}");
        }
    }

    #[test]
    fn an_item_names_a_torrent_or_it_does_not() {
        let hash = InfoHash::of(b"x");
        let value = [&b"d1:ai1e2:ih20:"[..], &hash.0, b"e"].concat();
        assert_eq!(torrent_of(&value), Some(hash));
        for other in [&b"d2:ih3:abce"[..], b"de", b"12:Hello World!", b"", b"d2:ihi1ee"] {
            assert_eq!(torrent_of(other), None);
        }
    }

    #[test]
    fn what_was_kept_is_read_and_damage_is_nothing() {
        let newest = Version { seq: -3, signature: [5; 64], value: b"de".to_vec() };
        let kept = |newest| Kept { link: "magnet:?x".into(), dir: "/a/b".into(), torrent: InfoHash::of(b"y"), newest };
        let links = vec![kept(None), kept(Some(newest))];
        let bytes = write(links.iter());
        assert_eq!(parse(&bytes), Some(links));
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), None);
        }
        assert_eq!(parse(b"le"), Some(vec![]));
    }
}
