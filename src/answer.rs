//! An answer of the sidecar's own, as opposed to one it passes on.

use serde_json::Value;

/// A small answer, built in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// An answer without a body.
    pub(crate) fn empty(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A JSON answer that no cache may keep, because all of ours are about one user.
    pub(crate) fn json(status: u16, value: &Value) -> Self {
        Self::empty(status)
            .with("content-type", "application/json")
            .with("cache-control", "no-store")
            .body(format!("{value}\n"))
    }

    /// Adds a field line.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// The standard phrase of a status (RFC 9110 §15).
pub(crate) fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("")
}
