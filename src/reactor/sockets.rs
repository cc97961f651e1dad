//! (sockets)
