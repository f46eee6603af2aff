//! systemd: what the process tells it, and the unit in `examples/systemd/`.
//!
//! The socket is a real one, and systemd's own tool judges the unit.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::fake_app::FakeApp;
use crate::patience::PATIENCE;
use crate::process::{Run, finished_with, write_configuration};
use crate::rig::{self, SECRET, canary};

const BINARY: &str = env!("CARGO_BIN_EXE_wx-sidecar");
const UNIT: &str = "wx-sidecar@.service";
/// What `systemd-analyze security` says at most, in tenths, from 0 (nothing is exposed) to 100.
const EXPOSURE: &str = "20";

/// Who listens as systemd does.
struct Listener(UnixDatagram);

impl Listener {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn next(&self) -> String {
        let mut datagram = [0; 1024];
        let length = self.0.recv(&mut datagram).expect("it says something");
        String::from_utf8(datagram[..length].to_vec()).unwrap()
    }

    /// The next word that is not only a sign of life.
    fn next_state(&self) -> String {
        loop {
            let said = self.next();
            if said != "WATCHDOG=1" {
                return said;
            }
        }
    }
}

#[test]
fn systemd_hears_that_the_sidecar_serves_reloads_lives_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("notify");
    let systemd = Listener::at(&socket);
    let app = FakeApp::agreeable();
    let text = rig::configuration("https://127.0.0.1:1", &app.url(), "auth = \"none\"", "");
    let config = write_configuration(&text);
    let place = format!("NOTIFY_SOCKET={}", socket.display());
    let run = Run::under(&["env", &place, "WATCHDOG_USEC=200000"], &config);
    assert_eq!(systemd.next(), "READY=1");
    for _ in 0..3 {
        assert_eq!(systemd.next(), "WATCHDOG=1");
    }
    run.process.signal("HUP");
    assert_eq!(systemd.next_state(), "RELOADING=1");
    assert_eq!(systemd.next_state(), "READY=1");
    // What is refused is over, too.
    write_configuration(&rig::replaced(&text, "\"none\"", "\"nobody\""));
    run.process.signal("HUP");
    assert_eq!(systemd.next_state(), "RELOADING=1");
    assert_eq!(systemd.next_state(), "READY=1");
    assert_eq!(systemd.next(), "WATCHDOG=1");
    run.process.signal("TERM");
    assert_eq!(systemd.next_state(), "STOPPING=1");
    assert_eq!(run.process.end(), (0, String::new()));
}

#[test]
fn a_sidecar_that_cannot_start_is_never_ready() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("notify");
    let systemd = Listener::at(&socket);
    let config = write_configuration("[app]\nappid = 1\n");
    let place = ("NOTIFY_SOCKET", socket.to_str().unwrap());
    let (code, _, _) = finished_with(&["run", "-c", config.to_str().unwrap()], &[place]);
    assert_eq!(code, 1);
    systemd.0.set_nonblocking(true).unwrap();
    assert!(systemd.0.recv(&mut [0; 1024]).is_err());
}

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/systemd")
        .join(UNIT);
    fs::read_to_string(path).unwrap()
}

/// The unit with a binary that is there, since systemd looks.
fn laid_out(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join(UNIT);
    fs::write(
        &path,
        rig::replaced(text, "/usr/local/bin/wx-sidecar", BINARY),
    )
    .unwrap();
    path
}

fn analyzed(arguments: &[&str], unit: &Path) -> Output {
    let mut tool = Command::new("systemd-analyze");
    let output = tool.args(arguments).arg(unit).output();
    output.expect("systemd-analyze is installed; `make test-tools` does it")
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let directory = tempfile::tempdir().unwrap();
    let output = analyzed(
        &["verify", "--man=no"],
        &laid_out(directory.path(), &unit()),
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && !said.contains("wx-sidecar"),
        "{said}"
    );
    // It would have said so.
    let misspelt = rig::replaced(&unit(), "WatchdogSec=", "WatchdogSex=");
    let output = analyzed(
        &["verify", "--man=no"],
        &laid_out(directory.path(), &misspelt),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("WatchdogSex"), "{said}");
}

#[test]
fn the_unit_leaves_little_exposed() {
    let directory = tempfile::tempdir().unwrap();
    let threshold = format!("--threshold={EXPOSURE}");
    let judge = ["security", "--no-pager", "--offline=true", &threshold];
    let output = analyzed(&judge, &laid_out(directory.path(), &unit()));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let open = rig::replaced(&unit(), "CapabilityBoundingSet=\n", "\n");
    let open = rig::replaced(&open, "DynamicUser=yes\n", "\n");
    assert!(
        !analyzed(&judge, &laid_out(directory.path(), &open))
            .status
            .success()
    );
}

#[test]
fn the_unit_waits_longer_than_the_sidecar_drains_and_is_told_when_it_is_ready() {
    let text = unit();
    let value = |key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {key}"))
    };
    assert_eq!((value("Type"), value("NotifyAccess")), ("notify", "main"));
    let seconds = |text: &str| text.strip_suffix('s').unwrap().parse::<u64>().unwrap();
    let defaults = wx_sidecar::Config::from_toml(&format!(
        "[app]\nappid = \"{}\"\nsecret = \"{SECRET}\"\n[inbound]\nupstream = \"http://127.0.0.1:3000\"\n",
        rig::APPID
    ));
    canary(SECRET);
    let inbound = defaults.unwrap().inbound;
    let drain = inbound.drain_delay + inbound.drain_timeout;
    assert!(seconds(value("TimeoutStopSec")) > drain.as_secs());
    assert!(seconds(value("WatchdogSec")) >= 10);
}

#[test]
fn the_appsecret_is_handed_over_as_the_unit_says() {
    canary(SECRET);
    let text = unit();
    let line = text.lines().find(|line| line.contains("secret_file = "));
    let line = line.unwrap().trim_start_matches(['#', ' ']);
    assert!(text.contains("LoadCredential=secret:/etc/wx-sidecar/%i.secret"));
    let credentials = tempfile::tempdir().unwrap();
    let secret = credentials.path().join("secret");
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let config = write_configuration(&format!(
        "[app]\nappid = \"{}\"\n{line}\n[inbound]\nupstream = \"http://127.0.0.1:3000\"\n",
        rig::APPID
    ));
    let place = (
        "CREDENTIALS_DIRECTORY",
        credentials.path().to_str().unwrap(),
    );
    let (code, _, stderr) = finished_with(&["check", "-c", config.to_str().unwrap()], &[place]);
    assert_eq!(code, 0, "{stderr}");
    assert!(!stderr.contains("warning"), "{stderr}");
}
