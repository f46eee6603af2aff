//! A running `wx-sidecar dev`, on ports that it chose, as its own screen tells them.

use std::net::SocketAddr;

use crate::process::{BINARY, Process};

/// A port that the system chooses.
pub(crate) const ANY: &str = "127.0.0.1:0";

/// What runs it at these places, with the simulator on a port that the system chooses.
pub(crate) fn arguments<'a>(listen: &'a str, outbound: &'a str, admin: &'a str) -> [&'a str; 9] {
    [
        "dev",
        "--listen",
        listen,
        "--sim",
        ANY,
        "--outbound",
        outbound,
        "--admin",
        admin,
    ]
}

/// It ends when this is dropped.
pub(crate) struct Dev {
    pub(crate) sidecar: SocketAddr,
    pub(crate) outbound: SocketAddr,
    pub(crate) simulator: SocketAddr,
    pub(crate) admin: SocketAddr,
    _process: Process,
}

impl Dev {
    /// With its sample app.
    pub(crate) fn new() -> Self {
        Self::with(&[], ANY)
    }

    /// In front of an app.
    pub(crate) fn before(upstream: &str) -> Self {
        Self::with(&["--upstream", upstream], ANY)
    }

    /// With more arguments, and the outbound side at an address of its own.
    pub(crate) fn with(more: &[&str], outbound: &str) -> Self {
        let arguments = arguments(ANY, outbound, ANY);
        let process = Process::start(BINARY, &[&arguments[..], more].concat());
        let address = |name: &str| {
            let line = process.line_with(&format!("  {name}  "));
            let (_, rest) = line.split_once("http://").expect("a place is a URL");
            let place = rest.split(|c: char| c.is_whitespace() || c == '/').next();
            let place = place.expect("something stands behind http://");
            place.parse().expect("it is an address")
        };
        // In the order of the screen.
        let [sidecar, outbound, simulator, admin] =
            ["sidecar", "WeChat", "simulator", "admin"].map(address);
        Self {
            sidecar,
            outbound,
            simulator,
            admin,
            _process: process,
        }
    }
}
