//! Links that name a publisher (BEP 46): the newest version of each is looked for in the DHT, again and again, and kept alive there.
//!
//! Until the first is found a torrent stands for it that does nothing; its id, where the item is found, means the newest version ever
//! after. A newer version is a torrent of its own, in a directory of its own beside the first: what the publisher names would
//! otherwise be written over whatever has the same name, and a version that nobody has would end one that works.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::hash::{InfoHash, Sha1Hash};
use crate::base::ids::TorrentId;
use crate::base::steps;
use crate::base::storage::{Job, Storage};
use crate::base::time::Time;
use crate::base::timers::Timers;
use crate::codec::followed::{self, Kept, Publisher, Version, torrent_of};
use crate::codec::magnet::Magnet;
use crate::engine::Engine;
use crate::engine::asks::Purpose;
use crate::engine::commands::TORRENTS_MAX;
use crate::protocol::dht::items::{OwnedAuthor, OwnedItem, is_genuine};
use crate::torrent::command::{AddOptions, Refusal, RefusalKind};
use crate::torrent::snapshot::{Follows, Summary};
use crate::torrent::torrent::{Begin, Torrent};
use crate::torrent::why::Reason;

/// Where they are kept, below the state directory.
pub const FOLLOWED_STATE: &str = "followed";
/// Links that are followed; another `add` of one is refused.
pub const FOLLOWED_MAX: usize = 500;
/// How often a newer version is looked for.
const ASK_EVERY: Duration = Duration::from_mins(10);
/// How soon again while none was found; doubles each time, up to [`ASK_EVERY`].
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Between the searches of two links, so that many of them do not begin at once.
const ASK_GAP: Duration = Duration::from_secs(1);
/// How often others are asked to keep a version: they forget it after two hours (BEP 44).
const PUT_EVERY: Duration = Duration::from_hours(1);

/// One link.
#[derive(Debug)]
struct Link {
    /// As the user gave it; it has a publisher.
    link: Magnet,
    /// Where the content of its first version goes.
    dir: PathBuf,
    newest: Option<OwnedItem>,
    /// The newest item names no torrent.
    is_useless: bool,
    /// Searches under way, one a family.
    under_way: usize,
    /// When it is looked for next.
    ask_at: Time,
    again: Duration,
    put_at: Time,
}

impl Link {
    fn new(now: Time, link: Magnet, dir: PathBuf) -> Self {
        Self { link, dir, newest: None, is_useless: false, under_way: 0, ask_at: now, again: ASK_AGAIN, put_at: now }
    }

    /// The number of its newest version.
    fn seq(&self) -> Option<i64> {
        self.newest.as_ref().and_then(|item| item.author.as_ref()).map(|author| author.version)
    }

    /// A search has ended: when is the next?
    fn handle_end(&mut self, now: Time) {
        self.under_way = 0;
        let wait = if self.newest.is_some() { ASK_EVERY } else { self.again };
        self.again = (self.again * 2).min(ASK_EVERY);
        self.ask_at = now + wait;
    }
}

/// All links, by where their items are found. Invariant: each has a torrent, and a timer unless it is being looked for.
#[derive(Debug, Default)]
pub(super) struct Followed {
    links: BTreeMap<Sha1Hash, Link>,
    /// Which torrent is the newest version of each, or stands for it.
    pub(super) torrents: BTreeMap<Sha1Hash, TorrentId>,
    timers: Timers<Sha1Hash>,
    /// No search begins before.
    gap_until: Time,
}

impl Followed {
    pub(super) fn poll_timeout(&self) -> Time {
        self.timers.next().max(self.gap_until)
    }

    fn insert(&mut self, target: Sha1Hash, link: Link, torrent: TorrentId) {
        self.timers.set(target, link.ask_at);
        self.links.insert(target, link);
        self.torrents.insert(target, torrent);
    }

    /// The links whose newest version is this torrent.
    fn of(&self, id: TorrentId) -> impl Iterator<Item = (Sha1Hash, &Link)> {
        self.torrents.iter().filter(move |(_, other)| **other == id).map(|(target, _)| (*target, &self.links[target]))
    }

    /// The user wants newer versions of this torrent looked for now.
    pub(super) fn hurry(&mut self, now: Time, id: TorrentId) {
        let targets: Vec<Sha1Hash> = self.of(id).map(|(target, _)| target).collect();
        for target in targets {
            let link = self.links.get_mut(&target).expect("it was just listed");
            if link.under_way == 0 {
                link.ask_at = now;
                self.timers.set(target, now);
            }
        }
    }

    /// A torrent is gone: nothing is followed for it. True if something was.
    fn forget(&mut self, id: TorrentId) -> bool {
        let targets: Vec<Sha1Hash> = self.of(id).map(|(target, _)| target).collect();
        for target in &targets {
            self.links.remove(target);
            self.torrents.remove(target);
            self.timers.remove(*target);
        }
        !targets.is_empty()
    }

    /// Says of the torrents of a list which links they are the newest version of.
    pub(super) fn fill(&self, by_hash: &BTreeMap<InfoHash, TorrentId>, rows: &mut [Summary]) {
        steps::add(5 * self.links.len());
        let of =
            |(target, link): (&Sha1Hash, &Link)| (self.torrents[target], Follows { target: *target, seq: link.seq() });
        let followed: BTreeMap<TorrentId, Follows> = self.links.iter().map(of).collect();
        if !followed.is_empty() {
            for row in rows {
                row.follows = by_hash.get(&row.info_hash).and_then(|id| followed.get(id)).copied();
            }
        }
    }

    pub(super) fn check(&self) {
        assert!(self.links.len() <= FOLLOWED_MAX && self.links.keys().eq(self.torrents.keys()), "followed links");
    }
}

impl<S: Storage> Engine<S> {
    /// Refuses to follow one more link, if it cannot be done.
    pub(super) fn may_follow(&self) -> Result<(), Refusal> {
        if self.dht.is_none() {
            let message = "the newest version of this link is found in the DHT, which is off; turn it on, or give a link with `xt=`";
            return Err(Refusal::new(RefusalKind::Unsupported, message));
        }
        if self.followed.links.len() >= FOLLOWED_MAX {
            let message = format!("{FOLLOWED_MAX} links are followed; remove the torrent of one first");
            return Err(Refusal::new(RefusalKind::Busy, message));
        }
        Ok(())
    }

    /// Where a torrent's content is.
    fn dir_of(&self, id: TorrentId) -> PathBuf {
        self.torrents.get(id).map_or_else(|| self.config.downloads.clone(), |torrent| torrent.dir().to_owned())
    }

    /// Follows the publisher that a link names, from now on; `id` is the torrent that it names, or that stands for it.
    pub(super) fn follow(&mut self, now: Time, publisher: &Publisher, link: Magnet, id: TorrentId) {
        let dir = self.dir_of(id);
        self.followed.insert(publisher.target(), Link::new(now, link, dir), id);
        self.save_followed();
    }

    /// A torrent is removed.
    pub(super) fn forget_followed(&mut self, id: TorrentId) {
        if self.followed.forget(id) {
            self.save_followed();
        }
    }

    /// It is time to look for a newer version of something.
    pub(super) fn handle_followed_timeout(&mut self, now: Time) {
        let Some(target) = self.followed.timers.pop(now) else { return };
        self.followed.gap_until = now + ASK_GAP;
        let link = self.followed.links.get_mut(&target).expect("a timer is that of a link");
        let salt = link.link.publisher.as_ref().map(|publisher| &publisher.salt[..]).unwrap_or_default();
        link.under_way = self.dht.as_mut().map_or(0, |nodes| nodes.find_item(now, target, salt));
        if link.under_way == 0 {
            self.end_search(now, target);
        }
    }

    /// A search for an item has ended in one family; somebody else may have begun it.
    pub(super) fn handle_version(&mut self, now: Time, target: Sha1Hash, item: Option<OwnedItem>) {
        if !self.followed.links.contains_key(&target) {
            return;
        }
        if let Some(item) = item {
            self.take_version(now, target, item);
        }
        if let Some(link) = self.followed.links.get_mut(&target).filter(|link| link.under_way > 0) {
            link.under_way -= 1;
            if link.under_way == 0 {
                self.end_search(now, target);
            }
        }
    }

    fn end_search(&mut self, now: Time, target: Sha1Hash) {
        let link = self.followed.links.get_mut(&target).expect("its search has just ended");
        link.handle_end(now);
        self.followed.timers.set(target, link.ask_at);
        if let (Some(item), Some(nodes)) = (&link.newest, &mut self.dht)
            && link.put_at <= now
        {
            link.put_at = now + PUT_EVERY;
            nodes.put_item(now, item.clone());
        }
    }

    /// A version was found, genuine as every item that a search tells of: takes it if it is newer.
    fn take_version(&mut self, now: Time, target: Sha1Hash, item: OwnedItem) {
        let named = torrent_of(&item.value);
        if let Some(info_hash) = named {
            self.make_way(now, info_hash);
        }
        let (Some(link), Some(&old)) = (self.followed.links.get_mut(&target), self.followed.torrents.get(&target))
        else {
            return;
        };
        // Whoever chose the key may have chosen it so that an item without an author has the same place.
        let Some(seq) = item.author.as_ref().map(|author| author.version) else { return };
        if link.seq().is_some_and(|known| seq <= known) {
            return;
        }
        // What stands for a torrent is none.
        let stands_in = |id: &TorrentId| self.torrents.get(*id).is_some_and(Torrent::awaits_item);
        let known = named.and_then(|hash| self.by_hash.get(&hash)).copied();
        let (Some(info_hash), false) = (named, known.as_ref().is_some_and(stands_in)) else {
            link.is_useless = true;
            return;
        };
        let is_first = stands_in(&old);
        let id = match known {
            Some(id) => id,
            None => match self.add_version(now, target, seq, info_hash) {
                Ok(id) => id,
                Err(refusal) => {
                    log::warn!("{target}: version {seq} is not taken: {}", refusal.message);
                    return;
                }
            },
        };
        log::info!("{target}: its newest version is {seq}, the torrent {info_hash}");
        let link = self.followed.links.get_mut(&target).expect("it was just there");
        (link.newest, link.is_useless, link.put_at) = (Some(item), false, now + PUT_EVERY);
        self.followed.torrents.insert(target, id);
        self.save_followed();
        if is_first {
            self.remove_torrent(now, old, false);
        }
    }

    /// Adds the torrent that a publisher names: what the link has beside the key is said of it, too.
    fn add_version(
        &mut self,
        now: Time,
        target: Sha1Hash,
        seq: i64,
        info_hash: InfoHash,
    ) -> Result<TorrentId, Refusal> {
        if self.torrents.len() >= TORRENTS_MAX {
            let message = format!("there are {TORRENTS_MAX} torrents; remove one first");
            return Err(Refusal::new(RefusalKind::Busy, message));
        }
        let Link { link, dir, .. } = &self.followed.links[&target];
        let before = self.torrents.get(self.followed.torrents[&target]).expect("each link has a torrent");
        let (heritage, is_first) = (before.bequeath(), before.awaits_item());
        let short: String = target.to_string().chars().take(12).collect();
        let begin = Begin {
            dir: if is_first { dir.clone() } else { dir.join(format!("{short}-{seq}")) },
            verify: heritage.verify.unwrap_or(self.config.verify_on_add),
            added: self.unix_secs(now),
            options: AddOptions { paused: heritage.paused, ..AddOptions::default() },
        };
        let link = Magnet { info_hash: Some(info_hash), st_id: None, publisher: None, ..link.clone() };
        let peers = link.peers.clone();
        let rng = self.rng.fork("torrent");
        let mut torrent = Torrent::from_link(now, link, begin, &self.config, rng, self.peer_id)?;
        torrent.inherit(now, heritage);
        let bytes = torrent.metainfo_bytes();
        let id = self.insert_torrent(now, torrent, Some(bytes), None);
        self.dial_peers_of_link(now, id, &peers);
        Ok(id)
    }

    /// Takes over what an earlier run followed, once its torrents are there; damaged bytes are as good as none, but for what is
    /// still looked for: that is known by its torrents.
    pub fn restore_followed(&mut self, now: Time, bytes: &[u8]) {
        let Some(kept) = followed::parse(bytes) else {
            log::warn!(
                "what was kept of followed links is damaged; versions after those that are here are not looked for"
            );
            return;
        };
        for Kept { link, dir, torrent, newest } in kept {
            let Ok(link) = Magnet::parse(&link) else { continue };
            let (Some(publisher), Some(&id)) = (link.publisher.clone(), self.by_hash.get(&torrent)) else {
                log::warn!("{torrent} is not here: what follows it is not looked for");
                continue;
            };
            let target = publisher.target();
            if self.followed.links.len() >= FOLLOWED_MAX && !self.followed.links.contains_key(&target) {
                continue;
            }
            let newest = newest.map(|Version { seq, signature, value }| {
                let Publisher { key, salt } = publisher;
                OwnedItem { value, author: Some(OwnedAuthor { key, salt, version: seq, signature }) }
            });
            let newest = newest.filter(|item| is_genuine(&item.as_item()));
            let dir = if dir.is_absolute() { dir } else { self.dir_of(id) };
            let replaced = self.followed.torrents.get(&target).copied().filter(|other| *other != id);
            self.followed.insert(target, Link { newest, ..Link::new(now, link, dir) }, id);
            // The last run ended between the first version and the end of what stood for it.
            if let Some(replaced) = replaced {
                self.remove_torrent(now, replaced, false);
            }
        }
    }

    /// Takes up a link of an earlier run of which no version was found.
    pub(super) fn restore_unfound(&mut self, now: Time, link: Magnet, id: TorrentId) {
        if let Some(publisher) = &link.publisher
            && !link.names_torrent()
            && self.followed.links.len() < FOLLOWED_MAX
        {
            let dir = self.dir_of(id);
            self.followed.insert(publisher.target(), Link::new(now, link, dir), id);
        }
    }

    fn save_followed(&mut self) {
        let kept: Vec<Kept> = (self.followed.links.iter())
            .map(|(target, link)| {
                let torrent = self.torrents.get(self.followed.torrents[target]).expect("each link has a torrent");
                let version = |item: &OwnedItem| {
                    let OwnedAuthor { version: seq, signature, .. } = item.author.clone()?;
                    Some(Version { seq, signature, value: item.value.clone() })
                };
                let newest = link.newest.as_ref().and_then(version);
                Kept { link: link.link.to_string(), dir: link.dir.clone(), torrent: torrent.info_hash(), newest }
            })
            .collect();
        let bytes = followed::write(kept.iter());
        self.start_job(Job::Record { name: FOLLOWED_STATE.to_owned(), value: Some(bytes) }, Purpose::Other);
    }

    /// The link to a torrent, with the publisher that is followed for it.
    pub(super) fn link_of(&self, id: TorrentId) -> String {
        let link = self.torrents.get(id).map(Torrent::magnet).unwrap_or_default();
        let publisher = self.followed.of(id).find_map(|(_, followed)| followed.link.publisher.as_ref());
        match publisher.map(ToString::to_string) {
            Some(publisher) if !link.contains(&publisher) => format!("{link}&{publisher}"),
            _ => link,
        }
    }

    /// How far the links are that a torrent follows.
    pub(super) fn why_of_followed(&self, now: Time, id: TorrentId) -> impl Iterator<Item = Reason> {
        self.followed.of(id).map(move |(_, link)| Reason::new("link", self.why_of_link(now, link)))
    }

    fn why_of_link(&self, now: Time, link: &Link) -> String {
        let wait = link.ask_at.max(now).since(now).as_secs();
        match (self.dht_nodes(now), link.seq()) {
            (None, _) => {
                "the DHT is off, where newer versions of its link are found; `enabled` in [dht] turns it on".into()
            }
            (Some(0), _) => "no DHT node answers, and versions of its link are found there; see `dht`".into(),
            _ if link.is_useless => {
                format!("the newest item of its link's key names no torrent; it is looked for again in {wait} s")
            }
            (_, None) if link.under_way > 0 => {
                "its link names a key; its first version is being looked for in the DHT".into()
            }
            (_, None) => format!("no DHT node has an item of its link's key; it is looked for again in {wait} s"),
            (_, Some(seq)) => {
                format!("its link is followed: {seq} is its newest version; the next is looked for in {wait} s")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arena::Id;

    fn link(byte: u8) -> (Sha1Hash, Link) {
        let publisher = Publisher { key: [byte; 32], salt: vec![] };
        let target = publisher.target();
        let link = Magnet { publisher: Some(publisher), ..Magnet::default() };
        (target, Link::new(Time::ZERO, link, "d".into()))
    }

    #[test]
    fn what_was_not_found_is_looked_for_soon_and_then_later() {
        let (_, mut link) = link(1);
        let mut waits = Vec::new();
        for _ in 0..9 {
            link.handle_end(Time::from_secs(7));
            waits.push(link.ask_at.since(Time::from_secs(7)).as_secs());
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        link.again = ASK_AGAIN;
        link.newest = Some(OwnedItem { value: b"de".to_vec(), author: None });
        link.handle_end(Time::ZERO);
        assert_eq!(link.ask_at, Time::ZERO + ASK_EVERY);
    }

    #[test]
    fn a_torrent_that_goes_takes_its_links_with_it() {
        let mut followed = Followed::default();
        let ids = [5, 5, 9].map(Id::from_bits);
        for (byte, id) in ids.into_iter().enumerate() {
            let (target, link) = link(u8::try_from(byte).unwrap());
            followed.insert(target, link, id);
            followed.check();
        }
        assert!(followed.forget(ids[0]) && !followed.forget(ids[0]));
        assert_eq!(followed.of(ids[2]).count(), 1);
        followed.check();
        let (target, _) = link(2);
        assert_eq!((followed.timers.pop(Time::ZERO), followed.timers.pop(Time::ZERO)), (Some(target), None));
    }

    #[test]
    fn searches_of_many_links_do_not_begin_at_once() {
        let mut followed = Followed { gap_until: Time::from_secs(3), ..Followed::default() };
        assert!(followed.poll_timeout().is_never());
        let (target, link) = link(1);
        followed.insert(target, link, Id::from_bits(1));
        assert_eq!(followed.poll_timeout(), Time::from_secs(3));
    }
}
