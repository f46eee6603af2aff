//! HTTP on the wire: heads, framing, bodies, one form of them for every version and both directions.
//!
//! HTTP/1.1 is an engine of our own. Why not a library: the app must see no request but those that were decided on, and
//! every byte it gets must have been framed by us. That takes decisions on the raw bytes, before anything has been
//! normalised away. It also takes half the CPU: a head is parsed into slices of one buffer and forwarded as those slices.
//!
//! HTTP/2 has its framing in binary, and the library for it refuses what is ambiguous; its heads are translated into the
//! form of HTTP/1.1, so that everything above sees one kind of message.
//!
//! This floor knows nothing of routes, identity or WeChat. It says what a message is, and refuses what is not one.

mod fields;
pub(crate) mod form;
mod head;
pub(crate) mod http1;
pub(crate) mod http2;
mod message;
mod overheard;
pub(crate) mod websocket;

pub(crate) use fields::{Field, Fields, Name};
pub(crate) use head::{
    Connection, Framing, HeadError, HeadLimits, Method, RequestHead, ResponseHead,
};
pub(crate) use http1::Splice;
pub(crate) use message::{
    AnswerReader, BodyError, Length, NoHead, Reader, Responder, UpstreamConnection, Writer,
};
pub(crate) use overheard::{Heard, Listener, overhear};
