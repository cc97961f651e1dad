//! How many descriptors this process may have, and what of them connections may take.
//!
//! A node that lets strangers take every descriptor can no longer open its own files; so some are kept back.

use crate::base::config::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for content files, state, listeners, the log and the control socket.
const RESERVED: u64 = 192;
/// Taken as open at the start where that cannot be told.
const OPEN: u64 = 32;
/// Far above what the connections of one thread can use.
const WANTED_MAX: u64 = 65_536;

/// Raises this process's limit of descriptors as far as it may, and says how many connections with peers and how many to the tracker
/// server it allows of those `wanted`: all, as a rule. Half of what is left of a very small limit, and of too few each gets its share.
#[must_use]
pub fn make_room(config: &Config) -> (usize, usize) {
    let (peers, served) =
        (config.connections_max, if config.tracker.http.is_empty() { 0 } else { config.tracker.connections_max });
    let room = room_for(peers + served);
    let peers = (peers * room / (peers + served).max(1)).max(1);
    (peers, (room - peers.min(room)).max(1))
}

fn room_for(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(WANTED_MAX), limit.maximum.unwrap_or(WANTED_MAX));
    let goal = hard.min(WANTED_MAX);
    let raised = Rlimit { current: Some(goal), maximum: limit.maximum };
    let allowed = if soft >= goal || setrlimit(Resource::Nofile, raised).is_err() { soft } else { goal };
    let open = std::fs::read_dir("/proc/self/fd").map_or(OPEN, |all| all.count() as u64);
    let connections = share(allowed, open, wanted);
    if connections < wanted {
        log::warn!(
            "at most {connections} connections instead of {wanted}: only {allowed} descriptors are allowed (LimitNOFILE, ulimit -n)"
        );
    }
    connections
}

/// What connections may have of `allowed` descriptors, of which `open` are in use already.
fn share(allowed: u64, open: u64, wanted: usize) -> usize {
    let free = allowed.saturating_sub(RESERVED).max(allowed.saturating_sub(open) / 2);
    usize::try_from(free).unwrap_or(usize::MAX).min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_everything_else() {
        assert_eq!(share(65_536, 24, 1000), 1000);
        assert_eq!(share(1024, 24, 1000), 832);
        assert_eq!(share(128, 24, 1000), 52);
    }

    #[test]
    fn an_ordinary_process_may_have_a_few_connections() {
        assert!((1..=100).contains(&room_for(100)));
    }
}
