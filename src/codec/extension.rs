//! (extension)
