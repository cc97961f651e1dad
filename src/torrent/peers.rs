//! (peers)
