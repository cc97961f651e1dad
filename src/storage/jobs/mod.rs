//! What may wait for a disk, a slice at a time: saving state, syncing, allocating, moving, deleting.
//!
//! Jobs of one content are done in the order they came. Those of the state directory that wait together are written together, in the order
//! that [`Changes`] explains. Contents, the state directory and each file of it that is compacted take turns, so that a long copy of one
//! holds up nobody else. Each slice is one short system call's worth. A job that fails has changed nothing, or undoes what it did.
//!
//! **Why no io_uring.** A ring hands `fsync` and its like to workers of the kernel's, and those are threads of this process
//! for everybody who looks (`/proc/PID/task`), the first one from the first sync on, for good. The daemon promises one thread.
//! So a file is synced in two steps: the kernel is asked to begin writing (`writeback`), the job looks every while how much is
//! left, and only then calls `fdatasync`, which has little to wait for: 64 MiB on ext4 took 14 ms to submit, 25 ms until they
//! were written, and 0.25 ms in `fdatasync`.

mod allocate;
mod copy;
mod delete;
mod relocate;
mod sync;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::base::ids::{JobId, StoreId};
use crate::base::storage::{Fault, Job};
use crate::storage::FileStorage;
use crate::storage::journal::{Compaction, Step};
use crate::storage::state::{Changes, Which};

use self::allocate::Allocate;
use self::delete::Delete;
use self::relocate::{Clear, Relocate, Scout, Stop};
use self::sync::Sync;
pub(in crate::storage) use self::sync::cut;

/// Whether jobs want another slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// There is no job.
    Idle,
    /// All jobs wait for the disk: look again in [`LOOK_AGAIN`].
    Later,
    /// At once, if nobody else is ready.
    More,
}

/// How soon to look again whether the disk has written what a job waits for.
pub const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(10);

/// How one slice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slice {
    /// The job goes on.
    More,
    /// It waits for the disk.
    Later,
    /// It is done.
    Done,
}

impl From<Step> for Slice {
    fn from(step: Step) -> Self {
        match step {
            Step::More => Self::More,
            Step::Later => Self::Later,
            Step::Done => Self::Done,
        }
    }
}

/// Whose jobs keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Line {
    State,
    Compact(Which),
    Content(StoreId),
}

/// Jobs, and what was written since the last sync.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    /// No line is empty; its front is under way, or next.
    lines: BTreeMap<Line, VecDeque<Queued>>,
    /// The lines in the order of their turns.
    turns: VecDeque<Line>,
    /// Slices in a row that found nothing but waiting.
    waiting: usize,
    done: VecDeque<(JobId, Result<(), Fault>)>,
    pub(in crate::storage) written: Written,
}

/// The job that a task is. `None` for what the storage does by itself, and for changes of the state directory, which know their jobs.
type Queued = (Option<JobId>, Task);

/// A job, and how far it is.
#[derive(Debug)]
enum Task {
    Begin(Job),
    Change(Box<Changes>),
    Compact(Which, Box<Compaction>),
    Sync(Sync),
    Allocate(Allocate),
    Scout(Scout),
    Relocate(Box<Relocate>),
    Clear(Clear),
    Delete(Delete),
}

/// Files that were written or read to be claimed, and those that were made, since their last sync.
#[derive(Debug, Default)]
pub(super) struct Written {
    files: BTreeSet<(StoreId, usize)>,
    made: BTreeSet<(StoreId, usize)>,
    /// The last note, so that a run of writes to one file is noted once.
    last: Option<(StoreId, usize)>,
}

impl Written {
    pub(super) fn note(&mut self, store: StoreId, file: usize) {
        if self.last != Some((store, file)) {
            self.last = Some((store, file));
            self.files.insert((store, file));
        }
    }

    /// A file was made: its name, too, must come to the disk.
    pub(super) fn note_made(&mut self, store: StoreId, file: usize) {
        self.note(store, file);
        self.made.insert((store, file));
    }

    /// What is to be synced of a content, and what was made of it; forgotten here.
    pub(in crate::storage) fn take(&mut self, store: StoreId) -> (Vec<usize>, Vec<usize>) {
        self.last = None;
        let take = |set: &mut BTreeSet<(StoreId, usize)>| -> Vec<usize> {
            let taken: Vec<_> = set.range((store, 0)..=(store, usize::MAX)).copied().collect();
            for one in &taken {
                set.remove(one);
            }
            taken.into_iter().map(|(_, file)| file).collect()
        };
        (take(&mut self.files), take(&mut self.made))
    }
}

impl Jobs {
    pub(super) fn push(&mut self, id: JobId, job: Job) {
        let line = match &job {
            Job::Record { .. } | Job::Save { .. } | Job::Erase { .. } => Line::State,
            Job::Sync { store, .. }
            | Job::Allocate { store }
            | Job::Scout { store, .. }
            | Job::Move { store, .. }
            | Job::Clear { store, .. }
            | Job::Delete { store, .. } => Line::Content(*store),
        };
        self.queue(line, (Some(id), Task::Begin(job)));
    }

    fn queue(&mut self, line: Line, task: Queued) {
        let jobs = self.lines.entry(line).or_default();
        if jobs.is_empty() {
            self.turns.push_back(line);
        }
        jobs.push_back(task);
        self.waiting = 0;
    }

    /// How far the move of a content is.
    pub(super) fn move_progress(&self, store: StoreId) -> Option<(u64, u64)> {
        match self.lines.get(&Line::Content(store))?.front()? {
            (_, Task::Relocate(relocate)) => Some(relocate.progress()),
            _ => None,
        }
    }

    /// Ends the move of a content before it is done.
    pub(super) fn stop_move(storage: &mut FileStorage, store: StoreId, undo: bool) {
        let Some(line) = storage.jobs.lines.get_mut(&Line::Content(store)) else { return };
        let mut line = std::mem::take(line);
        for (_, task) in &mut line {
            if matches!(task, Task::Begin(Job::Move { .. } | Job::Clear { .. })) {
                *task = begin(storage, std::mem::replace(task, Task::Change(Box::default())));
            }
            match task {
                Task::Relocate(relocate) => relocate.stop(if undo { Stop::Undo } else { Stop::Leave }),
                Task::Clear(clear) if !undo => clear.stop = true,
                _ => {}
            }
        }
        storage.jobs.lines.insert(Line::Content(store), line);
        storage.jobs.waiting = 0;
    }

    pub(super) fn poll(&mut self) -> Option<(JobId, Result<(), Fault>)> {
        self.done.pop_front()
    }
}

/// One slice of the job whose turn it is.
pub(super) fn work(storage: &mut FileStorage) -> Work {
    let Some(line) = storage.jobs.turns.pop_front() else { return Work::Idle };
    let jobs = storage.jobs.lines.get_mut(&line).expect("a line with a turn is there");
    let (id, task) = jobs.pop_front().expect("no line is empty");
    let (id, mut task) = match (id, task) {
        (Some(id), Task::Begin(job)) if line == Line::State => (None, Task::Change(Box::new(gather(jobs, id, job)))),
        (id, task) => (id, begin(storage, task)),
    };
    let result = step(storage, &mut task);
    let jobs = storage.jobs.lines.get_mut(&line).expect("a line stays while its front is under way");
    storage.jobs.waiting = if result == Ok(Slice::Later) { storage.jobs.waiting + 1 } else { 0 };
    match (result, task) {
        (Ok(Slice::More | Slice::Later), task) => jobs.push_front((id, task)),
        (Ok(Slice::Done), _) => storage.jobs.done.extend(id.map(|id| (id, Ok(())))),
        (Err(fault), Task::Change(changes)) => {
            storage.jobs.done.extend(changes.into_ids().map(|id| (id, Err(fault.clone()))));
        }
        (Err(fault), _) => match id {
            Some(id) => storage.jobs.done.push_back((id, Err(fault))),
            None => log::warn!("{fault}"),
        },
    }
    if jobs.is_empty() {
        storage.jobs.lines.remove(&line);
    } else {
        storage.jobs.turns.push_back(line);
    }
    if matches!(line, Line::State | Line::Compact(_)) {
        let stale: Vec<Which> = storage.state.iter().flat_map(|state| state.stale()).collect();
        for which in stale {
            let line = Line::Compact(which);
            if !storage.jobs.lines.contains_key(&line) {
                storage.jobs.queue(line, (None, Task::Compact(which, Box::default())));
            }
        }
    }
    match storage.jobs.turns.len() {
        0 => Work::Idle,
        lines if storage.jobs.waiting >= lines => {
            storage.jobs.waiting = 0;
            Work::Later
        }
        _ => Work::More,
    }
}

/// A job of the state directory, and those right behind it that go along.
fn gather(jobs: &mut VecDeque<Queued>, id: JobId, job: Job) -> Changes {
    let mut changes = Changes::default();
    let mut next = Some((id, job));
    while let Some((id, job)) = next.take() {
        if let Err(job) = changes.push(id, job) {
            jobs.push_front((Some(id), Task::Begin(job)));
            break;
        }
        next = match jobs.pop_front() {
            Some((Some(id), Task::Begin(job))) => Some((id, job)),
            Some(other) => unreachable!("{other:?} is no job of the state directory"),
            None => None,
        };
    }
    changes
}

fn begin(storage: &mut FileStorage, task: Task) -> Task {
    match task {
        Task::Begin(Job::Sync { store, finish }) => Task::Sync(Sync::begin(store, finish)),
        Task::Begin(Job::Allocate { store }) => Task::Allocate(Allocate::begin(store)),
        Task::Begin(Job::Scout { store, dir }) => Task::Scout(Scout::begin(store, dir)),
        Task::Begin(Job::Move { store, dir, info_hash, again, undo }) => {
            let mut relocate = Relocate::begin(storage, store, dir, info_hash, again);
            if undo {
                relocate.stop(Stop::Undo);
            }
            Task::Relocate(Box::new(relocate))
        }
        Task::Begin(Job::Clear { store, from }) => Task::Clear(Clear::begin(storage, store, from)),
        Task::Begin(Job::Delete { store, keep }) => Task::Delete(Delete::begin(store, keep)),
        begun => begun,
    }
}

fn step(storage: &mut FileStorage, task: &mut Task) -> Result<Slice, Fault> {
    match task {
        Task::Begin(_) => unreachable!("it was just begun"),
        Task::Change(changes) => match &mut storage.state {
            Some(state) => {
                let mut ids = Vec::new();
                let result = state.apply(changes, &mut ids);
                storage.jobs.done.extend(ids.into_iter().map(|id| (id, Ok(()))));
                result.map(Slice::from)
            }
            None => {
                let ids = std::mem::take(&mut **changes).into_ids();
                storage.jobs.done.extend(ids.map(|id| (id, Ok(()))));
                Ok(Slice::Done)
            }
        },
        Task::Compact(which, compaction) => match &mut storage.state {
            Some(state) => state.compact(*which, compaction).map(Slice::from),
            None => Ok(Slice::Done),
        },
        Task::Sync(sync) => sync.step(storage),
        Task::Allocate(allocate) => allocate.step(storage),
        Task::Scout(scout) => scout.step(storage),
        Task::Relocate(relocate) => relocate.step(storage),
        Task::Clear(clear) => clear.step(),
        Task::Delete(delete) => delete.step(storage),
    }
}

#[cfg(test)]
mod tests;
