//! Whether a torrent runs: the state it is in, who starts and stops it, and what it does when its timers come.

use crate::base::storage::{Fault, FaultKind};
use crate::base::time::Time;
use crate::torrent::sleep::LOOK_ASLEEP;
use crate::torrent::snapshot::State;
use crate::torrent::torrent::{Ask, FAULT_RETRY, LOOK, Phase, TICK, Torrent};

impl Torrent {
    /// What it is doing, in the user's words.
    #[must_use]
    pub fn state(&self) -> State {
        match &self.fault {
            Some(Fault { kind: FaultKind::Full, .. }) => State::NoSpace,
            Some(_) => State::Error,
            None if self.broken().is_some() => State::Error,
            None if self.check.is_some() && self.phase == Phase::Checking => State::Checking,
            None if self.paused => State::Paused,
            None if self.path_conflict.holds() => State::Queued,
            None if self.awaits_item() => State::Metadata,
            None if self.queued => State::Queued,
            None if self.description.is_some() => State::Metadata,
            None if self.is_finished() => State::Seeding,
            // What is missing waits for the end of a move.
            None if !self.may_download() => State::Queued,
            None => State::Downloading,
        }
    }

    /// True if it would run were it its turn.
    #[must_use]
    pub fn wants_to_run(&self) -> bool {
        !self.paused
            && self.fault.as_ref().is_none_or(|fault| fault.kind == FaultKind::Full && self.description.is_none())
            && self.broken().is_none()
            && self.phase != Phase::Checking
            && !self.path_conflict.holds()
            && !self.has_seeded_enough()
            && !self.awaits_item()
    }

    /// It talks to peers and trackers.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// It is its turn, or no longer.
    pub fn set_queued(&mut self, now: Time, queued: bool) {
        if self.queued != queued {
            self.queued = queued;
            self.reconsider(now);
        }
    }

    /// True while it is not its turn.
    #[must_use]
    pub fn is_queued(&self) -> bool {
        self.queued
    }

    /// True once after its claim to a turn may have changed.
    pub fn turn_changed(&mut self) -> bool {
        std::mem::take(&mut self.turn_changed)
    }

    /// The user stops it.
    pub fn pause(&mut self, now: Time) {
        self.paused = true;
        self.forget_goals(false);
        self.turn_changed = true;
        self.persistence.touch(now);
        self.reconsider(now);
    }

    /// The user starts it; trouble with the disk is looked at anew.
    pub fn resume(&mut self, now: Time) {
        self.paused = false;
        self.allow_overwriting();
        self.turn_changed = true;
        self.forget_goals(true);
        self.persistence.touch(now);
        if self.fault.is_some() {
            self.retry_at = now;
        }
        self.reconsider(now);
    }

    /// Starts or stops talking, as the state of things demands.
    pub(crate) fn reconsider(&mut self, now: Time) {
        let mut should = self.wants_to_run() && !self.queued;
        if should && self.store.is_none() {
            // To seed it need not wake: what it has is looked at when somebody comes.
            should = self.is_asleep() && self.is_finished();
            if !should {
                self.rouse();
            }
        }
        if should && self.phase == Phase::Ready && !self.running {
            self.start(now);
        } else if !should && self.running {
            self.stop(now);
        }
    }

    fn start(&mut self, now: Time) {
        let is_missing = !self.is_finished() && self.description.is_none();
        if is_missing && !self.awaits_comparison() && self.may_download() {
            if self.make_room() {
                return;
            }
            self.begin_download(now);
        }
        self.running = true;
        self.tick_at = now;
        self.look_at = if self.is_asleep() { self.first_look_asleep(now) } else { now + LOOK };
        if self.is_finished() {
            self.begin_seeding(now);
            self.make_empty_files(now);
        }
        self.begin_pace(now);
        self.candidates.reset(now);
        self.announces.start(now, self.is_finished());
        self.dht.start(now);
        self.join_lsd();
    }

    /// It runs, and something is wanted that was not: makes room, then asks its peers.
    pub(crate) fn go_on(&mut self, now: Time) {
        if self.awaits_comparison() || !self.may_download() || self.make_room() {
            return;
        }
        self.begin_download(now);
    }

    fn stop(&mut self, now: Time) {
        self.running = false;
        self.tick_at = Time::NEVER;
        self.slots_at = Time::NEVER;
        self.look_at = Time::NEVER;
        self.end_seeding(now);
        self.end_pace();
        self.drop_all_peers(now);
        self.suspend_download();
        self.announces.stop(now);
        self.dht.stop();
        if self.dht.may() {
            self.asks.push_back(Ask::LeaveDht);
        }
        self.leave_lsd();
        self.persistence.touch(now);
    }

    /// A timer of one of its parts has come.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.retry_at <= now {
            self.retry_at = now + FAULT_RETRY;
            if !self.relocation.holds_writes() {
                self.asks.push_back(Ask::Probe);
            }
        }
        self.handle_sleep_timeout(now);
        if self.look_at <= now {
            self.look_at = now + if self.is_asleep() { LOOK_ASLEEP } else { LOOK };
            self.asks.push_back(Ask::Look);
        }
        if self.persistence.poll_timeout() <= now {
            self.persist();
        }
        self.look_at_move(now);
        self.announces.handle_timeout(now);
        self.consider_pace(now);
        if self.policy_at <= now {
            self.apply_policy(now);
        }
        if self.goal_at <= now {
            self.consider_goals(now);
        }
        if self.slots_at <= now {
            self.tick_choker(now);
        }
        if self.tick_at <= now {
            self.tick(now);
            let idle = self.peers.is_empty() && self.candidates.poll_timeout().is_never();
            self.tick_at = if !self.running || idle { Time::NEVER } else { now + TICK };
        }
    }

    /// Once a second while there are peers: deadlines, interest, requests, the choker, new connections.
    fn tick(&mut self, now: Time) {
        self.tick_peers(now);
        self.tick_exchange(now);
        if self.description.is_some() {
            self.tick_metadata(now);
        } else {
            self.tick_super_seeding(now);
            self.consider_slots();
            self.tick_choker(now);
        }
        self.look_for_peers(now);
        self.consider_goals(now);
    }

    /// Why it cannot go on whatever the disk does, if so: its description cannot be used, or it lies in a share directory and
    /// is not what was shared any more, or another torrent owns a file of its and has other bytes there. What the user or the
    /// owner put there is never written over.
    pub(crate) fn broken(&self) -> Option<&str> {
        let is_changed = self.settings.shared && self.check.is_none() && !self.is_finished();
        let changed =
            "its files are not what was shared; they are hashed anew when they change again, or at the next start";
        let unusable = self.description.as_ref().and_then(|description| description.broken.as_deref());
        let refused = || self.path_conflict.refusal(self.check.is_some() || self.recheck || self.is_finished());
        unusable.or(self.lost()).or_else(|| is_changed.then_some(changed)).or_else(refused)
    }

    /// When `handle_timeout` wants to be called, at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.retry_at
            .min(self.look_at)
            .min(self.sleep_at)
            .min(self.persistence.poll_timeout())
            .min(self.relocation.poll_timeout())
            .min(self.announces.poll_timeout())
            .min(self.dht.poll_timeout())
            .min(self.pace.poll_timeout())
            .min(self.policy_at)
            .min(self.goal_at)
            .min(self.tick_at)
            .min(self.slots_at)
    }
}
