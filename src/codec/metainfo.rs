//! (metainfo)
