//! What the service manager is told (sd_notify): ready, reloading, stopping, a line of status, and that the loop still turns.
//!
//! Without `NOTIFY_SOCKET` all of it is nothing, and nothing is an error: a manager that does not listen is its own trouble.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::base::time::Time;

/// How often the status line is told.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// The line to the service manager.
#[derive(Debug)]
pub struct Notifier {
    is_listened_to: bool,
    /// Half of what the watchdog allows.
    watchdog: Option<Duration>,
    watchdog_at: Time,
    status_at: Time,
}

impl Notifier {
    /// Reads from the environment who listens.
    #[must_use]
    pub fn new(now: Time) -> Self {
        let is_listened_to = std::env::var_os("NOTIFY_SOCKET").is_some();
        let watchdog = sd_notify::watchdog_enabled().filter(|_| is_listened_to).map(|most| most / 2);
        Self {
            is_listened_to,
            watchdog,
            watchdog_at: watchdog.map_or(Time::NEVER, |_| now),
            status_at: if is_listened_to { now + STATUS_EVERY } else { Time::NEVER },
        }
    }

    /// Everything that was saved is running.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// A reload begins; tell [`Notifier::ready`] when it is over.
    pub fn reloading(&self) {
        if let Ok(since) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, since]);
        }
    }

    /// The end has begun.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// [`Notifier::poll_timeout`] has come. True if a line of status is due: see [`Notifier::tell_status`].
    pub fn handle_timeout(&mut self, now: Time) -> bool {
        if let Some(every) = self.watchdog
            && now >= self.watchdog_at
        {
            tell(&[NotifyState::Watchdog]);
            self.watchdog_at = now + every;
        }
        let is_due = self.is_listened_to && now >= self.status_at;
        if is_due {
            self.status_at = now + STATUS_EVERY;
        }
        is_due
    }

    /// Sends the line of status.
    pub fn tell_status(&self, line: &str) {
        tell(&[NotifyState::Status(line)]);
    }

    /// When to call again.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.watchdog_at.min(self.status_at)
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("the service manager does not listen: {error}");
    }
}
