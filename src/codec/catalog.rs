//! The messages of `st_catalog`, an extension (BEP 10) by which a peer lists what it shares with everybody, a page at a time.
//!
//! `{"msg_type": 0, "page": N}` asks for a page, counted from 0; `{"items": […], "msg_type": 1, "page": N, "pages": M}` is one. An item is
//! `{"hash": 20 bytes, "name": string, "size": bytes}`, with `"st": 32 bytes` where it is a `.st`.

use crate::base::hash::{InfoHash, Sha1Hash, Sha256Hash, StId};
use crate::codec::bencode::{self, DictWriter, Value};

/// Items of one page; further ones are not looked at.
pub const ITEMS_MAX: usize = 64;
/// Pages of a list; a list of more is cut there.
pub const PAGES_MAX: u32 = 1024;
/// Bytes of a name; a longer one is cut.
pub const NAME_LEN_MAX: usize = 255;
/// Values in a message; one with more is garbage.
const VALUES_MAX: usize = ITEMS_MAX * 8 + 16;

/// Something that is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The wire hash.
    pub info_hash: InfoHash,
    /// The `st-id`, of a `.st`.
    pub st_id: Option<StId>,
    /// Its name, as text; a stranger's: escape it before showing it.
    pub name: String,
    /// Bytes.
    pub size: u64,
}

/// What others keep of something shared (BEP 44): `{"fragment length", "hash", "name", "size"}`, and `"st"` where it is a `.st`.
#[must_use]
pub fn dht_item(entry: &Entry, fragment_len: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut dict = DictWriter::begin(&mut out);
    dict.int("fragment length", i64::from(fragment_len));
    write_keys(&mut dict, entry);
    dict.end();
    out
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogMessage {
    /// The sender wants this page.
    Request(u32),
    /// A page.
    Page {
        /// Which.
        page: u32,
        /// How many there are; 0 of an empty list.
        pages: u32,
        /// What is on it.
        items: Vec<Entry>,
    },
}

impl CatalogMessage {
    /// The message in `payload`; none if it is none. Items that are not as they should be are left out.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let document = bencode::parse(payload, VALUES_MAX).ok()?;
        let dict = document.as_dict()?;
        let number = |key: &[u8]| dict.int(key).and_then(|number| u32::try_from(number).ok());
        let page = number(b"page")?;
        match dict.int(b"msg_type")? {
            0 => Some(Self::Request(page)),
            1 => {
                let items = dict.list(b"items")?.iter().take(ITEMS_MAX).filter_map(item).collect();
                Some(Self::Page { page, pages: number(b"pages")?.min(PAGES_MAX), items })
            }
            _ => None,
        }
    }

    /// Appends the message to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut dict = DictWriter::begin(out);
        match self {
            Self::Request(page) => {
                dict.int("msg_type", 0);
                dict.int("page", i64::from(*page));
            }
            Self::Page { page, pages, items } => {
                let list = dict.key("items");
                list.push(b'l');
                items.iter().for_each(|item| write_item(list, item));
                list.push(b'e');
                dict.int("msg_type", 1);
                dict.int("page", i64::from(*page));
                dict.int("pages", i64::from(*pages));
            }
        }
        dict.end();
    }
}

fn item(value: &Value<'_>) -> Option<Entry> {
    let dict = value.as_dict()?;
    let name = dict.bytes(b"name").filter(|name| !name.is_empty())?;
    Some(Entry {
        info_hash: Sha1Hash(dict.bytes(b"hash")?.try_into().ok()?),
        st_id: dict.bytes(b"st").and_then(|id| id.try_into().ok()).map(Sha256Hash),
        name: cut(&String::from_utf8_lossy(name)).to_owned(),
        size: u64::try_from(dict.int(b"size")?).ok()?,
    })
}

fn write_item(out: &mut Vec<u8>, item: &Entry) {
    let mut dict = DictWriter::begin(out);
    write_keys(&mut dict, item);
    dict.end();
}

fn write_keys(dict: &mut DictWriter<'_>, item: &Entry) {
    dict.bytes("hash", &item.info_hash.0);
    dict.bytes("name", cut(&item.name).as_bytes());
    dict.int("size", i64::try_from(item.size).unwrap_or(i64::MAX));
    if let Some(st_id) = item.st_id {
        dict.bytes("st", &st_id.0);
    }
}

/// No more than [`NAME_LEN_MAX`] bytes of a name.
fn cut(name: &str) -> &str {
    let end = (0..=NAME_LEN_MAX.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(message: &CatalogMessage) -> Vec<u8> {
        let mut out = Vec::new();
        message.write(&mut out);
        out
    }

    fn page(items: Vec<Entry>) -> CatalogMessage {
        CatalogMessage::Page { page: 3, pages: 9, items }
    }

    fn entry(name: &str) -> Entry {
        Entry { info_hash: Sha1Hash::of(b"x"), st_id: Some(Sha256Hash::of(b"x")), name: name.into(), size: 1 << 40 }
    }

    #[test]
    fn messages_are_read_back_as_they_were_written() {
        let without = Entry { st_id: None, ..entry("ü/../x\n") };
        for message in [CatalogMessage::Request(7), page(vec![]), page(vec![entry("a"), without])] {
            assert_eq!(CatalogMessage::parse(&bytes_of(&message)), Some(message));
        }
        let full = page((0..ITEMS_MAX).map(|_| entry(&"n".repeat(NAME_LEN_MAX))).collect());
        assert!(bytes_of(&full).len() < 32 * 1024);
        assert_eq!(CatalogMessage::parse(&bytes_of(&full)), Some(full));
    }

    #[test]
    fn an_item_of_the_dht_fits_whatever_its_name() {
        let item = dht_item(&entry(&"n".repeat(1000)), 1 << 26);
        assert!(item.len() < crate::codec::krpc::VALUE_MAX / 2);
        assert!(item.starts_with(b"d15:fragment lengthi67108864e4:hash20:"));
        assert!(bencode::parse_canonical(&item, 16).is_ok());
    }

    #[test]
    fn what_is_too_much_is_cut_and_what_is_wrong_left_out() {
        let long = page((0..ITEMS_MAX + 3).map(|_| entry("n")).collect());
        let Some(CatalogMessage::Page { items, .. }) = CatalogMessage::parse(&bytes_of(&long)) else {
            panic!("a page")
        };
        assert_eq!(items.len(), ITEMS_MAX);
        let name = "é".repeat(200);
        let Some(CatalogMessage::Page { items, .. }) = CatalogMessage::parse(&bytes_of(&page(vec![entry(&name)])))
        else {
            panic!("a page")
        };
        assert_eq!(items[0].name.len(), 254);
        let bad = b"d5:itemsld4:hash3:abc4:name1:a4:sizei1eei5ed4:name1:aee8:msg_typei1e4:pagei0e5:pagesi99999999ee";
        let expected = CatalogMessage::Page { page: 0, pages: PAGES_MAX, items: vec![] };
        assert_eq!(CatalogMessage::parse(bad), Some(expected));
        let deep = [b"d1:x".to_vec(), b"l".repeat(60_000)].concat();
        for bad in [&b""[..], b"i1e", b"d8:msg_typei0ee", b"d8:msg_typei2e4:pagei0ee", &deep] {
            assert_eq!(CatalogMessage::parse(bad), None);
        }
    }

    proptest! {
        #[test]
        fn mangled_messages_are_read_or_refused(at: usize, flip: u8, cut: usize) {
            let mut bytes = bytes_of(&page(vec![entry("a"), entry("b")]));
            let len = bytes.len();
            let _ = CatalogMessage::parse(&bytes[..cut % len]);
            bytes[at % len] ^= flip;
            let _ = CatalogMessage::parse(&bytes);
        }
    }
}
