//! HTTP/1.1 on the wire: heads, framing, bodies, one engine for both directions.
//!
//! Why not a library: the app must see at most one request per request sent, and every byte it gets must have been
//! framed by us. That takes decisions on the raw bytes, before anything has been normalised away. It also takes half the
//! CPU: a head is parsed into slices of one buffer and forwarded as those slices.
//!
//! This floor knows nothing of routes, identity or WeChat. It says what a message is, and refuses what is not one.

mod body;
mod buffer;
mod fields;
mod head;
mod server;
#[cfg(test)]
mod tests;
mod upstream;

pub(crate) use body::{BodyError, NoHead, Reader, Writer};
pub(crate) use fields::{Field, Fields, Name};
pub(crate) use head::{
    Connection, Framing, HeadError, HeadLimits, Method, RequestHead, ResponseHead,
};
pub(crate) use server::{Length, Responder, ServerConnection};
pub(crate) use upstream::{AnswerReader, UpstreamConnection};
