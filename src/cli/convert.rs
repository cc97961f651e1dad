//! (convert)
