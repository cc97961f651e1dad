//! The config file read again while the daemon runs (SIGHUP, `reload`): what can hold at once does, and each key that has changed is
//! told of, as is what waits for a restart.
//!
//! Every key stands in one of two lists. One that is read at the start only is set back to what it was before anything else happens;
//! then each part takes what is its own, and says why where that cannot be. So `settings` is always what is in effect.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::ErrorKind;

use toml::{Table, Value};

use crate::base::config::Config;
use crate::base::time::Time;
use crate::daemon::config::Settings;
use crate::daemon::main::Daemon;
use crate::daemon::{block, load, log as journal};
use crate::reactor::descriptors;
use crate::service::tracker::Allowed;
use crate::torrent::command::{Command, Direction, Refusal, RefusalKind};

/// Keys that hold at once.
#[cfg(test)]
const AT_ONCE: [&str; 45] = [
    "control.group",
    "control.mode",
    "dht.bootstrap",
    "hook",
    "limits.active_downloads",
    "limits.active_seeds",
    "limits.alternative",
    "limits.down",
    "limits.idle_time",
    "limits.memory",
    "limits.min_free_space",
    "limits.ratio",
    "limits.seed_time",
    "limits.up",
    "log.level",
    "paths.downloads",
    "peers.block",
    "peers.catalog",
    "peers.encryption",
    "peers.listen",
    "peers.lsd",
    "peers.max_connections",
    "peers.max_half_open",
    "peers.max_per_torrent",
    "peers.pex",
    "peers.upload_slots",
    "rule",
    "share",
    "storage.allocate",
    "storage.backend",
    "storage.verify_on_add",
    "tracker.allow_file",
    "tracker.keys_file",
    "tracker.max_connections",
    "tracker.max_peers",
    "tracker.max_swarms",
    "tracker.open",
    "tracker.proxies",
    "trackers.announce_to_all",
    "trackers.timeout",
    "watch",
    // Of no use in this version.
    "http.allow_hosts",
    "nat.natpmp",
    "nat.upnp",
    "peers.utp",
];

/// Keys that are read at the start only.
const AT_START: [&str; 17] = [
    "control.socket",
    "dht.enabled",
    "dht.listen",
    "dht.read_only",
    "http.listen",
    "http.password_file",
    "http.username",
    "http.web_seed",
    "paths.state",
    "peers.anonymous",
    "peers.interface",
    "peers.proxy",
    "tracker.http",
    "tracker.interval",
    "tracker.store",
    "tracker.udp",
    "trackers.proxy",
];

/// Characters of a line that says what a value was and what it is; in a longer one it has changed, and no more.
const LINE_MAX: usize = 160;

impl Daemon {
    /// Reads the config again and applies what can be applied while running; says what changed and what must wait.
    pub(super) fn reload(&mut self, now: Time) -> Result<Vec<String>, Refusal> {
        let Some(file) = self.args.config.as_deref() else {
            let message = "the daemon was started without a config file, so there is nothing to read again";
            return Err(Refusal::new(RefusalKind::Unsupported, message));
        };
        let invalid = |why| Refusal::new(RefusalKind::Invalid, why);
        let read = load::settings(Some(file), |_| None).map_err(invalid)?;
        let (mut new, waiting) = held_back(&self.settings, &read).map_err(invalid)?;
        self.notifier.reloading();
        let old = self.settings.clone();
        let mut lines = self.apply(now, &old, &mut new);
        lines.extend(changes(&old, &new));
        lines.extend(waiting.into_iter().map(|key| format!("{key} has changed: restart to apply")));
        if lines.is_empty() {
            lines.push("nothing has changed".to_owned());
        }
        self.settings = new;
        self.notifier.ready();
        Ok(lines)
    }

    /// Has `new` hold instead of `old`. What cannot is set back in `new`; each line says more than which value is another one.
    fn apply(&mut self, now: Time, old: &Settings, new: &mut Settings) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.apply_listen(old, new));
        lines.extend(self.apply_control(old, new));
        self.apply_engine(now, old, new);
        if old.log != new.log {
            journal::set(new.log.level, None);
        }
        // What follows looks at the settings that hold.
        self.settings = new.clone();
        lines.extend(self.apply_limits(now, old, new));
        lines.extend(self.apply_blocklist(now));
        self.apply_tracker(now, old, new);
        lines.extend(self.apply_directories(old, new));
        if old.hook != new.hook {
            self.hooks.set(new.hook.clone());
        }
        lines
    }

    /// Listens elsewhere, if it can. Connections stay.
    fn apply_listen(&mut self, old: &Settings, new: &mut Settings) -> Option<String> {
        let running = self.engine.config();
        if old.peers.listen == new.peers.listen || running.proxy.is_some() {
            return None; // behind a proxy nobody is let in
        }
        let families = |addrs: &mut dyn Iterator<Item = std::net::SocketAddr>| {
            addrs.fold([0, 0], |mut count, addr| {
                count[usize::from(addr.is_ipv6())] += 1;
                count
            })
        };
        let has_dht = running.dht && running.dht_listen.is_empty();
        let before = families(&mut running.listen.iter().copied());
        let why = match self.reactor.prepare_move(&new.peers.listen) {
            Ok(to) if has_dht && families(&mut to.addrs()) != before => {
                "the DHT speaks from there, too, with another number of addresses of a family: restart to apply"
                    .to_owned()
            }
            Ok(to) => {
                self.reactor.move_to(to);
                let listen: Vec<_> = self.reactor.bound().iter().map(ToString::to_string).collect();
                log::info!("listening at {} now", listen.join(", "));
                return None;
            }
            Err(error)
                if error.error.kind() == ErrorKind::AddrInUse
                    && running.listen.iter().any(|addr| addr.port() == error.addr.port()) =>
            {
                format!("port {} is in use by what it listens at now: restart to apply", error.addr.port())
            }
            Err(error) => error.to_string(),
        };
        new.peers.listen.clone_from(&old.peers.listen);
        Some(format!("peers.listen stays as it was: {why}"))
    }

    fn apply_control(&mut self, old: &Settings, new: &mut Settings) -> Option<String> {
        if old.control == new.control {
            return None;
        }
        let why = self.clients.set_permissions(&new.control).err()?;
        new.control = old.control.clone();
        Some(format!("control.mode and control.group stay as they were: {why}"))
    }

    /// Hands the engine and its storage what is theirs.
    fn apply_engine(&mut self, now: Time, old: &Settings, new: &Settings) {
        let running = self.engine.config();
        let counts = |settings: &Settings| (settings.peers.max_connections, settings.tracker.max_connections);
        let mut config = Config { listen: self.reactor.bound().to_vec(), ..new.engine() };
        let room = (running.connections_max, running.tracker.connections_max);
        config = config.within(|config| if counts(old) == counts(new) { room } else { descriptors::make_room(config) });
        if let Some(proxy) = running.proxy.clone() {
            config = config.through(proxy);
        }
        if old.engine() != new.engine() {
            if !config.lsd {
                self.reactor.leave_local_network();
            }
            self.engine.reconfigure(now, config);
        }
        let kept = |settings: &Settings| {
            (settings.storage.clone(), settings.limits.memory, settings.limits.min_free_space, counts(settings))
        };
        if kept(old) != kept(new) {
            let settings = new.storage(self.engine.config().connections_max);
            self.engine.storage().set_settings(settings);
        }
    }

    /// Rates, turns, and what holds for torrents.
    fn apply_limits(&mut self, now: Time, old: &Settings, new: &Settings) -> Option<String> {
        let rates =
            [(Direction::Down, old.limits.down, new.limits.down), (Direction::Up, old.limits.up, new.limits.up)];
        for (direction, before, rate_bytes) in rates {
            if before != rate_bytes
                && let Err(refusal) = self.engine.handle_command(now, Command::Limit { direction, rate_bytes })
            {
                log::error!("reload: a rate limit is refused: {}", refusal.message);
            }
        }
        let turns = |settings: &Settings| (settings.limits.active_downloads, settings.limits.active_seeds);
        if turns(old) != turns(new) {
            let (downloads, seeds) = turns(new);
            self.engine.set_turns(now, downloads, seeds);
        }
        if old.defaults() != new.defaults() {
            self.engine.set_defaults(now, new.defaults());
        }
        if old.limits.alternative == new.limits.alternative {
            return None;
        }
        self.heed_schedule(now);
        Some(format!("limits that hold: {}", self.schedule.words(self.engine.is_alternative())))
    }

    /// Reads the files of blocked addresses again, whether the key has changed or not.
    fn apply_blocklist(&mut self, now: Time) -> Option<String> {
        match block::load(&self.settings.peers.block) {
            Ok(list) if self.engine.blocklist() != &list => {
                let line = format!("{} ranges of addresses are blocked now", list.len());
                self.engine.block(now, list);
                Some(line)
            }
            Ok(_) => None,
            Err(why) => Some(format!("[peers] {why}; what was blocked still is")),
        }
    }

    /// The lists of the tracker server are read again anyhow.
    fn apply_tracker(&mut self, now: Time, old: &Settings, new: &Settings) {
        self.allow.hurry(now);
        if old.tracker.with_lists_of(&new.tracker) != old.tracker {
            self.allow = new.tracker.allow_list();
            if self.allow.is_empty() {
                self.engine.allow(Allowed::default());
            } // else what was allowed stays so until the lists are read
        }
    }

    fn apply_directories(&mut self, old: &Settings, new: &mut Settings) -> Vec<String> {
        let mut lines = Vec::new();
        if old.watch != new.watch
            && let Err(error) = self.watch_anew()
        {
            new.watch.clone_from(&old.watch);
            lines.push(format!("watch directories stay as they were: {error}"));
        }
        if old.share != new.share
            && let Err(error) = self.share_anew()
        {
            new.share.clone_from(&old.share);
            lines.push(format!("share directories stay as they were: {error}"));
        }
        lines
    }
}

/// Each key and its value; a section that may stand several times is one key.
fn keys(settings: &Settings) -> Result<BTreeMap<String, Value>, String> {
    let table = Table::try_from(settings).map_err(|error| error.to_string())?;
    let mut keys = BTreeMap::new();
    for (name, value) in table {
        match value {
            Value::Table(section) => {
                keys.extend(section.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)))
            }
            other => drop(keys.insert(name, other)),
        }
    }
    Ok(keys)
}

/// `new` with what is read at the start only as it is in `old`, and which keys that is for.
fn held_back(old: &Settings, new: &Settings) -> Result<(Settings, Vec<&'static str>), String> {
    let before = keys(old)?;
    let mut table = Table::try_from(new).map_err(|error| error.to_string())?;
    let mut waiting = Vec::new();
    for key in AT_START {
        let (section, name) = key.split_once('.').expect("each is a key of a section");
        let Some(Value::Table(section)) = table.get_mut(section) else { continue };
        let was = before.get(key);
        if section.get(name) != was {
            waiting.push(key);
            match was {
                Some(value) => drop(section.insert(name.to_owned(), value.clone())),
                None => drop(section.remove(name)),
            }
        }
    }
    if waiting.is_empty() {
        return Ok((new.clone(), waiting));
    }
    Ok((table.try_into().map_err(|error: toml::de::Error| error.to_string())?, waiting))
}

/// What has changed, a line each.
fn changes(old: &Settings, new: &Settings) -> Vec<String> {
    let (Ok(before), Ok(after)) = (keys(old), keys(new)) else { return Vec::new() };
    let all: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differing = all.into_iter().filter(|key| before.get(*key) != after.get(*key));
    differing.map(|key| line_of(key, before.get(key), after.get(key))).collect()
}

fn line_of(key: &str, was: Option<&Value>, is: Option<&Value>) -> String {
    let long = || match is.or(was) {
        Some(Value::Array(rows)) if !key.contains('.') => {
            format!("[[{key}]] is as in the file now, {} in all", rows.len())
        }
        _ => format!("{key} is as in the file now"),
    };
    let (Some(was), Some(is)) = (was.and_then(short), is.and_then(short)) else { return long() };
    let line = format!("{key}: {was} → {is}");
    if line.chars().count() <= LINE_MAX { line } else { long() }
}

/// A value that is no table, on one line.
fn short(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.is_empty() || text.chars().any(char::is_control) => Some(format!("{text:?}")),
        Value::String(text) => Some(text.clone()),
        Value::Array(rows) => {
            let mut line = String::from("[");
            for (index, row) in rows.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                write!(line, "{comma}{}", short(row)?).expect("a string takes all");
            }
            Some(line + "]")
        }
        Value::Table(_) => None,
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Settings in which each key is said that may be.
    fn full() -> Settings {
        let text = "[limits.alternative]\ndown = \"1M\"\n";
        Settings::parse(text, Path::new("x")).unwrap()
    }

    #[test]
    fn every_key_is_applied_or_waits_for_a_restart() {
        let known: Vec<String> = keys(&full()).unwrap().into_keys().collect();
        let mut listed: Vec<&str> = AT_ONCE.iter().chain(&AT_START).copied().collect();
        listed.sort_unstable();
        assert_eq!(listed, known, "each key of the config stands in one of the lists, once");
    }

    #[test]
    fn the_manual_says_which_keys_are_read_at_the_start_only() {
        let manual = include_str!("../../man/swarmtorrentd.toml.5");
        let mut said = Vec::new();
        for section in manual.split("\n.Ss ").skip(1) {
            let name = section.lines().next().unwrap().trim_matches(['[', ']']);
            // A list within the text of a key has items without a name.
            for item in section.split("\n.It Ic ").skip(1).filter(|item| item.contains("\nRead at the start only.")) {
                let keys = item.lines().next().unwrap().split(" , Ic ");
                said.extend(keys.map(|key| format!("{name}.{key}")));
            }
        }
        said.sort();
        let is_missing = |key: &&str| key.starts_with("http.");
        let expected: Vec<&str> = AT_START.into_iter().filter(|key| !is_missing(key)).collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn what_waits_is_named_and_stays_as_it_was() {
        let old = full();
        let text = "[paths]\nstate = \"/x\"\ndownloads = \"/y\"\n[peers]\nproxy = \"socks5://u:secret@127.0.0.1:1\"\n\
                    max_connections = 7\n[tracker]\nudp = [\"127.0.0.1:1\"]\nmax_swarms = 5\n[[rule]]\nratio = 2.0\n";
        let read = Settings::parse(text, Path::new("x")).unwrap();
        let (new, waiting) = held_back(&old, &read).unwrap();
        assert_eq!(waiting, ["paths.state", "peers.proxy", "tracker.udp"]);
        let mut expected = read.clone();
        expected.paths.state = old.paths.state.clone();
        (expected.peers.proxy, expected.tracker.udp) = (String::new(), Vec::new());
        assert_eq!(new, expected);
        assert_eq!(
            changes(&old, &new),
            [
                "limits.alternative is as in the file now",
                "paths.downloads: /var/lib/swarmtorrentd/downloads → /y",
                "peers.max_connections: 1000 → 7",
                "[[rule]] is as in the file now, 1 in all",
                "tracker.max_swarms: 1000000 → 5",
            ]
        );
        assert_eq!(held_back(&read, &read).unwrap(), (read, vec![]));
    }

    #[test]
    fn a_value_takes_one_line_and_not_a_long_one() {
        let text = |text: &str| Value::String(text.to_owned());
        assert_eq!(line_of("a.b", Some(&text("x\ny")), Some(&text(""))), "a.b: \"x\\ny\" → \"\"");
        let many = Value::Array(vec![text("0.0.0.0:6881"); 20]);
        assert_eq!(line_of("peers.listen", Some(&many), Some(&many)), "peers.listen is as in the file now");
        let few = Value::Array(vec![text("a"), text("b")]);
        assert_eq!(line_of("k.k", Some(&few), Some(&Value::Boolean(true))), "k.k: [a, b] → true");
    }
}
