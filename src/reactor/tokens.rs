//! Which socket an event belongs to: mio's token, taken apart.
//!
//! A token is a generation (32 bits), a kind (4) and an index (28), so that an event for a socket that was closed in the same round
//! finds nobody. Those of connections and outsiders are their own arena keys with the kind written over the slot's idle top bits.

use mio::Token;

use crate::base::arena::Id;
use crate::base::ids::ConnId;
use crate::reactor::outside::OutsideId;

/// Bits of an index; far more sockets than a process may have.
const INDEX_BITS: u32 = 28;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const KIND_MASK: u64 = 0xf << INDEX_BITS;

const CONN: u64 = 0;
const LISTENER: u64 = 1;
const DATAGRAMS: u64 = 2;
const MULTICAST: u64 = 3;
const OUTSIDE: u64 = 4;

const _: () = assert!(usize::BITS == 64, "a token holds a generation, a kind and an index");

/// Whose event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// A stream's.
    Conn(ConnId),
    /// A listener's, by its index.
    Listener(usize),
    /// A datagram socket's: its index and how often that had been bound.
    Datagrams(usize, u32),
    /// A multicast socket's, by its number.
    Multicast(u32),
    /// Somebody's whom the daemon brought.
    Outside(OutsideId),
}

impl Whose {
    /// The token for it.
    ///
    /// # Panics
    /// If an index is 2²⁸ or more: there is no such number of descriptors.
    pub(crate) fn token(self) -> Token {
        let bits = match self {
            Self::Conn(conn) => tagged(conn.to_bits(), CONN),
            Self::Listener(index) => tagged(index as u64, LISTENER),
            Self::Datagrams(index, generation) => tagged(u64::from(generation) << 32 | index as u64, DATAGRAMS),
            Self::Multicast(number) => tagged(u64::from(number) << 32, MULTICAST),
            Self::Outside(id) => tagged(id.to_bits(), OUTSIDE),
        };
        Token(usize::try_from(bits).expect("usize has 64 bits, as asserted above"))
    }

    /// What the token says; none for one that we did not make.
    pub(crate) fn of(token: Token) -> Option<Self> {
        let bits = token.0 as u64;
        let index = usize::try_from(bits & INDEX_MASK).expect("28 bits");
        let generation = u32::try_from(bits >> 32).expect("the high half");
        match (bits & KIND_MASK) >> INDEX_BITS {
            CONN => Some(Self::Conn(Id::from_bits(bits & !KIND_MASK))),
            LISTENER => Some(Self::Listener(index)),
            DATAGRAMS => Some(Self::Datagrams(index, generation)),
            MULTICAST => Some(Self::Multicast(generation)),
            OUTSIDE => Some(Self::Outside(Id::from_bits(bits & !KIND_MASK))),
            _ => None,
        }
    }
}

fn tagged(bits: u64, kind: u64) -> u64 {
    assert!(bits & KIND_MASK == 0, "an index of 2^28 or more");
    bits | kind << INDEX_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_what_it_was_made_from() {
        for whose in [
            Whose::Conn(Id::from_bits(0)),
            Whose::Conn(Id::from_bits(0xffff_ffff_0fff_ffff)),
            Whose::Listener(7),
            Whose::Datagrams(2, u32::MAX),
            Whose::Multicast(u32::MAX),
            Whose::Outside(Id::from_bits(0x0000_0005_0000_0003)),
        ] {
            assert_eq!(Whose::of(whose.token()), Some(whose));
        }
    }

    #[test]
    fn a_token_of_no_known_kind_belongs_to_nobody() {
        assert_eq!(Whose::of(Token(usize::MAX)), None);
    }
}
