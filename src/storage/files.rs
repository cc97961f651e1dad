//! (files)
