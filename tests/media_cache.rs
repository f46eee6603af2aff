//! Media that are kept, seen from outside: how often WeChat is asked, what is served while they come, and what is left of
//! that when somebody dies, a disk is full, or WeChat lies.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use serde_json::json;
use wx_sidecar::crypto::hex;
use wx_sidecar::sim::{Effect, Fault};

use crate::fake_app::{FakeApp, Signal};
use crate::http_client::{Client, Response};
use crate::http2_client::{End, Http2Client};
use crate::media::{
    CODE, GET, KIB, MIB, NO_APP, Stage, answer, ask, asked, begin, film, get, is_hit, is_kept,
    only_disk, picture, sections, upload, wechat,
};
use crate::patience::eventually;
use crate::process::{Run, write_configuration};
use crate::rig::{self, Session, keep, metric_at, replaced};

const DAY: Duration = Duration::from_secs(86_400);
const ON_DISK: &str = "wx_sidecar_media_cache_entries{tier=\"disk\"}";
const IN_MEMORY: &str = "wx_sidecar_media_cache_entries{tier=\"memory\"}";

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Waits until there are so many files: what is given up is removed when the disk gets round to it.
fn comes_to(directory: &Path, files: usize) {
    eventually("there are as many files as wanted", || {
        files_in(directory).len() == files
    });
}

/// A WeChat that has this one medium, gives half of it, and the other half once that is let go.
fn in_halves(whole: &[u8], go: &Signal) -> FakeApp {
    let (whole, go) = (whole.to_vec(), go.clone());
    wechat(move |connection, _| {
        begin(connection, "image/png", whole.len());
        let half = whole.len() / 2;
        connection.write(&whole[..half]);
        go.wait();
        connection.write(&whole[half..]);
    })
}

/// A thousand requests for one medium, in twenty connections; all get it.
fn crowd(apart: &Apart, id: &str, whole: &[u8], all_are_there: impl Fn()) {
    const STREAMS: u32 = 50;
    let (path, bearer) = (format!("/wx/media/{id}"), apart.session.bearer());
    let at = apart.run.inbound;
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let mut client = Http2Client::connect(at);
                for number in 0..STREAMS {
                    client.get(2 * number + 1, &path, &[("authorization", &bearer)]);
                }
                for number in 0..STREAMS {
                    let number = 2 * number + 1;
                    assert_eq!(client.end_of(number), End::Answer(200));
                    assert!(client.stream(number).body == whole, "it is not the same");
                }
            });
        }
        all_are_there();
    });
}

#[test]
fn a_thousand_who_come_at_once_cost_one_call_whatever_keeps_it() {
    let directory = tempfile::tempdir().unwrap();
    let whole = picture(20_000);
    let nowhere = "memory_cache_size = \"none\"";
    let on_disk = only_disk(directory.path());
    for (media, workers) in [(nowhere, 2), (nowhere, 4), ("", 4), (&on_disk, 2)] {
        let go = Signal::default();
        let wechat = in_halves(&whole, &go);
        let text = configuration(&wechat, "", media);
        let text = replaced(&text, "workers = 2", &format!("workers = {workers}"));
        let apart = Apart::of(&text, CODE, &[]);
        let found = |result: &str| {
            let series = "wx_sidecar_media_cache_requests_total";
            apart.metric(&format!("{series}{{result=\"{result}\"}}"))
        };
        crowd(&apart, "crowded", &whole, || {
            // Whoever is counted so has joined those who wait for it.
            eventually("not all of them are there", || {
                found("miss") + found("collapsed") == 1000.0
            });
            go.give();
        });
        assert_eq!(asked(&wechat, GET), 1, "{media} {workers}");
        assert_eq!((found("miss"), found("collapsed")), (1.0, 999.0));
        if media == nowhere {
            assert!(!is_hit(&apart.get("crowded")), "{media}");
        } else {
            // Nobody waits for the disk.
            apart.is_kept("crowded");
            assert_eq!(asked(&wechat, GET), 1, "{media} {workers}");
        }
    }
}

#[test]
fn a_film_is_fetched_from_where_wechat_says_it_is_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let stage = Stage::simulated(&only_disk(directory.path()));
    let whole = film(10 * MIB);
    let id = upload(&stage.rig, "video", "a.mp4", &whole);
    let first = stage.get(&id);
    assert!(first.body == whole, "{} bytes", first.body.len());
    assert_eq!(first.header("content-type"), Some("video/mp4"));
    stage.is_kept(&id);
    let part = stage.get_with(&id, &[("Range", "bytes=9000000-9000099")]);
    assert_eq!(part.status, 206);
    assert!(part.body == whole[9_000_000..9_000_100]);
    assert_eq!(stage.calls(), 1);
}

#[test]
fn parts_of_what_is_on_its_way_are_served_and_who_leaves_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for media in [
        only_disk(directory.path()),
        "memory_cache_size = \"none\"".to_owned(),
    ] {
        let whole = film(10 * MIB);
        let (go, place) = (Signal::default(), Arc::<OnceLock<String>>::default());
        let (goes_on, sent, ours) = (go.clone(), whole.clone(), Arc::clone(&place));
        let wechat = wechat(move |connection, target| {
            if target.starts_with(GET) {
                let url = format!("{}/films/1?sign=2", ours.get().unwrap());
                let body = json!({ "video_url": url }).to_string();
                return answer(connection, "text/plain", body.as_bytes());
            }
            begin(connection, "video/mp4", sent.len());
            connection.write(&sent[..5 * MIB]);
            goes_on.wait();
            connection.write(&sent[5 * MIB..]);
        });
        place.set(wechat.url()).unwrap();
        let stage = Stage::at(&wechat, &media);
        for (range, bytes) in [
            ("bytes=0-99", 0..100),
            ("bytes=1000000-3000000", 1_000_000..3_000_001),
            ("bytes=5000000-5242879", 5_000_000..5 * MIB),
        ] {
            let part = stage.get_with("film", &[("Range", range)]);
            assert_eq!(part.status, 206, "{range}");
            assert!(part.body == whole[bytes], "{range}");
        }
        let mut leaves = ask(stage.rig.address(), &stage.session, "film");
        leaves.read_head();
        leaves.read_exact(100_000);
        drop(leaves);
        let mut stays = ask(stage.rig.address(), &stage.session, "film");
        stays.read_head();
        go.give();
        assert!(stays.read_exact(whole.len()) == whole);
        assert_eq!(asked(&wechat, GET), 1);
        assert_eq!(asked(&wechat, "/films/1?sign=2"), 1);
        if media.contains("cache_dir") {
            stage.is_kept("film");
            assert_eq!((asked(&wechat, GET), asked(&wechat, "/films/")), (1, 1));
        }
        for request in wechat.requests(1) {
            if request.target().starts_with("/films/") {
                assert!(!request.head.contains("access_token"), "{}", request.head);
                assert_eq!(request.header("authorization"), None);
            }
        }
    }
}

#[test]
fn what_breaks_off_is_not_kept_and_the_next_gets_all_of_it() {
    let directory = tempfile::tempdir().unwrap();
    for media in [only_disk(directory.path()), String::new()] {
        let whole = picture(700 * KIB);
        let seen = Signal::default();
        let (sent, was_seen) = (whole.clone(), seen.clone());
        let first = AtomicUsize::new(0);
        let wechat = wechat(move |connection, _| {
            if first.fetch_add(1, Ordering::SeqCst) > 0 {
                return answer(connection, "image/png", &sent);
            }
            begin(connection, "image/png", sent.len());
            connection.write(&sent[..sent.len() / 2]);
            was_seen.wait();
            connection.close();
        });
        let stage = Stage::at(&wechat, &media);
        let mut client = ask(stage.rig.address(), &stage.session, "torn");
        let head = client.read_head();
        let length = whole.len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_str()));
        let read = client.read_exact(200 * KIB);
        seen.give();
        let rest = client.read_to_close();
        assert!(read.len() + rest.len() < whole.len());
        assert!(whole.starts_with(&[read, rest].concat()));
        let next = stage.get("torn");
        assert!(next.body == whole && !next.truncated);
        let told = next.header("cache-status").unwrap();
        assert!(told.starts_with("wx-sidecar; fwd=miss"), "{told}");
        assert_eq!(asked(&wechat, GET), 2);
        if media.contains("cache_dir") {
            stage.is_kept("torn");
            eventually("something is left", || {
                unfinished(directory.path()).is_empty()
            });
            comes_to(directory.path(), 1);
        }
    }
}

#[test]
fn a_reset_in_the_middle_never_looks_like_the_end() {
    let stage = Stage::simulated("memory_cache_size = \"none\"");
    let whole = picture(400_000);
    let id = stage.upload(&whole);
    for _ in 0..5 {
        stage
            .rig
            .sim
            .fault(Fault::new(GET, 1, Effect::ResetMidBody));
        let answer = stage.get(&id);
        // The reset may overtake the head, and what has no head yet may be asked for again.
        match answer.status {
            200 => assert!(answer.truncated || answer.body == whole),
            status => assert_eq!(status, 502),
        }
        stage.rig.sim.clear_faults();
        assert!(stage.get(&id).body == whole);
    }
}

fn raw(content_type: Option<&'static str>, body: &str) -> Effect {
    Effect::Raw {
        status: 200,
        content_type: content_type.map(|it| it.parse().unwrap()),
        body: body.to_owned().into(),
    }
}

#[test]
fn what_wechat_does_not_have_is_a_404_whatever_it_is_called_and_is_believed_for_ten_seconds() {
    const GONE: &str = "{\"errcode\":40007,\"errmsg\":\"invalid media_id rid: 1-2-3\"}";
    for kind in [
        None,
        Some("image/jpeg"),
        Some("text/plain"),
        Some("audio/amr"),
    ] {
        let stage = Stage::simulated("");
        let id = stage.upload(&picture(1000));
        stage.rig.sim.fault(Fault::new(GET, 1, raw(kind, GONE)));
        for _ in 0..3 {
            let problem = stage.get(&id).problem(404, "wechat-refused");
            assert_eq!(problem["errcode"], 40007);
            assert_eq!(stage.calls(), 1, "{kind:?}");
            stage.rig.advance(Duration::from_secs(3));
        }
        assert_eq!(stage.metric(IN_MEMORY), 0.0);
        stage.rig.advance(Duration::from_secs(1));
        let answer = stage.get(&id);
        assert!(answer.body == picture(1000), "{}", answer.status);
        assert_eq!(stage.calls(), 2);
    }
}

#[test]
fn what_is_no_medium_is_a_problem_and_not_kept() {
    for (effect, status, slug) in [
        (
            raw(Some("image/jpeg"), "{\"errcode\":-1}"),
            503,
            "wechat-refused",
        ),
        (
            raw(Some("image/jpeg"), "{\"errcode\":45009}"),
            429,
            "wechat-refused",
        ),
        (
            raw(Some("text/html"), "<html>login here</html>"),
            502,
            "wechat-invalid",
        ),
        (
            raw(Some("image/png"), "\n<!DOCTYPE html><html>"),
            502,
            "wechat-invalid",
        ),
        (Effect::Garbage, 502, "wechat-invalid"),
        (
            raw(Some("image/png"), "{\"hello\":1}"),
            502,
            "wechat-invalid",
        ),
        (
            raw(None, "{\"errcode\":0,\"errmsg\":\"ok\"}"),
            502,
            "wechat-invalid",
        ),
        (
            raw(Some("image/png"), "{\"errcode\":"),
            502,
            "wechat-invalid",
        ),
        (raw(None, "{\"video_url\":5}"), 502, "wechat-invalid"),
        (raw(None, "{\"video_url\":\"\"}"), 502, "wechat-invalid"),
        (raw(Some("image/png"), ""), 502, "wechat-invalid"),
        (Effect::Empty, 502, "wechat-invalid"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().display();
        let stage = Stage::simulated(&format!("cache_dir = \"{place}\""));
        let id = stage.upload(&picture(1000));
        stage.rig.sim.fault(Fault::for_ever(GET, effect.clone()));
        let told = stage.get(&id);
        assert_eq!(told.status, status, "{effect:?}");
        told.problem(status, slug);
        assert_eq!(stage.metric(IN_MEMORY) + stage.metric(ON_DISK), 0.0);
        stage.rig.sim.clear_faults();
        if status == 502 {
            let answer = stage.get(&id);
            assert!(answer.body == picture(1000), "{effect:?}");
        }
    }
}

/// Somebody who is not to be connected to.
fn forbidden() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn films_are_nowhere_but_where_they_may_be() {
    let (listener, port) = forbidden();
    let place = Arc::<OnceLock<String>>::default();
    let ours = Arc::clone(&place);
    // Films are told by the media_id, in hexadecimal digits.
    let wechat = wechat(move |connection, target| {
        let url = match target.split_once("media_id=") {
            Some((_, id)) => String::from_utf8(unhex(id)).unwrap(),
            None => {
                let location = String::from_utf8(unhex(&target["/to/".len()..])).unwrap();
                let head = format!(
                    "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
                );
                connection.write(head.as_bytes());
                return;
            }
        };
        let url = url.replace("ENDPOINT", ours.get().unwrap());
        let body = json!({ "video_url": url }).to_string();
        answer(connection, "text/plain", body.as_bytes());
    });
    place.set(wechat.url()).unwrap();
    // Hosts that are named, and lead to this machine.
    let stage = Stage::at(&wechat, "video_hosts = [\"localhost\", \"*.localhost\"]");
    let places = [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://films.localhost:{port}/"),
        format!("http://127.1:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://localhost@127.0.0.1:{port}/"),
        "http://10.0.0.1/".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "file:///etc/passwd".to_owned(),
        format!("//127.0.0.1:{port}/"),
    ];
    for place in &places {
        let redirected = format!("ENDPOINT/to/{}", hex(place.as_bytes()));
        for url in [place, &redirected] {
            // A media_id has 256 characters at the most.
            let problem = stage.get(&hex(url.as_bytes()));
            assert_eq!(problem.status, 502, "{url}: {}", problem.text());
            let told = problem.json()["detail"].as_str().unwrap().to_owned();
            keep("error-bodies.log", &told);
        }
    }
    let accepted = listener.accept().map_err(|error| error.kind());
    assert!(accepted.is_err(), "somebody has connected");
    for request in wechat.requests(1) {
        if request.target().starts_with("/to/") {
            assert!(!request.head.contains("access_token"), "{}", request.head);
        }
    }
    assert_eq!(stage.metric(IN_MEMORY), 0.0);
}

#[test]
fn a_redirect_to_where_films_may_be_is_followed_without_a_token_and_not_for_ever() {
    let whole = film(300 * KIB);
    let (sent, place) = (whole.clone(), Arc::<OnceLock<String>>::default());
    let ours = Arc::clone(&place);
    let wechat = wechat(move |connection, target| {
        let here = ours.get().unwrap();
        if target.starts_with(GET) {
            let first = if target.contains("media_id=far") {
                9
            } else {
                2
            };
            let body = json!({ "video_url": format!("{here}/hops/{first}") }).to_string();
            return answer(connection, "application/json", body.as_bytes());
        }
        let left: u32 = target.rsplit('/').next().unwrap().parse().unwrap();
        match left {
            0 => answer(connection, "video/mp4", &sent),
            _ => {
                let to = format!("/hops/{}", left - 1);
                let head =
                    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
                connection.write(head.as_bytes());
            }
        }
    });
    place.set(wechat.url()).unwrap();
    let stage = Stage::at(&wechat, "");
    assert!(stage.get("near").body == whole);
    let problem = stage.get("far");
    assert_eq!(problem.status, 502, "{}", problem.text());
    let hops = wechat.requests(1);
    let hops: Vec<_> = hops
        .iter()
        .filter(|it| it.target().starts_with("/hops/"))
        .collect();
    assert_eq!(hops.len(), 3 + 4);
    for hop in hops {
        assert!(!hop.head.contains("access_token"), "{}", hop.head);
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let byte = |digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

#[test]
fn three_days_after_it_came_it_is_asked_for_anew_and_its_age_is_told_until_then() {
    let directory = tempfile::tempdir().unwrap();
    for media in [String::new(), only_disk(directory.path())] {
        let mut stage = Stage::simulated(&media);
        let bytes = Effect::Raw {
            status: 200,
            content_type: Some("image/png".parse().unwrap()),
            body: picture(5000).into(),
        };
        stage.rig.sim.fault(Fault::for_ever(GET, bytes));
        let hour = Duration::from_secs(3600);
        let steps = [
            Duration::ZERO,
            hour,
            DAY,
            2 * DAY - hour - Duration::from_secs(1),
        ];
        let mut age = Duration::ZERO;
        for step in steps {
            stage.rig.advance(step);
            age += step;
            // A token does not live as long.
            stage.session = stage.rig.login("alice");
            let answer = stage.get("lasting");
            assert!(answer.body == picture(5000));
            let told = answer.header("age").map_or(0, |age| age.parse().unwrap());
            assert_eq!(told, age.as_secs());
            // It says how long from when it came, of which its age has gone (RFC 9111 §4.2).
            let rule = answer.header("cache-control").unwrap();
            let (_, rule) = rule.split_once("max-age=").unwrap();
            let most: u64 = rule.split(',').next().unwrap().parse().unwrap();
            assert!(most - told <= (3 * DAY - age).as_secs(), "{rule}");
            assert_eq!(stage.calls(), 1);
            stage.is_kept("lasting");
        }
        stage.rig.advance(Duration::from_secs(1));
        let answer = stage.get("lasting");
        assert_eq!((answer.header("age"), stage.calls()), (None, 2));
        assert!(answer.body == picture(5000));
    }
}

/// A sidecar in a process of its own, and a user of it.
struct Apart {
    run: Run,
    session: Session,
}

fn configuration(wechat: &FakeApp, inbound: &str, media: &str) -> String {
    rig::configuration(&wechat.url(), NO_APP, inbound, &sections(wechat, media))
}

impl Apart {
    fn start(wechat: &FakeApp, inbound: &str, media: &str) -> Self {
        Self::of(&configuration(wechat, inbound, media), CODE, &[])
    }

    /// Run by another program, and with this code for a login.
    fn of(text: &str, code: &str, wrapper: &[&str]) -> Self {
        let run = Run::under(wrapper, &write_configuration(text));
        let code = json!({ "code": code }).to_string();
        let login = Client::connect(run.inbound).request("POST", "/wx/login", &[], code.as_bytes());
        let session = Session::of(&login.json());
        Self { run, session }
    }

    fn get(&self, id: &str) -> Response {
        get(self.run.inbound, &self.session, id, &[])
    }

    fn metric(&self, series: &str) -> f64 {
        metric_at(self.run.admin, series)
    }

    fn is_kept(&self, id: &str) {
        is_kept(|| self.get(id));
    }

    /// A hundred who ask for a picture each, and read nothing yet.
    fn a_hundred_clients(&self) -> Vec<Client> {
        let ask = |number| ask(self.run.inbound, &self.session, &format!("number{number}"));
        (0..100).map(ask).collect()
    }

    /// The most memory that it has ever had, in KiB.
    fn peak(&self) -> usize {
        self.run.process.memory("VmHWM")
    }
}

fn unfinished(directory: &Path) -> Vec<PathBuf> {
    let mut files = files_in(directory);
    files.retain(|path| path.extension().is_some_and(|it| it == "unfinished"));
    files
}

#[test]
fn what_a_killed_sidecar_was_taking_in_is_gone_and_what_it_had_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let whole = picture(2 * MIB);
    let (sent, stuck) = (whole.clone(), Signal::default());
    let never = stuck.clone();
    let first = AtomicUsize::new(0);
    let wechat = wechat(move |connection, target| {
        if target.contains("media_id=before") {
            return answer(connection, "image/png", &picture(9000));
        }
        begin(connection, "image/png", sent.len());
        if first.fetch_add(1, Ordering::SeqCst) > 0 {
            connection.write(&sent);
            return;
        }
        connection.write(&sent[..MIB]);
        never.wait();
    });
    let media = only_disk(directory.path());
    let apart = Apart::start(&wechat, "", &media);
    assert!(apart.get("before").body == picture(9000));
    apart.is_kept("before");
    let mut client = ask(apart.run.inbound, &apart.session, "large");
    client.read_head();
    eventually("nothing is written", || {
        let mut written = unfinished(directory.path()).into_iter();
        written.any(|path| fs::metadata(path).is_ok_and(|it| it.len() > 512 * KIB as u64))
    });
    // Dropping it is a kill -9.
    drop(apart);
    stuck.give();
    assert_eq!(unfinished(directory.path()).len(), 1);

    let apart = Apart::start(&wechat, "", &media);
    eventually("the leftover stays", || {
        unfinished(directory.path()).is_empty()
    });
    let before = apart.get("before");
    assert!(is_hit(&before) && before.body == picture(9000));
    let anew = apart.get("large");
    assert!(anew.body == whole && !is_hit(&anew));
    apart.is_kept("large");
    assert_eq!(asked(&wechat, "media_id=before"), 1);
    assert_eq!(asked(&wechat, "media_id=large"), 2);
}

#[test]
fn a_sidecar_that_ends_serves_who_waits_and_leaves_nothing_half_written() {
    let directory = tempfile::tempdir().unwrap();
    let whole = picture(2 * MIB);
    for somebody_waits in [true, false] {
        let go = Signal::default();
        let wechat = in_halves(&whole, &go);
        // Nobody tells a sidecar that a client of HTTP/1.1 has left, as long as there is nothing to send to it.
        let patience = if somebody_waits { "2m" } else { "1s" };
        let inbound = format!("drain_timeout = \"{patience}\"");
        let apart = Apart::start(&wechat, &inbound, &only_disk(directory.path()));
        let mut client = ask(
            apart.run.inbound,
            &apart.session,
            &format!("{somebody_waits}"),
        );
        client.read_head();
        eventually("nothing is written", || {
            !unfinished(directory.path()).is_empty()
        });
        apart.run.process.signal("TERM");
        if somebody_waits {
            apart.run.process.line_with("draining");
            go.give();
            assert!(client.read_exact(whole.len()) == whole);
        }
        drop(client);
        assert_eq!(apart.run.process.end().0, 0);
        assert!(unfinished(directory.path()).is_empty());
    }
}

/// A WeChat with a medium of 10 MiB and many small ones.
fn large_and_small() -> (FakeApp, Vec<u8>) {
    let whole = picture(10 * MIB);
    let sent = whole.clone();
    let wechat = wechat(
        move |connection, target| match target.contains("media_id=large") {
            true => answer(connection, "image/png", &sent),
            false => answer(connection, "image/png", &picture(9000)),
        },
    );
    (wechat, whole)
}

fn a_full_disk_costs_nobody_a_medium(directory: &Path, wrapper: &[&str]) {
    let (wechat, whole) = large_and_small();
    let apart = Apart::of(
        &configuration(&wechat, "", &only_disk(directory)),
        CODE,
        wrapper,
    );
    assert!(apart.get("small").body == picture(9000));
    apart.is_kept("small");
    let errors = "wx_sidecar_media_cache_errors_total{op=\"write\"}";
    for round in 1..=2 {
        let answer = apart.get("large");
        assert_eq!(answer.status, 200);
        assert!(answer.body == whole && !answer.truncated);
        assert_eq!(apart.metric(errors), f64::from(round));
    }
    assert_eq!(apart.metric(ON_DISK), 1.0);
    assert!(is_hit(&apart.get("small")), "what was there still is");
    let mut number = 0;
    eventually("nothing is kept any more", || {
        number += 1;
        let id = format!("small{number}");
        assert!(apart.get(&id).body == picture(9000));
        is_hit(&apart.get(&id))
    });
}

/// A disk of one mebibyte, which needs a mount.
#[test]
fn a_full_disk_costs_memory_and_not_the_medium() {
    const MOUNT: &str = "mount -t tmpfs -o size=1m none \"$0\" && exec \"$@\"";
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().to_str().unwrap();
    let mut refusals = String::new();
    for unshare in [&["unshare", "-m"][..], &["unshare", "-r", "-m"]] {
        let mounted = [unshare, &["sh", "-c", MOUNT, at]].concat();
        let tried = Command::new(mounted[0])
            .args(&mounted[1..])
            .arg("true")
            .output();
        refusals += &match tried {
            Ok(tried) if tried.status.success() => {
                return a_full_disk_costs_nobody_a_medium(directory.path(), &mounted);
            }
            Ok(tried) => String::from_utf8_lossy(&tried.stderr).into_owned(),
            Err(error) => format!("unshare: {error}\n"),
        };
    }
    // A container may have no right to; the next test is then the nearest there is.
    eprintln!("skipped, as no small disk can be mounted:\n{refusals}");
}

/// The nearest to a full disk that needs no mount.
#[test]
fn a_file_that_may_not_grow_costs_memory_and_not_the_medium() {
    // In blocks of 512 bytes; and what is too long is an error and no signal then.
    const LIMIT: &str = "trap '' XFSZ; ulimit -f 2048; exec \"$@\"";
    let directory = tempfile::tempdir().unwrap();
    a_full_disk_costs_nobody_a_medium(directory.path(), &["sh", "-c", LIMIT, "sh"]);
}

/// A place that cannot be a directory until it is removed.
fn no_directory(directory: &Path) -> PathBuf {
    let place = directory.join("no-directory");
    fs::write(&place, "a file").unwrap();
    place
}

#[test]
fn a_directory_that_cannot_be_costs_nothing_but_what_would_be_kept() {
    let (wechat, whole) = large_and_small();
    let directory = tempfile::tempdir().unwrap();
    let place = no_directory(directory.path());
    let stage = Stage::at(&wechat, &only_disk(&place));
    for _ in 0..2 {
        assert!(stage.get("large").body == whole);
        assert!(stage.get("small").body == picture(9000));
    }
    for op in ["open", "write"] {
        let series = format!("wx_sidecar_media_cache_errors_total{{op=\"{op}\"}}");
        eventually("it is not counted", || stage.metric(&series) >= 2.0);
    }
    // Somebody puts it right.
    fs::remove_file(&place).unwrap();
    for id in ["large", "small"] {
        stage.is_kept(id);
    }
}

#[test]
fn two_sidecars_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let stage = Stage::simulated(&only_disk(directory.path()));
    let second = stage.rig.replica();
    let other = second.inbound_addr().to_string().parse().unwrap();
    let at = |sidecar: SocketAddr, id: &str| get(sidecar, &stage.session, id, &[]);
    let mut shared = Vec::new();
    for length in [5000, 600 * KIB] {
        // Whichever of them has it from WeChat, the other finds it.
        for (one, another) in [(stage.rig.address(), other), (other, stage.rig.address())] {
            let whole = picture(length);
            let before = stage.calls();
            let id = stage.upload(&whole);
            let first = at(one, &id);
            assert!(!is_hit(&first) && first.body == whole, "{length}");
            is_kept(|| at(one, &id));
            let found = at(another, &id);
            assert!(is_hit(&found) && found.body == whole, "{length}");
            assert_eq!(stage.calls() - before, 1, "{length}");
            shared.push((id, whole));
        }
    }
    comes_to(directory.path(), shared.len());
    // Somebody else removes the files. Who has them open serves them still; who has not has them anew, for all.
    for path in files_in(directory.path()) {
        fs::remove_file(path).unwrap();
    }
    let newest = stage.rig.replica();
    let third = newest.inbound_addr().to_string().parse().unwrap();
    let before = stage.calls();
    for (id, whole) in &shared {
        for sidecar in [stage.rig.address(), other] {
            let open = at(sidecar, id);
            assert!(is_hit(&open) && open.body == *whole);
        }
        let anew = at(third, id);
        assert!(!is_hit(&anew) && anew.body == *whole);
        is_kept(|| at(third, id));
    }
    assert_eq!(stage.calls() - before, shared.len() as u64);
    comes_to(directory.path(), shared.len());
}

#[test]
fn a_reload_with_less_room_gives_up_the_oldest() {
    let directory = tempfile::tempdir().unwrap();
    let stage = Stage::simulated(&format!(
        "{}\ncache_size = \"1MiB\"",
        only_disk(directory.path())
    ));
    let ids: Vec<_> = (0..3)
        .map(|number| {
            let id = stage.upload(&picture(100_000 + number));
            stage.get(&id);
            stage.is_kept(&id);
            stage.rig.advance(Duration::from_secs(60));
            id
        })
        .collect();
    assert_eq!(stage.metric(ON_DISK), 3.0);
    stage
        .rig
        .reload("cache_size = \"1MiB\"", "cache_size = \"250KiB\"");
    comes_to(directory.path(), 2);
    eventually("it is not counted", || {
        let bytes = stage.metric("wx_sidecar_media_cache_bytes{tier=\"disk\"}");
        bytes == 200_003.0 + 2.0 * 4096.0
    });
    assert_eq!(stage.metric(ON_DISK), 2.0);
    assert!(is_hit(&stage.get(&ids[2])) && is_hit(&stage.get(&ids[1])));
    assert!(!is_hit(&stage.get(&ids[0])));
    assert_eq!(stage.calls(), 4);
    // Now the one in the middle was used last but one.
    stage.is_kept(&ids[0]);
    assert!(is_hit(&stage.get(&ids[1])));
    assert!(!is_hit(&stage.get(&ids[2])));
    let given_up = "wx_sidecar_media_cache_evictions_total{reason=\"size\",tier=\"disk\"}";
    assert!(stage.metric(given_up) >= 2.0);
}

#[test]
fn a_reload_that_changes_something_else_forgets_nothing() {
    let stage = Stage::simulated("url_ttl = \"1h\"\nmemory_cache_size = \"1MiB\"");
    let id = stage.upload(&picture(5000));
    stage.get(&id);
    stage.is_kept(&id);
    stage.rig.reload("url_ttl = \"1h\"", "url_ttl = \"2h\"");
    assert!(is_hit(&stage.get(&id)));
    assert_eq!(stage.metric(IN_MEMORY), 1.0);
    stage.rig.reload(
        "url_ttl = \"1h\"\nmemory_cache_size = \"1MiB\"",
        "memory_cache_size = \"none\"",
    );
    assert_eq!(stage.metric(IN_MEMORY), 0.0);
    for _ in 0..10 {
        let answer = stage.get(&id);
        assert_eq!(answer.header("cache-status"), Some("wx-sidecar; fwd=miss"));
        assert!(answer.body == picture(5000));
    }
    assert_eq!(stage.calls(), 11);
}

#[test]
fn what_is_on_its_way_during_a_reload_is_served_and_kept_as_is_wanted_then() {
    let directory = tempfile::tempdir().unwrap();
    let (go, whole) = (Signal::default(), picture(100_000));
    let wechat = in_halves(&whole, &go);
    let stage = Stage::at(&wechat, "memory_cache_size = \"none\"");
    let mut client = ask(stage.rig.address(), &stage.session, "coming");
    client.read_head();
    stage
        .rig
        .reload("memory_cache_size = \"none\"", &only_disk(directory.path()));
    go.give();
    assert!(client.read_exact(whole.len()) == whole);
    stage.is_kept("coming");
    comes_to(directory.path(), 1);
    assert_eq!(asked(&wechat, GET), 1);
}

/// A picture of 2 MiB that is like no other.
fn numbered(number: usize) -> Vec<u8> {
    let mut bytes = picture(2 * MIB);
    bytes[MIB..MIB + 8].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// A WeChat with many pictures of 2 MiB, of which it gives so much before it was asked for all of them.
fn a_hundred(first: usize) -> FakeApp {
    let (all, asked) = (Signal::default(), AtomicUsize::new(0));
    wechat(move |connection, target| {
        let (_, number) = target.rsplit_once("media_id=number").unwrap();
        let number = number.parse().unwrap();
        let bytes = numbered(number);
        begin(connection, "image/png", bytes.len());
        connection.write(&bytes[..first]);
        if number < 100 && asked.fetch_add(1, Ordering::SeqCst) + 1 == 100 {
            all.give();
        }
        if number < 100 {
            all.wait();
        }
        connection.write(&bytes[first..]);
    })
}

#[test]
fn a_hundred_large_ones_for_slow_clients_take_little_memory() {
    let directory = tempfile::tempdir().unwrap();
    let wechat = a_hundred(MIB);
    let apart = Apart::start(&wechat, "", &only_disk(directory.path()));
    assert!(apart.get("number100").body == numbered(100));
    let before = apart.peak();
    let mut clients = apart.a_hundred_clients();
    eventually("not all are kept", || apart.metric(ON_DISK) == 101.0);
    let grown = apart.peak() - before;
    for (number, client) in clients.iter_mut().enumerate() {
        let answer = client.read_response(false);
        assert!(
            answer.body == numbered(number),
            "{number}: {}",
            answer.status
        );
    }
    keep(
        "media-cache.log",
        &format!("a hundred fills took {grown} KiB more"),
    );
    assert!(grown < 80 * KIB, "{grown} KiB more");
}

#[test]
fn without_a_disk_a_hundred_large_ones_take_no_more_memory_than_there_is_for_bodies() {
    let directory = tempfile::tempdir().unwrap();
    let place = no_directory(directory.path());
    let wechat = a_hundred(400 * KIB);
    let apart = Apart::start(&wechat, "buffer_limit = \"16MiB\"", &only_disk(&place));
    assert!(apart.get("number100").body == numbered(100));
    let before = apart.peak();
    let mut clients = apart.a_hundred_clients();
    let (mut whole, mut refused, mut cut) = (0, 0, 0);
    for (number, client) in clients.iter_mut().enumerate() {
        let answer = client.read_response(false);
        match (answer.status, answer.truncated) {
            (200, false) => {
                assert!(answer.body == numbered(number));
                whole += 1;
            }
            (200, true) => cut += 1,
            _ => {
                answer.problem(503, "overloaded");
                refused += 1;
            }
        }
    }
    let grown = apart.peak() - before;
    let told = format!("{whole} whole, {cut} cut, {refused} refused, {grown} KiB more");
    keep("media-cache.log", &told);
    assert!(whole > 0 && cut + refused > 0, "{told}");
    assert!(grown < 80 * KIB, "{told}");
    // The room is there again, once all of them have been seen to.
    eventually("there is no room", || {
        let answer = apart.get("number101");
        answer.status == 200 && answer.body == numbered(101)
    });
}
