//! The control socket: its listener and its clients. What is said is `service/control`; here are the bytes of it.
//!
//! A round reads, answers and writes a bounded share for each client, so one that pipelines thousands of requests
//! delays nobody for long; whoever has more to do is served again in the next round. So is a client whose answer is long: each round
//! adds some rows to it, as long as the client reads.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::Interest;
use mio::net::{UnixListener, UnixStream};
use rustix::fs::Mode;

use crate::base::ids::AckId;
use crate::base::steps;
use crate::base::time::Time;
use crate::daemon::config::Control;
use crate::reactor::Reactor;
use crate::reactor::outside::{OutsideEvent, OutsideId};
use crate::service::control::{Report, Request, Session, Verdict};
use crate::torrent::command::Refusal;
use crate::torrent::event::Event;
use crate::torrent::listing::Listing;

/// Clients at once. For another one of them is told so and closed, so that whoever comes always gets in: of those that ask nothing
/// the one that has been silent for longest, else the one that has let answers wait for longest, else a watcher, else any.
const CLIENTS_MAX: usize = 64;
/// Connections accepted in a round; the rest waits in the kernel.
const ACCEPTS_MAX: usize = 16;
/// How soon accepting is tried again after it failed.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);
/// Bytes read from a client in a round; the rest waits in the kernel.
const READ_MAX: usize = 64 * 1024;
/// Requests of a client carried out in a round; the rest waits for the next.
const REQUESTS_MAX: u32 = 16;
/// Bytes of answers to all clients that a round may begin with; the rest waits for the next. Who was given least of late comes first.
const ANSWERS_MAX: usize = 256 * 1024;
/// What a request costs beside the bytes of its answer.
const REQUEST_COST: usize = 1024;
/// What collecting rows costs beside the bytes of them.
const ROWS_COST: usize = 1024;
/// Steps that a round spends on the rows of long answers, of all clients together: about half a millisecond.
const ROWS_STEPS: u64 = steps::TURN_MAX / 4;
/// How long "of late" is.
const LATE: Duration = Duration::from_secs(1);
/// Bytes of answers that may wait for all clients together. Beyond it who has taken nothing for longest is disconnected.
const WAITING_MAX: usize = 64 * 1024 * 1024;

/// Why there is no control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindError {
    /// Another daemon answers there.
    Taken(String),
    /// What the system says, and what to do.
    Failed(String),
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    session: Session,
    /// The kernel may have more to read.
    readable: bool,
    /// Requests that it may still ask in this round.
    requests_left: u32,
    /// What it was given of late.
    given: usize,
    /// When it last sent something; at first, when it came.
    heard_at: Time,
    is_broken: bool,
}

/// What a client waits for.
#[derive(Debug)]
pub enum Work {
    /// To be answered with [`Clients::reply`] before anything else is asked for.
    Request(Request),
    /// Rows of the answer that is being written: see [`Clients::listing`].
    Rows,
}

/// What clients have been, since the start.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    accepted: u64,
    /// Closed for a newer one.
    shed: u64,
    /// Closed for letting too much wait.
    overrun: u64,
}

/// The listener and whoever has connected. Removes its socket when dropped.
#[derive(Debug)]
pub struct Clients {
    path: PathBuf,
    /// The socket's group as it was made.
    own_group: u32,
    listener: UnixListener,
    id: OutsideId,
    may_accept: bool,
    /// Accepting failed, for want of descriptors perhaps; then it is tried again, for the kernel will not say when.
    accept_at: Time,
    clients: BTreeMap<OutsideId, Client>,
    /// Clients whose replies wait for the disk, by what they wait for.
    awaited: BTreeMap<AckId, OutsideId>,
    counts: Counts,
    /// What this round has given.
    given: usize,
    /// What was counted by [`steps`] before the first rows of this round; none while there were none.
    rows_since: Option<u64>,
    /// When all begin anew.
    late_at: Time,
}

/// Has the socket belong to its group, `own_group` if none is named, and then be for whom it should.
fn permit(path: &Path, control: &Control, own_group: u32) -> Result<(), String> {
    let failed = |error: io::Error| format!("control socket {}: {error}", path.display());
    let group = match &control.group[..] {
        "" => own_group,
        name => group_id(name).ok_or_else(|| format!("[control] group: there is no group `{name}` in /etc/group"))?,
    };
    let meta = fs::metadata(path).map_err(failed)?;
    if meta.gid() != group {
        // Nobody of the other group may get in on the way.
        let both = meta.mode() & control.mode & 0o777;
        fs::set_permissions(path, fs::Permissions::from_mode(both)).map_err(failed)?;
        if let Err(error) = std::os::unix::fs::chown(path, None, Some(group)) {
            let back = fs::set_permissions(path, fs::Permissions::from_mode(meta.mode() & 0o777));
            return Err(failed(back.err().unwrap_or(error)));
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(control.mode)).map_err(failed)
}

impl Clients {
    /// Listens where the config says. A socket that nobody listens at any more is replaced.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(control: &Control, reactor: &mut Reactor) -> Result<Self, BindError> {
        let path = &control.socket;
        let failed = |error: io::Error| BindError::Failed(format!("control socket {}: {error}", path.display()));
        clear(path)?;
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        // Nobody may connect before the permissions are right.
        let mask = rustix::process::umask(Mode::from_raw_mode(0o777));
        let bound = UnixListener::bind(path);
        rustix::process::umask(mask);
        let mut listener = bound.map_err(failed)?;
        let own_group = fs::metadata(path).map_err(failed)?.gid();
        permit(path, control, own_group).map_err(BindError::Failed)?;
        let id = reactor.register(&mut listener, Interest::READABLE).map_err(failed)?;
        Ok(Self {
            path: path.clone(),
            own_group,
            listener,
            id,
            may_accept: true,
            accept_at: Time::NEVER,
            clients: BTreeMap::new(),
            awaited: BTreeMap::new(),
            counts: Counts::default(),
            given: 0,
            rows_since: None,
            late_at: Time::ZERO,
        })
    }

    /// The socket has the mode and the group of `control` from now on. Whoever is connected stays so.
    ///
    /// # Errors
    /// One sentence for the user; nothing has changed then.
    pub fn set_permissions(&self, control: &Control) -> Result<(), String> {
        permit(&self.path, control, self.own_group)
    }

    /// Something happened to a descriptor; anybody else's is none of ours.
    pub fn handle_event(&mut self, event: OutsideEvent) {
        if event.id == self.id {
            self.may_accept = true;
        } else if let Some(client) = self.clients.get_mut(&event.id) {
            client.readable |= event.readable;
        }
    }

    /// Begins a round: takes new clients, reads from all that have something.
    pub fn begin_round(&mut self, now: Time, reactor: &mut Reactor) {
        self.accept(now, reactor);
        self.given = 0;
        self.rows_since = None;
        let is_late = now >= self.late_at;
        if is_late {
            self.late_at = now + LATE;
        }
        for client in self.clients.values_mut() {
            client.requests_left = REQUESTS_MAX;
            client.given = if is_late { 0 } else { client.given };
            client.read(now);
        }
    }

    /// The next thing to do in this round, and for whom.
    pub fn poll_work(&mut self, now: Time) -> Option<(OutsideId, Work)> {
        while self.given < ANSWERS_MAX {
            let has_rows = self.rows_since.is_none_or(|since| steps::so_far() < since + ROWS_STEPS);
            let waits = |client: &Client| {
                let may = if client.session.wants_rows(now) { has_rows } else { client.requests_left > 0 };
                may && !client.is_broken && client.session.is_ready(now)
            };
            let asking = self.clients.iter_mut().filter(|(_, client)| waits(client));
            let (id, client) = asking.min_by_key(|(_, client)| client.given)?;
            if client.session.wants_rows(now) {
                self.rows_since.get_or_insert(steps::so_far());
                return Some((*id, Work::Rows));
            }
            client.requests_left -= 1;
            let before = client.session.kept();
            let request = client.session.poll_request(now);
            let given = client.session.kept().saturating_sub(before) + REQUEST_COST;
            client.given += given;
            self.given += given;
            if let Some(request) = request {
                return Some((*id, Work::Request(request)));
            }
        }
        None
    }

    /// The answer whose rows a client waits for; answer with [`Clients::handle_rows`].
    pub fn listing(&mut self, id: OutsideId) -> Option<&mut Listing> {
        self.clients.get_mut(&id)?.session.listing()
    }

    /// Takes the next rows of a client's answer, the last ones if `is_last`; or why there are none.
    pub fn handle_rows(&mut self, now: Time, id: OutsideId, rows: Result<(Report, bool), Refusal>) {
        if let Some(client) = self.clients.get_mut(&id) {
            let before = client.session.kept();
            client.session.handle_rows(now, rows);
            let given = client.session.kept().saturating_sub(before) + ROWS_COST;
            client.given += given;
            self.given += given;
        }
    }

    /// Answers a request; with an `ack` once [`Clients::handle_ack`] is called with it.
    pub fn reply(&mut self, now: Time, id: OutsideId, verdict: Verdict, ack: Option<AckId>) {
        if let Some(client) = self.clients.get_mut(&id) {
            let before = client.session.kept();
            client.session.reply(now, verdict, ack);
            self.awaited.extend(ack.map(|ack| (ack, id)));
            let given = client.session.kept() - before;
            client.given += given;
            self.given += given;
        }
    }

    /// What a client changed is on the disk, or could not be saved.
    pub fn handle_ack(&mut self, now: Time, ack: AckId, result: &Result<(), Refusal>) {
        let id = self.awaited.remove(&ack);
        if let Some(client) = id.and_then(|id| self.clients.get_mut(&id)) {
            client.session.handle_ack(now, ack, result);
        }
    }

    /// True if somebody is told what happens.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.clients.values().any(|client| client.session.is_watching())
    }

    /// Tells everybody who watches.
    pub fn tell(&mut self, now: Time, event: &Event) {
        self.clients.values_mut().for_each(|client| client.session.tell(now, event));
    }

    /// Ends a round: writes what is taken, closes who is through. True if somebody has more to do right now.
    pub fn end_round(&mut self, now: Time, reactor: &mut Reactor) -> bool {
        let mut closed = Vec::new();
        for (id, client) in &mut self.clients {
            client.write(now);
            if client.is_broken || client.session.is_over() {
                closed.push(*id);
            }
        }
        for id in closed {
            self.counts.overrun += u64::from(self.clients[&id].session.is_overrun());
            self.close(id, reactor);
        }
        while self.clients.values().map(|client| client.session.kept()).sum::<usize>() > WAITING_MAX {
            let owing = self.clients.iter().filter(|(_, client)| client.session.kept() > 0);
            let Some((id, _)) = owing.min_by_key(|(_, client)| client.session.taken_at()) else { break };
            self.counts.overrun += 1;
            self.close(*id, reactor);
        }
        let has_more =
            |client: &Client| client.session.is_ready(now) || (client.readable && client.session.wants_input());
        self.may_accept || self.clients.values().any(has_more)
    }

    /// When somebody has more to do though nothing happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.clients.values().map(|client| client.session.poll_timeout()).fold(self.accept_at, Time::min)
    }

    /// Figures for `stats`: names and values.
    #[must_use]
    pub fn stats(&self) -> Vec<(String, u64)> {
        let Counts { accepted, shed, overrun } = self.counts;
        let rows = [
            ("control_clients", self.clients.len() as u64),
            ("control_accepted", accepted),
            ("control_shed", shed),
            ("control_overrun", overrun),
        ];
        rows.map(|(name, value)| (name.to_owned(), value)).into()
    }

    fn close(&mut self, id: OutsideId, reactor: &mut Reactor) {
        let Some(mut client) = self.clients.remove(&id) else { return };
        if let Err(error) = reactor.deregister(id, &mut client.stream) {
            log::debug!("a control client cannot be forgotten: {error}");
        }
    }

    /// Closes the client that is missed least.
    fn shed(&mut self, reactor: &mut Reactor) {
        let least = self.clients.iter().min_by_key(|(_, client)| client.worth()).map(|(id, _)| *id);
        let Some(id) = least else { return };
        let client = self.clients.get_mut(&id).expect("it was just seen");
        if client.session.output().is_empty() {
            // It goes into an empty buffer, or nowhere.
            drop(client.stream.write(b"ERR busy another client needed the place; connect again\n"));
        }
        self.counts.shed += 1;
        self.close(id, reactor);
    }

    fn accept(&mut self, now: Time, reactor: &mut Reactor) {
        self.may_accept |= self.accept_at <= now;
        for _ in 0..ACCEPTS_MAX {
            if !self.may_accept {
                return;
            }
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.may_accept = false;
                    if error.kind() == ErrorKind::WouldBlock {
                        self.accept_at = Time::NEVER;
                    } else {
                        if self.accept_at.is_never() {
                            log::warn!("control socket: {error}; new clients wait");
                        }
                        self.accept_at = now + ACCEPT_RETRY;
                    }
                    return;
                }
            };
            if self.clients.len() >= CLIENTS_MAX {
                self.shed(reactor);
            }
            match reactor.register(&mut stream, Interest::READABLE | Interest::WRITABLE) {
                Ok(id) => {
                    let session = Session::new(now);
                    let client = Client {
                        stream,
                        session,
                        readable: true,
                        requests_left: 0,
                        given: 0,
                        heard_at: now,
                        is_broken: false,
                    };
                    self.clients.insert(id, client);
                    self.counts.accepted += 1;
                }
                Err(error) => log::warn!("control socket: {error}"),
            }
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // Gone already is fine; anything else the next start will meet and tell.
        drop(fs::remove_file(&self.path));
    }
}

impl Client {
    /// Who is missed less has less of it: what it does, and since when it does that.
    fn worth(&self) -> (u8, Time) {
        if !self.session.output().is_empty() {
            (1, self.session.taken_at())
        } else if self.session.is_watching() {
            (2, self.heard_at)
        } else if self.session.is_asking() {
            (3, self.heard_at)
        } else {
            (0, self.heard_at)
        }
    }

    fn read(&mut self, now: Time) {
        let mut buf = [0; 16 * 1024];
        let mut left = READ_MAX;
        while self.readable && left > 0 && self.session.wants_input() {
            match self.stream.read(&mut buf) {
                Ok(0) => {
                    self.session.handle_end();
                    self.readable = false;
                }
                Ok(len) => {
                    self.session.handle_input(&buf[..len]);
                    self.heard_at = now;
                    left = left.saturating_sub(len);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.readable = false;
                    self.is_broken |= error.kind() != ErrorKind::WouldBlock;
                }
            }
        }
    }

    fn write(&mut self, now: Time) {
        while !self.is_broken && !self.session.output().is_empty() {
            match self.stream.write(self.session.output()) {
                Ok(len) => self.session.handle_sent(now, len),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.is_broken = true,
            }
        }
    }
}

/// Removes a socket that nobody listens at.
fn clear(path: &Path) -> Result<(), BindError> {
    match BlockingStream::connect(path) {
        Ok(_) => Err(BindError::Taken(format!("another daemon answers at the control socket {}", path.display()))),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(|error| {
            BindError::Failed(format!("the old control socket {} cannot be removed: {error}", path.display()))
        }),
        Err(_) => Ok(()),
    }
}

/// The number of a group, from `/etc/group` or digits.
fn group_id(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let groups = fs::read_to_string("/etc/group").ok()?;
    let mut fields = groups.lines().map(|line| line.split(':'));
    fields.find_map(|mut fields| if fields.next()? == name { fields.nth(1)?.parse().ok() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_and_number() {
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("1234"), Some(1234));
        assert_eq!(group_id("no such group"), None);
    }

    #[test]
    fn a_socket_that_is_answered_is_left_alone_and_a_dead_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert_eq!(clear(&path), Ok(()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(clear(&path), Err(BindError::Taken(_))));
        drop(listener);
        assert_eq!(clear(&path), Ok(()));
        assert!(!path.exists());
    }
}
