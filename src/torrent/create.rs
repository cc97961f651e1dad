//! (create)
