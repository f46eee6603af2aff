//! Sockets: what is listened on, what is connected to, TLS, and one stream type for all.

mod listen;
mod proxy_protocol;
#[cfg_attr(not(target_os = "linux"), path = "no_send_file.rs")]
mod send_file;
#[cfg_attr(not(target_os = "linux"), path = "no_splice.rs")]
mod splice;
mod stream;
mod tls;

pub(crate) use listen::{Bound, Listener, is_about_one_connection, is_taken, warn_of_sharing};
pub(crate) use proxy_protocol::{Source, read_header as read_proxy_header};
pub(crate) use splice::Pipe;
pub(crate) use stream::{ReadHalf, Stream, WriteHalf};
pub(crate) use tls::{Protocol, Secured, handshake};
