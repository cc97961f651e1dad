//! A slab whose keys carry a generation: a late event for a closed entry finds nobody.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use slab::Slab;

/// A key into an [`Arena`]: a slot and the generation it had when the entry came. Never reused while a process lives
/// (2³² entries of one slot aside).
pub struct Id<T> {
    slot: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    /// The key as one number, for tables outside (mio's tokens): slot in the low half, generation in the high one.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// What [`Id::to_bits`] gave.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of a u64")]
    pub fn from_bits(bits: u64) -> Self {
        Self { slot: bits as u32, generation: (bits >> 32) as u32, of: PhantomData }
    }

    /// Whether the entry came before the one that gets `generation`; see [`Arena::next_generation`].
    #[must_use]
    pub fn is_before(self, generation: u32) -> bool {
        // Generations wrap around; entries that exist together are close to each other.
        generation.wrapping_sub(self.generation).cast_signed() > 0
    }

    /// The slot alone; small, dense, reused.
    #[must_use]
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.to_bits() == other.to_bits()
    }
}
impl<T> Eq for Id<T> {}
impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.slot, self.generation).cmp(&(other.slot, other.generation))
    }
}
impl<T> Hash for Id<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.to_bits().hash(state);
    }
}
impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.slot, self.generation)
    }
}

/// Entries of one kind. `K` is the marker type of its keys, so that ids of different arenas never mix.
#[derive(Debug)]
pub struct Arena<K, T> {
    slab: Slab<(u32, T)>,
    /// The generation that the next entry of any slot gets.
    generation: u32,
    of: PhantomData<fn() -> K>,
}

impl<K, T> Default for Arena<K, T> {
    fn default() -> Self {
        Self { slab: Slab::new(), generation: 0, of: PhantomData }
    }
}

impl<K, T> Arena<K, T> {
    /// Adds an entry.
    pub fn insert(&mut self, value: T) -> Id<K> {
        self.insert_with(|_| value)
    }

    /// Adds an entry that knows its own key.
    pub fn insert_with(&mut self, make: impl FnOnce(Id<K>) -> T) -> Id<K> {
        let generation = self.generation;
        self.generation = generation.wrapping_add(1);
        let vacant = self.slab.vacant_entry();
        let slot = u32::try_from(vacant.key()).expect("fewer than 2^32 entries");
        let id = Id { slot, generation, of: PhantomData };
        vacant.insert((generation, make(id)));
        id
    }

    /// The entry, if it is still there.
    #[must_use]
    pub fn get(&self, id: Id<K>) -> Option<&T> {
        self.slab.get(id.slot()).filter(|(generation, _)| *generation == id.generation).map(|(_, value)| value)
    }

    /// The entry, if it is still there.
    pub fn get_mut(&mut self, id: Id<K>) -> Option<&mut T> {
        self.slab.get_mut(id.slot()).filter(|(generation, _)| *generation == id.generation).map(|(_, value)| value)
    }

    /// True while the entry is there.
    #[must_use]
    pub fn contains(&self, id: Id<K>) -> bool {
        self.get(id).is_some()
    }

    /// Takes the entry out, if it is still there.
    pub fn remove(&mut self, id: Id<K>) -> Option<T> {
        self.get(id)?;
        Some(self.slab.remove(id.slot()).1)
    }

    /// All entries, in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Id<K>, &T)> {
        self.slab.iter().map(|(slot, (generation, value))| (id(slot, *generation), value))
    }

    /// All entries, in the order of their slots.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Id<K>, &mut T)> {
        self.slab.iter_mut().map(|(slot, (generation, value))| (id(slot, *generation), value))
    }

    /// All keys, in the order of their slots.
    pub fn ids(&self) -> impl Iterator<Item = Id<K>> {
        self.iter().map(|(id, _)| id)
    }

    /// The slots that may hold entries: `0..slots()`. With [`Arena::id_at`], all entries can be visited in parts.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slab.capacity()
    }

    /// The key of the entry in `slot`; `None` if there is none.
    #[must_use]
    pub fn id_at(&self, slot: usize) -> Option<Id<K>> {
        self.slab.get(slot).map(|(generation, _)| id(slot, *generation))
    }

    /// The generation of the next entry: every entry of now is before it.
    #[must_use]
    pub const fn next_generation(&self) -> u32 {
        self.generation
    }

    /// All values, in the order of their slots.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, value)| value)
    }

    /// All values, in the order of their slots.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.iter_mut().map(|(_, value)| value)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// True if there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }
}

fn id<K>(slot: usize, generation: u32) -> Id<K> {
    Id { slot: u32::try_from(slot).expect("fewer than 2^32 entries"), generation, of: PhantomData }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_removed_entry_finds_nobody_when_its_slot_is_used_again() {
        let mut arena: Arena<u8, &str> = Arena::default();
        let first = arena.insert("first");
        assert_eq!(arena.remove(first), Some("first"));
        let second = arena.insert("second");
        assert_eq!(second.slot(), first.slot());
        assert_eq!(arena.get(first), None);
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.get(second), Some(&"second"));
        assert_eq!(Id::from_bits(second.to_bits()), second);
    }

    #[test]
    fn entries_are_visited_by_slot_and_later_ones_are_recognized() {
        let mut arena: Arena<u8, u32> = Arena::default();
        let ids: Vec<_> = (0..4).map(|value| arena.insert(value)).collect();
        arena.remove(ids[1]);
        let generation = arena.next_generation();
        let later = arena.insert(9);
        assert_eq!(later.slot(), ids[1].slot());
        let visited: Vec<_> = (0..arena.slots()).filter_map(|slot| arena.id_at(slot)).collect();
        assert_eq!(visited, [ids[0], later, ids[2], ids[3]]);
        assert!(ids.iter().all(|id| id.is_before(generation)) && !later.is_before(generation));
        assert!(Id::<u8>::from_bits(u64::from(u32::MAX) << 32).is_before(0), "generations wrap around");
    }
}
