//! The torrents of a scenario: random content, and what describes it, to each group with the trackers that it knows.

use std::sync::Arc;

use crate::base::geometry::Geometry;
use crate::base::hash::InfoHash;
use crate::base::rng::Rng;
use crate::codec::magnet::Magnet;
use crate::codec::metainfo::Metainfo;
use crate::sim::scenario::{ContentSpec, GroupSpec, Scenario};
use crate::sim::storage::Truth;
use crate::sim::swarm::servers;
use crate::torrent::command::Source;
use crate::torrent::create::{Creator, Notes, Profile, piece_len_for};

/// A torrent with its truth.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) name: String,
    pub(super) metainfo: Vec<u8>,
    /// A magnet link to it.
    pub(super) link: String,
    pub(super) info_hash: InfoHash,
    pub(super) is_private: bool,
    pub(super) truth: Arc<Truth>,
    pub(super) geometry: Geometry,
}

/// Content of random bytes, or that of an earlier torrent, and the torrent that describes it.
pub(super) fn make(spec: &ContentSpec, earlier: &[Made], trackers: &[String], rng: &mut Rng) -> Made {
    let len = usize::try_from(spec.size).expect("checked by the scenario");
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    let same = earlier.iter().find(|made| spec.same_files.as_ref() == Some(&made.name));
    if let Some(same) = same {
        bytes.copy_from_slice(same.truth.bytes());
    }
    let (meta, metainfo) = describe(spec, trackers, &bytes);
    let truth = same.map_or_else(
        || Arc::new(Truth::new(spec.name.clone(), bytes, meta.geometry.piece_len())),
        |same| Arc::clone(&same.truth),
    );
    let link = Magnet::of(&meta).to_string();
    Made {
        name: spec.name.clone(),
        metainfo,
        link,
        info_hash: meta.info_hash,
        is_private: spec.private,
        truth,
        geometry: meta.geometry,
    }
}

/// The torrent of these bytes.
fn describe(spec: &ContentSpec, trackers: &[String], bytes: &[u8]) -> (Metainfo, Vec<u8>) {
    let files = if spec.files == 1 {
        vec![(vec![], spec.size)]
    } else {
        let (share, rest) = (spec.size / spec.files as u64, spec.size % spec.files as u64);
        let file = |index: usize| (vec![format!("{index:04}").into_bytes()], share + u64::from(index == 0) * rest);
        (0..spec.files).map(file).collect()
    };
    let notes = Notes {
        name: spec.same_files.as_ref().unwrap_or(&spec.name).clone().into_bytes(),
        trackers: if spec.tracked { trackers.to_vec() } else { Vec::new() },
        private: spec.private,
        ..Notes::default()
    };
    let profile = if spec.sha256 { Profile::Compatible } else { Profile::V1 };
    let said = spec.piece_length.map(|len| u32::try_from(len).expect("checked by the scenario"));
    let piece_len = said.unwrap_or_else(|| piece_len_for(spec.size));
    let mut creator = Creator::new(profile, piece_len, files, notes);
    creator.update(bytes);
    creator.finish().expect("checked by the scenario")
}

/// Addresses of the trackers of these names; of all if there are none.
pub(super) fn urls(scenario: &Scenario, names: &[String]) -> Vec<String> {
    let trackers = scenario.tracker.iter().enumerate();
    let named = trackers.filter(|(index, _)| names.is_empty() || names.contains(&scenario.tracker_name(*index)));
    named.map(|(index, spec)| servers::url(index, spec)).collect()
}

/// What a node of a group is given: a torrent, or a link to it.
pub(super) fn source(scenario: &Scenario, spec: &GroupSpec, made: &Made, content: usize) -> Source {
    if spec.trackers.is_empty() {
        return if spec.link { Source::Link(made.link.clone()) } else { Source::Metainfo(made.metainfo.clone()) };
    }
    let urls = urls(scenario, &spec.trackers);
    let (meta, metainfo) = describe(&scenario.content[content], &urls, made.truth.bytes());
    if spec.link { Source::Link(Magnet::of(&meta).to_string()) } else { Source::Metainfo(metainfo) }
}
