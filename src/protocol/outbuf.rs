//! (outbuf)
