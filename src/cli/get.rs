//! (get)
