//! (udp_tracker)
