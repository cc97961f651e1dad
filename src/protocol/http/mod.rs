//! HTTP over one stream: the client's side of one request, and the server's side of a connection.

mod client;

pub use client::{ExchangeError, HttpExchange};
