//! What users ask, carried out: finds the torrents that are meant, and either does all of it or refuses.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::base::bytes::Bytes;
use crate::base::hash::{InfoHash, StId};
use crate::base::ids::{StoreId, TorrentId};
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::codec::import::Import;
use crate::codec::magnet::Magnet;
use crate::codec::metainfo::{Metainfo, MetainfoError, Parser};
use crate::codec::url::host_and_port;
use crate::engine::Engine;
use crate::engine::loading::AT_ONCE_MAX;
use crate::engine::path_owners::Claims;
use crate::torrent::candidates::Origin;
use crate::torrent::command::{AddOptions, Answer, Command, Direction, Refusal, RefusalKind, Reply, Source, Which};
use crate::torrent::dht_command::DhtCommand;
use crate::torrent::settings::Change;
use crate::torrent::torrent::{Begin, Torrent};

/// Torrents in one node; another `add` is refused.
pub const TORRENTS_MAX: usize = 100_000;

/// Files of a torrent that are looked at when it is taken over from another client; with more of them, which would make a long round
/// of the loop, all of it is hashed.
const EVIDENCE_FILES_MAX: usize = 10_000;

/// Two of those whose hash begins with `prefix`, where there are so many; `first` is the lowest such hash.
fn begins_with<H: Ord + Display>(
    torrents: &BTreeMap<H, TorrentId>,
    first: Option<H>,
    prefix: &str,
) -> impl Iterator<Item = TorrentId> {
    let range = first.into_iter().flat_map(|first| torrents.range(first..));
    range.take_while(move |(hash, _)| hash.to_string().starts_with(prefix)).take(2).map(|(_, id)| *id)
}

/// Why nothing is begun any more.
pub(super) fn shutting_down() -> Refusal {
    let message = "the daemon is shutting down; send the command again when it has started again";
    Refusal::new(RefusalKind::Busy, message)
}

/// What is to be added.
enum What {
    Metainfo(Box<Metainfo>, Bytes),
    Link(Box<Magnet>),
}

impl<S: Storage> Engine<S> {
    /// Carries out a user's command, or refuses it and changes nothing. What it changed may still be on its way to the disk:
    /// see [`Engine::acknowledge`].
    ///
    /// # Errors
    /// A [`Refusal`] says what kind it is and what to do.
    pub fn handle_command(&mut self, now: Time, command: Command) -> Reply {
        let is_durable = command.is_durable();
        if is_durable && self.exiting {
            return Err(shutting_down());
        }
        self.note_changes(is_durable);
        let reply = self.carry_out(now, command);
        self.settle(now);
        self.note_changes(false);
        self.save_changed(now);
        reply
    }

    /// The torrent that a command needs to have loaded, if it needs one.
    pub(super) fn needs_loaded(&self, command: &Command) -> Option<TorrentId> {
        let which = match command {
            // Why a torrent does not move can be told though its description is lost; that is why, then.
            Command::Why(which) => {
                let id = self.one_id(which).ok()?;
                return self.torrents.get(id).is_some_and(|torrent| torrent.lost().is_none()).then_some(id);
            }
            Command::Files(which)
            | Command::Prioritize { which, .. }
            | Command::Move { which, .. }
            | Command::Rename { which, .. }
            | Command::Magnet(which)
            | Command::Export { which, .. } => which,
            _ => return None,
        };
        self.one_id(which).ok()
    }

    fn carry_out(&mut self, now: Time, command: Command) -> Reply {
        if let Some(answer) = self.needs_loaded(&command).and_then(|id| self.load_for_command(now, id)) {
            return Ok(answer);
        }
        match command {
            Command::Status
            | Command::Stats
            | Command::List { .. }
            | Command::Changes(_)
            | Command::Files(_)
            | Command::Peers(_)
            | Command::Pieces(_)
            | Command::Catalog { .. }
            | Command::Dht(DhtCommand::Sample(_)) => self.collect_all(now, &command),
            Command::Show(which) => {
                let id = self.one_id(&which)?;
                self.load_soon(now, id); // what is shown is known before
                let torrent = self.one(&which)?;
                let mut row = torrent.summary(now);
                row.settings = torrent.settings(None, self.turns.position(id))?;
                self.followed.fill(&self.by_hash, std::slice::from_mut(&mut row));
                row.queue = self.turns.position(id);
                Ok(Answer::Show(Box::new(row)))
            }
            Command::Trackers(which) => Ok(Answer::Trackers(self.one(&which)?.tracker_rows(now))),
            Command::Why(which) => {
                let id = self.one_id(&which)?;
                self.load_soon(now, id);
                Ok(Answer::Why(self.why(now, id)))
            }
            Command::Add { source, options } => self.add(now, source, options),
            Command::Remove { which, data } => {
                let ids = self.meant(&which)?;
                for &id in &ids {
                    if !data {
                        self.remove_torrent(now, id, false);
                    } else if self.is_long(id) || ids.len() > 1 && self.torrents.get(id).is_some_and(Torrent::is_asleep)
                    {
                        // Reading the metainfo of thousands of torrents takes its time.
                        self.torrents.get_mut(id).expect("it was just found").note_removal(now, true);
                        self.touched.push(id);
                        self.leaving.push(id);
                    } else {
                        self.remove_with_data(now, id)?;
                    }
                }
                Ok(Answer::DoneTo(ids.len()))
            }
            Command::Pause(which) => self.each(&which, |torrent| torrent.pause(now)),
            Command::Resume(which) => self.each(&which, |torrent| torrent.resume(now)),
            Command::Verify(which) => self.each(&which, |torrent| torrent.verify(now)),
            Command::Announce(which) => {
                self.meant(&which)?.iter().for_each(|id| self.followed.hurry(now, *id));
                self.each(&which, |torrent| torrent.announce(now))
            }
            Command::Set { which, key, value } => {
                let ids = self.meant(&which)?;
                let change = Change::parse(&key, &value)?;
                for &id in &ids {
                    if let Change::Queue(spot) = change {
                        self.put_in_queue(now, id, spot);
                        continue;
                    }
                    self.torrents.get_mut(id).expect("it was just found").set(now, &change);
                    self.touched.push(id);
                }
                Ok(Answer::DoneTo(ids.len()))
            }
            Command::Get { which, key } => {
                let id = self.one_id(&which)?;
                self.one(&which)?.settings(key.as_deref(), self.turns.position(id)).map(Answer::Settings)
            }
            Command::Prioritize { which, files, priority } => {
                self.one_awake(now, &which)?;
                self.one_mut(&which)?.prioritize(now, &files, priority)?;
                Ok(Answer::Done)
            }
            Command::Limit { direction, rate_bytes } => {
                match direction {
                    Direction::Down => self.usual.0 = rate_bytes,
                    Direction::Up => self.usual.1 = rate_bytes,
                }
                self.apply_limits(now);
                Ok(Answer::Done)
            }
            Command::Move { which, dir } => {
                let id = self.one_id(&which)?;
                self.move_content(now, id, dir)
            }
            Command::Rename { which, file, name } => {
                let id = self.one_id(&which)?;
                let torrent = self.awake(now, id)?;
                let (step, names) = torrent.begin_rename(&file, &name)?;
                let store = torrent.store();
                self.may_rename(now, id, &step)?;
                if store.is_some_and(|store| self.storage.is_there(store, &step.to)) {
                    let message = format!("{} is there already; move it away first", step.to.display());
                    return Err(Refusal::new(RefusalKind::Exists, message));
                }
                self.torrents.get_mut(id).expect("it was just found").rename(now, names);
                self.index_paths(id);
                self.touched.push(id);
                Ok(Answer::Done)
            }
            Command::Connect { which, host, port } => {
                let id = self.one_id(&which)?;
                match host.parse::<IpAddr>() {
                    Ok(ip) => self.one_mut(&which)?.connect(now, SocketAddr::new(ip, port))?,
                    Err(_) => self.connect_by_name(now, id, &host, port)?,
                }
                Ok(Answer::Done)
            }
            Command::Share(share) => self.share(share),
            Command::Unshare(path) => self.unshare(now, &path),
            Command::Shares => Ok(Answer::Shares(self.shared_paths())),
            Command::Magnet(which) => {
                self.one_awake(now, &which)?;
                Ok(Answer::Link(self.link_of(self.one_id(&which)?)))
            }
            Command::Export { which, as_torrent } => {
                Ok(Answer::Metainfo(self.one_awake(now, &which)?.export(as_torrent)?))
            }
            Command::Dht(command) => self.ask_dht(now, command),
            Command::Tracker => self.tracker_state(now),
            Command::Shutdown => {
                self.shut_down(now);
                Ok(Answer::Done)
            }
        }
    }

    fn add(&mut self, now: Time, source: Source, options: AddOptions) -> Reply {
        match source {
            Source::Metainfo(bytes) if bytes.len() > AT_ONCE_MAX => self.load_added(bytes, options),
            Source::Metainfo(bytes) => {
                let bytes = Bytes::from(bytes);
                self.add_read(now, Parser::file(bytes.clone()).run(), bytes, options)
            }
            Source::Link(link) => match Magnet::parse(&link) {
                Ok(link) => self.add_what(now, What::Link(Box::new(link)), options),
                Err(error) => Err(Refusal::new(RefusalKind::Invalid, error.to_string())),
            },
        }
    }

    /// The metainfo of a torrent to add was read.
    pub(super) fn add_read(
        &mut self,
        now: Time,
        read: Result<Metainfo, MetainfoError>,
        bytes: Bytes,
        options: AddOptions,
    ) -> Reply {
        match read {
            Ok(meta) => self.add_what(now, What::Metainfo(Box::new(meta), bytes), options),
            Err(error) => Err(Refusal::new(RefusalKind::Invalid, error.to_string())),
        }
    }

    fn add_what(&mut self, now: Time, what: What, options: AddOptions) -> Reply {
        if self.exiting {
            return Err(shutting_down());
        }
        let (info_hash, st_id) = match &what {
            What::Metainfo(meta, _) => (meta.info_hash, meta.st_id),
            What::Link(link) => (link.wire_hash(), link.st_id),
        };
        if self.removals.contains(info_hash) {
            let message = "its content is still being deleted, as you asked; add it again in a moment";
            return Err(Refusal::new(RefusalKind::Busy, message));
        }
        self.make_way(now, info_hash);
        let publisher = if let What::Link(link) = &what { link.publisher.clone() } else { None };
        let followed = publisher.as_ref().and_then(|publisher| self.followed.torrents.get(&publisher.target()));
        let known = self.by_hash.get(&info_hash).or_else(|| self.by_st_id.get(&st_id?)).or(followed).copied();
        if let (Some(id), What::Metainfo(meta, _)) = (known, &what)
            && let Some(torrent) = self.torrents.get_mut(id).filter(|torrent| torrent.is_link())
        {
            if !torrent.is_link_to(meta) {
                let message =
                    format!("a link to it is there, {}, with other hashes; remove that first", torrent.info_hash());
                return Err(Refusal::new(RefusalKind::Exists, message));
            }
            torrent.describe_by_file(now, (**meta).clone(), &options)?; // what is long of it is shared
            self.touched.push(id);
            return Ok(Answer::Added(info_hash));
        }
        if known.is_some() {
            return Err(Refusal::new(RefusalKind::Exists, format!("{info_hash} is there already")));
        }
        if publisher.is_some() {
            self.may_follow()?;
        }
        if self.torrents.len() >= TORRENTS_MAX {
            return Err(Refusal::new(
                RefusalKind::Busy,
                format!("there are {TORRENTS_MAX} torrents; remove one first"),
            ));
        }
        let mut begin = Begin {
            dir: options.dir.clone().unwrap_or_else(|| self.config.downloads.clone()),
            verify: options.verify.unwrap_or(self.config.verify_on_add),
            added: self.unix_secs(now),
            options,
        };
        let rng = self.rng.fork("torrent");
        match what {
            What::Metainfo(meta, bytes) => {
                let import = begin.options.import.take();
                begin.verify &= import.is_none();
                let mut torrent = Torrent::new(now, Arc::from(meta), begin, &self.config, rng, self.peer_id)?;
                self.may_use(&Claims::of(&torrent))?;
                let mut store = import.map(|import| self.take_over(now, &mut torrent, &import));
                let owners = self.compare_new(now, &mut torrent);
                if torrent.is_second() {
                    // Of a second torrent nothing is believed, and it may not write.
                    store.take().into_iter().for_each(|store| self.storage.close(store));
                }
                let id = self.insert_torrent(now, torrent, Some(bytes.into()), store);
                self.have_owners(id, owners);
            }
            What::Link(link) => {
                let peers = link.peers.clone();
                let torrent = Torrent::from_link(now, (*link).clone(), begin, &self.config, rng, self.peer_id)?;
                let bytes = torrent.metainfo_bytes();
                let link = Magnet { select: torrent.selection(), ..*link };
                let id = self.insert_torrent(now, torrent, Some(bytes), None);
                self.dial_peers_of_link(now, id, &peers);
                if let Some(publisher) = publisher {
                    self.follow(now, &publisher, link, id);
                }
            }
        }
        Ok(Answer::Added(info_hash))
    }

    /// What another client knew of a torrent, as far as its files bear it out; its content is opened for that.
    fn take_over(&mut self, now: Time, torrent: &mut Torrent, import: &Import) -> StoreId {
        let store = self.storage.open(torrent.content());
        let files = if torrent.file_count() <= EVIDENCE_FILES_MAX { torrent.file_count() } else { 0 };
        let stamps: Vec<_> = (0..files).map(|file| self.storage.stamp(store, file)).collect();
        torrent.take_over(now, import, &stamps);
        self.storage.set_held(store, &torrent.held_files());
        store
    }

    /// Peers that a link names; what is none is passed over.
    pub(super) fn dial_peers_of_link(&mut self, now: Time, id: TorrentId, peers: &[String]) {
        for (host, port) in peers.iter().filter_map(|peer| host_and_port(peer)) {
            match host.parse::<IpAddr>() {
                Ok(ip) => {
                    let torrent = self.torrents.get_mut(id).expect("it was just inserted");
                    torrent.add_candidates(now, &[SocketAddr::new(ip, port)], Origin::Link);
                }
                // More names than may be looked up at once are passed over, too.
                Err(_) => drop(self.connect_by_name(now, id, &host, port)),
            }
        }
    }

    fn each(&mut self, which: &Which, mut act: impl FnMut(&mut Torrent)) -> Reply {
        let ids = self.meant(which)?;
        for &id in &ids {
            act(self.torrents.get_mut(id).expect("it was just found"));
            self.touched.push(id);
        }
        Ok(Answer::DoneTo(ids.len()))
    }

    /// The torrents that are meant: at least one, unless all are.
    fn meant(&self, which: &Which) -> Result<Vec<TorrentId>, Refusal> {
        match which {
            Which::All => Ok(self.torrents.ids().filter(|id| !self.is_peek(*id)).collect()),
            Which::Prefix(_) => Ok(vec![self.one_id(which)?]),
        }
    }

    pub(super) fn one_id(&self, which: &Which) -> Result<TorrentId, Refusal> {
        let prefix = match which {
            Which::Prefix(prefix) => prefix,
            Which::All => {
                let mut ids = self.torrents.ids().filter(|id| !self.is_peek(*id));
                return match (ids.next(), ids.next()) {
                    (Some(only), None) => Ok(only),
                    _ => Err(Refusal::new(
                        RefusalKind::Usage,
                        "this needs one torrent; name it by its hash, as `list` shows it",
                    )),
                };
            }
        };
        // One torrent may be meant by both of its hashes, and by the place of the item that names it.
        let mut found: Vec<TorrentId> = begins_with(&self.by_hash, InfoHash::first_with(prefix), prefix)
            .chain(begins_with(&self.by_st_id, StId::first_with(prefix), prefix))
            .chain(begins_with(&self.followed.torrents, InfoHash::first_with(prefix), prefix))
            .filter(|id| !self.is_peek(*id))
            .collect();
        found.sort_unstable();
        found.dedup();
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (None, _) => {
                Err(Refusal::new(RefusalKind::NotFound, format!("no torrent begins with {prefix}; see `list`")))
            }
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(Refusal::new(
                RefusalKind::Ambiguous,
                format!("more than one torrent begins with {prefix}; give more digits"),
            )),
        }
    }

    fn one(&self, which: &Which) -> Result<&Torrent, Refusal> {
        self.one_id(which).map(|id| self.torrents.get(id).expect("it was just found"))
    }

    fn one_mut(&mut self, which: &Which) -> Result<&mut Torrent, Refusal> {
        let id = self.one_id(which)?;
        self.touched.push(id);
        Ok(self.torrents.get_mut(id).expect("it was just found"))
    }
}
