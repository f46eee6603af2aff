//! What systemd is told: that we serve, that we read the configuration again, that we end, and that we are alive.
//!
//! `sd_notify(3)` is a datagram of lines `NAME=value` to the socket in `$NOTIFY_SOCKET`, a path or (with `@`) an abstract
//! name; that is all of libsystemd that is needed here. Without the variable nobody listens and nothing is said. A datagram that
//! cannot be sent costs no request: what systemd does not hear, it notices by itself.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::future;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The connection to systemd, if it is there.
pub(super) struct Systemd {
    listener: Option<(UnixDatagram, SocketAddr)>,
    /// How often to say that we live: twice in the time after which systemd would end us.
    watchdog: Option<Duration>,
}

impl Systemd {
    /// What the environment says of it.
    pub(super) fn from_env() -> Self {
        let systemd = Self::from_variables(|name| std::env::var_os(name));
        systemd.unwrap_or_else(|error| {
            tracing::warn!(%error, "systemd cannot be told of anything");
            Self {
                listener: None,
                watchdog: None,
            }
        })
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> io::Result<Self> {
        let listener = match variable("NOTIFY_SOCKET") {
            Some(name) => Some((UnixDatagram::unbound()?, address(&name)?)),
            None => None,
        };
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let limit = number("WATCHDOG_USEC").filter(|limit| ours && *limit > 0);
        Ok(Self {
            watchdog: limit.map(|limit| Duration::from_micros(limit) / 2),
            listener,
        })
    }

    /// We serve; also after a reload.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    /// We read the configuration again; [`Systemd::ready`] ends it, whatever came of it.
    pub(super) fn reloading(&self) {
        self.tell("RELOADING=1");
    }

    /// We drain, then end.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Says as often as systemd wants to hear it that we live, for as long as it is so. Never ends.
    ///
    /// It says nothing while `is_alive` gives a reason why not; whoever polls this future and gets stuck says nothing either.
    pub(super) async fn watch(&self, is_alive: impl Fn() -> Result<(), String>) -> Infallible {
        let Some(pause) = self.watchdog else {
            return future::pending().await;
        };
        loop {
            match is_alive() {
                Ok(()) => self.tell("WATCHDOG=1"),
                Err(why) => {
                    tracing::error!(why, "not alive: systemd's watchdog is not told otherwise");
                    self.tell(&format!("STATUS=not alive: {}", why.replace('\n', " ")));
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn tell(&self, message: &str) {
        let Some((socket, address)) = &self.listener else {
            return;
        };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::warn!(%error, message, "systemd does not hear us");
        }
    }
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name),
        #[cfg(target_os = "linux")]
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "NOTIFY_SOCKET is neither a path nor an abstract name",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;

    use super::*;

    fn systemd(variables: &[(&str, &str)]) -> io::Result<Systemd> {
        Systemd::from_variables(|name| {
            let found = variables.iter().find(|(it, _)| *it == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut datagram = [0; 200];
        let length = socket.recv(&mut datagram).unwrap();
        String::from_utf8(datagram[..length].to_vec()).unwrap()
    }

    fn heard_nothing(socket: &UnixDatagram) {
        socket.set_nonblocking(true).unwrap();
        let error = socket.recv(&mut [0; 200]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        socket.set_nonblocking(false).unwrap();
    }

    fn at(directory: &Path) -> (UnixDatagram, String) {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        (socket, path.into_os_string().into_string().unwrap())
    }

    #[test]
    fn each_state_is_a_datagram() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, path) = at(directory.path());
        let systemd = systemd(&[("NOTIFY_SOCKET", &path)]).unwrap();
        systemd.ready();
        systemd.reloading();
        systemd.stopping();
        for state in ["READY=1", "RELOADING=1", "STOPPING=1"] {
            assert_eq!(heard(&socket), state);
        }
        heard_nothing(&socket);
    }

    #[test]
    fn an_abstract_socket_is_one_too() {
        let name = format!("wx-sidecar-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let systemd = systemd(&[("NOTIFY_SOCKET", &format!("@{name}"))]).unwrap();
        systemd.ready();
        assert_eq!(heard(&socket), "READY=1");
    }

    #[test]
    fn without_systemd_nothing_is_said_and_what_is_no_socket_is_told() {
        systemd(&[]).unwrap().ready();
        for name in ["", "relative", "vsock:2:1234"] {
            let error = systemd(&[("NOTIFY_SOCKET", name)]).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        // Nobody is there: nothing happens.
        let gone = systemd(&[("NOTIFY_SOCKET", "/nonexistent/notify")]).unwrap();
        gone.ready();
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_twice_in_its_time_while_the_sidecar_is_alive() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, path) = at(directory.path());
        let systemd = systemd(&[("NOTIFY_SOCKET", &path), ("WATCHDOG_USEC", "10000000")]).unwrap();
        let alive = Cell::new(true);
        let watching = systemd.watch(|| match alive.get() {
            true => Ok(()),
            false => Err("worker 1\nis stuck".to_owned()),
        });
        tokio::pin!(watching);
        let mut pass = async |seconds: u64| {
            let until = tokio::time::sleep(Duration::from_secs(seconds));
            tokio::select! {
                never = &mut watching => match never {},
                () = until => {}
            }
        };
        pass(11).await;
        for _ in 0..3 {
            assert_eq!(heard(&socket), "WATCHDOG=1");
        }
        heard_nothing(&socket);
        alive.set(false);
        pass(5).await;
        assert_eq!(heard(&socket), "STATUS=not alive: worker 1 is stuck");
        heard_nothing(&socket);
        alive.set(true);
        pass(5).await;
        assert_eq!(heard(&socket), "WATCHDOG=1");
        heard_nothing(&socket);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watchdog_for_another_process_or_for_none_is_not_fed() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, path) = at(directory.path());
        let place = ("NOTIFY_SOCKET", path.as_str());
        for variables in [
            vec![place],
            vec![place, ("WATCHDOG_USEC", "0")],
            vec![place, ("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "1")],
        ] {
            let systemd = systemd(&variables).unwrap();
            let hour = Duration::from_secs(3600);
            let watched = tokio::time::timeout(hour, systemd.watch(|| Ok(()))).await;
            assert!(watched.is_err());
            heard_nothing(&socket);
        }
    }
}
