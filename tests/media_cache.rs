//! The cache of media: WeChat is asked once, what is kept is whole and its app's, and what fails costs a call and no answer.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use wx_sidecar::clock::Clock;
use wx_sidecar::domain::AppId;
use wx_sidecar::secret::Secret;
use wx_sidecar::sim::{Effect, Fault, Options, SimApp, Simulator};

use crate::fake_app::{Connection, Signal};
use crate::http_client::{Client, Response, chunked};
use crate::http2_client::{End, Http2Client};
use crate::media_download::{at, picture, upload, wechat};
use crate::process::{Run, write_configuration};
use crate::rig::{APPID, Rig, SECRET, START, Session, canary, configuration, start};

const NO_APP: &str = "http://127.0.0.1:9";
const GET: &str = "/cgi-bin/media/get";
const LIFE: Duration = Duration::from_secs(3 * 86_400);
/// Only against a test that would hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// A sidecar, a user, and a directory for media.
struct Stage {
    rig: Rig,
    session: Session,
    directory: TempDir,
}

impl Stage {
    /// With more lines for `[media]`; media are on the disk only if one says so.
    fn new(media: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("media").display().to_string();
        let media = media.replace("DIRECTORY", &place);
        let rig = Rig::with(NO_APP, "", &format!("[media]\n{media}\n"));
        let session = rig.login("alice");
        Self {
            rig,
            session,
            directory,
        }
    }

    fn on_disk() -> Self {
        Self::new("memory_cache_size = \"none\"\ncache_dir = \"DIRECTORY\"")
    }

    fn get(&self, id: &str) -> Response {
        self.rig.get_as(&self.session, &format!("/wx/media/{id}"))
    }

    fn calls(&self) -> u64 {
        self.rig.sim.calls(GET)
    }

    fn place(&self) -> PathBuf {
        self.directory.path().join("media")
    }

    fn files(&self) -> Vec<PathBuf> {
        files(&self.place())
    }

    /// Media that came so, by the metrics.
    fn counted(&self, result: &str) -> f64 {
        let series = "wx_sidecar_media_cache_requests_total";
        self.rig.metric(&format!("{series}{{result=\"{result}\"}}"))
    }

    /// Waits until so many files are whole.
    fn wait_for_files(&self, count: usize) {
        let are_there = || {
            let whole = |path: &&PathBuf| path.extension().is_some_and(|it| it == "media");
            self.files().iter().filter(whole).count() == count
        };
        wait_until("the files are there", are_there);
    }
}

fn files(place: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(place) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "in vain: {what}");
        thread::yield_now();
    }
}

/// The head of an answer with a file.
fn head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n\r\n")
}

fn answer(connection: &mut Connection, content_type: &str, body: &[u8]) {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    );
    connection.write(&[head.as_bytes(), body].concat());
}

#[test]
fn a_thousand_clients_who_want_a_medium_at_once_cause_one_call() {
    for media in [
        "",
        "memory_cache_size = \"none\"\ncache_dir = \"DIRECTORY\"",
    ] {
        let stage = Stage::new(media);
        let picture = picture(20_000);
        let id = upload(&stage.rig, "image", "a.png", &picture);
        let path = format!("/wx/media/{id}");
        let bearer = stage.session.bearer();
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let mut client = Http2Client::connect(stage.rig.sidecar().inbound_addr());
                    let streams: Vec<u32> = (0..50).map(|nth| 2 * nth + 1).collect();
                    for stream in &streams {
                        client.get(*stream, &path, &[("authorization", &bearer)]);
                    }
                    for stream in streams {
                        assert_eq!(client.end_of(stream), End::Answer(200));
                        assert!(client.stream(stream).body == picture);
                    }
                });
            }
        });
        assert_eq!(stage.calls(), 1);
        assert!((stage.counted("miss") - 1.0).abs() < 0.5);
        let results = ["miss", "collapsed", "memory", "disk"];
        let all: f64 = results.map(|result| stage.counted(result)).iter().sum();
        assert!((all - 1000.0).abs() < 0.5, "{all}");
    }
}

#[test]
fn a_medium_is_kept_as_long_as_it_lives_and_then_it_is_gone() {
    let stage = Stage::on_disk();
    let id = upload(&stage.rig, "image", "a.png", &picture(1000));
    assert_eq!(stage.get(&id).status, 200);
    stage.wait_for_files(1);
    stage.rig.advance(LIFE - Duration::from_secs(1));
    let session = stage.rig.login("alice");
    let get = || stage.rig.get_as(&session, &format!("/wx/media/{id}"));
    assert_eq!(get().header("cache-status"), Some("wx-sidecar; hit"));
    assert_eq!(stage.calls(), 1);
    stage.rig.advance(Duration::from_secs(1));
    let gone = get();
    assert_eq!(gone.problem(404, "wechat-refused")["errcode"], 40007);
    // Perhaps with an access_token that was dead, too.
    assert!(stage.calls() > 1);
    assert_eq!(stage.files(), Vec::<PathBuf>::new());
}

#[test]
fn after_a_restart_media_are_served_from_the_disk() {
    let mut stage = Stage::new("cache_dir = \"DIRECTORY\"");
    let (small, large) = (picture(1000), picture(1 << 20));
    let ids = [&small, &large].map(|data| upload(&stage.rig, "image", "a.png", data));
    for id in &ids {
        assert_eq!(stage.get(id).status, 200);
    }
    stage.wait_for_files(2);
    stage.rig.restart();
    for (id, data) in ids.iter().zip([&small, &large]) {
        let answer = stage.get(id);
        assert!(answer.body == *data, "{id}");
        let name = format!("inline; filename=\"{id}.png\"");
        assert_eq!(answer.header("content-disposition"), Some(name.as_str()));
        assert_eq!(answer.header("content-type"), Some("image/png"));
        assert_eq!(answer.header("cache-status"), Some("wx-sidecar; hit"));
    }
    assert_eq!(stage.calls(), 2);
    // A small one is in memory then.
    stage.get(&ids[0]);
    assert!((stage.counted("memory") - 1.0).abs() < 0.5);
}

#[test]
fn a_file_that_was_damaged_is_not_served() {
    type Damage = fn(&Path);
    let cut: Damage = |path| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(5000).unwrap();
    };
    let changed: Damage = |path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[80] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let emptied: Damage = |path| fs::write(path, b"").unwrap();
    let replaced: Damage = |path| fs::write(path, b"<script>").unwrap();
    for (calls, damage) in (2..).zip([cut, changed, emptied, replaced]) {
        let mut stage = Stage::on_disk();
        let picture = picture(10_000);
        let id = upload(&stage.rig, "image", "a.png", &picture);
        stage.get(&id);
        stage.wait_for_files(1);
        damage(&stage.files()[0]);
        stage.rig.restart();
        assert!(stage.get(&id).body == picture, "{calls}");
        assert_eq!(stage.calls(), 2);
        stage.wait_for_files(1);
        assert!(stage.get(&id).body == picture);
        assert_eq!(stage.calls(), 2);
    }
}

#[test]
fn what_was_used_longest_ago_makes_room_on_the_disk() {
    let stage = Stage::new(
        "memory_cache_size = \"none\"\ncache_dir = \"DIRECTORY\"\ncache_size = \"250KiB\"",
    );
    let [a, b, c] = [1, 2, 3].map(|nth| {
        let data = picture(100_000 + nth);
        upload(&stage.rig, "image", "a.png", &data)
    });
    let calls_for = |id: &str| {
        let before = stage.calls();
        assert_eq!(stage.get(id).status, 200);
        stage.calls() - before
    };
    assert_eq!(calls_for(&a), 1);
    stage.wait_for_files(1);
    assert_eq!(calls_for(&b), 1);
    stage.wait_for_files(2);
    assert_eq!(calls_for(&a), 0);
    assert_eq!(calls_for(&c), 1);
    let evicted = "wx_sidecar_media_cache_evictions_total{reason=\"size\",tier=\"disk\"}";
    wait_until("b has made room", || stage.rig.metric(evicted) > 0.5);
    stage.wait_for_files(2);
    assert_eq!(calls_for(&a), 0);
    assert_eq!(calls_for(&c), 0);
    assert_eq!(calls_for(&b), 1);
}

#[test]
fn another_apps_medium_in_the_same_directory_is_not_served() {
    const OTHER: &str = "wxfedcba9876543210";
    canary(SECRET);
    let clock = Clock::manual(START);
    let app = |appid| SimApp::new(AppId::parse(appid).unwrap(), Secret::new(SECRET));
    let sim = Simulator::start(Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        apps: vec![app(APPID), app(OTHER)],
        clock: clock.clone(),
        seed: 7,
        tls: None,
        push: None,
    })
    .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let media = format!(
        "[media]\nmemory_cache_size = \"none\"\ncache_dir = \"{}\"",
        directory.path().display()
    );
    let ours = configuration(&sim.url(), NO_APP, "", &media);
    let theirs = ours.replace(APPID, OTHER);
    let (ours, theirs) = (start(&ours, &clock), start(&theirs, &clock));
    let login = |sidecar: &wx_sidecar::Sidecar, appid: &str| {
        let appid = AppId::parse(appid).unwrap();
        let code = sim.issue_code_for(&appid, "alice").unwrap();
        canary(&code);
        let body = json!({ "code": code }).to_string();
        let answer = Client::connect(sidecar.inbound_addr()).request(
            "POST",
            "/wx/login",
            &[],
            body.as_bytes(),
        );
        Session::of(&answer.json()).bearer()
    };
    let (alice, other_alice) = (login(&ours, APPID), login(&theirs, OTHER));
    let form = "--b\r\nContent-Disposition: form-data; name=\"media\"; filename=\"a.png\"\r\n\
                Content-Type: image/png\r\n\r\n\
                \x21PNG\r\n--b--\r\n";
    let uploaded = Client::connect(ours.outbound_addr().unwrap()).request(
        "POST",
        "/cgi-bin/media/upload?type=image",
        &[("Content-Type", "multipart/form-data; boundary=b")],
        form.as_bytes(),
    );
    let id = uploaded.json()["media_id"].as_str().unwrap().to_owned();
    let get = |sidecar: &wx_sidecar::Sidecar, bearer: &str| {
        let path = format!("/wx/media/{id}");
        let headers = [("Authorization", bearer)];
        Client::connect(sidecar.inbound_addr()).request("GET", &path, &headers, b"")
    };
    assert_eq!(get(&ours, &alice).status, 200);
    wait_until("it is on the disk", || {
        let files = files(directory.path());
        files.iter().any(|path| path.extension().is_some())
    });
    let refusal = get(&theirs, &other_alice);
    assert_eq!(refusal.problem(404, "wechat-refused")["errcode"], 40007);
    drop((ours, theirs));
}

#[test]
fn what_is_killed_in_the_middle_of_a_medium_leaves_nothing() {
    let rig = Rig::new(NO_APP);
    let picture = picture(1 << 20);
    let id = upload(&rig, "image", "a.png", &picture);
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("media");
    let media = format!("[media]\ncache_dir = \"{}\"", place.display());
    let text = configuration(&rig.sim.url(), NO_APP, "", &media);
    let config = write_configuration(&text);
    let login = |inbound: SocketAddr| {
        let body = json!({ "code": rig.code("alice") }).to_string();
        let answer = Client::connect(inbound).request("POST", "/wx/login", &[], body.as_bytes());
        Session::of(&answer.json()).bearer()
    };
    let path = format!("/wx/media/{id}");

    let run = Run::under(&["env"], &config);
    let bearer = login(run.inbound);
    rig.sim.fault(Fault::new(
        GET,
        1,
        Effect::Slow {
            bytes: 100_000,
            interval: Duration::from_millis(400),
        },
    ));
    let mut client = Client::connect(run.inbound);
    client.send(
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\n\r\n").as_bytes(),
    );
    wait_until("a part of it is on the disk", || {
        let length = |path: &PathBuf| fs::metadata(path).map_or(0, |it| it.len());
        files(&place).iter().any(|path| length(path) > 50_000)
    });
    run.process.signal("KILL");
    let rest = client.read_to_close();
    assert!(rest.len() < picture.len());
    drop(run);
    let left = files(&place);
    assert!(
        left.iter().all(|path| path.extension().unwrap() == "part"),
        "{left:?}"
    );
    assert_eq!(left.len(), 1);

    let run = Run::under(&["env"], &config);
    wait_until("what was left is removed", || files(&place).is_empty());
    let bearer = login(run.inbound);
    let get = || {
        let headers = [("Authorization", bearer.as_str())];
        Client::connect(run.inbound).request("GET", &path, &headers, b"")
    };
    assert!(get().body == picture);
    assert_eq!(rig.sim.calls(GET), 2);
    assert!(get().body == picture);
    assert_eq!(rig.sim.calls(GET), 2);
}

#[test]
fn what_breaks_off_is_told_to_all_and_not_kept() {
    let whole = picture(600_000);
    let half = whole[..300_000].to_vec();
    let sent = whole.clone();
    let seen = Signal::default();
    let ours = seen.clone();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let wechat = wechat(move |connection, _| {
        connection.write(head(sent.len()).as_bytes());
        if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0 {
            connection.write(&sent);
            return;
        }
        connection.write(&half);
        ours.wait();
        connection.close();
    });
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("media");
    let media = format!("cache_dir = \"{}\"", place.display());
    let (rig, session) = at(&wechat, "", &media);
    let request = format!(
        "GET /wx/media/cut HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n",
        session.bearer()
    );
    let mut readers: Vec<Client> = (0..3).map(|_| rig.client()).collect();
    for reader in &mut readers {
        reader.send(request.as_bytes());
        reader.read_through(b"\r\n\r\n");
        // It comes while the rest is held back.
        assert!(reader.read_exact(200_000) == whole[..200_000]);
    }
    seen.give();
    for reader in &mut readers {
        assert!(reader.read_to_close().len() < 400_000);
    }
    wait_until("the half is gone", || files(&place).is_empty());
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    let again = rig.get_as(&session, "/wx/media/cut");
    assert!(again.body == whole && !again.truncated);
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[test]
fn a_client_that_leaves_does_not_stop_what_others_may_want() {
    let whole = picture(600_000);
    let (sent, left) = (whole.clone(), Signal::default());
    let ours = left.clone();
    let wechat = wechat(move |connection, _| {
        connection.write(head(sent.len()).as_bytes());
        connection.write(&sent[..300_000]);
        ours.wait();
        connection.write(&sent[300_000..]);
    });
    let (rig, session) = at(&wechat, "", "");
    let directory = tempfile::tempdir().unwrap();
    let media = format!("[media]\ncache_dir = \"{}\"\n", directory.path().display());
    let config = rig.config().replace("[media]\n", &media);
    let config = wx_sidecar::Config::from_toml(&config).unwrap();
    rig.sidecar().reload(config).unwrap();
    let mut client = rig.client();
    client.send(
        format!(
            "GET /wx/media/left HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n",
            session.bearer()
        )
        .as_bytes(),
    );
    client.read_through(b"\r\n\r\n");
    client.read_exact(100_000);
    drop(client);
    left.give();
    wait_until("it is on the disk", || {
        let files = files(directory.path());
        files
            .iter()
            .any(|path| path.extension().unwrap() == "media")
    });
    let answer = rig.get_as(&session, "/wx/media/left");
    assert!(answer.body == whole);
    assert_eq!(answer.header("cache-status"), Some("wx-sidecar; hit"));
    let targets = wechat.targets();
    let is_get = |target: &&String| target.starts_with(GET);
    assert_eq!(targets.iter().filter(is_get).count(), 1);
}

#[test]
fn a_refusal_that_is_called_a_picture_is_a_refusal_and_is_remembered_for_ten_seconds() {
    let stage = Stage::new("");
    let data = picture(1000);
    let id = upload(&stage.rig, "image", "a.png", &data);
    stage.rig.sim.fault(Fault::new(
        GET,
        1,
        Effect::Raw {
            status: 200,
            content_type: Some("image/jpeg".parse().unwrap()),
            body: "{\"errcode\":40007,\"errmsg\":\"invalid media_id\"}".into(),
        },
    ));
    for _ in 0..3 {
        let refusal = stage.get(&id);
        assert_eq!(refusal.problem(404, "wechat-refused")["errcode"], 40007);
        assert_eq!(stage.calls(), 1);
    }
    stage.rig.advance(Duration::from_secs(11));
    assert!(stage.get(&id).body == data);
    assert_eq!(stage.calls(), 2);
}

#[test]
fn what_is_no_medium_is_an_error_whatever_it_is_called() {
    let stage = Stage::new("");
    let data = picture(1000);
    let id = upload(&stage.rig, "image", "a.png", &data);
    let raw = |content_type: &str, body: &'static [u8]| Effect::Raw {
        status: 200,
        content_type: Some(content_type.parse().unwrap()),
        body: body.into(),
    };
    for (effect, status) in [
        (raw("image/jpeg", b"<html><body>busy</body></html>"), 502),
        (raw("text/html", b"\xff\xd8\xff\xe0"), 502),
        (
            raw("image/jpeg", b"{\"errcode\":-1,\"errmsg\":\"busy\"}"),
            503,
        ),
        (raw("image/jpeg", b"{\"errcode\":40007,\"errmsg\":"), 502),
        (raw("image/jpeg", b"{\"errcode\":0,\"errmsg\":\"ok\"}"), 502),
        (Effect::Garbage, 502),
        (Effect::Empty, 502),
        (
            raw("text/plain", b"{\"video_url\":\"http://127.0.0.1:1/a\"}"),
            502,
        ),
        (
            raw("text/plain", b"{\"video_url\":\"http://evil.test/\"}"),
            502,
        ),
    ] {
        // As often as it may be asked.
        stage.rig.sim.fault(Fault::for_ever(GET, effect.clone()));
        let answer = stage.get(&id);
        assert_eq!(answer.status, status, "{effect:?}: {}", answer.text());
        let is_problem = Some("application/problem+json");
        assert_eq!(answer.header("content-type"), is_problem, "{effect:?}");
        stage.rig.sim.clear_faults();
        // What is held back after failures is held back for a moment.
        stage.rig.advance(Duration::from_secs(60));
    }
    wait_until("it is served", || stage.get(&id).body == data);
}

#[test]
fn a_refusal_in_chunks_is_a_refusal() {
    let wechat = wechat(|connection, _| {
        connection.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        connection.write(&chunked(&[b"{\"errcode\":40007,", b"\"errmsg\":\"x\"}"]));
    });
    let (rig, session) = at(&wechat, "", "");
    let refusal = rig.get_as(&session, "/wx/media/none");
    assert_eq!(refusal.problem(404, "wechat-refused")["errcode"], 40007);
}

#[test]
fn a_disk_that_cannot_be_used_costs_a_call_and_no_answer() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let stage = Stage::new(&format!(
        "memory_cache_size = \"none\"\ncache_dir = \"{}/media\"",
        file.path().display()
    ));
    for length in [1000, 1 << 20] {
        let data = picture(length);
        let id = upload(&stage.rig, "image", "a.png", &data);
        let before = stage.calls();
        for calls in 1..=2 {
            assert!(stage.get(&id).body == data);
            assert_eq!(stage.calls() - before, calls);
        }
    }
    let errors = "wx_sidecar_media_cache_errors_total{op=\"write\"}";
    wait_until("it is counted", || stage.rig.metric(errors) > 3.5);
}

#[test]
fn a_disk_that_is_full_costs_a_call_and_no_answer() {
    let rig = Rig::new(NO_APP);
    let pictures = [picture(1000), picture(1 << 20)];
    let ids = pictures
        .each_ref()
        .map(|data| upload(&rig, "image", "a.png", data));
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().display().to_string();
    let media = format!("[media]\nmemory_cache_size = \"none\"\ncache_dir = \"{place}\"");
    let text = configuration(&rig.sim.url(), NO_APP, "", &media);
    let config = write_configuration(&text);
    // Where nobody may mount anything, a directory that is none has to do.
    let mount = format!(
        "mount -t tmpfs -o size=256k tmpfs {place} || {{ rmdir {place}; touch {place}; }}; exec \"$@\""
    );
    let run = Run::under(&["unshare", "-rm", "sh", "-c", &mount, "sh"], &config);
    let body = json!({ "code": rig.code("alice") }).to_string();
    let login = Client::connect(run.inbound).request("POST", "/wx/login", &[], body.as_bytes());
    let bearer = Session::of(&login.json()).bearer();
    for _ in 0..2 {
        for (id, data) in ids.iter().zip(&pictures) {
            let path = format!("/wx/media/{id}");
            let headers = [("Authorization", bearer.as_str())];
            let answer = Client::connect(run.inbound).request("GET", &path, &headers, b"");
            assert!(answer.body == *data && !answer.truncated);
        }
    }
    let calls = rig.sim.calls(GET);
    assert!(
        (3..=4).contains(&calls),
        "the large one is asked for twice: {calls}"
    );
}

/// A film, as far as its beginning tells.
fn film(length: usize) -> Vec<u8> {
    let mut bytes = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom".to_vec();
    bytes.extend((bytes.len()..length).map(|at| (at % 251) as u8));
    bytes
}

#[test]
fn a_film_is_fetched_where_wechat_says_it_is() {
    let stage = Stage::new("");
    let film = film(50_000);
    let id = upload(&stage.rig, "video", "a.mp4", &film);
    for _ in 0..2 {
        let answer = stage.get(&id);
        assert!(answer.body == film);
        assert_eq!(answer.header("content-type"), Some("video/mp4"));
    }
    assert_eq!(stage.calls(), 1);
}

#[test]
fn the_server_of_a_film_learns_nothing_and_leads_us_nowhere() {
    let film = film(50_000);
    let sent = film.clone();
    let places = Arc::new(std::sync::Mutex::new(String::new()));
    let ours = Arc::clone(&places);
    let wechat = wechat(move |connection, target| {
        let redirect = |to: &str| {
            let lines = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n";
            format!("{lines}Location: {to}\r\n\r\n").into_bytes()
        };
        let at = ours.lock().unwrap().clone();
        if let Some((_, id)) = target.split_once("media_id=") {
            let body = json!({ "video_url": format!("{at}/{id}?key=1") }).to_string();
            return answer(connection, "text/plain", body.as_bytes());
        }
        match target.trim_start_matches('/').split('?').next().unwrap() {
            "film" => connection.write(&redirect("/film2?key=2")),
            "film2" => answer(connection, "video/mp4", &sent),
            "loop" => connection.write(&redirect("/loop")),
            "near" => connection.write(&redirect("http://127.0.0.1:1/")),
            "file" => connection.write(&redirect("file:///etc/passwd")),
            "nowhere" => connection.write(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"),
            "page" => answer(connection, "video/mp4", b"<!doctype html>"),
            "json" => answer(connection, "video/mp4", b"{\"errcode\":-1}"),
            "empty" => answer(connection, "video/mp4", b""),
            "again" => {
                let body = json!({ "video_url": format!("{at}/film") }).to_string();
                answer(connection, "video/mp4", body.as_bytes());
            }
            _ => connection.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        }
    });
    *places.lock().unwrap() = wechat.url();
    let (rig, session) = at(&wechat, "", "");
    let get = |id: &str| rig.get_as(&session, &format!("/wx/media/{id}"));
    assert!(get("film").body == film);
    for id in [
        "loop", "near", "file", "nowhere", "page", "json", "empty", "again", "missing",
    ] {
        let refusal = get(id);
        assert_eq!(refusal.status, 502, "{id}: {}", refusal.text());
        refusal.problem(502, "wechat-invalid");
    }
    let loops = |target: &&String| target.starts_with("/loop");
    assert_eq!(wechat.targets().iter().filter(loops).count(), 4);
    for request in wechat.requests(4) {
        let target = request.target();
        let is_api = target.starts_with("/cgi-bin/") || target.starts_with("/sns/");
        assert!(is_api || !target.contains("access_token"), "{target}");
    }
}

#[test]
fn many_large_media_for_clients_that_do_not_read_take_little_memory() {
    const COUNT: usize = 30;
    let whole = picture(10_000_000);
    let sent = whole.clone();
    let wechat = wechat(move |connection, _| {
        connection.write(head(sent.len()).as_bytes());
        connection.write(&sent);
    });
    let directory = tempfile::tempdir().unwrap();
    let media = format!("[media]\ncache_dir = \"{}\"", directory.path().display());
    let text = configuration(&wechat.url(), NO_APP, "", &media);
    let run = Run::under(&["env"], &write_configuration(&text));
    let body = json!({ "code": "0a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p" }).to_string();
    let login = Client::connect(run.inbound).request("POST", "/wx/login", &[], body.as_bytes());
    let bearer = Session::of(&login.json()).bearer();
    let mut clients: Vec<Client> = (0..COUNT)
        .map(|nth| {
            let mut client = Client::connect(run.inbound);
            let line = format!("GET /wx/media/large{nth} HTTP/1.1\r\nHost: x\r\n");
            client.send(format!("{line}Authorization: {bearer}\r\n\r\n").as_bytes());
            client
        })
        .collect();
    wait_until("all are on the disk", || {
        let is_whole = |path: &&PathBuf| path.extension().is_some_and(|it| it == "media");
        files(directory.path()).iter().filter(is_whole).count() == COUNT
    });
    let status = fs::read_to_string(format!("/proc/{}/status", run.process.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = peak.unwrap().trim().trim_end_matches(" kB");
    let kilobytes: u64 = kilobytes.parse().unwrap();
    println!("peak {kilobytes}");
    assert!(kilobytes < 100_000, "{kilobytes} kB");
    for client in &mut clients {
        client.read_through(b"\r\n\r\n");
        assert!(client.read_exact(whole.len()) == whole);
    }
}
