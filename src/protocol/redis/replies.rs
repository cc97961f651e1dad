//! What is asked of a server that is ready, and what follows from its replies.

use crate::base::time::Time;
use crate::codec::resp::Value;
use crate::protocol::redis::node::{Ask, Expected, Stage};
use crate::protocol::redis::slots::{Redirect, parse_redirect, parse_slots};
use crate::protocol::redis::{Failed, Need, OUT_MAX, REDIRECTS_MAX, Redis, Seed, State, Why};

impl Redis {
    /// Asks something of our own.
    pub(super) fn say(&mut self, now: Time, index: usize, command: &[&[u8]], expected: Expected) {
        let Some(talk) = self.node(index).ready() else { return };
        let (link, is_first) = (talk.link, talk.outgoing().is_empty());
        talk.say(now, command, expected);
        if is_first {
            self.needs.push_back(Need::Wake(link));
        }
    }

    /// Sends what was asked to a node, or keeps it until that one has been reached for the first time.
    pub(super) fn send(&mut self, now: Time, index: usize, mut ask: Ask, command: &[u8]) {
        let moves = self.moves;
        let node = self.node(index);
        let is_fresh = node.is_fresh();
        if moves || is_fresh {
            ask.command = command.to_vec();
        }
        if is_fresh {
            return node.waiting.push_back(ask);
        }
        match node.ready() {
            Some(talk) if talk.outgoing().len() + command.len() > OUT_MAX => self.finish(&ask, Err(Failed::Busy)),
            Some(talk) => {
                // Whoever finds something to be sent has been woken already.
                let (link, is_first) = (talk.link, talk.outgoing().is_empty());
                talk.say_for(now, command, ask);
                if is_first {
                    self.needs.push_back(Need::Wake(link));
                }
            }
            None => self.finish(&ask, Err(Failed::Away)),
        }
    }

    fn send_again(&mut self, now: Time, index: usize, mut ask: Ask) {
        let command = std::mem::take(&mut ask.command);
        self.send(now, index, ask, &command);
    }

    pub(super) fn handle_reply(&mut self, now: Time, index: usize, reply: Value) {
        let node = self.nodes[index].as_mut().expect("a node that replies is there");
        let Stage::Open(talk) = &mut node.stage else { unreachable!("replies come on a stream that stands") };
        let expected = talk.take_expected(now);
        let said = said(&reply);
        let why = match (expected, said) {
            (Some(Expected::Ask(ask)), None) => return self.finish(&ask, Ok(reply)),
            (Some(Expected::Ask(ask)), Some(said)) => return self.handle_refusal(now, index, ask, said),
            (Some(Expected::Slots), said) => return self.handle_map(now, index, &reply, said),
            (Some(Expected::Ping | Expected::Asking), _) | (Some(Expected::Auth | Expected::Select), None) => return,
            (Some(Expected::Greeted), None) => return self.handle_greeted(now, index),
            // Who may not ask for this one may still ask for others.
            (Some(Expected::Greeted), Some(said)) if said.starts_with("NOPERM") => {
                return self.handle_greeted(now, index);
            }
            (Some(Expected::Auth), Some(said)) => Why::Said(self.without_login(&said)),
            (Some(Expected::Select), Some(said)) if said.contains("cluster") => {
                Why::Said("it is part of a cluster, which has only database 0: name no other in its address".into())
            }
            (Some(Expected::Select), Some(said)) => Why::Said(format!("it refuses the database: {said}")),
            (Some(Expected::Greeted) | None, Some(said)) => Why::Said(reason_of(&said)),
            (None, None) => Why::Broken,
        };
        self.lose(now, index, &why);
    }

    /// What it says against the login. A server that does not know `AUTH` repeats what it was sent.
    fn without_login(&self, said: &str) -> String {
        if said.starts_with("ERR unknown command") {
            return "it does not know AUTH".into();
        }
        let password = self.url.password.as_deref().unwrap_or_default();
        format!("it refuses the login: {}", said.replace(password, "…"))
    }

    /// A server may be asked from now on.
    fn handle_greeted(&mut self, now: Time, index: usize) {
        let node = self.node(index);
        if let Stage::Open(talk) = &mut node.stage {
            talk.is_ready = true;
        }
        node.fails = 0;
        for ask in std::mem::take(&mut node.waiting) {
            self.send_again(now, index, ask);
        }
        match &mut self.state {
            State::Seeking { seed, .. } => {
                let seed = std::mem::replace(seed, Seed::Unknown);
                self.adopt(now, index, seed);
            }
            _ => self.settle(now),
        }
    }

    /// The answer to `CLUSTER SLOTS`.
    fn handle_map(&mut self, now: Time, index: usize, reply: &Value, said: Option<String>) {
        let asked = &self.node(index).server;
        let found = match &said {
            None => parse_slots(reply, asked).map(Seed::Cluster),
            Some(said) if said.contains("cluster support disabled") || said.starts_with("ERR unknown") => {
                Some(Seed::Single(false))
            }
            // It may not be asked, so it is taken as it comes.
            Some(said) if said.starts_with("NOPERM") => Some(Seed::Single(true)),
            Some(_) => None,
        };
        match (&mut self.state, found, said) {
            (State::Seeking { seed, .. }, Some(found), _) => *seed = found,
            (State::Seeking { .. }, None, Some(said)) => self.lose(now, index, &Why::Said(reason_of(&said))),
            (_, Some(Seed::Cluster(kept)), _) => self.apply_map(now, kept),
            (_, None, None) => self.lose(now, index, &Why::Broken),
            (_, _, Some(_)) | (_, Some(_), None) => self.want_map(now),
        }
    }

    /// A server answers what was asked with an error.
    fn handle_refusal(&mut self, now: Time, index: usize, mut ask: Ask, said: String) {
        match said.split(' ').next().unwrap_or_default() {
            "MOVED" | "ASK" if !ask.command.is_empty() => {}
            "CLUSTERDOWN" | "TRYAGAIN" | "LOADING" => {
                self.want_map(now);
                return self.finish(&ask, Err(Failed::Away));
            }
            _ => return self.finish(&ask, Err(Failed::Refused(said))),
        }
        ask.redirects += 1;
        let redirect = parse_redirect(&said, &self.node(index).server);
        let (to, slot) = match redirect {
            Some(Redirect::Moved(slot, to)) => (self.node_of(now, &to), Some(slot)),
            Some(Redirect::Ask(to)) => (self.node_of(now, &to), None),
            None => (None, None),
        };
        if slot.is_some() || to.is_none() {
            self.want_map(now);
        }
        ask.is_early = slot.is_none();
        if let (Some(slot), Some(to)) = (slot, to) {
            self.slots.give(slot..=slot, to);
        }
        match to {
            Some(to) if ask.redirects <= REDIRECTS_MAX => {
                self.counters.redirected += 1;
                self.send_again(now, to, ask);
            }
            _ => self.finish(&ask, Err(Failed::Away)),
        }
    }
}

/// The text of an error, fit to be shown.
fn said(reply: &Value) -> Option<String> {
    let Value::Error(text) = reply else { return None };
    Some(String::from_utf8_lossy(text).chars().filter(|char| !char.is_control()).collect())
}

/// Why a server that says this cannot be used.
fn reason_of(said: &str) -> String {
    match said.split(' ').next().unwrap_or_default() {
        "NOAUTH" => "it wants a login: put :PASSWORD@ before the host in its address".into(),
        "LOADING" => "it is still reading its data".into(),
        _ => format!("it refuses us: {said}"),
    }
}
