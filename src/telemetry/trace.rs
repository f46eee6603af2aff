//! Spans: what the sidecar did in a trace and how long it took, for a collector of OpenTelemetry.
//!
//! A span is made when its work has ended, and only if its trace is recorded. Until then all that a request carries is a
//! [`TraceContext`](crate::telemetry::ids::TraceContext), which is made in any case, for the app. So without the feature `otlp`, and of what is not
//! recorded with it, nothing is allocated and nothing is kept.
//!
//! What a call to WeChat is made for is known far above it. It is not handed down through everything between, but is
//! what the task is at ([`within`], [`carried`]).

#[cfg(feature = "otlp")]
mod export;
#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod on;

use std::borrow::Cow;
use std::time::Duration;

#[cfg(not(feature = "otlp"))]
pub(crate) use off::{Tracing, carried, within};
#[cfg(feature = "otlp")]
pub(crate) use on::{Tracing, carried, within};

/// What has ended. Its attributes have the names of OpenTelemetry's semantic conventions where there are such names, and never hold
/// an openid, a token, a code or a query.
#[cfg_attr(
    not(feature = "otlp"),
    expect(dead_code, reason = "without the feature no span is ever made")
)]
pub(crate) struct Span {
    kind: Kind,
    name: Cow<'static, str>,
    took: Duration,
    attributes: Vec<(&'static str, Value)>,
    /// How it failed, in a word.
    error: Option<Cow<'static, str>>,
}

/// Whose side of a call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// We were asked.
    Server,
    /// We asked.
    Client,
    /// Nobody else has part in it as a whole.
    Internal,
}

/// The value of an attribute.
#[cfg_attr(
    not(feature = "otlp"),
    expect(dead_code, reason = "without the feature no span is ever made")
)]
pub(crate) enum Value {
    Text(Cow<'static, str>),
    Number(i64),
}

impl Span {
    pub(crate) fn new(kind: Kind, name: impl Into<Cow<'static, str>>, took: Duration) -> Self {
        Self {
            kind,
            name: name.into(),
            took,
            attributes: Vec::with_capacity(8),
            error: None,
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    pub(crate) fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// `error.type`, and that it is an error.
    pub(crate) fn with_error(self, error: Option<impl Into<Cow<'static, str>>>) -> Self {
        let error = error.map(Into::into);
        Self { error, ..self }
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// A method as the conventions have it: any that is not known is `_OTHER`.
pub(crate) fn method(name: &str) -> &'static str {
    let known = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT",
    ];
    let found = known.into_iter().find(|known| *known == name);
    found.unwrap_or("_OTHER")
}
