//! (bencode)
