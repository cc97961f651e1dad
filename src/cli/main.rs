//! (main)
