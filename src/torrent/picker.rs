//! (picker)
