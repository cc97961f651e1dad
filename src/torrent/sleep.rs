//! A torrent that nobody wants anything of sleeps: it keeps its head and lets go of what describes its content.
//!
//! Asleep it announces itself like any other, and is listed. Whoever is about to need its files or its hashes wakes it first: a peer
//! that comes, a user, a turn to download. What was claimed of its files is believed when they are looked at, which is then; nothing
//! is served before.

use std::sync::Arc;
use std::time::Duration;

use crate::base::steps;
use crate::base::time::Time;
use crate::codec::metainfo::Metainfo;
use crate::codec::resume::Record;
use crate::torrent::layout::Layout;
use crate::torrent::torrent::{Ask, LOOK, Phase, Torrent};

/// How long nothing has to happen until it falls asleep.
const SLEEP_AFTER: Duration = Duration::from_secs(60);
/// Bytes of `info`: a torrent of more does not begin to hibernate, because loading it takes many slices, and the peer that comes waits.
const SLEEP_INFO_MAX: u32 = 4 << 20;
/// Files: to open more takes so long that it stays awake.
const SLEEP_LIST_MAX: usize = 20_000;
/// Files: to look at more takes so long that it is not put to bed by a start.
pub const SLEEP_FILES_MAX: usize = 256;
/// How often one that sleeps looks whether its files are still there; and how long it may take after a start until each has looked.
pub(crate) const LOOK_ASLEEP: Duration = Duration::from_mins(10);

/// All that describes a torrent; none while it sleeps.
#[derive(Debug, Default)]
pub(crate) struct Body(pub(crate) Option<Arc<Metainfo>>);

impl Body {
    /// It.
    ///
    /// # Panics
    /// If the torrent sleeps: whoever needs its body wakes it first.
    pub(crate) fn get(&self) -> &Metainfo {
        self.0.as_deref().expect("whoever needs its body wakes it first")
    }
}

/// What is claimed of its files since they were looked at last, in this run or an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Nobody has written to them since: they look exactly as they did.
    pub exact: bool,
}

impl Torrent {
    /// It has nothing but its head.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.body.0.is_none()
    }

    /// True if it could sleep, were it left alone for a while.
    #[must_use]
    pub fn may_sleep(&self) -> bool {
        !self.is_asleep()
            && self.head.info_len <= SLEEP_INFO_MAX
            && self.head.files <= SLEEP_LIST_MAX
            && !self.settings.shared
            && !self.settings.peek
            && self.description.is_none()
            && self.layout.priorities().is_empty()
            && self.peers.is_empty()
            && self.dialling == 0
            && self.download.is_none()
            && self.check.is_none()
            && self.fault.is_none()
            && self.phase == Phase::Ready
            && self.store.is_some()
            && !self.recheck
            && self.is_at_rest()
    }

    /// Begins or ends the wait for sleep. Called whenever something happened.
    pub fn consider_sleep(&mut self, now: Time) {
        self.sleep_at = if self.may_sleep() { self.sleep_at.min(now + SLEEP_AFTER) } else { Time::NEVER };
    }

    pub(crate) fn handle_sleep_timeout(&mut self, now: Time) {
        if self.sleep_at <= now {
            self.sleep_at = Time::NEVER;
            if self.may_sleep() {
                self.asks.push_back(Ask::Sleep);
            }
        }
    }

    /// Lets go of its description. When it wakes its files must look as they do now.
    pub fn fall_asleep(&mut self, now: Time) {
        self.claim = (self.head.files <= SLEEP_FILES_MAX).then_some(Claim { exact: true });
        self.body = Body::default();
        self.store = None;
        self.layout = Layout::asleep(self.head.geometry);
        self.rest();
        if !self.look_at.is_never() {
            self.look_at = now + LOOK_ASLEEP;
        }
    }

    /// Nothing is drawn for a while.
    pub(crate) fn rest(&mut self) {
        self.rng.rest();
        self.announces.rest();
        self.candidates.rest();
        self.choker.rest();
    }

    /// Bytes of its `info`.
    #[must_use]
    pub fn info_len(&self) -> usize {
        self.head.info_len as usize
    }

    /// Whether `bytes`, what was saved to describe it, have its very `info`. They were read intact, and what is saved was parsed
    /// before, so that they need not be parsed for it.
    #[must_use]
    pub fn is_saved_as(&self, bytes: &[u8]) -> bool {
        const KEY: &[u8] = b"4:info";
        let info = &self.body.get().info;
        steps::add_bytes(bytes.len());
        let Some(last) = bytes.len().checked_sub(KEY.len() + info.len()) else { return false };
        let first = info.first().copied();
        (0..=last).any(|at| {
            let rest = &bytes[at..];
            rest.starts_with(KEY) && rest.get(KEY.len()).copied() == first && rest[KEY.len()..].starts_with(info)
        })
    }

    /// It is described by `meta`.
    #[must_use]
    pub fn is_described_by(&self, meta: &Metainfo) -> bool {
        (meta.info_hash, meta.geometry, meta.files.len()) == (self.head.info_hash, self.head.geometry, self.head.files)
    }

    /// Its description is here again; its content must be opened next.
    pub fn wake_up(&mut self, now: Time, meta: Arc<Metainfo>) {
        self.turn_changed |= self.lost.take().is_some();
        self.layout = Layout::new(self.renaming.names.apply(&meta.files), meta.geometry);
        self.body = Body(Some(meta));
        self.look_at = if self.running { now + LOOK } else { Time::NEVER };
    }

    /// Its description cannot be read, or is another's. It is tried again at the next look, and whenever somebody wants it.
    pub fn lose_description(&mut self, now: Time, why: &str) {
        let message = format!("{why}; if it stays so, remove the torrent, without its data, and add it again");
        if self.lost.as_ref() != Some(&message) {
            log::error!("{}: {message}", self.display_name());
            self.lost = Some(message);
            self.turn_changed = true;
            self.reconsider(now);
        }
        self.look_at = now + LOOK_ASLEEP;
    }

    /// Why its description is not here, if that could not be read.
    #[must_use]
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// It needs its description, and no hurry: true if it sleeps.
    pub(crate) fn rouse(&mut self) -> bool {
        if self.is_asleep() {
            self.asks.push_back(Ask::Rouse);
        }
        self.is_asleep()
    }

    /// Takes over what `record` claims of its files; they are still to be looked at.
    pub fn believe(&mut self, record: &Record) {
        self.stamped(&record.stamps);
        self.claim = Some(Claim { exact: record.clean || record.shared });
    }

    /// Somebody should look at its files closely: nobody has in this run, or its description was lost.
    #[must_use]
    pub fn is_due_for_a_look(&self) -> bool {
        !self.looked || self.lost.is_some()
    }

    /// When one that begins asleep looks at its files: not all of them at once.
    pub(crate) fn first_look_asleep(&self, now: Time) -> Time {
        let share = u32::from(u16::from_be_bytes([self.head.info_hash.0[0], self.head.info_hash.0[1]]));
        now + LOOK + LOOK_ASLEEP * share / (1 << 16)
    }

    /// What is claimed of its files; whoever asks looks.
    pub fn take_claim(&mut self) -> Option<Claim> {
        self.looked = true;
        self.claim.take()
    }
}
