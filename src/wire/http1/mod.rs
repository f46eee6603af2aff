//! HTTP/1.0 and HTTP/1.1 by an engine of our own.

mod body;
mod buffer;
mod server;
mod splice;
#[cfg(test)]
mod tests;
mod upstream;

pub(crate) use body::{Reader, Writer};
pub(crate) use server::{Responder, ServerConnection};
pub(crate) use splice::Splice;
pub(crate) use upstream::{AnswerReader, UpstreamConnection};
