//! One HTTP request and its answer over one stream, plain or TLS: the client's side.

use std::time::Duration;

use crate::base::time::Time;
use crate::codec::http::{HttpError, Response, ResponseReader};
use crate::protocol::tls::{Tls, TlsError};

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeError {
    /// The answer is broken or too long.
    Http(HttpError),
    /// TLS failed.
    Tls(TlsError),
    /// It took longer than allowed in all.
    Timeout,
}

/// One request under way.
#[derive(Debug)]
pub struct HttpExchange {
    outgoing: Vec<u8>,
    sent: usize,
    tls: Option<Tls>,
    reader: ResponseReader,
    deadline: Time,
}

impl HttpExchange {
    /// Sends `request` and reads an answer whose body has at most `body_max` bytes, all within `patience`.
    #[must_use]
    pub fn new(now: Time, request: &[u8], tls: Option<Tls>, body_max: usize, patience: Duration) -> Self {
        let mut exchange = Self {
            outgoing: Vec::new(),
            sent: 0,
            tls,
            reader: ResponseReader::new(body_max),
            deadline: now + patience,
        };
        match &mut exchange.tls {
            Some(tls) => {
                tls.send(request);
                tls.poll_output(&mut exchange.outgoing);
            }
            None => exchange.outgoing.extend_from_slice(request),
        }
        exchange
    }

    /// Bytes came; the answer, once it is whole.
    ///
    /// # Errors
    /// See [`ExchangeError`].
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<Option<Response>, ExchangeError> {
        let Some(tls) = &mut self.tls else { return self.reader.handle_input(bytes).map_err(ExchangeError::Http) };
        let mut plain = Vec::new();
        tls.handle_input(bytes, &mut plain).map_err(ExchangeError::Tls)?;
        tls.poll_output(&mut self.outgoing);
        self.reader.handle_input(&plain).map_err(ExchangeError::Http)
    }

    /// The stream ended.
    ///
    /// # Errors
    /// See [`ExchangeError`].
    pub fn handle_end(&mut self) -> Result<Response, ExchangeError> {
        self.reader.handle_end().map_err(ExchangeError::Http)
    }

    /// Bytes to send.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.sent..]
    }

    /// So many of them were sent.
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.outgoing.len() {
            self.outgoing.clear();
            self.sent = 0;
        }
    }

    /// When it has taken too long.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.deadline
    }
}
