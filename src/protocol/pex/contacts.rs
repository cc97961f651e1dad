//! Whom the peers of one torrent are told of: a table of contacts with numbered places, of which each connection needs to
//! remember a bit a place.
//!
//! A contact that leaves keeps its place until everybody who was told of it was told that it left; only then another one gets
//! the place. So a bit never means somebody else than it meant when it was set.

use std::collections::BTreeSet;

use crate::base::addr::{Reach, reach};
use crate::codec::pex::{Contact, Flags};

/// Places, and so contacts of a torrent; who comes when none is free is told of when one is.
pub const CONTACTS_MAX: usize = 256;

const WORDS: usize = CONTACTS_MAX / 64;

/// The number of a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place(u8);

/// A bit for each place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Places([u64; WORDS]);

impl Places {
    pub(super) fn has(&self, Place(place): Place) -> bool {
        self.0[usize::from(place) / 64] & (1 << (place % 64)) != 0
    }

    pub(super) fn set(&mut self, Place(place): Place, is_in: bool) {
        let bit = 1 << (place % 64);
        let word = &mut self.0[usize::from(place) / 64];
        *word = if is_in { *word | bit } else { *word & !bit };
    }

    /// Those that are here and not in `other`.
    pub(super) fn without(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & !other.0[at]))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    fn is_full(&self) -> bool {
        self.0 == [u64::MAX; WORDS]
    }

    /// All of them, from `first` on and round to those before it.
    pub(super) fn from(self, Place(first): Place) -> impl Iterator<Item = Place> {
        let round = (first..=u8::MAX).chain(0..first).map(Place);
        round.filter(move |&place| self.has(place))
    }
}

#[derive(Debug)]
struct Entry {
    contact: Contact,
    /// Connections that were told of it and not that it left.
    told: u32,
}

/// The contacts of a torrent. Invariants: a place is taken while its contact is here or somebody was told of it; no two taken
/// places have the same address.
#[derive(Debug, Default)]
pub struct Contacts {
    /// No longer than the highest place that was ever taken needs.
    entries: Vec<Entry>,
    /// Who is here.
    here: Places,
    taken: Places,
    /// Who cannot be reached from everywhere, and who from this machine only.
    near: Places,
    nearest: Places,
}

impl Contacts {
    /// Somebody is here from now on; none if it is already, or there is no place.
    pub fn enter(&mut self, contact: Contact) -> Option<Place> {
        if self.taken.is_full() {
            return None;
        }
        let same = self.taken.from(Place(0)).find(|&place| self.entry(place).contact.addr == contact.addr);
        let place = match same {
            Some(place) if self.here.has(place) => return None,
            Some(place) => place, // it left and is back before everybody heard of it
            None => (0..=u8::MAX).map(Place).find(|&place| !self.taken.has(place))?,
        };
        if usize::from(place.0) < self.entries.len() {
            self.entries[usize::from(place.0)].contact = contact;
        } else {
            self.entries.push(Entry { contact, told: 0 });
        }
        let reach = reach(contact.addr.ip());
        self.here.set(place, true);
        self.taken.set(place, true);
        self.near.set(place, reach < Reach::World);
        self.nearest.set(place, reach == Reach::Machine);
        Some(place)
    }

    /// Every place is free.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// What is known of somebody who is here.
    pub fn set_flags(&mut self, place: Place, flags: Flags) {
        self.entries[usize::from(place.0)].contact.flags = flags;
    }

    /// Somebody is here no more.
    pub fn leave(&mut self, place: Place) {
        self.here.set(place, false);
        self.clear_out(place);
    }

    /// Those who are here and make sense to somebody at an address of `reach`: he is told of nobody who is nearer to us than
    /// himself, for he could not reach him.
    pub(super) fn here_for(&self, reach: Reach) -> Places {
        match reach {
            Reach::World => self.here.without(&self.near),
            Reach::Network => self.here.without(&self.nearest),
            Reach::Machine => self.here,
        }
    }

    /// Those of `told` who are here no more.
    pub(super) fn gone(&self, told: &Places) -> Places {
        told.without(&self.here)
    }

    pub(super) fn contact(&self, place: Place) -> Contact {
        self.entry(place).contact
    }

    /// A connection was told that it is here.
    pub(super) fn told(&mut self, place: Place) {
        self.entries[usize::from(place.0)].told += 1;
    }

    /// A connection that was told of it knows that it left, or is no more itself.
    pub(super) fn untold(&mut self, place: Place) {
        self.entries[usize::from(place.0)].told -= 1;
        self.clear_out(place);
    }

    fn clear_out(&mut self, place: Place) {
        if !self.here.has(place) && self.entry(place).told == 0 {
            self.taken.set(place, false);
        }
    }

    fn entry(&self, Place(place): Place) -> &Entry {
        &self.entries[usize::from(place)]
    }

    /// What must hold at any time.
    ///
    /// # Panics
    /// If it does not.
    pub fn check(&self) {
        assert!(self.entries.len() <= CONTACTS_MAX, "contacts of a torrent");
        let mut addrs = BTreeSet::new();
        for place in self.taken.from(Place(0)) {
            let (is_here, entry) = (self.here.has(place), self.entry(place));
            assert!(is_here || entry.told > 0, "a place is kept for somebody");
            assert!(addrs.insert(entry.contact.addr), "no address has two places");
        }
        assert!(self.here.without(&self.taken).is_empty(), "who is here has a place");
    }
}
