//! What is known of the daemon, and what the user is looking at. It draws nothing and asks nobody.

use std::collections::VecDeque;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

use crate::codec::control::escape;

/// Lines of the log that are kept; the oldest go.
const LOG_MAX: usize = 500;
/// Seconds of rates that are kept: one for each column of a wide screen.
const HISTORY_MAX: usize = 400;

/// A torrent, as `json list` tells of it; what an older daemon does not tell is nothing.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(default)]
pub(super) struct Torrent {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) state: String,
    pub(super) error: Option<String>,
    pub(super) size: u64,
    pub(super) have_bytes: u64,
    pub(super) progress: f64,
    pub(super) checked: Option<f64>,
    pub(super) down_rate: u64,
    pub(super) up_rate: u64,
    pub(super) downloaded: u64,
    pub(super) uploaded: u64,
    pub(super) ratio: f64,
    pub(super) peers: u64,
    pub(super) seeds: u64,
    pub(super) eta: Option<u64>,
    pub(super) label: String,
    pub(super) added: u64,
    pub(super) finished: Option<u64>,
    pub(super) dir: String,
    pub(super) pieces: u64,
    pub(super) have_pieces: u64,
    pub(super) piece_length: u64,
    pub(super) private: bool,
    /// It is no more.
    gone: bool,
}

impl Torrent {
    /// The share that is done of what is being done, 0 to 1.
    pub(super) fn share(&self) -> f64 {
        self.checked.unwrap_or(self.progress).clamp(0.0, 1.0)
    }

    fn matches(&self, filter: &str) -> bool {
        let has = |text: &str| text.to_lowercase().contains(filter);
        filter.is_empty() || has(&self.name) || has(&self.state) || has(&self.label) || self.id.starts_with(filter)
    }
}

/// The whole node, as `json status` tells of it.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(default)]
pub(super) struct Status {
    pub(super) uptime: u64,
    pub(super) torrents: u64,
    pub(super) peers: u64,
    pub(super) down_rate: u64,
    pub(super) up_rate: u64,
    pub(super) down_limit: u64,
    pub(super) up_limit: u64,
    pub(super) dht_nodes: Option<u64>,
    pub(super) disk_free: Option<u64>,
    pub(super) downloading: u64,
    pub(super) seeding: u64,
    pub(super) checking: u64,
    pub(super) paused: u64,
    pub(super) error: u64,
}

/// What the lower part of the screen shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Info,
    Peers,
    Files,
    Trackers,
    Pieces,
    Log,
}

impl Pane {
    /// Every one, in the order of its key.
    pub(super) const ALL: [Self; 6] = [Self::Info, Self::Peers, Self::Files, Self::Trackers, Self::Pieces, Self::Log];

    /// Its head.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Info => "Info",
            Self::Peers => "Peers",
            Self::Files => "Files",
            Self::Trackers => "Trackers",
            Self::Pieces => "Pieces",
            Self::Log => "Log",
        }
    }
}

/// What torrents are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Name,
    State,
    Done,
    Down,
    Up,
    Peers,
    Ratio,
    Size,
    Added,
}

impl Sort {
    /// Every one, in the order of the columns.
    pub(super) const ALL: [Self; 9] =
        [Self::Name, Self::State, Self::Done, Self::Down, Self::Up, Self::Peers, Self::Ratio, Self::Size, Self::Added];

    /// Its column's head.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::State => "state",
            Self::Done => "done",
            Self::Down => "down",
            Self::Up => "up",
            Self::Peers => "peers",
            Self::Ratio => "ratio",
            Self::Size => "size",
            Self::Added => "added",
        }
    }
}

/// A question that keys answer before anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dialog {
    /// Remove this torrent (its id and name), and its data?
    Remove(String, String),
    /// What keys do.
    Help,
    /// The filter is being typed.
    Filter,
}

/// Rates of the last minutes, newest last.
#[derive(Debug, Clone, Default)]
pub(super) struct History(VecDeque<(u64, u64)>);

impl History {
    pub(super) fn push(&mut self, down: u64, up: u64) {
        if self.0.len() == HISTORY_MAX {
            self.0.pop_front();
        }
        self.0.push_back((down, up));
    }

    /// The newest `count` of them, of one direction.
    pub(super) fn last(&self, count: usize, is_down: bool) -> Vec<u64> {
        let skipped = self.0.len().saturating_sub(count);
        self.0.iter().skip(skipped).map(|(down, up)| if is_down { *down } else { *up }).collect()
    }
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Model {
    torrents: IndexMap<String, Torrent>,
    /// Those that pass the filter, in the order of the list: indexes of `torrents`.
    shown: Vec<usize>,
    /// Where in `shown` the selected one is.
    cursor: usize,
    selected: Option<String>,
    /// The first of `shown` on the screen.
    pub(super) offset: usize,
    /// The number of the last list; 0 if there was none.
    pub(super) since: u64,
    pub(super) sort: Sort,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
    pub(super) pane: Pane,
    /// Lines of the pane that are above its edge.
    pub(super) scrolled: usize,
    pub(super) dialog: Option<Dialog>,
    pub(super) status: Status,
    pub(super) rates: History,
    /// Of the selected torrent since it was selected.
    pub(super) its_rates: History,
    pub(super) log: VecDeque<String>,
    /// What the daemon answered for the pane and the selected torrent.
    pub(super) detail: Vec<String>,
    /// For which pane and torrent that is.
    pub(super) detail_of: Option<(Pane, String)>,
    /// What happened to what the user asked last.
    pub(super) message: String,
    /// Why there is no daemon; none if there is one.
    pub(super) trouble: Option<String>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            torrents: IndexMap::new(),
            shown: Vec::new(),
            cursor: 0,
            selected: None,
            offset: 0,
            since: 0,
            sort: Sort::Name,
            is_reversed: false,
            filter: String::new(),
            pane: Pane::Info,
            scrolled: 0,
            dialog: None,
            status: Status::default(),
            rates: History::default(),
            its_rates: History::default(),
            log: VecDeque::new(),
            detail: Vec::new(),
            detail_of: None,
            message: String::new(),
            trouble: Some("connecting".to_owned()),
        }
    }

    /// Takes the answer to `json list since=N`.
    pub(super) fn take_list(&mut self, rows: &[String], closing: &Value) {
        let is_whole = closing["all"] == true;
        if is_whole {
            self.torrents.clear();
        }
        self.since = closing["since"].as_u64().unwrap_or(0);
        for row in rows {
            let Ok(torrent) = serde_json::from_str::<Torrent>(row) else { continue };
            if torrent.gone {
                self.torrents.swap_remove(&torrent.id);
            } else {
                self.torrents.insert(torrent.id.clone(), torrent);
            }
        }
        if !rows.is_empty() || is_whole {
            self.arrange();
        }
    }

    /// Takes the answer to `json status`.
    pub(super) fn take_status(&mut self, rows: &[String]) {
        if let Some(status) = rows.first().and_then(|row| serde_json::from_str::<Status>(row).ok()) {
            self.rates.push(status.down_rate, status.up_rate);
            self.status = status;
        }
        if let Some(torrent) = self.selected() {
            let (down, up) = (torrent.down_rate, torrent.up_rate);
            self.its_rates.push(down, up);
        }
    }

    /// Takes what `watch` tells.
    pub(super) fn take_event(&mut self, event: &Value) {
        let word = |key: &str| event[key].as_str().unwrap_or_default();
        let kind = word("event");
        let what = match kind {
            "state" => word("state").to_owned(),
            "lost" => format!("{} events were left out", event["count"]),
            "error" => format!("error: {}", word("message")),
            kind => kind.to_owned(),
        };
        let secs = event["at"].as_u64().unwrap_or(0) % 86_400;
        let time = format!("{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60);
        self.say(format!("{time}  {}  {}", escape(&what), escape(word("name"))));
    }

    /// Adds a line to the log.
    pub(super) fn say(&mut self, line: String) {
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(line);
    }

    /// Puts what passes the filter into its order; the selected one stays selected.
    pub(super) fn arrange(&mut self) {
        let filter = self.filter.to_lowercase();
        let all = self.torrents.values().enumerate();
        self.shown = all.filter(|(_, torrent)| torrent.matches(&filter)).map(|(index, _)| index).collect();
        let of = |index: usize| &self.torrents[index];
        let sort = self.sort;
        // Each order is the one that is looked for first: what moves, what is large, what is new.
        match sort {
            Sort::Name => self.shown.sort_by_cached_key(|index| of(*index).name.to_lowercase()),
            Sort::State => self.shown.sort_by(|a, b| of(*a).state.cmp(&of(*b).state)),
            Sort::Done => self.shown.sort_by(|a, b| of(*b).share().total_cmp(&of(*a).share())),
            Sort::Down => self.shown.sort_by_key(|index| std::cmp::Reverse(of(*index).down_rate)),
            Sort::Up => self.shown.sort_by_key(|index| std::cmp::Reverse(of(*index).up_rate)),
            Sort::Peers => self.shown.sort_by_key(|index| std::cmp::Reverse(of(*index).peers)),
            Sort::Ratio => self.shown.sort_by(|a, b| of(*b).ratio.total_cmp(&of(*a).ratio)),
            Sort::Size => self.shown.sort_by_key(|index| std::cmp::Reverse(of(*index).size)),
            Sort::Added => self.shown.sort_by_key(|index| std::cmp::Reverse(of(*index).added)),
        }
        if self.is_reversed {
            self.shown.reverse();
        }
        let place = self.selected.as_ref().and_then(|id| {
            let index = self.torrents.get_index_of(id)?;
            self.shown.iter().position(|shown| *shown == index)
        });
        self.select(place.unwrap_or(self.cursor));
    }

    /// Selects the torrent at this place of the list, or the last one.
    pub(super) fn select(&mut self, place: usize) {
        self.cursor = place.min(self.shown.len().saturating_sub(1));
        let selected = self.shown.get(self.cursor).map(|index| self.torrents[*index].id.clone());
        if selected != self.selected {
            self.selected = selected;
            self.its_rates = History::default();
            self.scrolled = 0;
        }
    }

    /// Moves the selection by some places.
    pub(super) fn step(&mut self, by: isize) {
        self.select(self.cursor.saturating_add_signed(by));
    }

    pub(super) const fn cursor(&self) -> usize {
        self.cursor
    }

    pub(super) fn selected(&self) -> Option<&Torrent> {
        self.torrents.get(self.selected.as_ref()?)
    }

    /// How many pass the filter, and how many there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.shown.len(), self.torrents.len())
    }

    /// Those of the list at these places.
    pub(super) fn rows(&self, from: usize, count: usize) -> impl Iterator<Item = &Torrent> {
        self.shown.iter().skip(from).take(count).map(|index| &self.torrents[*index])
    }

    /// What the pane has to show; nothing if it has not come yet.
    pub(super) fn detail(&self) -> &[String] {
        let is_of = |(pane, id): &(Pane, String)| *pane == self.pane && self.selected.as_ref() == Some(id);
        if self.detail_of.as_ref().is_some_and(is_of) { &self.detail } else { &[] }
    }

    /// Looks at another pane.
    pub(super) fn look_at(&mut self, pane: Pane) {
        if self.pane != pane {
            self.pane = pane;
            self.scrolled = 0;
        }
    }

    /// The daemon has gone; what was known stays on the screen.
    pub(super) fn lose(&mut self, why: String) {
        self.since = 0;
        self.trouble = Some(why);
        self.detail_of = None;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A model of torrents that are numbered.
    pub(in crate::cli::top) fn of(count: u64) -> Model {
        let mut model = Model::new();
        let rows: Vec<String> = (0..count)
            .map(|number| {
                let state = if number % 2 == 0 { "seeding" } else { "downloading" };
                json!({ "id": format!("{number:040x}"), "name": format!("torrent {number:05}"), "state": state, "size": number,
                    "progress": 0.5, "up_rate": number * 1000, "peers": number % 7, "label": "l" })
                .to_string()
            })
            .collect();
        model.take_list(&rows, &json!({ "ok": true, "since": 7, "all": true }));
        model.trouble = None;
        model
    }

    fn names(model: &Model) -> Vec<&str> {
        model.rows(0, usize::MAX).map(|torrent| torrent.name.as_str()).collect()
    }

    #[test]
    fn the_selected_one_stays_selected_while_others_move_around_it() {
        let mut model = of(10);
        model.step(3);
        assert_eq!(model.selected().unwrap().name, "torrent 00003");
        model.sort = Sort::Up;
        model.arrange();
        assert_eq!((model.selected().unwrap().name.as_str(), model.cursor()), ("torrent 00003", 6));
        let row = json!({ "id": format!("{:040x}", 0), "gone": true }).to_string();
        model.take_list(&[row], &json!({ "since": 8 }));
        assert_eq!((model.counts(), model.since), ((9, 9), 8));
        assert_eq!(model.selected().unwrap().name, "torrent 00003");
        let row = json!({ "id": format!("{:040x}", 3), "gone": true }).to_string();
        model.take_list(&[row], &json!({ "since": 9 }));
        assert_eq!(model.selected().unwrap().name, "torrent 00002", "the next one");
        model.take_list(&[], &json!({ "since": 10, "all": true }));
        assert!(model.selected().is_none());
        model.step(1);
    }

    #[test]
    fn a_filter_looks_at_names_states_labels_and_ids() {
        let mut model = of(10);
        for (filter, expected) in [("00004", 1), ("SEED", 5), ("l", 10), ("nothing", 0), ("", 10)] {
            model.filter = filter.to_owned();
            model.arrange();
            assert_eq!(model.counts().0, expected, "{filter}");
        }
        model.is_reversed = true;
        model.arrange();
        assert_eq!(names(&model)[0], "torrent 00009");
    }

    #[test]
    fn what_is_kept_has_bounds() {
        let mut model = of(1);
        for at in 0..2 * LOG_MAX {
            model.take_event(&json!({ "at": at, "event": "state", "state": "paused", "name": "a\x1b[2J" }));
            model.rates.push(1, 2);
        }
        assert_eq!(model.log.len(), LOG_MAX);
        assert!(model.log[0].ends_with("paused  a\\x1b[2J"), "{}", model.log[0]);
        assert_eq!((model.rates.last(usize::MAX, true).len(), model.rates.last(2, false)), (HISTORY_MAX, vec![2, 2]));
    }

    #[test]
    fn a_daemon_that_went_is_asked_for_everything_when_it_is_back() {
        let mut model = of(3);
        model.lose("it has gone".into());
        assert_eq!((model.since, model.counts().1), (0, 3), "what was known stays on the screen");
    }
}
