//! While nothing can be sent: the interface, or the proxy, that everything must go through is gone.
//!
//! The driver cuts the sockets and says so; the engine meanwhile dials nobody, announces nothing and lets the DHT rest, so that neither
//! peers nor trackers nor nodes count as having failed. When it is back everything begins at once.

use crate::base::ids::{SocketId, TorrentId};
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::proxy::Proxy;
use crate::engine::{Effect, Engine};
use crate::protocol::tracker::TrackerError;
use crate::torrent::snapshot::State;

impl<S: Storage> Engine<S> {
    /// The driver can send nothing, for this reason: a sentence that says what to do. None: it can again. In between
    /// `handle_closed` tells of each connection that was cut.
    pub fn handle_network(&mut self, now: Time, trouble: Option<String>) {
        let was_cut = self.trouble().is_some();
        self.cut_off = trouble;
        if was_cut && self.trouble().is_none() {
            self.begin_again(now);
        }
        self.settle(now);
    }

    /// Why nothing is sent now; none if it is.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.cut_off.as_deref().or_else(|| self.proxy.as_ref()?.trouble.as_deref())
    }

    /// Everybody is dialled and asked again, at once.
    pub(super) fn begin_again(&mut self, now: Time) {
        // Names that are being looked up had sockets that are no more.
        if self.proxy.is_none() {
            self.effects.extend([SocketId::Resolver4, SocketId::Resolver6].map(Effect::Rebind));
        }
        let ids: Vec<TorrentId> = self.torrents.ids().collect();
        for id in ids {
            self.torrents.get_mut(id).expect("it was just listed").handle_network(now);
            self.followed.hurry(now, id);
            self.touched.push(id);
        }
    }

    /// True if datagrams can be sent.
    pub(super) fn sends_datagrams(&self) -> bool {
        self.trouble().is_none() && self.proxy.as_ref().is_none_or(Proxy::has_relay)
    }

    /// What a tracker is told to have answered meanwhile.
    pub(super) fn not_asked(&self, url: &str) -> Option<TrackerError> {
        let no_datagrams = || {
            let is_udp = url.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("udp:"));
            (is_udp && !self.sends_datagrams()).then_some("the proxy passes no datagrams on")
        };
        self.trouble().or_else(no_datagrams).map(|why| TrackerError::NotAsked(why.to_owned()))
    }

    /// The sentence for `why`; only of torrents that would move.
    pub(super) fn why_of_network(&self, state: State) -> Option<String> {
        let moves = matches!(state, State::Metadata | State::Downloading | State::Seeding);
        self.trouble().filter(|_| moves).map(str::to_owned)
    }
}
