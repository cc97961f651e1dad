//! Peer exchange (BEP 11) as one connection sees it: what its peer was told of whom, when it is told more, and how often it may
//! tell us.
//!
//! It knows no torrent: whom there is to tell of is in the torrent's table of [`Contacts`], and what comes in is only counted.
//! What it remembers is a bit a contact, so that an idle connection costs next to nothing.

mod contacts;

use std::time::Duration;

use crate::base::addr::Reach;
use crate::base::steps;
use crate::base::time::Time;
use crate::codec::pex::{ADDED_FIRST_MAX, ADDED_MAX, DROPPED_MAX, PexMessage};

use self::contacts::Places;

pub use self::contacts::{CONTACTS_MAX, Contacts, Place};

/// So long after the connection the first message is sent, with those who came meanwhile.
const TELL_FIRST: Duration = Duration::from_secs(5);
/// Between two messages to a peer (BEP 11).
const TELL_EVERY: Duration = Duration::from_secs(60);
/// A peer is heard once in so long. A little less than BEP 11 asks for: clocks differ, and lines hold things up.
const HEAR_EVERY: Duration = Duration::from_secs(50);
/// And once more than that; the first message may come at any time, and the second one soon after it.
const HEAR_AHEAD: Duration = HEAR_EVERY;
/// Messages that came too early, since one that did not; one more ends the connection.
const EARLY_MAX: u8 = 16;

/// It sends more messages than could be meant well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood;

/// One connection.
#[derive(Debug)]
pub struct Pex {
    told: Places,
    tell_at: Time,
    /// When the next message would be in time.
    hear_at: Time,
    early: u8,
    has_heard: bool,
}

impl Pex {
    /// A connection whose peer was told nothing yet.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self { told: Places::default(), tell_at: now + TELL_FIRST, hear_at: now, early: 0, has_heard: false }
    }

    /// A message came: up to how many of those whom it adds may be looked at; none if it came too early and is passed over.
    ///
    /// # Errors
    /// Too many came too early.
    pub fn handle_message(&mut self, now: Time) -> Result<Option<usize>, Flood> {
        if self.hear_at > now + HEAR_AHEAD {
            self.early += 1;
            return if self.early > EARLY_MAX { Err(Flood) } else { Ok(None) };
        }
        self.hear_at = self.hear_at.max(now) + HEAR_EVERY;
        self.early = 0;
        let is_first = !std::mem::replace(&mut self.has_heard, true);
        Ok(Some(if is_first { ADDED_FIRST_MAX } else { ADDED_MAX }))
    }

    /// The message to send now, if it is time and something is new; the peer has the place `own`, if any, and an address of
    /// `reach`. At most [`ADDED_MAX`] who came and [`DROPPED_MAX`] who left; the rest follows in the next.
    pub fn poll_transmit(
        &mut self,
        now: Time,
        contacts: &mut Contacts,
        own: Option<Place>,
        reach: Reach,
    ) -> Option<PexMessage> {
        if now < self.tell_at {
            return None;
        }
        let mut new = contacts.here_for(reach).without(&self.told);
        if let Some(own) = own {
            new.set(own, false);
        }
        let gone = contacts.gone(&self.told);
        if new.is_empty() && gone.is_empty() {
            return None;
        }
        self.tell_at = now + TELL_EVERY;
        steps::add(2 * CONTACTS_MAX / 8); // two passes over the bits
        let mut message = PexMessage::default();
        // Each peer begins with another one, so that not all of them dial the same few.
        let first = own.unwrap_or_default();
        for place in new.from(first).take(ADDED_MAX) {
            self.told.set(place, true);
            contacts.told(place);
            message.added.push(contacts.contact(place));
        }
        for place in gone.from(first).take(DROPPED_MAX) {
            self.told.set(place, false);
            message.dropped.push(contacts.contact(place).addr);
            contacts.untold(place);
        }
        Some(message)
    }

    /// What the peer was told matters no more: it left, or wants to hear nothing.
    pub fn forget(&mut self, contacts: &mut Contacts) {
        for place in std::mem::take(&mut self.told).from(Place::default()) {
            contacts.untold(place);
        }
    }
}

#[cfg(test)]
mod tests;
