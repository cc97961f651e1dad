//! What users ask the DHT. Each question is a search that goes on after it was answered: whoever asks it again is told what was
//! found since, and whether there may be more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::hash::{InfoHash, Sha1Hash};
use crate::base::steps;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::Engine;
use crate::engine::dht::DhtNodes;
use crate::engine::peeks::Title;
use crate::protocol::dht::items::{OwnedItem, is_genuine, target_of};
use crate::protocol::dht::{Event, SAMPLES_MAX};
use crate::torrent::command::{Answer, Refusal, RefusalKind, Reply};
use crate::torrent::dht_command::{DhtAnswer, DhtCommand, DhtState, NodeRow, Progress, Swarm};

/// Questions that are kept in mind. One more takes the place of the one that ended first, and is refused while all go on.
const QUESTIONS_MAX: usize = 32;
/// Peers that are kept of one question; more are passed over.
const PEERS_MAX: usize = 4000;
/// How long what was found is kept after a search has ended; asked again later, it begins anew.
const KEPT: Duration = Duration::from_mins(5);
/// And that nothing was found.
const NOTHING_KEPT: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Find(InfoHash),
    Sample,
    Get(Sha1Hash),
    Put(Sha1Hash),
}

/// What makes two questions about the same different ones.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Detail {
    None,
    Salt(Vec<u8>),
    Item(OwnedItem),
}

/// What is known of it.
#[derive(Debug)]
struct Known {
    detail: Detail,
    /// Searches under way, one a node of ours.
    under_way: usize,
    /// When the last of them ended.
    ended: Time,
    answers: usize,
    peers: BTreeSet<SocketAddr>,
    hashes: BTreeSet<InfoHash>,
    /// About how many seed a swarm, and how many do not.
    swarm: Option<(u32, u32)>,
    /// How many hashes were looked for.
    wanted: usize,
    item: Option<OwnedItem>,
    kept_by: usize,
}

impl Known {
    fn new(detail: Detail) -> Self {
        Self {
            detail,
            under_way: 0,
            ended: Time::NEVER,
            answers: 0,
            peers: BTreeSet::new(),
            hashes: BTreeSet::new(),
            swarm: None,
            wanted: 0,
            item: None,
            kept_by: 0,
        }
    }

    fn progress(&self) -> Progress {
        Progress { searches: self.under_way > 0, answers: self.answers }
    }

    /// One of its searches has ended, in which so many nodes answered.
    fn handle_end(&mut self, now: Time, answers: usize) {
        self.answers += answers;
        self.under_way = self.under_way.saturating_sub(1);
        if self.under_way == 0 {
            self.ended = now;
        }
    }

    fn is_old(&self, now: Time) -> bool {
        let has_nothing = self.peers.is_empty() && self.hashes.is_empty() && self.item.is_none() && self.kept_by == 0;
        self.under_way == 0 && now.since(self.ended) >= if has_nothing { NOTHING_KEPT } else { KEPT }
    }
}

/// All questions, by what they ask.
#[derive(Debug, Default)]
pub(super) struct Questions {
    known: BTreeMap<Question, Known>,
}

impl Questions {
    /// What is known of a question, if it was asked lately; makes room for it if not.
    fn look_up(&mut self, now: Time, question: Question, detail: &Detail) -> Result<&mut Known, Refusal> {
        self.known.retain(|_, known| !known.is_old(now));
        let is_other = self.known.get(&question).is_some_and(|known| known.detail != *detail);
        if is_other && self.known.get(&question).is_some_and(|known| known.under_way > 0) {
            return Err(busy("the same is being looked for otherwise; try again in some seconds"));
        }
        if is_other {
            self.known.remove(&question);
        }
        if !self.known.contains_key(&question) && self.known.len() >= QUESTIONS_MAX {
            let ended = self.known.iter().filter(|(_, known)| known.under_way == 0);
            let first = ended.min_by_key(|(_, known)| known.ended).map(|(question, _)| *question);
            let first = first.ok_or_else(|| busy("too much is being looked for; try again in some seconds"))?;
            self.known.remove(&first);
        }
        Ok(self.known.entry(question).or_insert_with(|| Known::new(detail.clone())))
    }

    fn told(&mut self, question: Question) -> Option<&mut Known> {
        self.known.get_mut(&question).filter(|known| known.under_way > 0)
    }

    /// What came of a search; those that torrents began are none of ours, but what they find is.
    pub(super) fn handle_event(&mut self, now: Time, event: &Event) {
        match event {
            Event::Peers(info_hash, peers) => {
                if let Some(known) = self.told(Question::Find(*info_hash)) {
                    let room = PEERS_MAX.saturating_sub(known.peers.len());
                    known.peers.extend(peers.iter().take(room));
                }
            }
            Event::Searched(info_hash, summary) if !summary.announces => {
                if let Some(known) = self.told(Question::Find(*info_hash)) {
                    // The other family's peers are others.
                    let all = known.swarm.into_iter().chain(summary.swarm);
                    known.swarm = all.reduce(|one, other| (one.0 + other.0, one.1 + other.1));
                    known.handle_end(now, summary.answers);
                }
            }
            Event::Searched(..) => {}
            Event::Samples(hashes) => {
                if let Some(known) = self.told(Question::Sample) {
                    let room = SAMPLES_MAX.saturating_sub(known.hashes.len());
                    known.hashes.extend(hashes.iter().take(room));
                }
            }
            Event::Sampled(summary) => {
                if let Some(known) = self.told(Question::Sample) {
                    known.handle_end(now, summary.answers);
                }
            }
            Event::Item(target, item, answers) => {
                if let Some(known) = self.told(Question::Get(*target)) {
                    let version = |item: &OwnedItem| item.author.as_ref().map(|author| author.version);
                    if known.item.as_ref().map(version) < item.as_ref().map(version) {
                        known.item.clone_from(item);
                    }
                    known.handle_end(now, *answers);
                }
            }
            Event::Put(target, kept_by, answers) => {
                if let Some(known) = self.told(Question::Put(*target)) {
                    known.kept_by += kept_by;
                    known.handle_end(now, *answers);
                }
            }
        }
    }

    pub(super) fn check(&self) {
        assert!(self.known.len() <= QUESTIONS_MAX, "questions");
        for known in self.known.values() {
            assert!(known.peers.len() <= PEERS_MAX && known.hashes.len() <= SAMPLES_MAX, "what was found");
        }
    }
}

fn busy(message: &str) -> Refusal {
    Refusal::new(RefusalKind::Busy, message)
}

impl DhtNodes {
    /// Answers a user, and begins the search for more unless it has been made lately.
    fn answer(&mut self, now: Time, command: DhtCommand) -> Result<DhtAnswer, Refusal> {
        let best = self.best(now);
        match command {
            DhtCommand::State => Ok(DhtAnswer::State(Box::new(self.figures(now)))),
            DhtCommand::Find(info_hash) => {
                let known = self.questions.look_up(now, Question::Find(info_hash), &Detail::None)?;
                if known.ended.is_never() && known.under_way == 0 {
                    known.under_way = self.nodes[best].dht.find_peers(now, info_hash, None);
                }
                let known = &self.questions.known[&Question::Find(info_hash)];
                Ok(DhtAnswer::Peers(known.peers.iter().copied().collect(), known.swarm, known.progress()))
            }
            DhtCommand::Sample(wanted) => {
                let wanted = wanted.min(SAMPLES_MAX);
                let known = self.questions.look_up(now, Question::Sample, &Detail::None)?;
                if known.under_way == 0 && (known.ended.is_never() || known.wanted < wanted) {
                    known.wanted = wanted;
                    known.under_way = self.nodes[best].dht.sample(now, wanted);
                }
                let known = &self.questions.known[&Question::Sample];
                let swarm = |hash: &InfoHash| Swarm { info_hash: *hash, name: None, size: None };
                let hashes = known.hashes.iter().take(wanted).map(swarm).collect();
                Ok(DhtAnswer::Swarms(hashes, known.progress()))
            }
            DhtCommand::Get { target, salt } => {
                let detail = Detail::Salt(salt.clone());
                let known = self.questions.look_up(now, Question::Get(target), &detail)?;
                if known.ended.is_never() && known.under_way == 0 {
                    known.under_way = self.nodes[best].dht.find_item(now, target, &salt);
                }
                let known = &self.questions.known[&Question::Get(target)];
                Ok(DhtAnswer::Item(known.item.clone(), known.progress()))
            }
            DhtCommand::Put(item) => {
                if !is_genuine(&item.as_item()) {
                    let message = "the signature is not that of this key, salt, seq and value";
                    return Err(Refusal::new(RefusalKind::Invalid, message));
                }
                let target = target_of(&item.as_item());
                let known = self.questions.look_up(now, Question::Put(target), &Detail::Item(item.clone()))?;
                if known.ended.is_never() && known.under_way == 0 {
                    known.under_way = self.nodes[best].dht.put_item(now, item, None);
                }
                let known = &self.questions.known[&Question::Put(target)];
                Ok(DhtAnswer::Put(target, known.kept_by, known.progress()))
            }
        }
    }

    fn figures(&self, now: Time) -> DhtState {
        let rows = self.nodes.iter().flat_map(|node| {
            node.dht.view(now).into_iter().zip(node.listen()).filter_map(|(view, listen)| {
                let (view, listen) = view.zip(listen)?;
                Some(NodeRow { id: view.id, listen, seen_as: view.seen_as, nodes: view.nodes, good: view.good })
            })
        });
        DhtState {
            nodes: rows.collect(),
            read_only: self.is_read_only,
            searches: self.nodes.iter().map(|node| node.dht.searches()).sum(),
            stored: self.stored(),
            queries: self.counts(),
            names: self.names.clone(),
        }
    }
}

impl<S: Storage> Engine<S> {
    /// Carries out what a user asks of the DHT.
    pub(super) fn ask_dht(&mut self, now: Time, command: DhtCommand) -> Reply {
        let Some(node) = &mut self.dht else {
            let message = "the DHT is off; `enabled` in [dht] of the config turns it on";
            return Err(Refusal::new(RefusalKind::Unsupported, message));
        };
        let mut answer = node.answer(now, command)?;
        if let DhtAnswer::Swarms(swarms, progress) = &mut answer {
            steps::add(10 * swarms.len());
            for Swarm { info_hash, name, size } in swarms {
                let torrent = self.by_hash.get(info_hash).and_then(|id| self.torrents.get(*id));
                let title = match torrent.filter(|torrent| !torrent.is_link()) {
                    Some(torrent) => Some(Title { name: torrent.name().to_owned(), size: torrent.size() }),
                    None => self.peeks.title(now, *info_hash),
                };
                (*name, *size) = title.map(|title| (title.name, title.size)).unzip();
            }
            progress.searches |= !self.peeks.is_idle();
        }
        Ok(Answer::Dht(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::dht::Summary;

    fn hash(number: usize) -> InfoHash {
        Sha1Hash::of(&number.to_be_bytes())
    }

    fn peer(number: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], number))
    }

    fn ask(questions: &mut Questions, now: Time, number: usize) -> Result<&mut Known, Refusal> {
        let known = questions.look_up(now, Question::Find(hash(number)), &Detail::None)?;
        if known.ended.is_never() {
            known.under_way = 1;
        }
        Ok(known)
    }

    fn end(questions: &mut Questions, now: Time, number: usize, announces: bool) {
        let summary = Summary { answers: 7, announces, ..Summary::default() };
        questions.handle_event(now, &Event::Searched(hash(number), summary));
    }

    #[test]
    fn what_was_found_is_told_until_it_is_old() {
        let mut questions = Questions::default();
        ask(&mut questions, Time::ZERO, 1).unwrap();
        questions.handle_event(Time::ZERO, &Event::Peers(hash(1), vec![peer(2), peer(1)]));
        end(&mut questions, Time::ZERO, 1, true);
        assert!(ask(&mut questions, Time::ZERO, 1).unwrap().progress().searches, "a torrent's search is not ours");
        end(&mut questions, Time::from_secs(5), 1, false);
        questions.handle_event(Time::from_secs(6), &Event::Peers(hash(1), vec![peer(3)]));
        let later = Time::from_secs(5) + KEPT;
        let known = ask(&mut questions, Time::from_nanos(later.as_nanos() - 1), 1).unwrap();
        assert_eq!(known.progress(), Progress { searches: false, answers: 7 });
        assert_eq!(known.peers.iter().copied().collect::<Vec<_>>(), [peer(1), peer(2)]);
        assert!(ask(&mut questions, later, 1).unwrap().peers.is_empty(), "it begins anew");
    }

    #[test]
    fn who_found_nothing_may_look_again_soon() {
        let mut questions = Questions::default();
        ask(&mut questions, Time::ZERO, 1).unwrap();
        end(&mut questions, Time::from_secs(5), 1, false);
        assert!(!ask(&mut questions, Time::from_secs(14), 1).unwrap().progress().searches);
        assert!(ask(&mut questions, Time::from_secs(15), 1).unwrap().progress().searches);
    }

    #[test]
    fn questions_and_what_is_found_are_bounded() {
        let mut questions = Questions::default();
        for number in 0..QUESTIONS_MAX {
            ask(&mut questions, Time::ZERO, number).unwrap();
        }
        let refused = ask(&mut questions, Time::ZERO, QUESTIONS_MAX).map(|_| ()).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Busy);
        end(&mut questions, Time::from_secs(2), 5, false);
        end(&mut questions, Time::from_secs(1), 6, false);
        ask(&mut questions, Time::from_secs(3), QUESTIONS_MAX).unwrap();
        assert!(questions.known.contains_key(&Question::Find(hash(5))), "the first that ended had to go");
        for port in 1..=u16::MAX {
            questions.handle_event(Time::ZERO, &Event::Peers(hash(0), vec![peer(port)]));
        }
        assert_eq!(questions.known[&Question::Find(hash(0))].peers.len(), PEERS_MAX);
        questions.check();
    }

    #[test]
    fn another_item_at_the_same_place_waits_for_the_first() {
        let mut questions = Questions::default();
        let (question, salt) = (Question::Get(hash(1)), |text: &str| Detail::Salt(text.into()));
        questions.look_up(Time::ZERO, question, &salt("a")).unwrap().under_way = 1;
        let refused = questions.look_up(Time::ZERO, question, &salt("b")).map(|_| ()).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Busy);
        let item = |version| {
            let author =
                crate::protocol::dht::items::OwnedAuthor { key: [1; 32], salt: vec![], version, signature: [2; 64] };
            Some(OwnedItem { value: b"i1e".to_vec(), author: Some(author) })
        };
        questions.known.get_mut(&question).unwrap().under_way = 3;
        for found in [item(3), None, item(2)] {
            questions.handle_event(Time::ZERO, &Event::Item(hash(1), found, 4));
        }
        let known = questions.look_up(Time::ZERO, question, &salt("a")).unwrap();
        assert_eq!((&known.item, known.progress()), (&item(3), Progress { searches: false, answers: 12 }));
        assert!(questions.look_up(Time::ZERO, question, &salt("b")).unwrap().item.is_none());
    }
}
