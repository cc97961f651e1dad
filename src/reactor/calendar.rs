//! What clocks on the wall say here, for schedules, and a timer that goes by them.
//!
//! The time zone is the system's, or that of `TZ`; its rules are the C library's, which looks whether its file has changed each time.
#![allow(unsafe_code, reason = "two functions of the C library that no crate of ours wraps; they take numbers")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::read;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

unsafe extern "C" {
    fn tzset();
}

/// A moment as people here call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Days since Monday.
    pub weekday: u8,
    /// Minutes since midnight.
    pub minute: u16,
}

/// Seconds since the Unix epoch.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the driver's calendar")]
pub fn unix_secs() -> i64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(unix.as_secs()).unwrap_or(i64::MAX)
}

/// What clocks here say at a time, in seconds since the Unix epoch; none of one that has no year.
#[must_use]
pub fn moment(unix_secs: i64) -> Option<Moment> {
    let mut parts = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: there is one thread, so nobody changes the environment meanwhile; the function takes nothing and returns nothing.
    unsafe { tzset() };
    // SAFETY: both pointers are of values that live as long as the call; it writes all of `parts` where it returns a pointer to it.
    let parts = unsafe { libc::localtime_r(&raw const unix_secs, parts.as_mut_ptr()).as_ref() }?;
    let weekday = u8::try_from((parts.tm_wday + 6) % 7).ok()?;
    let minute = u16::try_from(parts.tm_hour * 60 + parts.tm_min).ok()?;
    Some(Moment { weekday, minute })
}

/// Becomes readable at the next full minute, and when somebody sets the clock.
#[derive(Debug)]
pub struct Minutes(OwnedFd);

impl Minutes {
    /// One that waits for nothing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(timerfd_create(TimerfdClockId::Realtime, flags)?))
    }

    /// Takes what it had to say, and waits for the next minute if `wanted`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait(&self, wanted: bool) -> io::Result<()> {
        // Eight bytes when the minute has come, an error when the clock was set, another one otherwise: all the same.
        let _ = read(&self.0, &mut [0_u8; 8]);
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let next = if wanted { (unix_secs() / 60 + 1) * 60 } else { 0 };
        let value = Itimerspec { it_interval: zero, it_value: Timespec { tv_sec: next, tv_nsec: 0 } };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&self.0, flags, &value)?;
        Ok(())
    }
}

impl AsRawFd for Minutes {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weekdays_begin_with_monday_and_minutes_at_midnight() {
        // Tests run where clocks may say anything; they agree about what passes in a week.
        let monday = 1_700_438_400; // 2023-11-20 00:00 UTC
        let [here, later] = [monday, monday + 6 * 86_400].map(|secs| moment(secs).unwrap());
        assert_eq!((here.minute, (here.weekday + 6) % 7), (later.minute, later.weekday));
        assert!(here.minute < 1440 && here.weekday < 7);
        assert_eq!(moment(i64::MAX), None);
    }

    #[test]
    fn it_waits_for_the_minute_when_asked_to() {
        let minutes = Minutes::new().unwrap();
        minutes.wait(true).unwrap();
        let left = rustix::time::timerfd_gettime(&minutes.0).unwrap().it_value;
        assert!((0..60).contains(&left.tv_sec), "{left:?}");
        minutes.wait(false).unwrap();
        assert_eq!(rustix::time::timerfd_gettime(&minutes.0).unwrap().it_value.tv_sec, 0);
    }
}
