//! A Redis server of one's own, and whether there is an inbox in one.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::process::{Process, free_address};

const PATIENCE: Duration = Duration::from_secs(10);

/// A server that ends with its handle.
pub(crate) struct Redis {
    process: Process,
    pub(crate) place: SocketAddr,
}

impl Redis {
    /// Starts one that writes all it is told to a file in `directory`, and syncs it as `appendfsync` says.
    pub(crate) fn start(directory: &Path, appendfsync: &str) -> Result<Self, String> {
        let place = free_address();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &place.port().to_string()]);
        command.args(["--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", appendfsync, "--dir"]);
        command.arg(directory).arg("--logfile");
        command.arg(directory.join("redis.log"));
        let process = Process::spawn("redis", &mut command, directory)?;
        let server = Self { process, place };
        let began = Instant::now();
        while ask(place, "PING").is_err() {
            if began.elapsed() > PATIENCE {
                return Err("redis-server does not answer".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Its process, for the accounts of the kernel.
    #[allow(dead_code, reason = "a bench measures it")]
    pub(crate) fn tree(&self) -> Vec<u32> {
        self.process.tree()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.place)
    }
}

/// Whether there is any stream on the server, which only an inbox would be.
pub(crate) fn has_streams(place: SocketAddr) -> bool {
    let answer = ask(place, "SCAN 0 COUNT 1000000 TYPE stream");
    answer.is_ok_and(|answer| !answer.contains("*0\r\n"))
}

/// Where a URL of the simple form leads.
#[allow(dead_code, reason = "a bench has a server of its own")]
pub(crate) fn place_of(url: &str) -> Option<SocketAddr> {
    let rest = url.strip_prefix("redis://")?;
    rest.split('/').next()?.parse().ok()
}

/// The beginning of the answer to a command.
fn ask(place: SocketAddr, command: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(place)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{command}\r\n")?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}
