//! What a peer said of its extensions (BEP 10): by which numbers to send them, and what else of its handshake is kept.

use crate::base::hash::StId;
use crate::codec::extension::{ExtensionHandshake, ExtensionIds, ExtensionKind};
use crate::protocol::peer::client::readable;

/// The latest that the peer said, of everything that it said at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extensions {
    ids: ExtensionIds,
    /// What it calls itself, fit to be shown.
    pub client: Option<Box<str>>,
    /// Where it listens.
    pub port: Option<u16>,
    /// Bytes of the `info` dictionary (BEP 9), as it claims.
    pub metadata_size: Option<u32>,
    /// It downloads nothing more (BEP 21).
    pub upload_only: bool,
    /// It would rather be spoken with in cipher.
    pub prefers_cipher: bool,
    /// Which `.st` file it means.
    pub st_id: Option<StId>,
}

impl Extensions {
    /// The number by which to send `kind` to it; none if it does not want that.
    #[must_use]
    pub fn id(&self, kind: ExtensionKind) -> Option<u8> {
        self.ids.get(kind).filter(|id| *id != 0)
    }

    /// Takes over what a handshake says; later ones are additive.
    pub(super) fn merge(&mut self, said: &ExtensionHandshake<'_>) {
        self.ids.merge(said.ids);
        self.client = said.client.map(|client| readable(client).into()).or_else(|| self.client.take());
        self.port = said.port.or(self.port);
        self.metadata_size = said.metadata_size.or(self.metadata_size);
        self.upload_only = said.upload_only.unwrap_or(self.upload_only);
        self.prefers_cipher = said.prefers_cipher.unwrap_or(self.prefers_cipher);
        self.st_id = said.st_id.or(self.st_id);
    }
}
