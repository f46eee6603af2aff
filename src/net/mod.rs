//! Sockets: what is listened on, what is connected to, and one stream type for both.

mod listen;
mod stream;

pub(crate) use listen::{bind, bind_group};
pub(crate) use stream::{ReadHalf, Stream, WriteHalf};
