//! The payloads of the extension protocol that belong to no single extension: its handshake (BEP 10, with BEP 21's
//! `upload_only` and our `st_id`), and `lt_donthave` (BEP 54), which is one number.
//!
//! Parsing is tolerant: a value of the wrong type or out of its range is as good as absent, and unknown keys are passed
//! over. Metadata (BEP 9) and peer exchange (BEP 11) have files of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::base::geometry::Piece;
use crate::base::hash::{Sha256Hash, StId};
use crate::codec::bencode::{self, Dict};

/// Longest client name that is looked at, in bytes; a longer one is as good as absent.
const CLIENT_LEN_MAX: usize = 1024;
/// Values in a message; one with more is as good as garbage. A handshake of a client that speaks everything has about forty.
const VALUES_MAX: usize = 256;

/// The extensions that we speak. Each has the number by which others send it to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExtensionKind {
    /// `ut_metadata` (BEP 9).
    Metadata,
    /// `ut_pex` (BEP 11).
    Pex,
    /// `lt_donthave` (BEP 54).
    DontHave,
    /// `st_catalog`, our own: what a peer shares with everybody.
    Catalog,
}

impl ExtensionKind {
    /// Every extension, in the order of their names, which is that of the handshake.
    pub const ALL: [Self; 4] = [Self::DontHave, Self::Catalog, Self::Metadata, Self::Pex];

    /// Its name in the handshake.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metadata => "ut_metadata",
            Self::Pex => "ut_pex",
            Self::DontHave => "lt_donthave",
            Self::Catalog => "st_catalog",
        }
    }

    /// The number by which others send it to us. Never 0, which is the handshake itself.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Metadata => 1,
            Self::Pex => 2,
            Self::DontHave => 3,
            Self::Catalog => 4,
        }
    }

    /// The extension that others send to us by this number.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.id() == id)
    }
}

/// A number for each extension; none where nothing is said. 0 says that the extension is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtensionIds([Option<u8>; ExtensionKind::ALL.len()]);

impl ExtensionIds {
    /// Our own numbers for `kinds`; nothing is said of the others.
    #[must_use]
    pub fn of(kinds: &[ExtensionKind]) -> Self {
        let mut ids = Self::default();
        kinds.iter().for_each(|kind| ids.set(*kind, kind.id()));
        ids
    }

    /// The number of `kind`, if something was said of it.
    #[must_use]
    pub const fn get(&self, kind: ExtensionKind) -> Option<u8> {
        self.0[kind as usize]
    }

    /// Sets the number of `kind`.
    pub const fn set(&mut self, kind: ExtensionKind, id: u8) {
        self.0[kind as usize] = Some(id);
    }

    /// Takes over what `later` says; what it says nothing of stays (BEP 10: handshakes are additive).
    pub fn merge(&mut self, later: Self) {
        for (mine, later) in self.0.iter_mut().zip(later.0) {
            *mine = later.or(*mine);
        }
    }
}

/// The extension handshake (BEP 10). Everything is optional.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtensionHandshake<'b> {
    /// `m`: by which numbers the sender wants extensions sent to it.
    pub ids: ExtensionIds,
    /// `e`: the sender would rather be spoken with in cipher (BEP 11 names it).
    pub prefers_cipher: Option<bool>,
    /// `v`: what the sender runs, as it calls itself.
    pub client: Option<&'b [u8]>,
    /// `p`: where the sender listens. Never 0.
    pub port: Option<u16>,
    /// `yourip`: the address that the sender sees of the receiver.
    pub your_ip: Option<IpAddr>,
    /// `ipv4`: an address of the sender.
    pub ipv4: Option<Ipv4Addr>,
    /// `ipv6`: an address of the sender.
    pub ipv6: Option<Ipv6Addr>,
    /// `reqq`: how many requests the sender holds without dropping any.
    pub reqq: Option<u32>,
    /// `metadata_size`: bytes of the `info` dictionary (BEP 9). Never 0; whether it is sane is for the metadata machine.
    pub metadata_size: Option<u32>,
    /// `upload_only`: the sender will download nothing more (BEP 21).
    pub upload_only: Option<bool>,
    /// `st_id`: which `.st` file the sender means.
    pub st_id: Option<StId>,
}

impl<'b> ExtensionHandshake<'b> {
    /// The handshake in `payload`; none if that does not begin with a bencoded dictionary, or that is too large.
    #[must_use]
    pub fn parse(payload: &'b [u8]) -> Option<Self> {
        let (document, _) = bencode::parse_front(payload, VALUES_MAX).ok()?;
        let dict = document.as_dict()?;
        let mut ids = ExtensionIds::default();
        for (name, id) in dict.dict(b"m").map(Dict::entries).unwrap_or_default() {
            let kind = ExtensionKind::ALL.into_iter().find(|kind| kind.name().as_bytes() == *name);
            let id = id.as_int().and_then(|id| u8::try_from(id).ok());
            if let (Some(kind), Some(id)) = (kind, id) {
                ids.set(kind, id);
            }
        }
        Some(Self {
            ids,
            prefers_cipher: number(dict, b"e").map(|value: u32| value != 0),
            client: dict.bytes(b"v").filter(|bytes| bytes.len() <= CLIENT_LEN_MAX),
            port: number(dict, b"p").filter(|port| *port != 0),
            your_ip: dict.bytes(b"yourip").and_then(address),
            ipv4: array(dict, b"ipv4").map(|bytes: [u8; 4]| bytes.into()),
            ipv6: array(dict, b"ipv6").map(|bytes: [u8; 16]| bytes.into()),
            reqq: number(dict, b"reqq"),
            metadata_size: number(dict, b"metadata_size").filter(|size| *size != 0),
            upload_only: number(dict, b"upload_only").map(|value: u32| value != 0),
            st_id: array(dict, b"st_id").map(Sha256Hash),
        })
    }

    /// Appends the dictionary to `out`, its keys in order.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'd');
        if let Some(prefers_cipher) = self.prefers_cipher {
            write_number(out, "e", u32::from(prefers_cipher));
        }
        if let Some(ip) = self.ipv4 {
            write_bytes(out, "ipv4", &ip.octets());
        }
        if let Some(ip) = self.ipv6 {
            write_bytes(out, "ipv6", &ip.octets());
        }
        out.extend_from_slice(b"1:md");
        for kind in ExtensionKind::ALL {
            if let Some(id) = self.ids.get(kind) {
                write_number(out, kind.name(), u32::from(id));
            }
        }
        out.push(b'e');
        let numbers = [("metadata_size", self.metadata_size), ("p", self.port.map(u32::from)), ("reqq", self.reqq)];
        for (key, number) in numbers {
            if let Some(number) = number {
                write_number(out, key, number);
            }
        }
        if let Some(StId { 0: id }) = self.st_id {
            write_bytes(out, "st_id", &id);
        }
        if let Some(upload_only) = self.upload_only {
            write_number(out, "upload_only", u32::from(upload_only));
        }
        if let Some(client) = self.client {
            write_bytes(out, "v", client);
        }
        match self.your_ip {
            Some(IpAddr::V4(ip)) => write_bytes(out, "yourip", &ip.octets()),
            Some(IpAddr::V6(ip)) => write_bytes(out, "yourip", &ip.octets()),
            None => {}
        }
        out.push(b'e');
    }
}

/// The piece that the sender of an `lt_donthave` does not have any more (BEP 54); none if `payload` is anything else.
#[must_use]
pub fn parse_dont_have(payload: &[u8]) -> Option<Piece> {
    payload.try_into().ok().map(|bytes| Piece(u32::from_be_bytes(bytes)))
}

/// The payload of an `lt_donthave` (BEP 54).
#[must_use]
pub fn dont_have(piece: Piece) -> [u8; 4] {
    piece.0.to_be_bytes()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

fn write_bytes(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    out.extend_from_slice(format!("{}:{key}{}:", key.len(), value.len()).as_bytes());
    out.extend_from_slice(value);
}

fn write_number(out: &mut Vec<u8>, key: &str, value: u32) {
    out.extend_from_slice(format!("{}:{key}i{value}e", key.len()).as_bytes());
}

fn number<T: TryFrom<i64>>(dict: &Dict<'_>, key: &[u8]) -> Option<T> {
    dict.int(key).and_then(|number| T::try_from(number).ok())
}

fn array<const N: usize>(dict: &Dict<'_>, key: &[u8]) -> Option<[u8; N]> {
    dict.bytes(key)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(handshake: &ExtensionHandshake<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        handshake.write(&mut out);
        out
    }

    #[test]
    fn the_example_of_bep_10_is_understood() {
        let payload = b"d1:md11:LT_metadatai1e6:ut_pexi2ee1:pi6881e1:v13:\xc2\xb5Torrent 1.2e";
        let handshake = ExtensionHandshake::parse(payload).unwrap();
        assert_eq!(handshake.ids.get(ExtensionKind::Pex), Some(2));
        assert_eq!(handshake.ids.get(ExtensionKind::Metadata), None);
        assert_eq!(handshake.port, Some(6881));
        assert_eq!(handshake.client, Some("µTorrent 1.2".as_bytes()));
        assert_eq!(handshake.upload_only, None);
    }

    #[test]
    fn what_is_written_has_its_keys_in_order_and_is_parsed_again() {
        let mut handshake = ExtensionHandshake {
            ids: ExtensionIds::of(&ExtensionKind::ALL),
            client: Some(b"SwarmTorrent 0.1"),
            port: Some(6881),
            your_ip: Some(Ipv4Addr::new(1, 2, 3, 4).into()),
            reqq: Some(512),
            metadata_size: Some(31_235),
            upload_only: Some(true),
            ..ExtensionHandshake::default()
        };
        assert_eq!(
            bytes_of(&handshake),
            b"d1:md11:lt_donthavei3e10:st_catalogi4e11:ut_metadatai1e6:ut_pexi2ee13:metadata_sizei31235e1:pi6881e4:reqqi512e\
              11:upload_onlyi1e1:v16:SwarmTorrent 0.16:yourip4:\x01\x02\x03\x04e"
        );
        handshake.ipv4 = Some(Ipv4Addr::LOCALHOST);
        handshake.ipv6 = Some(Ipv6Addr::LOCALHOST);
        handshake.your_ip = Some(Ipv6Addr::LOCALHOST.into());
        handshake.st_id = Some(Sha256Hash([9; 32]));
        handshake.prefers_cipher = Some(true);
        assert_eq!(ExtensionHandshake::parse(&bytes_of(&handshake)), Some(handshake));
    }

    #[test]
    fn wrong_types_and_ranges_are_as_good_as_absent() {
        let payload = b"d1:mi1e13:metadata_sizei-1e1:pi65536e4:reqq1:x5:st_id2:ab11:upload_onlyi0e1:vi7e6:yourip3:abce";
        let expected = ExtensionHandshake { upload_only: Some(false), ..ExtensionHandshake::default() };
        assert_eq!(ExtensionHandshake::parse(payload), Some(expected));
        assert_eq!(ExtensionHandshake::parse(b"d1:md6:ut_pexi256eee"), Some(ExtensionHandshake::default()));
    }

    #[test]
    fn a_dictionary_of_too_many_values_is_refused() {
        let message = |values: usize| [&b"d1:xl"[..], &b"0:".repeat(values), b"ee"].concat();
        assert!(ExtensionHandshake::parse(&message(VALUES_MAX - 2)).is_some());
        assert_eq!(ExtensionHandshake::parse(&message(VALUES_MAX - 1)), None);
    }

    #[test]
    fn what_is_no_dictionary_is_refused() {
        let deep = [b"d1:x".to_vec(), b"l".repeat(60_000)].concat();
        for bad in [&b""[..], b"i1e", b"d", b"d1:m", b"d1:p9:short", b"d1:pi1", b"d99999999999:", &deep] {
            assert_eq!(ExtensionHandshake::parse(bad), None);
        }
    }

    #[test]
    fn a_later_handshake_changes_only_what_it_names() {
        let mut ids = ExtensionIds::of(&[ExtensionKind::Metadata, ExtensionKind::Pex]);
        let mut later = ExtensionIds::default();
        later.set(ExtensionKind::Pex, 0);
        ids.merge(later);
        assert_eq!(ids.get(ExtensionKind::Metadata), Some(1));
        assert_eq!(ids.get(ExtensionKind::Pex), Some(0));
    }

    #[test]
    fn dont_have_is_one_number() {
        assert_eq!(parse_dont_have(&dont_have(Piece(258))), Some(Piece(258)));
        assert_eq!(parse_dont_have(b"\0\0\0"), None);
    }

    proptest! {
        #[test]
        fn mangled_handshakes_are_parsed_or_refused(at in 0usize..90, to in any::<u8>(), cut in 0usize..90) {
            let handshake = ExtensionHandshake {
                ids: ExtensionIds::of(&ExtensionKind::ALL),
                client: Some(b"client"),
                port: Some(1),
                ..ExtensionHandshake::default()
            };
            let mut bytes = bytes_of(&handshake);
            let last = bytes.len() - 1;
            bytes[at.min(last)] = to;
            let _ = ExtensionHandshake::parse(&bytes);
            let bytes = bytes_of(&handshake);
            prop_assert_eq!(ExtensionHandshake::parse(&bytes[..cut.min(last)]), None);
        }
    }
}
