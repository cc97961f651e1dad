//! A torrent taken over from another client: what of its claims is believed, and what is hashed.
//!
//! A claim is believed as far as a record of our own would be: where every file that a piece lies in is there with its full length, and
//! was not changed since the other client knew it. Other pieces that it claims are hashed before they count; what it does not claim
//! is missing. Nothing of it is recorded before it was synced.

use std::time::Duration;

use crate::base::bitfield::Bitfield;
use crate::base::storage::Stamp;
use crate::base::time::Time;
use crate::codec::import::{Evidence, Import};
use crate::torrent::check::Check;
use crate::torrent::snapshot::Priority;
use crate::torrent::torrent::{Phase, Torrent};

/// Bytes a second of a limit; a higher one is this.
const RATE_MAX: u64 = 1 << 52;
/// In a second: other clients note whole ones.
const NANOS: i64 = 1_000_000_000;

impl Torrent {
    /// Takes over what another client knew. Called before the torrent begins; `stamps` are how its files look now, by index, and of a
    /// file whose stamp is not there nothing is believed.
    pub fn take_over(&mut self, now: Time, import: &Import, stamps: &[Option<Stamp>]) {
        let priority = |byte: &u8| match byte {
            0 => Priority::Off,
            1 => Priority::Low,
            3 => Priority::High,
            _ => Priority::Normal,
        };
        let files = self.file_count();
        self.layout.set_priorities(import.priorities.iter().take(files).map(priority).enumerate());
        self.downloaded_before = import.downloaded;
        self.uploaded_before = import.uploaded;
        if import.added > 0 {
            self.added = import.added;
        }
        self.settings.sequential |= import.sequential;
        if import.ratio_millis > 0 {
            self.settings.ratio = Some(Duration::from_millis(import.ratio_millis).as_secs_f64());
        }
        self.settings.down_limit = Some(import.down_limit.min(RATE_MAX)).filter(|rate| *rate > 0);
        self.settings.up_limit = Some(import.up_limit.min(RATE_MAX)).filter(|rate| *rate > 0);
        self.find_policy(now);
        self.claim(now, import, stamps);
        self.note_complete();
        if self.is_finished() {
            self.finished = Some(import.finished).filter(|at| *at > 0).or(Some(self.added));
        }
    }

    fn claim(&mut self, now: Time, import: &Import, stamps: &[Option<Stamp>]) {
        let pieces = self.geometry().pieces();
        let claimed = Bitfield::from_bytes(&import.have, pieces).unwrap_or_else(|| Bitfield::new(pieces));
        let mut believed = claimed.clone();
        for file in 0..self.file_count() {
            let entry = self.file(file);
            let time = import.times.get(file).copied().flatten();
            let stamp = stamps.get(file).copied().flatten();
            if entry.pad || is_borne_out(entry.span.len, import.evidence, time, stamp) {
                continue;
            }
            for piece in self.geometry().pieces_of(entry.span) {
                believed.clear(piece);
            }
        }
        let mut doubtful = claimed;
        for piece in believed.ones() {
            doubtful.clear(piece);
        }
        self.have = believed;
        self.claim_nothing();
        if doubtful.count() > 0 {
            log::warn!(
                "{}: of {} pieces that another client had, {} are hashed: their files are not as it knew them",
                self.display_name(),
                self.have.count() + doubtful.count(),
                doubtful.count()
            );
            self.phase = Phase::Checking;
            self.check = Some(Box::new(Check::of(doubtful)));
        }
        self.content_changed(now);
        self.turn_changed = true;
    }
}

/// True if a file of `len` bytes that looks like `stamp` is what the other client knew at `time`.
fn is_borne_out(len: u64, evidence: Evidence, time: Option<i64>, stamp: Option<Stamp>) -> bool {
    let (Some(time), Some(stamp)) = (time, stamp) else { return len == 0 };
    let changed = stamp.modified_nanos.div_euclid(NANOS);
    stamp.len == len
        && match evidence {
            Evidence::ChangedAt => changed == time,
            Evidence::HeldAt => changed <= time,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_believed_that_is_whole_and_was_not_changed_since() {
        let stamp = |len, secs: i64| Some(Stamp { len, modified_nanos: secs * NANOS + 5, inode: 1 });
        let of = |evidence, time, stamp| is_borne_out(10, evidence, time, stamp);
        assert!(of(Evidence::ChangedAt, Some(7), stamp(10, 7)));
        assert!(!of(Evidence::ChangedAt, Some(7), stamp(10, 8)));
        assert!(!of(Evidence::ChangedAt, Some(7), stamp(10, 6)));
        assert!(of(Evidence::HeldAt, Some(7), stamp(10, 6)) && of(Evidence::HeldAt, Some(7), stamp(10, 7)));
        assert!(!of(Evidence::HeldAt, Some(7), stamp(10, 8)));
        for evidence in [Evidence::ChangedAt, Evidence::HeldAt] {
            assert!(!of(evidence, Some(7), stamp(9, 7)) && !of(evidence, Some(7), stamp(11, 7)));
            assert!(!of(evidence, None, stamp(10, 7)) && !of(evidence, Some(7), None));
            assert!(is_borne_out(0, evidence, None, None), "nothing is of no bytes");
        }
    }
}
