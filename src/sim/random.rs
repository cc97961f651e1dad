//! A scenario drawn by chance: any mix of nodes, networks, faults and harm. It storms, and then it calms, and then everybody
//! must get everything.

use std::fmt::Write as _;

use crate::base::rng::Rng;
use crate::sim::scenario::Scenario;

/// The scenario of a seed.
///
/// # Panics
/// If it were not a good one.
#[must_use]
pub fn scenario(seed: u64) -> Scenario {
    Scenario::parse(&text(seed)).expect("what is drawn is good")
}

/// It as one would write it.
#[must_use]
pub fn text(seed: u64) -> String {
    let mut out = String::new();
    let _never_fails = write(&mut Rng::from_number(seed).fork("scenario"), seed, &mut out);
    out
}

fn write(rng: &mut Rng, seed: u64, out: &mut String) -> std::fmt::Result {
    writeln!(out, "name = \"random\"\nabout = \"Drawn by chance.\"\nseed = {seed}\nends = \"4h\"\n")?;
    let (size, piece) = (pick(rng, &[40, 300, 1000, 4000]) * 1000 + rng.below(100_000), pick(rng, &[16, 64, 256]));
    let (files, private, sha256) = (pick(rng, &[1, 1, 3, 20]), rng.below(4) == 0, rng.below(2) == 0);
    writeln!(out, "[[content]]\nsize = \"{size}\"\npiece-length = \"{piece}K\"\nfiles = {files}")?;
    writeln!(out, "private = {private}\nsha256 = {sha256}\n")?;
    writeln!(out, "[network]\ndelay = \"{}ms\"\njitter = \"{}ms\"", pick(rng, &[1, 20, 150]), pick(rng, &[0, 5, 40]))?;
    writeln!(out, "loss = {}", pick(rng, &[0.0, 0.0, 0.01, 0.05]))?;
    writeln!(out, "duplicated = {}\nreordered = {}\n", pick(rng, &[0.0, 0.1]), pick(rng, &[0.0, 0.2]))?;
    // Drawn apart, so that older seeds mean what they did.
    let mut servers = Rng::from_number(seed).fork("servers");
    let (has_servers, has_store) = (servers.below(3) == 0, servers.below(2) == 0);
    for _ in 0..pick(rng, &[1, 1, 2]) {
        writeln!(out, "[[tracker]]\ninterval = \"2m\"\nanswers = {}", pick(rng, &[5, 50]))?;
        if has_servers {
            writeln!(out, "kind = \"server\"\nhttp = {}", servers.below(3) == 0)?;
            write!(out, "{}", if has_store { "store = \"store\"\n" } else { "" })?;
        }
        writeln!(out)?;
    }
    if has_servers {
        write_servers(&mut servers, has_store, out)?;
    }
    // One seeder that nothing befalls, so that the content is never lost.
    writeln!(out, "[[node]]\nname = \"anchor\"\nrole = \"seed\"\nup = \"{}Mbit\"\n", pick(rng, &[2, 20]))?;
    let groups = 1 + rng.below(3);
    // Drawn apart, so that older seeds mean what they did. Of a private torrent nobody is told more than a tracker says.
    let mut links = Rng::from_number(seed).fork("links");
    for group in 0..groups {
        write_group(rng, group, !private && links.below(4) == 0, out)?;
    }
    if rng.below(2) == 0 {
        let harms = [
            "request-flood",
            "have-spam",
            "slow-loris",
            "empty-promises",
            "wrong-bitfield",
            "noise",
            "corrupt",
            "connection-flood",
            "have-flood",
            "field-flips",
            "choke-flaps",
            "allowed-fast-flood",
            "suggest-flood",
            "reject-all",
            "cancels",
            "extension-flood",
            "pex-flood",
            "metadata-requests",
            "metadata-lies",
            "interest-flaps",
            "dont-have",
            "churn",
            "wake",
        ];
        for _ in 0..=rng.below(2) {
            let harm = rng.choose(&harms).copied().unwrap_or_default();
            writeln!(out, "[[hostile]]\nharm = \"{harm}\"\narrives = \"{}s\"\n", rng.below(30))?;
        }
    }
    for _ in 0..rng.below(6) {
        write_fault(rng, groups, out)?;
    }
    if rng.below(3) == 0 {
        writeln!(out, "[dht]\nbegin = \"anchor\"\n")?;
        let lies = ["dht-false-peers", "dht-false-nodes", "dht-no-nodes"];
        let lie = rng.choose(&lies).copied().unwrap_or_default();
        if rng.below(2) == 0 {
            writeln!(out, "[[hostile]]\nharm = \"{lie}\"\ncount = 3\narrives = \"5s\"\n")?;
        }
    }
    writeln!(out, "[expect]\nfinished = true")
}

/// Who comes to trackers that are the daemon's own, and what befalls them and their store.
fn write_servers(rng: &mut Rng, has_store: bool, out: &mut String) -> std::fmt::Result {
    writeln!(out, "[[crowd]]\ncount = {}\nswarms = {}", pick(rng, &[5, 100]), pick(rng, &[1, 10]))?;
    writeln!(out, "content = \"content\"\nseeds = {}\nvanishes = {}", rng.below(4), rng.below(2) == 0)?;
    writeln!(out, "within = \"{}s\"\nstays = \"{}s\"\n", rng.below(60), rng.below(300))?;
    if has_store {
        writeln!(out, "[[store]]\nname = \"store\"\nforgets = {}\n", rng.below(2) == 0)?;
    }
    let names = if has_store { ["store", "tracker 0"].as_slice() } else { ["tracker 0"].as_slice() };
    for _ in 0..rng.below(4) {
        let kinds = ["crash", "power-cut", "freeze", "slow", "cut", "stall", "reset"];
        let kind = rng.choose(&kinds).copied().unwrap_or_default();
        let name = rng.choose(names).copied().unwrap_or_default();
        writeln!(out, "[[fault]]\nkind = \"{kind}\"\nnodes = \"{name}\"\nat = \"{}s\"", 1 + rng.below(60))?;
        writeln!(out, "for = \"{}s\"\nevery = \"{}s\"\nuntil = \"2m\"\n", 1 + rng.below(30), 20 + rng.below(60))?;
    }
    Ok(())
}

fn write_group(rng: &mut Rng, group: u64, link: bool, out: &mut String) -> std::fmt::Result {
    writeln!(out, "[[node]]\nname = \"group{group}\"\ncount = {}", 1 + rng.below(5))?;
    writeln!(out, "up = \"{}Mbit\"\ndown = \"{}Mbit\"", pick(rng, &[1, 5, 50]), pick(rng, &[5, 50]))?;
    writeln!(out, "arrives = \"{}s\"\nwithin = \"{}s\"", rng.below(20), rng.below(40))?;
    match rng.below(8) {
        0 => writeln!(out, "stays = \"{}s\"", rng.below(20))?,
        1 => writeln!(out, "stays = \"0s\"\nvanishes = true")?,
        2 => writeln!(out, "encrypted = true\nmay-fail = true")?,
        3 => writeln!(out, "nat = \"port-restricted\"")?,
        4 => writeln!(out, "lies = 0.02")?,
        5 => writeln!(out, "up-limit = \"{}K\"\ndown-limit = \"{}K\"", pick(rng, &[30, 500]), pick(rng, &[100, 500]))?,
        6 => writeln!(out, "role = \"free-rider\"")?,
        _ => {}
    }
    if link {
        writeln!(out, "link = true")?;
    }
    writeln!(out, "skew = {}\n", pick(rng, &[0, 500]))
}

fn write_fault(rng: &mut Rng, groups: u64, out: &mut String) -> std::fmt::Result {
    let on_nodes = [
        "crash",
        "power-cut",
        "freeze",
        "clock-jump",
        "cut",
        "stall",
        "reset",
        "disk-full",
        "read-error",
        "bit-flip",
        "files-gone",
        "disk-away",
    ];
    let everywhere = ["trackers-silent", "trackers-lie", "loss"];
    let is_everywhere = rng.below(4) == 0;
    let kinds = if is_everywhere { everywhere.as_slice() } else { on_nodes.as_slice() };
    let kind = rng.choose(kinds).copied().unwrap_or_default();
    writeln!(out, "[[fault]]\nkind = \"{kind}\"\nat = \"{}s\"\nfor = \"{}s\"", 1 + rng.below(60), 1 + rng.below(60))?;
    if is_everywhere {
        writeln!(out, "share = 0.1\n")
    } else {
        let (every, until) = (5 + rng.below(30), 60 + rng.below(60));
        writeln!(out, "nodes = \"group{}\"\ncount = {}", rng.below(groups), 1 + rng.below(3))?;
        writeln!(out, "every = \"{every}s\"\nuntil = \"{until}s\"\n")
    }
}

fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.index(of.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_drawn_is_a_good_scenario() {
        for seed in 0..500 {
            let drawn = scenario(seed);
            assert!(!drawn.node.is_empty() && drawn.seed == seed);
        }
        assert_ne!(text(1), text(2));
    }
}
