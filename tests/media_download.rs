//! Media as clients get them: whole, in part, not at all, and cut off, over every kind of connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::json;

use crate::fake_app::{FakeApp, Signal};
use crate::http_client::{Client, Response, chunked};
use crate::http2_client::{End, Http2Client};
use crate::media::{
    GET, Gallery, HIT, MIB, NO_APP, Stage, answer, ask, asked, begin_framed, film, is_kept,
    only_disk, picture, upload, wechat,
};
use crate::patience::{dawdle, eventually};
use crate::rig::{APPID, Rig, Session};
use crate::tls::{Authority, write_pair};

const HOUR: Duration = Duration::from_secs(3600);

impl Gallery {
    fn get(&self, headers: &[(&str, &str)]) -> Response {
        self.ask(&mut self.rig.client(), "GET", headers)
    }

    fn ask(&self, client: &mut Client, method: &str, headers: &[(&str, &str)]) -> Response {
        let bearer = self.session.bearer();
        let headers = [&[("Authorization", bearer.as_str())][..], headers].concat();
        client.request(method, &self.path, &headers, b"")
    }
}

#[test]
fn a_medium_comes_as_it_went_and_says_what_it_is() {
    let stage = Gallery::new();
    let answer = stage.get(&[]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body == stage.picture, "the picture was changed");
    let disposition = format!("inline; filename=\"{}.png\"", stage.id);
    for (name, value) in [
        ("content-type", Some("image/png")),
        ("content-length", Some("100000")),
        ("accept-ranges", Some("bytes")),
        ("content-disposition", Some(disposition.as_str())),
        ("x-content-type-options", Some("nosniff")),
        (
            "content-security-policy",
            Some("default-src 'none'; sandbox"),
        ),
        ("cache-control", Some("private, max-age=259200, immutable")),
        ("cache-status", Some("wx-sidecar; fwd=miss; stored")),
        ("age", None),
        ("set-cookie", None),
        ("content-range", None),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let etag = answer.header("etag").unwrap();
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    assert!(answer.header("x-request-id").is_some());

    stage.rig.advance(HOUR);
    let again = stage.get(&[]);
    assert!(again.body == stage.picture);
    assert_eq!(again.header("etag"), Some(etag));
    assert_eq!(again.header("age"), Some("3600"));
    let rule = again.header("cache-control");
    assert_eq!(rule, Some("private, max-age=259200, immutable"));
    assert_eq!(again.header("cache-status"), Some(HIT));
}

/// Header fields of a request.
type Lines<'a> = &'a [(&'a str, &'a str)];
/// What a request gets: status, the bytes, `Content-Range`, `Content-Length`.
type Told<'a> = (u16, &'a [u8], Option<&'a str>, Option<&'a str>);

fn one_connection_carries_all(stage: &Gallery) {
    let whole = &stage.picture[..];
    let first = stage.get(&[]);
    let told = first.header("cache-status");
    assert_eq!(told, Some("wx-sidecar; fwd=miss; stored"));
    let etag = first.header("etag").unwrap().to_owned();
    is_kept(|| stage.get(&[]));
    let weak = format!("W/{etag}");
    let mut client = stage.rig.client();
    let cases: &[(&str, Lines<'_>, Told<'_>)] = &[
        ("GET", &[], (200, whole, None, Some("100000"))),
        (
            "GET",
            &[("Range", "bytes=10-19")],
            (206, &whole[10..20], Some("bytes 10-19/100000"), Some("10")),
        ),
        (
            "GET",
            &[("Range", "bytes=70000-")],
            (
                206,
                &whole[70_000..],
                Some("bytes 70000-99999/100000"),
                Some("30000"),
            ),
        ),
        (
            "GET",
            &[("Range", "bytes=-1")],
            (
                206,
                &whole[99_999..],
                Some("bytes 99999-99999/100000"),
                Some("1"),
            ),
        ),
        ("HEAD", &[], (200, b"", None, Some("100000"))),
        (
            "HEAD",
            &[("Range", "bytes=1-2")],
            (200, b"", None, Some("100000")),
        ),
        ("GET", &[("If-None-Match", &weak)], (304, b"", None, None)),
        ("HEAD", &[("If-None-Match", &etag)], (304, b"", None, None)),
        (
            "GET",
            &[("Range", "bytes=1-2"), ("If-Range", &etag)],
            (206, &whole[1..3], Some("bytes 1-2/100000"), Some("2")),
        ),
        (
            "GET",
            &[("Range", "bytes=1-2"), ("If-Range", &weak)],
            (200, whole, None, Some("100000")),
        ),
        (
            "GET",
            &[("Range", "bytes=1-2,5-6")],
            (200, whole, None, Some("100000")),
        ),
        ("GET", &[], (200, whole, None, Some("100000"))),
    ];
    for (method, headers, (status, body, range, length)) in cases {
        let answer = stage.ask(&mut client, method, headers);
        let case = format!("{method} {headers:?}");
        assert_eq!(answer.status, *status, "{case}");
        assert!(answer.body == *body, "{case}: {} bytes", answer.body.len());
        assert_eq!(answer.header("content-range"), *range, "{case}");
        assert_eq!(answer.header("content-length"), *length, "{case}");
        assert_eq!(answer.header("etag"), Some(&*etag), "{case}");
        assert_eq!(answer.header("cache-status"), Some(HIT), "{case}");
    }
    let refusal = stage.ask(&mut client, "GET", &[("Range", "bytes=100000-")]);
    refusal.problem(416, "range-not-satisfiable");
    assert_eq!(refusal.header("content-range"), Some("bytes */100000"));
    let refusal = stage.ask(&mut client, "GET", &[("If-Match", "\"other\"")]);
    refusal.problem(412, "precondition-failed");
    assert!(stage.ask(&mut client, "GET", &[]).body == whole);
    assert!(client.is_quiet(), "the connection lives on");
    assert_eq!(stage.rig.sim.calls(GET), 1);
}

#[test]
fn parts_conditions_and_refusals_leave_the_connection_as_it_was() {
    one_connection_carries_all(&Gallery::new());
}

#[test]
fn a_medium_on_the_disk_is_sent_as_one_in_memory_is() {
    let directory = tempfile::tempdir().unwrap();
    let media = only_disk(directory.path());
    one_connection_carries_all(&Gallery::with(&format!("[media]\n{media}\n")));
}

#[test]
fn a_token_is_needed_and_a_code_brings_some() {
    let stage = Gallery::new();
    let stranger = stage.rig.request("GET", &stage.path, &[], b"");
    stranger.problem(401, "token-missing");
    let code = stage.rig.code("bob");
    let brought = stage
        .rig
        .request("GET", &stage.path, &[("X-WX-Code", &code)], b"");
    assert!(brought.body == stage.picture);
    assert_eq!(brought.header("cache-control"), Some("no-store"));
    let session = Session::of_headers(&brought, "bob");
    let answer = stage.rig.get_as(&session, &stage.path);
    assert_eq!(answer.status, 200);
}

#[test]
fn what_is_no_medium_is_told_and_not_served() {
    let stage = Gallery::new();
    let get = |path: &str| stage.rig.get_as(&stage.session, path);
    get("/wx/media/a.b").problem(400, "bad-request");
    get(&format!("/wx/media/{}", "a".repeat(257))).problem(400, "bad-request");
    let unknown = get("/wx/media/nothing-by-this-name");
    assert_eq!(unknown.problem(404, "wechat-refused")["errcode"], 40007);
    let other = format!("/wx/media/wx0000000000000000/download/{}", stage.id);
    get(&other).problem(404, "not-found");
    let seed = format!("/wx/media/{APPID}/download/{}", stage.id);
    assert!(get(&seed).body == stage.picture);
}

#[test]
fn without_media_there_are_none() {
    let rig = Rig::with(NO_APP, "", "[media]\nenabled = false\n");
    let session = rig.login("alice");
    for path in ["/wx/media/id", "/wx/media/id/url"] {
        rig.get_as(&session, path).problem(404, "not-found");
    }
}

#[test]
fn the_client_names_the_file_it_saves() {
    let stage = Gallery::new();
    for (name, disposition) in [
        ("a.png", "attachment; filename=\"a.png\""),
        (
            "%E7%8C%AB+1.png",
            "attachment; filename=\"_ 1.png\"; filename*=UTF-8''%E7%8C%AB%201.png",
        ),
        ("..%2F..%2Fetc%2Fpasswd", "attachment; filename=\"passwd\""),
        (
            "a%0D%0ASet-Cookie:%20b.png",
            "attachment; filename=\"aSet-Cookie: b.png\"",
        ),
    ] {
        let path = format!("{}?filename={name}", stage.path);
        let answer = stage.rig.get_as(&stage.session, &path);
        assert_eq!(answer.header("content-disposition"), Some(disposition));
        assert_eq!(answer.header("set-cookie"), None);
    }
    let twice = format!("{}?filename=a&filename=b", stage.path);
    let refusal = stage.rig.get_as(&stage.session, &twice);
    refusal.problem(400, "bad-request");
}

#[test]
fn over_http2_it_is_the_same() {
    let stage = Gallery::new();
    let etag = stage.get(&[]).header("etag").unwrap().to_owned();
    let mut client = Http2Client::connect(stage.rig.sidecar().inbound_addr());
    let bearer = stage.session.bearer();
    let whole = &stage.picture[..];
    let cases: &[(Lines<'_>, u16, &[u8])] = &[
        (&[], 200, whole),
        (&[("range", "bytes=5-70000")], 206, &whole[5..70_001]),
        (&[("if-none-match", &etag)], 304, b""),
    ];
    let mut number = 1;
    for (fields, status, body) in cases {
        let fields = [&[("authorization", bearer.as_str())][..], fields].concat();
        client.get(number, &stage.path, &fields);
        assert_eq!(client.end_of(number), End::Answer(*status));
        assert!(client.stream(number).body == *body, "{fields:?}");
        number += 2;
    }
    let fields = [
        ("authorization", bearer.as_str()),
        ("range", "bytes=100000-"),
    ];
    client.get(number, &stage.path, &fields);
    assert_eq!(client.end_of(number), End::Answer(416));
}

#[test]
fn over_tls_it_is_the_same() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    write_pair(directory.path(), &authority.certify("localhost"));
    let at = directory.path().display();
    let cache = directory.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    let sections = format!(
        "[inbound.tls]\ncert_file = \"{at}/cert.pem\"\nkey_file = \"{at}/key.pem\"\n\
         [media]\n{}\n",
        only_disk(&cache)
    );
    let rig = Rig::with(NO_APP, "", &sections);
    let picture = picture(1_500_000);
    let id = upload(&rig, "image", "a.png", &picture);
    let config = authority.client(rustls::ALL_VERSIONS);
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::clone(&config), name).unwrap();
    let tcp = TcpStream::connect(rig.sidecar().inbound_addr()).unwrap();
    let mut stream = StreamOwned::new(session, tcp);
    let mut ask = |request: String| {
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        (head, body)
    };
    let code = rig.code("alice");
    let login = json!({ "code": code }).to_string();
    let (_, body) = ask(format!(
        "POST /wx/login HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{login}",
        login.len()
    ));
    let session = Session::of(&serde_json::from_slice(&body).unwrap());
    let bearer = session.bearer();
    let mut part = |range: &str, bytes: &[u8]| {
        let (head, body) = ask(format!(
            "GET /wx/media/{id} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nRange: bytes={range}\r\n\r\n"
        ));
        assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
        assert!(body == bytes, "{range}");
        head.contains(&format!("\r\ncache-status: {HIT}\r\n"))
    };
    // First as it comes from WeChat, then from the disk.
    assert!(!part("0-", &picture));
    eventually("it is not kept", || part("0-", &picture));
    assert!(part("1000000-1400000", &picture[1_000_000..=1_400_000]));
    assert_eq!(rig.sim.calls(GET), 1);
}

#[test]
fn what_wechat_cuts_off_does_not_look_like_an_end() {
    let picture = picture(100_000);
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        for version in ["HTTP/1.1", "HTTP/2"] {
            let seen = Signal::default();
            let (half, ours) = (picture[..50_000].to_vec(), seen.clone());
            let wechat = wechat(move |connection, _| {
                begin_framed(connection, "image/png", framing);
                if framing.starts_with('T') {
                    let body = chunked(&[&half]);
                    connection.write(&body[..body.len() - 5]);
                } else {
                    connection.write(&half);
                }
                ours.wait();
                connection.close();
            });
            let stage = Stage::at(&wechat, "");
            let place = stage.rig.address();
            if version == "HTTP/1.1" {
                let mut client = ask(place, &stage.session, "cut");
                let head = client.read_through(b"\r\n\r\n");
                let head = String::from_utf8(head).unwrap().to_lowercase();
                assert!(head.contains(&framing.to_lowercase()), "{head}");
                client.read_through(&picture[49_900..50_000]);
                seen.give();
                let rest = client.read_to_close();
                assert!(
                    !rest.windows(5).any(|five| five == b"0\r\n\r\n"),
                    "{rest:?}"
                );
            } else {
                let mut client = Http2Client::connect(place);
                let bearer = stage.session.bearer();
                client.get(1, "/wx/media/cut", &[("authorization", &bearer)]);
                while client.stream(1).body.len() < 50_000 {
                    assert!(client.next().is_some());
                }
                seen.give();
                assert!(matches!(client.end_of(1), End::Reset(_)), "{framing}");
            }
        }
    }
}

/// A WeChat that has one medium and does not say how long it is.
fn in_chunks(whole: &[u8]) -> FakeApp {
    let sent = whole.to_vec();
    wechat(move |connection, _| {
        begin_framed(connection, "image/png", "Transfer-Encoding: chunked");
        let pieces: Vec<&[u8]> = sent.chunks(70_000).collect();
        connection.write(&chunked(&pieces));
    })
}

#[test]
fn a_medium_of_unknown_length_comes_as_a_whole() {
    let whole = picture(300_000);
    let wechat = in_chunks(&whole);
    let stage = Stage::at(&wechat, "memory_cache_size = \"none\"");
    let bearer = stage.session.bearer();
    let headers = [("Authorization", bearer.as_str()), ("Range", "bytes=5-6")];
    let mut client = stage.rig.client();
    for method in ["GET", "HEAD", "GET"] {
        let answer = client.request(method, "/wx/media/unknown", &headers, b"");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-length"), None);
        if method == "GET" {
            assert!(answer.body == whole && !answer.truncated);
            assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        }
    }
}

#[test]
fn a_medium_of_unknown_length_is_kept_once_all_of_it_has_come() {
    let directory = tempfile::tempdir().unwrap();
    let on_disk = only_disk(directory.path());
    for (media, length) in [("", 200_000), (&on_disk, 200_000), (&on_disk, 700_000)] {
        let whole = picture(length);
        let wechat = in_chunks(&whole);
        let stage = Stage::at(&wechat, media);
        let id = length.to_string();
        assert!(stage.get(&id).body == whole, "{media} {length}");
        stage.is_kept(&id);
        let again = stage.get(&id);
        assert!(again.body == whole, "{media} {length}");
        // Now it is known.
        assert_eq!(again.header("content-length"), Some(&*id));
        let part = stage.get_with(&id, &[("Range", "bytes=150000-150009")]);
        assert_eq!(part.status, 206);
        assert!(part.body == whole[150_000..150_010], "{media} {length}");
        assert_eq!(asked(&wechat, GET), 1, "{media} {length}");
    }
}

/// How long a client may be silent: longer than any is that reads, on a machine that is busy.
const SILENCE: Duration = Duration::from_secs(8);

/// A sidecar, and a WeChat with a medium of which sockets cannot hold all, nor memory keep it.
struct Slow {
    stage: Stage,
    wechat: FakeApp,
    whole: Vec<u8>,
}

impl Slow {
    fn with(media: &str) -> Self {
        let whole = picture(16 * MIB);
        let sent = whole.clone();
        let wechat = wechat(move |connection, _| answer(connection, "image/png", &sent));
        let inbound = format!("idle_timeout = \"{}s\"", SILENCE.as_secs());
        let stage = Stage::at_with(&wechat, &inbound, media);
        Self {
            stage,
            wechat,
            whole,
        }
    }

    /// A client that has the head of an answer, and whether the medium was kept.
    fn begun(&self) -> (Client, bool) {
        let mut client = ask(self.stage.rig.address(), &self.stage.session, "large");
        let head = client.read_through(b"\r\n\r\n");
        let head = String::from_utf8(head).unwrap();
        let is_hit = head.contains(&format!("\r\ncache-status: {HIT}\r\n"));
        (client, is_hit)
    }

    /// Gets all of it, but so slowly that more time goes by than a client may be silent.
    fn is_read_slowly(&self, client: &mut Client) {
        let (began, mut read) = (Instant::now(), Vec::new());
        while read.len() < self.whole.len() {
            let most = (128 * 1024).min(self.whole.len() - read.len());
            read.extend(client.read_exact(most));
            if began.elapsed() < SILENCE + SILENCE / 5 {
                dawdle(SILENCE * 3 / 100);
            }
        }
        assert!(read == self.whole, "the picture was changed");
    }

    /// Waits until the sidecar waits for nobody any more.
    fn is_left(&self, dead: &mut Client) {
        let series = "wx_sidecar_http_requests_in_flight";
        eventually("the sidecar still waits for it", || {
            self.stage.metric(series) == 0.0
        });
        assert!(dead.read_to_close().len() < self.whole.len());
    }
}

#[test]
fn who_reads_slowly_gets_all_and_who_does_not_read_is_left() {
    let slow = Slow::with("memory_cache_size = \"64MiB\"");
    let (mut client, is_hit) = slow.begun();
    assert!(!is_hit);
    slow.is_read_slowly(&mut client);
    let (mut dead, _) = slow.begun();
    slow.is_left(&mut dead);
    assert_eq!(asked(&slow.wechat, GET), 2, "it is not kept");
}

#[test]
fn who_reads_slowly_from_the_disk_gets_all_and_who_does_not_read_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let slow = Slow::with(&only_disk(directory.path()));
    let (mut client, is_hit) = slow.begun();
    assert!(!is_hit);
    slow.is_read_slowly(&mut client);
    slow.stage.is_kept("large");
    let (mut dead, _) = slow.begun();
    let (mut client, is_hit) = slow.begun();
    assert!(is_hit);
    slow.is_read_slowly(&mut client);
    slow.is_left(&mut dead);
    assert_eq!(asked(&slow.wechat, GET), 1, "it is kept");
}

#[test]
fn what_wechat_says_in_chunks_is_heard() {
    let film = film(40);
    let (sent, place) = (film.clone(), Arc::<OnceLock<String>>::default());
    let ours = Arc::clone(&place);
    let wechat = wechat(move |connection, target| {
        begin_framed(connection, "image/jpeg", "Transfer-Encoding: chunked");
        let place = ours.get().map_or("", String::as_str);
        let told = format!("\"{place}/film\"}}");
        let pieces: [&[u8]; 2] = match target {
            "/film" => [&sent[..20], &sent[20..]],
            _ if target.ends_with("media_id=film") => [b"{\"video_url\":", told.as_bytes()],
            _ => [b"{\"errcode\":40007,", b"\"errmsg\":\"invalid media_id\"}"],
        };
        connection.write(&chunked(&pieces));
    });
    place.set(wechat.url()).unwrap();
    let stage = Stage::at(&wechat, "");
    for _ in 0..2 {
        let refusal = stage.get("none");
        assert_eq!(refusal.problem(404, "wechat-refused")["errcode"], 40007);
    }
    assert_eq!(asked(&wechat, "media_id=none"), 1);
    let answer = stage.get("film");
    assert!(answer.body == film, "{}", answer.status);
}

#[test]
fn what_nobody_can_know_to_be_whole_is_not_kept() {
    let whole = picture(1000);
    let sent = whole.clone();
    let wechat = wechat(move |connection, _| {
        // Its end is that of the connection, which may also have broken.
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n");
        connection.write(&sent);
        connection.close();
    });
    let stage = Stage::at(&wechat, "");
    for _ in 0..2 {
        let answer = stage.get("unframed");
        assert!(answer.body == whole, "{}", answer.status);
        assert_eq!(answer.header("cache-status"), Some("wx-sidecar; fwd=miss"));
    }
}
