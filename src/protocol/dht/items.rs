//! Items that others keep with us, and what makes one genuine (BEP 44).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use ring::signature::{ED25519, UnparsedPublicKey};

use crate::base::hash::Sha1Hash;
use crate::base::tally::Tally;
use crate::base::time::Time;
use crate::codec::bencode::{write_bytes, write_int};
use crate::codec::krpc::{Author, ErrorKind, Item, VALUE_MAX};

/// Items that are kept, of at most [`VALUE_MAX`] bytes each; one more is refused.
const ITEMS_MAX: usize = 4000;
/// Items of one address; one more is refused.
const PER_IP_MAX: u32 = 200;
/// An item is forgotten so long after it was last put.
const LIFETIME: Duration = Duration::from_hours(2);
/// Items that one look for what is forgotten passes over.
const SWEEP_MAX: usize = 256;

/// An item that owns what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedItem {
    /// What it is, bencoded.
    pub value: Vec<u8>,
    /// Who may change it; none: nobody.
    pub author: Option<OwnedAuthor>,
}

/// Who wrote a mutable item, and which version it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedAuthor {
    /// The public key (ed25519).
    pub key: [u8; 32],
    /// Tells apart the items of one key.
    pub salt: Vec<u8>,
    /// Grows with each version.
    pub version: i64,
    /// Of salt, version and value.
    pub signature: [u8; 64],
}

impl OwnedItem {
    /// The item as it is written.
    #[must_use]
    pub fn as_item(&self) -> Item<'_> {
        let author = self.author.as_ref().map(|author| Author {
            key: &author.key,
            salt: &author.salt,
            version: author.version,
            signature: &author.signature,
        });
        Item { value: &self.value, author }
    }
}

impl From<Item<'_>> for OwnedItem {
    fn from(item: Item<'_>) -> Self {
        let author = item.author.map(|author| OwnedAuthor {
            key: *author.key,
            salt: author.salt.to_vec(),
            version: author.version,
            signature: *author.signature,
        });
        Self { value: item.value.to_vec(), author }
    }
}

/// Where an item of this key and salt is found.
#[must_use]
pub fn mutable_target(key: &[u8; 32], salt: &[u8]) -> Sha1Hash {
    Sha1Hash::of(&[&key[..], salt].concat())
}

/// Where an item is found.
#[must_use]
pub fn target_of(item: &Item<'_>) -> Sha1Hash {
    item.author.map_or_else(|| Sha1Hash::of(item.value), |author| mutable_target(author.key, author.salt))
}

/// What an author signs.
#[must_use]
pub fn signed_bytes(salt: &[u8], version: i64, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + salt.len() + 40);
    if !salt.is_empty() {
        write_bytes(&mut bytes, b"salt");
        write_bytes(&mut bytes, salt);
    }
    write_bytes(&mut bytes, b"seq");
    write_int(&mut bytes, version);
    write_bytes(&mut bytes, b"v");
    bytes.extend_from_slice(value);
    bytes
}

/// True if the author of an item has signed it; what nobody may change needs no signature.
#[must_use]
pub fn is_genuine(item: &Item<'_>) -> bool {
    item.author.is_none_or(|Author { key, salt, version, signature }| {
        let key = UnparsedPublicKey::new(&ED25519, key);
        key.verify(&signed_bytes(salt, version, item.value), signature).is_ok()
    })
}

#[derive(Debug)]
struct Stored {
    item: OwnedItem,
    at: Time,
    from: IpAddr,
}

/// The items that are kept for others.
#[derive(Debug, Default)]
pub(super) struct ItemStore {
    items: BTreeMap<Sha1Hash, Stored>,
    by_ip: Tally<IpAddr>,
    /// Where the next look for what is forgotten begins.
    sweep_from: Option<Sha1Hash>,
}

impl ItemStore {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The item that is found there.
    pub(super) fn get(&self, target: Sha1Hash) -> Option<Item<'_>> {
        self.items.get(&target).map(|stored| stored.item.as_item())
    }

    /// Keeps an item; `replaces` is the version that it should take the place of.
    pub(super) fn put(
        &mut self,
        now: Time,
        from: IpAddr,
        item: &Item<'_>,
        replaces: Option<i64>,
    ) -> Result<(), ErrorKind> {
        let target = target_of(item);
        let known = self.items.get(&target);
        if let (Some(author), Some(old)) = (item.author, known) {
            let old_version = old.item.author.as_ref().map(|author| author.version);
            if replaces.is_some() && replaces != old_version {
                return Err(ErrorKind::Replaced);
            }
            let is_other = old.item.value != item.value;
            if old_version > Some(author.version) || old_version == Some(author.version) && is_other {
                return Err(ErrorKind::OlderItem);
            }
        }
        let is_new = known.is_none();
        let has_room = self.items.len() < ITEMS_MAX && self.by_ip.get(&from) < PER_IP_MAX;
        if is_new && !has_room {
            return Err(ErrorKind::Full);
        }
        if !is_genuine(item) {
            return Err(ErrorKind::BadSignature);
        }
        // Who brought it first is the one that it counts for.
        let from = known.map_or(from, |old| old.from);
        if is_new {
            self.by_ip.add(from);
        }
        self.items.insert(target, Stored { item: (*item).into(), at: now, from });
        Ok(())
    }

    /// What must hold at any time.
    ///
    /// # Panics
    /// If it does not.
    pub(super) fn check(&self) {
        assert!(self.items.len() <= ITEMS_MAX && self.by_ip.len() <= self.items.len(), "items");
        for (target, Stored { item, .. }) in &self.items {
            assert!(
                item.value.len() <= VALUE_MAX && target_of(&item.as_item()) == *target,
                "an item is where it belongs"
            );
        }
    }

    /// Forgets what is old, among the next few items.
    pub(super) fn sweep(&mut self, now: Time) {
        let from = self.sweep_from.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut gone = Vec::new();
        let mut last = None;
        for (at, (target, stored)) in self.items.range((from, Bound::Unbounded)).enumerate() {
            if at == SWEEP_MAX {
                self.sweep_from = last;
                break;
            }
            last = Some(*target);
            if now.since(stored.at) >= LIFETIME {
                gone.push(*target);
            }
        }
        for target in gone {
            let Stored { from, .. } = self.items.remove(&target).expect("it was just there");
            self.by_ip.remove(&from);
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        std::array::from_fn(|index| digit(index * 2))
    }

    #[test]
    fn the_items_of_bep_44_are_genuine_and_where_they_should_be() {
        let key = bytes("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548");
        let value = b"12:Hello World!";
        for (salt, target, signature) in [
            (
                "",
                "4a533d47ec9c7d95b1ad75f576cffc641853b750",
                "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff\
                 1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01",
            ),
            (
                "foobar",
                "411eba73b6f087ca51a3795d9c8c938d365e32c1",
                "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d\
                 df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08",
            ),
        ] {
            let signature = bytes(signature);
            let author = Author { key: &key, salt: salt.as_bytes(), version: 1, signature: &signature };
            let item = Item { value, author: Some(author) };
            assert_eq!(target_of(&item), Sha1Hash::from_hex(target).unwrap());
            assert!(is_genuine(&item));
            assert!(!is_genuine(&Item { author: Some(Author { version: 2, ..author }), ..item }));
            assert!(!is_genuine(&Item { value: b"12:Hello World?", ..item }));
        }
        let item = Item { value, author: None };
        assert_eq!(target_of(&item), Sha1Hash::from_hex("e5f96f6f38320f0f33959cb4d3d656452117aadb").unwrap());
    }

    /// A version of an item, signed.
    fn signed(version: i64, value: &str) -> OwnedItem {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let value = format!("{}:{value}", value.len()).into_bytes();
        let signature = pair.sign(&signed_bytes(b"s", version, &value));
        let author = OwnedAuthor {
            key: pair.public_key().as_ref().try_into().unwrap(),
            salt: b"s".to_vec(),
            version,
            signature: signature.as_ref().try_into().unwrap(),
        };
        OwnedItem { value, author: Some(author) }
    }

    #[test]
    fn a_version_gives_way_to_a_newer_one_only() {
        let mut store = ItemStore::default();
        let mut put = |item: &OwnedItem, replaces| store.put(Time::ZERO, IP, &item.as_item(), replaces);
        assert_eq!(put(&signed(3, "a"), Some(9)), Ok(()), "there is nothing to replace");
        assert_eq!(put(&signed(2, "b"), None), Err(ErrorKind::OlderItem));
        assert_eq!(put(&signed(3, "b"), None), Err(ErrorKind::OlderItem));
        assert_eq!(put(&signed(3, "a"), None), Ok(()));
        assert_eq!(put(&signed(4, "b"), Some(2)), Err(ErrorKind::Replaced));
        assert_eq!(put(&signed(4, "b"), Some(3)), Ok(()));
        let forged = OwnedItem { value: b"1:x".to_vec(), ..signed(5, "c") };
        assert_eq!(put(&forged, None), Err(ErrorKind::BadSignature));
        let target = target_of(&signed(4, "b").as_item());
        assert_eq!(store.get(target).map(OwnedItem::from), Some(signed(4, "b")));
    }

    #[test]
    fn items_are_bounded_and_forgotten() {
        let mut store = ItemStore::default();
        let item = |number: u32| OwnedItem { value: format!("i{number}e").into_bytes(), author: None };
        let kept = (0..1000).filter(|&n| store.put(Time::ZERO, IP, &item(n).as_item(), None).is_ok()).count();
        assert_eq!((kept, store.len()), (PER_IP_MAX as usize, PER_IP_MAX as usize));
        let ip = |number: u32| IpAddr::from((0x0a01_0000 + number).to_be_bytes());
        let kept = (0..9000).filter(|&n| store.put(Time::ZERO, ip(n), &item(n + 5000).as_item(), None).is_ok()).count();
        assert_eq!(kept, ITEMS_MAX - PER_IP_MAX as usize);
        store.put(Time::from_secs(7000), IP, &item(3).as_item(), None).unwrap();
        (0..20).for_each(|at| store.sweep(Time::from_secs(7200 + at)));
        assert_eq!((store.len(), store.by_ip.len()), (1, 1));
    }
}
