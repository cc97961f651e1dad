//! Who may use the tracker and for what: the hashes of a closed one, pass keys, and proxies whose word counts.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use siphasher::sip128::SipHasher24;

use crate::base::hash::InfoHash;
use crate::base::net::Net;
use crate::base::rng::Rng;
use crate::service::tracker::Error;
use crate::service::tracker::keyed::Keyed;

/// Bytes of a pass key; a longer one is none.
pub const KEY_MAX: usize = 64;

/// What the daemon has read for us.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowed {
    /// The swarms of a closed tracker; none if it is open.
    pub hashes: Option<Vec<InfoHash>>,
    /// The pass keys of which every announce must have one; none if they are not asked for.
    pub keys: Option<Vec<String>>,
}

/// The rules.
pub(super) struct Access {
    hashes: Option<HashSet<InfoHash, Keyed>>,
    /// Hashes of the keys, so that comparing them tells nothing of them.
    keys: Option<BTreeSet<u128>>,
    proxies: Vec<Net>,
    hasher: SipHasher24,
    keyed: Keyed,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hashes = self.hashes.as_ref().map(HashSet::len);
        let keys = self.keys.as_ref().map(BTreeSet::len);
        f.debug_struct("Access").field("hashes", &hashes).field("keys", &keys).finish_non_exhaustive()
    }
}

impl Access {
    pub(super) fn new(rng: &mut Rng, proxies: &[Net]) -> Self {
        Self {
            hashes: None,
            keys: None,
            proxies: proxies.to_vec(),
            hasher: SipHasher24::new_with_key(&rng.bytes()),
            keyed: Keyed::new(rng),
        }
    }

    /// These are the proxies from now on.
    pub(super) fn set_proxies(&mut self, proxies: &[Net]) {
        self.proxies = proxies.to_vec();
    }

    /// Other rules hold from now on.
    pub(super) fn set(&mut self, allowed: Allowed) {
        self.hashes = allowed.hashes.map(|hashes| {
            let mut set = HashSet::with_capacity_and_hasher(hashes.len(), self.keyed.clone());
            set.extend(hashes);
            set
        });
        self.keys = allowed.keys.map(|keys| keys.iter().map(|key| self.digest(key.as_bytes())).collect());
    }

    /// How many hashes are allowed; none if all are.
    pub(super) fn hashes(&self) -> Option<usize> {
        self.hashes.as_ref().map(HashSet::len)
    }

    pub(super) fn allows(&self, hash: &InfoHash) -> bool {
        self.hashes.as_ref().is_none_or(|hashes| hashes.contains(hash))
    }

    /// Looks at the path of an announce or a scrape, of which nothing is left but `/announce`, `/scrape` and pass keys before
    /// these. Empty, from UDP, is `/announce`.
    pub(super) fn check_path(&self, path: &[u8]) -> Result<(), Error> {
        let Some(keys) = &self.keys else { return Ok(()) };
        let path = path.split(|&byte| byte == b'?').next().unwrap_or_default();
        let mut parts = path.split(|&byte| byte == b'/').rev();
        let key = match (parts.next(), parts.next()) {
            (Some(b"announce" | b"scrape"), Some(key)) => key,
            _ => &[],
        };
        if !key.is_empty() && key.len() <= KEY_MAX && keys.contains(&self.digest(key)) {
            Ok(())
        } else {
            Err(Error::Key)
        }
    }

    pub(super) fn is_proxy(&self, ip: IpAddr) -> bool {
        self.proxies.iter().any(|net| net.contains(ip))
    }

    /// The address that a request is really from: what a proxy of ours says, else that of the stream. `forwarded_for` is
    /// the list that proxies append to; only the end that ours have written is believed.
    pub(super) fn source(&self, stream: IpAddr, forwarded_for: Option<&str>, ip: Option<IpAddr>) -> IpAddr {
        let mut source = stream.to_canonical();
        if !self.is_proxy(source) {
            return source;
        }
        for hop in forwarded_for.unwrap_or_default().rsplit(',') {
            let Ok(hop) = hop.trim().parse::<IpAddr>() else { break };
            source = hop.to_canonical();
            if !self.is_proxy(source) {
                return source;
            }
        }
        // Nobody but ours has had a hand in it: what they add to the query counts, too.
        ip.map_or(source, |ip| ip.to_canonical())
    }

    fn digest(&self, key: &[u8]) -> u128 {
        self.hasher.hash(key).as_u128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(proxies: &[&str]) -> Access {
        let proxies: Vec<Net> = proxies.iter().map(|net| Net::parse(net).unwrap()).collect();
        Access::new(&mut Rng::from_number(1), &proxies)
    }

    #[test]
    fn an_open_tracker_takes_everything_and_a_closed_one_what_it_was_told() {
        let mut access = access(&[]);
        assert!(access.allows(&InfoHash::of(b"x")) && access.check_path(b"/announce").is_ok());
        let hashes = Some(vec![InfoHash::of(b"y")]);
        access.set(Allowed { hashes, keys: Some(vec!["s3cret".into()]) });
        assert!(!access.allows(&InfoHash::of(b"x")) && access.allows(&InfoHash::of(b"y")));
        for good in [&b"/s3cret/announce"[..], b"/s3cret/scrape", b"/t/s3cret/announce?x=1"] {
            assert_eq!(access.check_path(good), Ok(()));
        }
        let long = [b"/".to_vec(), b"k".repeat(KEY_MAX + 1), b"/announce".to_vec()].concat();
        for bad in [&b""[..], b"/announce", b"/s3cre/announce", b"/announce/s3cret", b"//announce", &long] {
            assert_eq!(access.check_path(bad), Err(Error::Key), "{}", bad.escape_ascii());
        }
        assert!(!format!("{access:?}").contains("s3cret"));
    }

    #[test]
    fn only_our_proxies_are_believed_and_only_what_they_wrote() {
        let access = access(&["10.0.0.0/8", "::1"]);
        let source = |stream: &str, forwarded, ip: Option<&str>| {
            let ip = ip.map(|ip| ip.parse().unwrap());
            access.source(stream.parse().unwrap(), forwarded, ip).to_string()
        };
        assert_eq!(source("192.0.2.1", Some("203.0.113.9"), Some("203.0.113.8")), "192.0.2.1");
        assert_eq!(source("10.0.0.1", Some("203.0.113.9"), None), "203.0.113.9");
        assert_eq!(source("::1", Some("1.2.3.4, 203.0.113.9, 10.0.0.2"), None), "203.0.113.9");
        assert_eq!(source("10.0.0.1", Some("1.2.3.4, 203.0.113.9"), Some("5.6.7.8")), "203.0.113.9");
        assert_eq!(source("::ffff:10.0.0.1", None, Some("5.6.7.8")), "5.6.7.8");
        assert_eq!(source("10.0.0.1", Some("nonsense"), None), "10.0.0.1");
    }
}
