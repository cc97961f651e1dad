//! What a torrent has to do with its local network (BEP 14): it is announced there while it runs, and takes the peers that are
//! heard of. A private one never does (BEP 27).

use std::net::SocketAddr;

use crate::base::time::Time;
use crate::torrent::candidates::Origin;
use crate::torrent::torrent::{Ask, Torrent};

impl Torrent {
    /// It runs, or the user wants it announced now.
    pub(crate) fn join_lsd(&mut self) {
        if self.lsd && self.running {
            self.asks.push_back(Ask::JoinLsd);
        }
    }

    /// It has stopped.
    pub(crate) fn leave_lsd(&mut self) {
        if self.lsd {
            self.asks.push_back(Ask::LeaveLsd);
        }
    }

    /// A neighbour says that it has this torrent, too.
    pub fn handle_lsd_peer(&mut self, now: Time, addr: SocketAddr) {
        if self.lsd && self.running {
            self.add_candidates(now, &[addr], Origin::Lsd);
        }
    }
}
