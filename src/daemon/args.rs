//! (args)
