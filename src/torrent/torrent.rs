//! (torrent)
