//! (url)
