//! (http_tracker)
