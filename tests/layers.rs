//! The layers: a file imports only from its own layer and from those before it.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer and those it may name besides itself.
const LAYERS: [(&str, &[&str]); 11] = [
    ("base", &[]),
    ("codec", &["base"]),
    ("protocol", &["base", "codec"]),
    ("torrent", &["base", "codec", "protocol"]),
    ("service", &["base", "codec", "protocol", "torrent"]),
    ("engine", &["base", "codec", "protocol", "torrent", "service"]),
    ("storage", &["base", "codec", "protocol", "torrent", "service", "engine"]),
    ("reactor", &["base", "codec", "protocol", "torrent", "service", "engine", "storage"]),
    ("sim", &["base", "codec", "protocol", "torrent", "service", "engine"]),
    ("daemon", &["base", "codec", "protocol", "torrent", "service", "engine", "storage", "reactor"]),
    ("cli", &["base", "codec", "protocol", "torrent", "service", "engine", "storage", "reactor", "sim", "daemon"]),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The layers that `text` names: the word after each `crate::`, and each word of a `crate::{…}` list.
fn named(text: &str) -> Vec<String> {
    let mut layers = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split('}').next().expect("split gives at least one");
            layers.extend(list.split(',').map(|item| word(item.trim())).filter(|word| !word.is_empty()));
        } else {
            layers.push(word(rest));
        }
    }
    layers
}

#[test]
fn no_arrow_points_upwards() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut upwards = Vec::new();
    let mut looked_at = 0;
    for (layer, allowed) in LAYERS {
        let mut files = Vec::new();
        sources(&src.join(layer), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).expect("sources are text");
            for name in named(&text) {
                looked_at += 1;
                let is_layer = LAYERS.iter().any(|(other, _)| *other == name);
                if is_layer && name != layer && !allowed.contains(&name.as_str()) {
                    upwards.push(format!("{} names {name}", file.display()));
                }
            }
        }
    }
    assert!(looked_at > 100, "only {looked_at} imports were found: the test does not see what it should");
    assert!(upwards.is_empty(), "{}", upwards.join("\n"));
}

#[test]
fn the_test_itself_would_see_one() {
    assert_eq!(named("use crate::engine::Engine; use crate::{base, torrent::x};"), ["engine", "base", "torrent"]);
}
