//! HTTP over one stream: the client's side of one request, and the server's side of a connection.

mod client;
mod server;

pub use client::{ExchangeError, HttpExchange};
pub use server::{HttpServer, OUT_MAX, REQUESTS_MAX};

pub use crate::codec::http_request::Request;
