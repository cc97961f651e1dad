//! (datagrams)
