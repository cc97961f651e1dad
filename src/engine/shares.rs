//! What lies in share directories: described in the background, one after another, and seeded where it lies. The driver says
//! what is there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::base::hash::Sha1Hash;
use crate::base::ids::TorrentId;
use crate::base::storage::{Stamp, Storage};
use crate::base::time::Time;
use crate::codec::st::identity;
use crate::engine::Engine;
use crate::engine::commands::TORRENTS_MAX;
use crate::protocol::dht::items::OwnedItem;
use crate::torrent::command::{AddOptions, Answer, NewShare, Refusal, RefusalKind, Reply};
use crate::torrent::share::{LOOKS_MAX, Made, Making, content_of};
use crate::torrent::torrent::{Begin, Torrent};

/// Shares that wait to be looked at or described; one more is refused, and is told again later.
const WAITING_MAX: usize = 10_000;

/// How often each share is put into the DHT: others keep it for two hours.
const PUT_AGAIN: Duration = Duration::from_hours(1);
/// How soon where no node answers yet.
const PUT_SOON: Duration = Duration::from_secs(30);
/// So many are put at once.
const PUTS_MAX: usize = 4;
/// So often.
const PUTS_EVERY: Duration = Duration::from_secs(5);

/// What is shared.
#[derive(Debug, Default)]
pub(super) struct Shares {
    waiting: VecDeque<NewShare>,
    looking: Option<Looking>,
    making: Option<Making>,
    /// Where each lies.
    pub(super) torrents: BTreeMap<PathBuf, TorrentId>,
    /// When each is put into the DHT.
    puts: BTreeSet<(Time, TorrentId)>,
    /// And no earlier.
    next_put: Time,
    /// Where each is being put; no more than are put in the time that a search takes.
    putting: BTreeMap<Sha1Hash, Putting>,
}

/// A share that is being put into the DHT.
#[derive(Debug)]
struct Putting {
    id: TorrentId,
    /// Searches under way, one a family.
    searches: usize,
    /// Nodes that were asked to keep it.
    kept_by: usize,
}

/// The files of a share that is a torrent already, being looked at: whether anybody has touched them since.
#[derive(Debug)]
struct Looking {
    share: NewShare,
    id: TorrentId,
    stamps: Vec<Stamp>,
    next: usize,
}

impl Shares {
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.looking.is_none() && self.making.is_none()
    }

    /// A torrent of a share directory is there.
    pub(super) fn enter(&mut self, now: Time, path: PathBuf, id: TorrentId) {
        self.torrents.insert(path, id);
        self.puts.insert((now, id));
    }

    /// It is no more.
    pub(super) fn leave(&mut self, path: &Path) {
        if let Some(id) = self.torrents.remove(path) {
            self.puts.retain(|(_, other)| *other != id);
            self.putting.retain(|_, putting| putting.id != id);
        }
    }

    /// A search that put something has ended. What nobody keeps is put again soon.
    pub(super) fn handle_put(&mut self, now: Time, target: Sha1Hash, kept_by: usize) {
        let Some(putting) = self.putting.get_mut(&target) else { return };
        putting.kept_by += kept_by;
        putting.searches = putting.searches.saturating_sub(1);
        if putting.searches == 0
            && let Some(Putting { id, kept_by: 0, .. }) = self.putting.remove(&target)
        {
            self.puts.retain(|(_, other)| *other != id);
            self.puts.insert((now + PUT_SOON, id));
        }
    }

    /// When the next one is to be put.
    pub(super) fn poll_timeout(&self) -> Time {
        self.puts.first().map_or(Time::NEVER, |(at, _)| (*at).max(self.next_put))
    }
}

impl<S: Storage> Engine<S> {
    /// Something lies in a share directory.
    pub(super) fn share(&mut self, share: NewShare) -> Reply {
        self.forget_share(&share.path());
        if self.shares.waiting.len() >= WAITING_MAX {
            return Err(Refusal::new(
                RefusalKind::Busy,
                format!("{WAITING_MAX} shares wait to be hashed; this one waits"),
            ));
        }
        self.shares.waiting.push_back(share);
        Ok(Answer::Done)
    }

    /// Nothing lies there any more.
    pub(super) fn unshare(&mut self, now: Time, path: &Path) -> Reply {
        self.forget_share(path);
        if let Some(&id) = self.shares.torrents.get(path) {
            self.remove_torrent(now, id, false);
        }
        Ok(Answer::Done)
    }

    /// Where everything lies that is shared, or is about to be.
    pub(super) fn shared_paths(&self) -> Vec<PathBuf> {
        let making = self.shares.making.as_ref().map(|making| making.share.path());
        // Who is being looked at is among the torrents.
        let waiting = self.shares.waiting.iter().map(NewShare::path);
        self.shares.torrents.keys().cloned().chain(making).chain(waiting).collect()
    }

    /// What was to be described there is so no longer.
    fn forget_share(&mut self, path: &Path) {
        // Of many that wait each is compared, so none puts its path together.
        let (dir, name) = (path.parent(), path.file_name());
        let is_it = |share: &NewShare| Some(&*share.dir) == dir && Some(&*share.name) == name;
        self.shares.waiting.retain(|share| !is_it(share));
        self.shares.looking.take_if(|looking| is_it(&looking.share));
        if let Some(making) = self.shares.making.take_if(|making| is_it(&making.share)) {
            making.cancel(&mut self.storage);
        }
    }

    /// How its files looked, if the torrent is of these files, as far as one sees without a look at them.
    fn is_of(&self, id: TorrentId, share: &NewShare) -> Option<Vec<Stamp>> {
        let torrent = self.torrents.get(id)?;
        let (is, was) = (content_of(share).files, torrent.content().files);
        let entries = is.entries().zip(was.entries());
        let same_files =
            is.len() == was.len() && entries.clone().all(|(is, was)| (&is.path, is.span) == (&was.path, was.span));
        let named = |urls: &[String]| urls.iter().map(|url| identity(url)).collect::<BTreeSet<_>>();
        let same_trackers = named(&torrent.trackers()) == named(&share.trackers);
        // One that is being hashed was changed while we were away: described anew it is hashed once, too.
        let is_whole = torrent.is_finished() && torrent.check_progress().is_none();
        (same_files && same_trackers && is_whole).then(|| torrent.stamps())
    }

    /// Puts what is shared into the DHT as items (BEP 44), a few at a time, so that others keep them.
    pub(super) fn put_shares(&mut self, now: Time) {
        if self.shares.poll_timeout() > now {
            return;
        }
        self.shares.next_put = now + PUTS_EVERY;
        let answers = self.dht_nodes(now) > Some(0) && !self.config.anonymous;
        for _ in 0..PUTS_MAX {
            let Some(&(at, id)) = self.shares.puts.first().filter(|(at, _)| *at <= now) else { return };
            self.shares.puts.remove(&(at, id));
            let (Some(nodes), Some(torrent)) = (&mut self.dht, self.torrents.get(id)) else { continue };
            let item = OwnedItem { value: torrent.dht_item(), author: None };
            let target = Sha1Hash::of(&item.value);
            let searches = if answers { nodes.put_item(now, item) } else { 0 };
            if searches > 0 {
                self.shares.putting.insert(target, Putting { id, searches, kept_by: 0 });
            }
            self.shares.puts.insert((now + if searches > 0 { PUT_AGAIN } else { PUT_SOON }, id));
        }
    }

    /// One slice of looking at a share that is a torrent already.
    fn look_at_share(&mut self, now: Time, mut looking: Looking) {
        let Looking { id, ref stamps, next, .. } = looking;
        let Some(store) = self.torrents.get(id).and_then(Torrent::store) else { return };
        let slice = stamps.iter().enumerate().skip(next).take(LOOKS_MAX);
        let is_as_it_was = slice.into_iter().all(|(file, stamp)| self.storage.stamp(store, file) == Some(*stamp));
        looking.next += LOOKS_MAX;
        if !is_as_it_was {
            self.remove_torrent(now, id, false);
            self.settle(now);
            self.shares.waiting.push_front(looking.share);
        } else if looking.next < looking.stamps.len() {
            self.shares.looking = Some(looking);
        }
    }

    /// One slice of looking or describing.
    pub(super) fn work_on_shares(&mut self, now: Time) {
        if let Some(looking) = self.shares.looking.take() {
            return self.look_at_share(now, looking);
        }
        let Some(mut making) = self.shares.making.take() else { return self.begin_share(now) };
        match making.work(&mut self.storage, &mut self.receive) {
            Ok(true) => self.shares.making = Some(making),
            Ok(false) => self.finish_share(now, making),
            Err(fault) => {
                log::warn!("{} is not shared: {fault}", making.share.path().display());
                making.cancel(&mut self.storage);
            }
        }
    }

    fn begin_share(&mut self, now: Time) {
        let Some(share) = self.shares.waiting.pop_front() else { return };
        let path = share.path();
        if let Some(&id) = self.shares.torrents.get(&path) {
            if let Some(stamps) = self.is_of(id, &share) {
                self.shares.looking = Some(Looking { share, id, stamps, next: 0 });
                return;
            }
            self.remove_torrent(now, id, false);
            self.settle(now);
        }
        // An entry that a torrent of the user's is being downloaded to is not finished, or shared by that.
        if self.belongs_to_torrent(&share.dir, &share.name) {
            return log::info!("{} belongs to a torrent and is not described anew", path.display());
        }
        match Making::begin(share, &mut self.storage) {
            Ok(making) => self.shares.making = Some(making),
            Err(error) => log::warn!("{} is not shared: {error}", path.display()),
        }
    }

    fn finish_share(&mut self, now: Time, making: Making) {
        let share = making.share.clone();
        let path = share.path();
        let (meta, bytes, stamps, store) = match making.finish(&mut self.storage) {
            Made::Whole(meta, bytes, stamps, store) => (meta, bytes, stamps, store),
            // Whoever changes it will be heard of again.
            Made::Changed => return log::info!("{} was changed while it was hashed; it waits", path.display()),
            Made::Failed(why) => return log::warn!("{} is not shared: {why}", path.display()),
        };
        let info_hash = meta.info_hash;
        self.make_way(now, info_hash);
        if self.by_hash.contains_key(&info_hash) {
            self.storage.close(store);
            return log::warn!("{} is not shared: it is a torrent of yours already, {info_hash}", path.display());
        }
        if self.torrents.len() >= TORRENTS_MAX {
            self.storage.close(store);
            return log::warn!("{} is not shared: there are {TORRENTS_MAX} torrents", path.display());
        }
        let options = AddOptions { shared: true, ..AddOptions::default() };
        let begin = Begin { dir: share.dir, verify: false, added: self.unix_secs(now), options };
        let rng = self.rng.fork("torrent");
        match Torrent::new(now, Arc::new(*meta), begin, &self.config, rng, self.peer_id) {
            Ok(mut torrent) => {
                torrent.claim_all(now, &stamps);
                self.insert_torrent(now, torrent, Some(bytes.into()), Some(store));
                log::info!("{} is shared as {info_hash}", path.display());
            }
            Err(refusal) => {
                self.storage.close(store);
                log::warn!("{} is not shared: {}", path.display(), refusal.message);
            }
        }
        self.settle(now);
    }
}
