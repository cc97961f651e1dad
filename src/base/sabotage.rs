//! Faults that are built in on purpose, to see that the simulator's checks catch them. Without the feature `sabotage` there are
//! none, and nothing of this is in the program.

/// A rule that the engine breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A block has as many writers as there are who send it.
    TwoWriters,
    /// A resume record claims what was not synced.
    UnsyncedRecord,
    /// Blocks are served whether their piece was verified or not.
    UnverifiedServed,
    /// A private torrent is looked for in the DHT, and announced there.
    PrivateTold,
    /// A tracker keeps peers that said goodbye.
    StoppedKept,
    /// A tracker takes in an address that nobody announced.
    StrangerTold,
    /// Each message of a peer has all pieces looked at, and no turn ends before all of them were.
    CostlyTurn,
}

#[cfg(feature = "sabotage")]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Sabotage>> = const { std::cell::Cell::new(None) };
}

/// Breaks a rule from now on, in engines of this thread; none mends all.
#[cfg(feature = "sabotage")]
pub fn break_rule(rule: Option<Sabotage>) {
    BROKEN.set(rule);
}

/// True if this rule is broken.
#[cfg(feature = "sabotage")]
#[must_use]
pub fn is_broken(rule: Sabotage) -> bool {
    BROKEN.get() == Some(rule)
}

/// True if this rule is broken: it is not.
#[cfg(not(feature = "sabotage"))]
#[must_use]
pub const fn is_broken(_rule: Sabotage) -> bool {
    false
}
