//! The ready queue: who gets the next turn.
//!
//! mio reports edges once, so what is ready is remembered here: an edge sets a flag, and only [`Progress::Drained`] clears it. A
//! connection stands in the queue at most once, and one that used up its budget goes to the end. Knows no sockets.

use std::collections::VecDeque;

use crate::base::ids::ConnId;
use crate::engine::Progress;

/// Bytes that all turns of one round together move, but for what the last of them has begun; who had no turn by then is first
/// in the next round. So the round stays short, and a turn is worth its system calls however many wait.
pub(crate) const ROUND_BYTES: usize = 1 << 20;
/// Bytes that a turn moves at most, in each direction.
pub(crate) const TURN_BYTES: usize = 512 << 10;
/// What a turn counts for at least, since it takes its time whatever it moves.
pub(crate) const TURN_LEAST_BYTES: usize = 16 << 10;
/// What a step of work (`base/steps`) counts for in a round, so that a round ends after some milliseconds, too, where few bytes
/// cause much work.
pub(crate) const STEP_BYTES: usize = 8;

/// What one direction of a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Lane {
    /// The kernel said that it would not block, and nobody has found that it does.
    open: bool,
    /// It waits for a wake; edges only count after it.
    parked: bool,
}

impl Lane {
    const fn is_due(self) -> bool {
        self.open && !self.parked
    }

    const fn settle(&mut self, progress: Progress) {
        match progress {
            Progress::Drained => self.open = false,
            Progress::Spent => {}
            Progress::Parked => self.parked = true,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    conn: ConnId,
    read: Lane,
    write: Lane,
    /// It stands in the queue.
    queued: bool,
}

/// A turn to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// To whom.
    pub(crate) conn: ConnId,
    /// A writing one.
    pub(crate) write: bool,
    /// A reading one, after it.
    pub(crate) read: bool,
}

/// The flags of every connection, and the order of those that wait for a turn.
#[derive(Debug, Default)]
pub(crate) struct ReadyQueue {
    /// By slot of the connection's id.
    entries: Vec<Option<Entry>>,
    /// Each living connection once at most. Closed ones stay until their place comes up, which is in the next round.
    queue: VecDeque<ConnId>,
}

impl ReadyQueue {
    /// Takes a connection in; it gets no turn until an edge or a wake.
    pub(crate) fn add(&mut self, conn: ConnId) {
        if self.entries.len() <= conn.slot() {
            self.entries.resize(conn.slot() + 1, None);
        }
        self.entries[conn.slot()] = Some(Entry { conn, read: Lane::default(), write: Lane::default(), queued: false });
    }

    /// Forgets a connection.
    pub(crate) fn remove(&mut self, conn: ConnId) {
        if self.entry(conn).is_some() {
            self.entries[conn.slot()] = None;
        }
    }

    /// The kernel said that reading or writing would not block.
    pub(crate) fn edge(&mut self, conn: ConnId, readable: bool, writable: bool) {
        let Some(entry) = self.entry(conn) else { return };
        entry.read.open |= readable;
        entry.write.open |= writable;
        self.enqueue(conn);
    }

    /// The engine has something for it to do: a writing turn in any case, since `Drained` may have meant that there was nothing
    /// to send; a reading one unless the kernel is known to have nothing.
    pub(crate) fn wake(&mut self, conn: ConnId) {
        let Some(entry) = self.entry(conn) else { return };
        entry.read.parked = false;
        entry.write = Lane { open: true, parked: false };
        self.enqueue(conn);
    }

    /// How many stand in the queue.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// True if nobody waits for a turn.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes the place at the front; none if that connection has been closed or has nothing to do any more.
    ///
    /// Call it [`ReadyQueue::len`] times a round at most, and [`ReadyQueue::finish`] after each turn.
    pub(crate) fn pop(&mut self) -> Option<Turn> {
        let conn = self.queue.pop_front()?;
        let entry = self.entry(conn)?;
        entry.queued = false;
        let turn = Turn { conn, write: entry.write.is_due(), read: entry.read.is_due() };
        (turn.write || turn.read).then_some(turn)
    }

    /// How a turn ended, in the directions that it had.
    pub(crate) fn finish(&mut self, conn: ConnId, write: Option<Progress>, read: Option<Progress>) {
        let Some(entry) = self.entry(conn) else { return };
        if let Some(progress) = write {
            entry.write.settle(progress);
        }
        if let Some(progress) = read {
            entry.read.settle(progress);
        }
        self.enqueue(conn);
    }

    fn entry(&mut self, conn: ConnId) -> Option<&mut Entry> {
        self.entries.get_mut(conn.slot())?.as_mut().filter(|entry| entry.conn == conn)
    }

    /// Puts it at the end, if it has something to do and is not there already.
    fn enqueue(&mut self, conn: ConnId) {
        let Some(entry) = self.entry(conn) else { return };
        if !entry.queued && (entry.read.is_due() || entry.write.is_due()) {
            entry.queued = true;
            self.queue.push_back(conn);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::base::arena::Id;

    fn conn(slot: u64) -> ConnId {
        Id::from_bits(7 << 32 | slot)
    }

    fn queue_of(slots: u64) -> ReadyQueue {
        let mut queue = ReadyQueue::default();
        (0..slots).for_each(|slot| queue.add(conn(slot)));
        queue
    }

    fn read_turn(slot: u64) -> Option<Turn> {
        Some(Turn { conn: conn(slot), write: false, read: true })
    }

    #[test]
    fn a_new_connection_gets_no_turn_before_an_edge() {
        let mut queue = queue_of(1);
        assert!(queue.is_empty());
        queue.edge(conn(0), true, false);
        assert_eq!(queue.pop(), read_turn(0));
    }

    #[test]
    fn many_edges_make_one_turn() {
        let mut queue = queue_of(1);
        for _ in 0..10 {
            queue.edge(conn(0), true, false);
            queue.wake(conn(0));
        }
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.pop(), Some(Turn { conn: conn(0), write: true, read: true }));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn who_spent_its_budget_goes_behind_the_others() {
        let mut queue = queue_of(3);
        (0..3).for_each(|slot| queue.edge(conn(slot), true, false));
        assert_eq!(queue.pop(), read_turn(0));
        queue.finish(conn(0), None, Some(Progress::Spent));
        for slot in [1, 2, 0] {
            assert_eq!(queue.pop(), read_turn(slot));
            queue.finish(conn(slot), None, Some(Progress::Drained));
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn a_parked_direction_waits_for_a_wake_and_no_edge_is_lost() {
        let mut queue = queue_of(1);
        queue.edge(conn(0), true, false);
        queue.pop();
        queue.finish(conn(0), None, Some(Progress::Parked));
        queue.edge(conn(0), true, false);
        assert!(queue.is_empty(), "an edge does not end the parking");
        queue.wake(conn(0));
        assert_eq!(queue.pop(), Some(Turn { conn: conn(0), write: true, read: true }));
    }

    #[test]
    fn a_parked_reader_still_writes() {
        let mut queue = queue_of(1);
        queue.edge(conn(0), true, true);
        queue.pop();
        queue.finish(conn(0), Some(Progress::Drained), Some(Progress::Parked));
        queue.edge(conn(0), false, true);
        assert_eq!(queue.pop(), Some(Turn { conn: conn(0), write: true, read: false }));
    }

    #[test]
    fn a_wake_gives_no_reading_turn_where_the_kernel_has_nothing() {
        let mut queue = queue_of(1);
        queue.edge(conn(0), true, true);
        queue.pop();
        queue.finish(conn(0), Some(Progress::Drained), Some(Progress::Drained));
        queue.wake(conn(0));
        assert_eq!(queue.pop(), Some(Turn { conn: conn(0), write: true, read: false }));
    }

    #[test]
    fn a_closed_connection_gets_no_turn_and_its_successor_does() {
        let mut queue = queue_of(1);
        queue.edge(conn(0), true, false);
        queue.remove(conn(0));
        let successor = Id::from_bits(8 << 32);
        queue.add(successor);
        queue.edge(conn(0), true, true);
        queue.remove(conn(0));
        queue.edge(successor, true, false);
        assert_eq!(queue.pop(), None, "the place of the closed one");
        assert_eq!(queue.pop(), Some(Turn { conn: successor, write: false, read: true }));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Edge(u64, bool, bool),
        Wake(u64),
        Turn(u8, u8),
        Replace(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4_u64, any::<bool>(), any::<bool>()).prop_map(|(slot, read, write)| Step::Edge(slot, read, write)),
            (0..4_u64).prop_map(Step::Wake),
            (0..3_u8, 0..3_u8).prop_map(|(write, read)| Step::Turn(write, read)),
            (0..4_u64).prop_map(Step::Replace),
        ]
    }

    fn progress(number: u8) -> Progress {
        [Progress::Drained, Progress::Spent, Progress::Parked][usize::from(number)]
    }

    proptest! {
        /// A model that forgets nothing: who has an open direction that is not parked is in the queue exactly once, and
        /// nobody else gets a turn.
        #[test]
        fn whoever_is_due_stands_in_the_queue_once(steps in prop::collection::vec(step(), 0..200)) {
            let mut queue = queue_of(4);
            let mut model: BTreeMap<ConnId, (Lane, Lane)> =
                (0..4).map(|slot| (conn(slot), Default::default())).collect();
            let mut names: Vec<ConnId> = (0..4).map(conn).collect();
            let mut generation = 100;
            for step in steps {
                match step {
                    Step::Edge(slot, readable, writable) => {
                        let name = names[usize::try_from(slot).unwrap()];
                        queue.edge(name, readable, writable);
                        let (read, write) = model.get_mut(&name).unwrap();
                        read.open |= readable;
                        write.open |= writable;
                    }
                    Step::Wake(slot) => {
                        let name = names[usize::try_from(slot).unwrap()];
                        queue.wake(name);
                        let (read, write) = model.get_mut(&name).unwrap();
                        read.parked = false;
                        *write = Lane { open: true, parked: false };
                    }
                    Step::Turn(write_end, read_end) => {
                        let Some(turn) = queue.pop() else { continue };
                        let (read, write) = model.get_mut(&turn.conn).expect("a living connection");
                        prop_assert_eq!((turn.read, turn.write), (read.is_due(), write.is_due()));
                        let write_end = turn.write.then(|| progress(write_end));
                        let read_end = turn.read.then(|| progress(read_end));
                        write_end.into_iter().for_each(|end| write.settle(end));
                        read_end.into_iter().for_each(|end| read.settle(end));
                        queue.finish(turn.conn, write_end, read_end);
                    }
                    Step::Replace(slot) => {
                        let index = usize::try_from(slot).unwrap();
                        queue.remove(names[index]);
                        model.remove(&names[index]);
                        generation += 1;
                        names[index] = Id::from_bits(generation << 32 | slot);
                        queue.add(names[index]);
                        model.insert(names[index], Default::default());
                    }
                }
                for (name, (read, write)) in &model {
                    let places = queue.queue.iter().filter(|place| *place == name).count();
                    prop_assert_eq!(places, usize::from(read.is_due() || write.is_due()));
                }
            }
        }
    }
}
