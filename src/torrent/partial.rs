//! (partial)
