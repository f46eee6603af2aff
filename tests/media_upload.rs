//! Files on their way to WeChat: what a Mini Program, a browser or curl sends arrives at the simulator byte for byte, and
//! whatever else is sent leaves nothing there.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Value, json};
use wx_sidecar::sim::{Effect, Fault};

use crate::backends::{App, Kind};
use crate::fake_app::{FakeApp, Signal};
use crate::http_client::{Client, Response, chunked};
use crate::http2_client::{ACK, End, Http2Client, INITIAL_WINDOW_SIZE, SETTINGS, WINDOW_UPDATE};
use crate::media::{self, MIB, NO_APP, UPLOAD, errcode};
use crate::patience::{eventually, more_than_sockets_hold};
use crate::rig::{APPID, Rig, Session};

/// As Chrome makes them.
const BOUNDARY: &str = "----WebKitFormBoundary7MA4YWxkTrZu0gW";
const FORM: &str = "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW";

const JPEG: &[u8] = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR";
const GIF: &[u8] = b"GIF89a\x01\x00\x01\x00";
const BMP: &[u8] = b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0";
const AMR: &[u8] = b"#!AMR\n\x3c";
const MP3: &[u8] = b"ID3\x03\0\0\0\0\0\0";
const MP4: &[u8] = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\0\x08";

/// A file that begins like one of its format, and goes on with bytes of which none is missed unseen.
fn file(start: &[u8], length: usize) -> Vec<u8> {
    let mut file = start.to_vec();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while file.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.extend_from_slice(&state.to_le_bytes());
    }
    file.truncate(length.max(start.len()));
    file
}

/// A form of parts: what follows `form-data; ` in their heads, and their content.
fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    media::form(BOUNDARY, parts)
}

fn named(filename: &str) -> String {
    format!("name=\"file\"; filename=\"{filename}\"\r\nContent-Type: application/octet-stream")
}

struct Desk {
    rig: Rig,
    ann: Session,
}

impl Desk {
    fn new() -> Self {
        Self::with("", "")
    }

    fn with(inbound: &str, sections: &str) -> Self {
        Self::before(NO_APP, inbound, sections)
    }

    fn before(upstream: &str, inbound: &str, sections: &str) -> Self {
        let rig = Rig::with(upstream, inbound, sections);
        let ann = rig.login("ann");
        Self { rig, ann }
    }

    fn post_to(&self, target: &str, body: &[u8]) -> Response {
        let bearer = self.ann.bearer();
        let headers = [("Authorization", &*bearer), ("Content-Type", FORM)];
        self.rig.request("POST", target, &headers, body)
    }

    fn post(&self, body: &[u8]) -> Response {
        self.post_to("/wx/media", body)
    }

    /// Uploads one file, and says what was told of it.
    #[track_caller]
    fn upload(&self, filename: &str, content: &[u8]) -> Value {
        let answer = self.post(&form(&[(&named(filename), content)]));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        answer.json()
    }

    /// How many uploads WeChat has seen.
    fn calls(&self) -> u64 {
        self.rig.sim.calls(UPLOAD)
    }

    /// A medium as WeChat has it, got as the app would get it.
    fn at_wechat(&self, id: &str) -> Vec<u8> {
        let target = format!("/cgi-bin/media/get?media_id={id}");
        let answer = self.rig.call("GET", &target, &[], b"");
        assert_eq!(
            answer.status,
            200,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
        if !answer.body.starts_with(b"{") {
            return answer.body;
        }
        let url = answer.json()["video_url"].as_str().unwrap().to_owned();
        let (_, path) = url.rsplit_once("/_sim").unwrap();
        let path = format!("/_sim{path}");
        let mut client = Client::connect(self.rig.sim.addr());
        client.request("GET", &path, &[], b"").body
    }

    /// The names by which files have come to WeChat.
    fn names(&self) -> Vec<String> {
        let calls = self.rig.sim.received(UPLOAD);
        let name = |body: &[u8]| {
            let head = String::from_utf8_lossy(&body[..body.len().min(1000)]).into_owned();
            let line = head.lines().nth(1).expect("a form has a part").to_owned();
            let (_, name) = line.split_once("; filename=\"").expect("with a filename");
            name.strip_suffix('"').expect("and nothing else").to_owned()
        };
        calls.iter().map(|call| name(&call.body)).collect()
    }
}

fn id(told: &Value) -> &str {
    told["media_id"].as_str().expect("a media_id")
}

#[test]
fn each_kind_of_file_reaches_wechat_as_it_is_and_is_told_by_its_media_id() {
    let desk = Desk::new();
    for (start, kind, end) in [
        (JPEG, "image", "jpg"),
        (PNG, "image", "png"),
        (GIF, "image", "gif"),
        (BMP, "image", "bmp"),
        (AMR, "voice", "amr"),
        (MP3, "voice", "mp3"),
        (MP4, "video", "mp4"),
    ] {
        for length in [70, 65_535, 65_536, 300_007] {
            let content = file(start, length);
            let mut told = desk.upload("what it is called", &content);
            let url = told.as_object_mut().and_then(|told| told.remove("url"));
            let url = url.expect("where it is had without a token").to_string();
            assert!(url.contains(id(&told)), "{url}");
            let expected = json!({
                "type": kind,
                "media_id": id(&told),
                "created_at": 1_800_000_000,
                "expires_at": 1_800_000_000 + 3 * 86_400,
                "filename": format!("what it is called.{end}"),
            });
            assert_eq!(told, expected);
            assert!(desk.at_wechat(id(&told)) == content, "{kind} {length}");
        }
    }
    let calls = desk.rig.sim.received(UPLOAD);
    assert!(
        calls
            .iter()
            .all(|call| call.headers.contains_key("content-length"))
    );
    assert!(
        calls
            .iter()
            .all(|call| !call.headers.contains_key("transfer-encoding"))
    );
}

#[test]
fn a_file_of_a_few_bytes_is_a_file() {
    let desk = Desk::new();
    let told = desk.upload("a.jpg", b"\xff\xd8\xff");
    assert_eq!(desk.at_wechat(id(&told)), b"\xff\xd8\xff");
    for (content, status, slug) in [
        (&b""[..], 400, "bad-request"),
        (b"\xff\xd8", 415, "unsupported-media-type"),
    ] {
        let answer = desk.post(&form(&[(&named("a.jpg"), content)]));
        answer.problem(status, slug);
    }
    assert_eq!(desk.calls(), 1);
}

#[test]
fn a_file_may_be_as_large_as_its_kind_may_and_not_a_byte_larger() {
    let desk = Desk::new();
    for (kind, start, limit) in [
        ("image", JPEG, 2 * MIB),
        ("voice", MP3, 2 * MIB),
        ("video", MP4, 10 * MIB),
        ("thumb", JPEG, 65_536),
    ] {
        let target = format!("/wx/media?type={kind}");
        let content = file(start, limit);
        let answer = desk.post_to(&target, &form(&[(&named("a"), &content)]));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told = answer.json();
        assert_eq!(told["type"], kind);
        assert!(desk.at_wechat(id(&told)) == content);

        let before = desk.calls();
        let content = file(start, limit + 1);
        let answer = desk.post_to(&target, &form(&[(&named("a"), &content)]));
        let problem = answer.problem(413, "body-too-large");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains(kind) && detail.contains(&limit.to_string()),
            "{detail}"
        );
        assert_eq!(desk.calls(), before);
    }
}

#[test]
fn limits_are_the_configurations() {
    let desk = Desk::with("", "[media.max_size]\nimage = \"100B\"\n");
    desk.upload("a.png", &file(PNG, 100));
    let answer = desk.post(&form(&[(&named("a.png"), &file(PNG, 101))]));
    answer.problem(413, "body-too-large");
    desk.upload("a.mp3", &file(MP3, 101));
}

#[test]
fn what_cannot_be_good_is_refused_before_any_of_it_has_come() {
    let desk = Desk::new();
    let bearer = desk.ann.bearer();
    for (target, length) in [("/wx/media", 300 * MIB), ("/wx/media?type=thumb", 4 * MIB)] {
        let length = length.to_string();
        let headers = [
            ("Authorization", &*bearer),
            ("Content-Type", FORM),
            ("Content-Length", &*length),
            ("Expect", "100-continue"),
        ];
        let answer = desk.rig.request("POST", target, &headers, b"");
        answer.problem(413, "body-too-large");
        assert!(answer.interim.is_empty(), "nobody asked for the body");
        assert_eq!(answer.header("connection"), Some("close"));
    }
}

#[test]
fn a_client_that_waits_is_told_to_go_on() {
    let desk = Desk::new();
    let body = form(&[(&named("a.png"), PNG)]);
    let head = format!(
        "POST /wx/media HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Type: {FORM}\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        desk.ann.bearer(),
        body.len()
    );
    let mut client = desk.rig.client();
    client.send(head.as_bytes());
    assert!(
        client
            .read_through(b"\r\n\r\n")
            .starts_with(b"HTTP/1.1 100 ")
    );
    client.send(&body);
    let answer = client.read_response(false);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_body_without_an_end_is_cut_off_where_it_becomes_too_large() {
    let desk = Desk::new();
    let head = format!(
        "POST /wx/media HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n",
        desk.ann.bearer()
    );
    let start = form(&[(&named("a.jpg"), JPEG)]);
    let start = &start[..start.len() - BOUNDARY.len() - 8];
    let text = form(&[("name=\"text\"", b"a")]);
    let text = &text[..text.len() - BOUNDARY.len() - 8];
    for (start, most) in [(start, 3 * MIB), (text, 2 * MIB), (b"preamble", 2 * MIB)] {
        let mut client = desk.rig.client();
        client.send(head.as_bytes());
        let mut sent = 0;
        let mut piece = format!("{:x}\r\n", start.len()).into_bytes();
        piece.extend_from_slice(start);
        piece.extend_from_slice(b"\r\n");
        // What the sidecar has not read, the system may have taken.
        let most = most + more_than_sockets_hold();
        while client.try_send(&piece).is_ok() {
            sent += piece.len();
            assert!(sent < most, "it is not read for ever");
            piece = [b"10000\r\n", &[b'x'; 65_536][..], b"\r\n"].concat();
        }
    }
    assert_eq!(desk.calls(), 0);
    let piece = file(JPEG, 2 * MIB + 1);
    let body = chunked(&[&form(&[(&named("a.jpg"), &piece)])]);
    let bearer = desk.ann.bearer();
    let headers = [
        ("Authorization", &*bearer),
        ("Content-Type", FORM),
        ("Transfer-Encoding", "chunked"),
    ];
    let answer = desk.rig.request("POST", "/wx/media", &headers, &body);
    answer.problem(413, "body-too-large");
    let body = chunked(&[&form(&[(&named("a.jpg"), &piece[..2 * MIB])])]);
    let answer = desk.rig.request("POST", "/wx/media", &headers, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_client_that_vanishes_at_any_byte_leaves_nothing_anywhere() {
    let spool = tempfile::tempdir().unwrap();
    let directory = spool.path().display();
    let desk = Desk::with("", &format!("[media]\ncache_dir = \"{directory}\"\n"));
    let left = || {
        let entries = std::fs::read_dir(spool.path()).unwrap();
        entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().is_file())
            .count()
    };
    let small = form(&[("name=\"a\"", b"1"), (&named("a.png"), PNG)]);
    let large = form(&[
        (&named("a.png"), &file(PNG, 200_000)),
        (&named("b.png"), PNG),
    ]);
    let small_cuts: Vec<usize> = (0..small.len() - 2).step_by(7).collect();
    let end = large.len();
    let large_cuts = [
        1,
        500,
        65_536,
        131_072,
        199_999,
        end - 200,
        end - BOUNDARY.len() - 5,
        end - 3,
    ];
    for (body, cuts) in [(&small, &small_cuts[..]), (&large, &large_cuts[..])] {
        for cut in cuts {
            for (framing, announced) in [("Content-Length", body.len()), ("Transfer-Encoding", 0)] {
                let mut client = desk.rig.client();
                let framing = match announced {
                    0 => format!("{framing}: chunked"),
                    length => format!("{framing}: {length}"),
                };
                let head = format!(
                    "POST /wx/media HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Type: {FORM}\r\n{framing}\r\n\r\n",
                    desk.ann.bearer()
                );
                client.send(head.as_bytes());
                let sent = &body[..*cut];
                match announced {
                    0 => client.send(&[format!("{:x}\r\n", body.len()).as_bytes(), sent].concat()),
                    _ => client.send(sent),
                }
                client.finish_sending();
                let answer = client.read_response(false);
                answer.problem(400, "bad-request");
            }
            // As long as it says, and no whole form.
            let answer = desk.post(&body[..*cut]);
            answer.problem(400, "bad-request");
        }
    }
    assert_eq!(desk.calls(), 0);
    assert_eq!(left(), 0);
    let told = desk.post(&large);
    assert_eq!(told.status, 200, "{}", told.text());
    assert_eq!(left(), 0);
}

#[test]
fn a_name_reaches_wechat_in_any_language_and_harmless() {
    let desk = Desk::new();
    let long = format!("{}.jpeg", "长".repeat(84));
    let endless = "n".repeat(4096);
    let cases = [
        ("猫.jpg", "猫.jpg"),
        ("微信图片_2024 (1).PNG", "微信图片_2024 (1).jpg"),
        ("🐱🐱.jpeg", "🐱🐱.jpg"),
        ("say \\\"hi\\\".jpg", "say _hi_.jpg"),
        ("a;b=c; filename=d.php", "a_b=c_ filename=d.jpg"),
        ("a%22; filename=%22b.php", "a__ filename=_b.jpg"),
        ("a%0D%0AX-Evil: 1%0D%0A.jpg", "aX-Evil_ 1.jpg"),
        ("../../../etc/passwd", "passwd.jpg"),
        ("C:\\fakepath\\photo.jpg", "photo.jpg"),
        ("..", "media.jpg"),
        ("", "media.jpg"),
        ("photo\u{202e}gpj.exe", "photogpj.jpg"),
        (&long, &format!("{}.jpg", "长".repeat(83))),
        (&endless, &format!("{}.jpg", &endless[..251])),
        ("index.html", "index.jpg"),
    ];
    for (number, (given, name)) in cases.iter().enumerate() {
        let told = desk.upload(given, JPEG);
        let names = desk.names();
        assert_eq!(names.len(), number + 1);
        assert_eq!(names[number], *name);
        assert_eq!(told["filename"], *name);
    }
    let extended = "name=\"file\"; filename=\"x.jpg\"; filename*=UTF-8''%e7%8c%ab.jpg";
    assert_eq!(desk.post(&form(&[(extended, JPEG)])).status, 200);
    assert_eq!(desk.names().last().unwrap(), "猫.jpg");
    let mut gbk = form(&[(&named("GBK.jpg"), JPEG)]);
    let at = gbk.windows(3).position(|bytes| bytes == b"GBK").unwrap();
    gbk.splice(at..at + 3, *b"\xc3\xa8\xd5\xd5\xff");
    assert_eq!(desk.post(&gbk).status, 200);
    assert!(desk.names().last().unwrap().starts_with("è"));
}

#[test]
fn what_a_file_is_is_seen_and_not_believed() {
    let desk = Desk::new();
    let webp = b"RIFF\x10\0\0\0WEBPVP8 ";
    for (content, what) in [
        (&b"<!DOCTYPE html><script>alert(1)</script>"[..], "HTML"),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
            "SVG",
        ),
        (webp, "WebP"),
        (b"PK\x03\x04\x14\0\0\0", "ZIP"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"#!/bin/sh\nrm -rf /\n", "script"),
        (b"\0\0\0\0", "nothing that WeChat takes"),
    ] {
        for content in [content.to_vec(), file(content, 100_000)] {
            let disposition = "name=\"file\"; filename=\"a.jpg\"\r\nContent-Type: image/jpeg";
            let answer = desk.post(&form(&[(disposition, &content)]));
            let problem = answer.problem(415, "unsupported-media-type");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(what), "{detail}");
            assert!(problem["hint"].is_string(), "{problem}");
        }
    }
    assert_eq!(desk.calls(), 0);
}

#[test]
fn a_kind_can_be_asked_for_in_the_query_or_in_the_form() {
    let desk = Desk::new();
    let picture = named("a.jpg");
    let picture: (&str, &[u8]) = (&picture, JPEG);
    let thumb: (&str, &[u8]) = ("name=\"type\"", b"thumb");
    let video: (&str, &[u8]) = ("name=\"type\"", b"video");
    for (target, parts) in [
        ("/wx/media?type=thumb", &[picture][..]),
        ("/wx/media?a=b&type=thumb", &[thumb, picture]),
        ("/wx/media", &[thumb, picture]),
        ("/wx/media", &[picture, thumb]),
    ] {
        let answer = desk.post_to(target, &form(parts));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["type"], "thumb");
    }
    assert_eq!(
        desk.post_to("/wx/media?type=image", &form(&[picture]))
            .json()["type"],
        "image"
    );
    let calls = desk.calls();
    let png = named("a.jpg");
    let png: (&str, &[u8]) = (&png, PNG);
    for (target, parts, status, slug) in [
        (
            "/wx/media?type=video",
            &[picture][..],
            415,
            "unsupported-media-type",
        ),
        (
            "/wx/media?type=thumb",
            &[png],
            415,
            "unsupported-media-type",
        ),
        ("/wx/media", &[png, thumb], 415, "unsupported-media-type"),
        (
            "/wx/media",
            &[video, picture],
            415,
            "unsupported-media-type",
        ),
        (
            "/wx/media",
            &[picture, video],
            415,
            "unsupported-media-type",
        ),
        ("/wx/media?type=file", &[picture], 400, "bad-request"),
        (
            "/wx/media?type=image&type=image",
            &[picture],
            400,
            "bad-request",
        ),
        (
            "/wx/media?type=image",
            &[thumb, picture],
            400,
            "bad-request",
        ),
        ("/wx/media", &[thumb, video, picture], 400, "bad-request"),
        (
            "/wx/media",
            &[("name=\"type\"", b"thumbs"), picture],
            400,
            "bad-request",
        ),
    ] {
        desk.post_to(target, &form(parts)).problem(status, slug);
    }
    // A thumb that is said to be one behind its end.
    let large = file(JPEG, 65_537);
    let answer = desk.post(&form(&[(picture.0, &large), thumb]));
    answer.problem(413, "body-too-large");
    assert_eq!(desk.calls(), calls);
}

#[test]
fn the_files_of_a_form_are_told_in_their_order() {
    let desk = Desk::new();
    let files: Vec<Vec<u8>> = (0..20).map(|n| file(PNG, 30_000 + 7_000 * n)).collect();
    let heads: Vec<String> = (0..20)
        .map(|n| format!("name=\"photos[{n}]\"; filename=\"{n}.png\""))
        .collect();
    let mut parts: Vec<(&str, &[u8])> = Vec::new();
    for (head, file) in heads.iter().zip(&files) {
        parts.push(("name=\"note\"", b"between"));
        parts.push((head, file));
    }
    // The first is answered last.
    let late = std::time::Duration::from_millis(50);
    desk.rig.sim.fault(Fault::delay(UPLOAD, 1, late));
    let answer = desk.post(&form(&parts));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    let media = told["media"].as_array().unwrap();
    assert_eq!(media.len(), 20);
    for (number, (medium, file)) in media.iter().zip(&files).enumerate() {
        assert_eq!(medium["field"], format!("photos[{number}]"));
        assert_eq!(medium["filename"], format!("{number}.png"));
        assert!(desk.at_wechat(id(medium)) == *file, "{number}");
    }

    let calls = desk.calls();
    parts.push(("name=\"more\"; filename=\"21.png\"", PNG));
    desk.post(&form(&parts)).problem(400, "bad-request");
    parts.truncate(38);
    parts.push(("name=\"last\"; filename=\"20.png\"", b"<html>"));
    let problem = desk
        .post(&form(&parts))
        .problem(415, "unsupported-media-type");
    assert!(
        problem["detail"].as_str().unwrap().contains("file 20 "),
        "{problem}"
    );
    assert_eq!(desk.calls(), calls, "none went before all were looked at");
}

#[test]
fn a_dead_access_token_costs_an_upload_nothing() {
    for length in [100, 1_500_000] {
        let desk = Desk::new();
        desk.rig.sim.fault(Fault::new(UPLOAD, 1, errcode(40001)));
        let content = file(PNG, length);
        let told = desk.upload("a.png", &content);
        assert_eq!(desk.calls(), 2);
        assert!(desk.at_wechat(id(&told)) == content);
        let calls = desk.rig.sim.received(UPLOAD);
        let [.., first, second] = &calls[..] else {
            panic!("there are two");
        };
        assert!(first.body == second.body && first.query != second.query);
    }
}

#[test]
fn what_wechat_says_is_told_and_what_makes_no_sense_is_a_502() {
    let desk = Desk::new();
    let body = form(&[(&named("a.png"), PNG)]);
    desk.rig.sim.fault(Fault::new(UPLOAD, 1, errcode(45001)));
    let answer = desk.post(&body);
    assert_eq!(answer.json()["errcode"], 45001, "{}", answer.text());
    let raw = |body: &'static str| Effect::Status {
        status: 200,
        body: Some(body.to_owned()),
    };
    for effect in [
        Effect::Garbage,
        Effect::Empty,
        raw("{}"),
        raw("{\"media_id\":\"a/../b\",\"created_at\":1}"),
        raw("{\"media_id\":\"ab\",\"created_at\":\"soon\"}"),
    ] {
        desk.rig.sim.fault(Fault::new(UPLOAD, 1, effect));
        desk.post(&body).problem(502, "wechat-invalid");
    }
    desk.rig.sim.fault(Fault::new(UPLOAD, 1, Effect::Reset));
    desk.post(&body).problem(502, "wechat-unreachable");
    desk.rig.sim.fault(Fault::new(
        UPLOAD,
        1,
        raw("{\"thumb_media_id\":\"T-1\",\"created_at\":\"1800000001\"}"),
    ));
    let answer = desk.post_to("/wx/media?type=thumb", &form(&[(&named("a.jpg"), JPEG)]));
    let told = answer.json();
    assert_eq!(
        (id(&told), &told["created_at"]),
        ("T-1", &json!(1_800_000_001))
    );
}

#[test]
fn uploading_takes_a_user_whose_code_may_come_along() {
    let desk = Desk::new();
    let body = form(&[(&named("a.png"), PNG)]);
    let anonymous = desk
        .rig
        .request("POST", "/wx/media", &[("Content-Type", FORM)], &body);
    anonymous.problem(401, "token-missing");
    let anonymous = desk.rig.request("POST", "/wx/media", &[], b"{}");
    anonymous.problem(401, "token-missing");

    let code = desk.rig.code("ben");
    let with_code = |kind: &str, body: &[u8]| {
        let headers = [("X-WX-Code", &*code), ("Content-Type", kind)];
        desk.rig.request("POST", "/wx/media", &headers, body)
    };
    with_code("application/json", b"{}").problem(415, "unsupported-media-type");
    with_code("multipart/form-data", &body).problem(400, "bad-request");
    let answer = with_code(FORM, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let ben = Session::of_headers(&answer, desk.rig.sim.openid("ben").as_str());
    assert_eq!(desk.rig.get_as(&ben, "/wx/session").status, 200);
}

#[test]
fn only_a_whole_form_with_a_file_will_do() {
    let desk = Desk::new();
    let bearer = desk.ann.bearer();
    let post = |kind: &str, encoding: &str, body: &[u8]| {
        let headers = [
            ("Authorization", &*bearer),
            ("Content-Type", kind),
            ("Content-Encoding", encoding),
        ];
        desk.rig.request("POST", "/wx/media", &headers, body)
    };
    let good = form(&[(&named("a.png"), PNG)]);
    post("image/png", "identity", PNG).problem(415, "unsupported-media-type");
    post(FORM, "gzip", &good).problem(415, "unsupported-media-type");
    let other = post("multipart/form-data; boundary=other", "identity", &good);
    other.problem(400, "bad-request");
    for parts in [
        &[("name=\"a\"", &b"1"[..])][..],
        &[("name=\"a\"; filename=\"\"", b"")],
        &[("filename=\"a.png\"", PNG)],
        &[("name=\"a\"; name=\"b\"; filename=\"a.png\"", PNG)],
        &[],
    ] {
        desk.post(&form(parts)).problem(400, "bad-request");
    }
    let bare = String::from_utf8_lossy(&form(&[("name=\"a\"", b"1")])).replace("\r\n", "\n");
    desk.post(bare.as_bytes()).problem(400, "bad-request");
    desk.post(b"").problem(400, "bad-request");
    assert_eq!(desk.calls(), 0);
    assert_eq!(post(FORM, "identity", &good).status, 200);
}

#[test]
fn the_seed_demos_clients_upload_where_they_are_used_to() {
    let desk = Desk::new();
    let body = form(&[(&named("a.png"), PNG)]);
    let answer = desk.post_to(&format!("/wx/media/{APPID}/upload"), &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = desk.post_to("/wx/media/wx00000000000000ff/upload", &body);
    answer.problem(404, "not-found");
}

#[test]
fn without_media_there_is_no_such_endpoint() {
    let desk = Desk::with("", "[media]\nenabled = false\n");
    desk.post(&form(&[(&named("a.png"), PNG)]))
        .problem(404, "not-found");
}

#[test]
fn what_clients_really_send_arrives() {
    let desk = Desk::new();
    let png = file(PNG, 5000);
    let text = |pieces: &[&str], content: &[u8]| {
        let mut body = pieces[0].as_bytes().to_vec();
        body.extend_from_slice(content);
        body.extend_from_slice(pieces[1].as_bytes());
        body
    };
    // wx.uploadFile of WeChat 8 on Android, with `name: "file"` and one `formData`.
    let wechat = text(
        &[
            "--F97gI2Ua0Y_ZC7IrPZ3zlcUiZ8N7B01\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\ntest\r\n\
             --F97gI2Ua0Y_ZC7IrPZ3zlcUiZ8N7B01\r\nContent-Disposition: form-data; name=\"file\"; filename=\"tmp_1b2c.png\"\r\n\
             Content-Type: image/png\r\n\r\n",
            "\r\n--F97gI2Ua0Y_ZC7IrPZ3zlcUiZ8N7B01--\r\n",
        ],
        &png,
    );
    let curl = text(
        &[
            "--------------------------d74496d66958873e\r\nContent-Disposition: form-data; name=\"media\"; filename=\"a.png\"\r\n\
             Content-Type: image/png\r\n\r\n",
            "\r\n--------------------------d74496d66958873e--\r\n",
        ],
        &png,
    );
    let python = text(
        &[
            "--0e2d\r\nContent-Disposition: form-data; name=\"media\"; filename=\"a.png\"\r\n\r\n",
            "\r\n--0e2d--\r\n",
        ],
        &png,
    );
    for (boundary, body) in [
        ("F97gI2Ua0Y_ZC7IrPZ3zlcUiZ8N7B01", wechat),
        ("------------------------d74496d66958873e", curl),
        ("\"0e2d\"", python),
    ] {
        let bearer = desk.ann.bearer();
        let kind = format!("multipart/form-data; boundary={boundary}");
        let headers = [("Authorization", &*bearer), ("Content-Type", &*kind)];
        let answer = desk.rig.request("POST", "/wx/media", &headers, &body);
        assert_eq!(answer.status, 200, "{boundary}: {}", answer.text());
        assert!(desk.at_wechat(id(&answer.json())) == png);
    }
    // A page whose second input for a file was left empty.
    let answer = desk.post(&form(&[
        ("name=\"title\"", "标题".as_bytes()),
        (
            "name=\"a\"; filename=\"a.png\"\r\nContent-Type: image/png",
            &png,
        ),
        (
            "name=\"b\"; filename=\"\"\r\nContent-Type: application/octet-stream",
            b"",
        ),
    ]));
    assert!(desk.at_wechat(id(&answer.json())) == png);
}

#[test]
fn a_client_of_http_2_uploads_as_well() {
    let desk = Desk::new();
    let content = file(PNG, 150_000);
    let body = form(&[(&named("猫.png"), &content)]);
    let bearer = desk.ann.bearer();
    let mut client = Http2Client::connect(desk.rig.address());
    let post = |client: &mut Http2Client, stream, length: &str| {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/wx/media"),
            (":authority", "a"),
            ("authorization", &*bearer),
            ("content-type", FORM),
            ("content-length", length),
        ];
        client.head(stream, &fields, false);
    };
    post(&mut client, 1, &body.len().to_string());
    // Of the stream, as the server's settings have it, and of the connection, as it always is at first.
    let settings = loop {
        let frame = client.next().expect("the server has settings");
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            break frame.payload;
        }
    };
    let mut settings = settings.chunks(6);
    let window = settings.find(|it| it[..2] == INITIAL_WINDOW_SIZE.to_be_bytes());
    let window = window.map_or(65_535, |it| {
        u32::from_be_bytes([it[2], it[3], it[4], it[5]]) as usize
    });
    let mut windows = [window, 65_535];
    let mut pieces = body.chunks(16_000).peekable();
    while let Some(piece) = pieces.next() {
        while windows.iter().any(|window| *window < piece.len()) {
            let frame = client.next().expect("there will be room");
            if frame.kind == WINDOW_UPDATE {
                windows[usize::from(frame.stream == 0)] += frame.number(0) as usize;
            }
        }
        windows = windows.map(|window| window - piece.len());
        client.data(1, piece, pieces.peek().is_none());
    }
    assert_eq!(client.end_of(1), End::Answer(200));
    let told: Value = serde_json::from_str(&client.text(1)).unwrap();
    assert!(desk.at_wechat(id(&told)) == content);

    post(&mut client, 3, "999999999");
    assert_eq!(client.end_of(3), End::Answer(413));
}

#[test]
fn a_client_that_falls_silent_is_not_waited_for() {
    let desk = Desk::new();
    desk.rig
        .reload("[inbound]\n", "[inbound]\nidle_timeout = \"300ms\"\n");
    let body = form(&[(&named("a.png"), PNG)]);
    let head = format!(
        "POST /wx/media HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Type: {FORM}\r\nContent-Length: {}\r\n\r\n",
        desk.ann.bearer(),
        body.len()
    );
    // On a busy machine a client may be silent before it has begun as well, and is let go without a word then.
    eventually("it is told so", || {
        let mut client = desk.rig.client();
        let sent = client.try_send(&[head.as_bytes(), &body[..100]].concat());
        match sent.and_then(|()| client.try_read_response(false)) {
            Ok(answer) => {
                answer.problem(408, "request-timeout");
                true
            }
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::TimedOut, "{error}");
                false
            }
        }
    });
    assert_eq!(desk.calls(), 0);
}

/// A route on which files become media_ids.
const ROUTE: &str =
    "[[route]]\npath = \"/avatar\"\nauth = \"none\"\nbody_limit = \"5MiB\"\nmedia = \"upload\"\n";

#[test]
fn on_its_way_to_the_app_a_file_gives_way_to_its_media_id_and_nothing_else_changes() {
    let app = FakeApp::agreeable();
    let desk = Desk::before(&app.url(), "", ROUTE);
    let (first, second) = (file(PNG, 200_001), file(MP3, 90));
    let whole = |parts: [&[u8]; 2]| {
        let mut form = b"preamble\r\n".to_vec();
        let mut push = |pieces: &[&[u8]]| pieces.iter().for_each(|it| form.extend_from_slice(it));
        let line = format!("--{BOUNDARY}\r\n").into_bytes();
        push(&[
            &line,
            b"content-disposition:form-data; name=\"type\"\r\nX: y\r\n\r\nmine\r\n",
        ]);
        push(&[&line, parts[0], b"\r\n"]);
        push(&[&line, b"Content-Disposition: form-data; name=\"none\"; filename=\"\"\r\nContent-Type: a/b\r\n\r\n\r\n"]);
        push(&[&line, parts[1], b"\r\n"]);
        push(&[
            &line,
            "Content-Disposition: form-data; name=\"标题\"\r\n\r\n你好\r\n\r\n".as_bytes(),
        ]);
        push(&[format!("--{BOUNDARY}--").as_bytes(), b"\r\nepilogue"]);
        form
    };
    let sent = whole([
        &["Content-Type: text/html\r\nContent-Disposition: form-data; filename=\"猫.png\"; name=\"a%22b\"\r\n\r\n".as_bytes(), &first].concat(),
        &[&b"Content-Disposition: form-data; name=voice; filename=v\r\n\r\n"[..], &second].concat(),
    ]);
    let headers = [("Content-Type", FORM), ("X-WX-Media", "99")];
    let answer = desk.rig.request("POST", "/avatar?q=1", &headers, &sent);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = app.only_request();
    assert_eq!(request.target(), "/avatar?q=1");
    assert_eq!(request.header("X-WX-Media"), Some("2"));
    assert_eq!(request.header("Content-Type"), Some(FORM));
    assert_eq!(
        request.header("Content-Length"),
        Some(&*request.body.len().to_string())
    );
    assert_eq!(request.header("Transfer-Encoding"), None);
    let text = String::from_utf8(request.body).unwrap();
    let value = |head: &str| {
        let (_, behind) = text.split_once(head).expect(head);
        behind.split_once("\r\n").unwrap().0.to_owned()
    };
    let plain = ["name=\"a%22b\"\r\n\r\n", "name=voice\r\n\r\n"];
    let ids = plain.map(value);
    let expected = whole([0, 1].map(|n| {
        format!("Content-Disposition: form-data; {}{}", plain[n], ids[n])
            .into_bytes()
            .leak() as &[u8]
    }));
    assert_eq!(text, String::from_utf8(expected).unwrap());
    assert!(desk.at_wechat(&ids[0]) == first && desk.at_wechat(&ids[1]) == second);
}

#[test]
fn other_bodies_pass_as_they_are() {
    let app = FakeApp::agreeable();
    let desk = Desk::before(&app.url(), "", ROUTE);
    for (number, (kind, body)) in [
        ("application/json", &b"{\"a\":1}"[..]),
        ("application/octet-stream", b"--b\r\n"),
        ("image/png", PNG),
    ]
    .into_iter()
    .enumerate()
    {
        let headers = [("Content-Type", kind)];
        assert_eq!(
            desk.rig.request("POST", "/avatar", &headers, body).status,
            200
        );
        let request = app.requests(number + 1).pop().unwrap();
        assert_eq!(
            (&request.body[..], request.header("X-WX-Media")),
            (body, None)
        );
    }
    let none = form(&[("name=\"a\"", b"1")]);
    let answer = desk
        .rig
        .request("POST", "/avatar", &[("Content-Type", FORM)], &none);
    assert_eq!(answer.status, 200);
    let request = app.requests(4).pop().unwrap();
    assert_eq!(request.header("X-WX-Media"), Some("0"));
    assert!(request.body == none);
    assert_eq!(desk.calls(), 0);
}

#[test]
fn the_app_sees_nothing_of_a_form_whose_files_cannot_all_be_taken() {
    let app = FakeApp::agreeable();
    let desk = Desk::before(&app.url(), "buffer_limit = \"1MiB\"\n", ROUTE);
    let post = |parts: &[(&str, &[u8])]| {
        desk.rig
            .request("POST", "/avatar", &[("Content-Type", FORM)], &form(parts))
    };
    let (png, html) = (named("a.png"), named("b.png"));
    let bad: [(&str, &[u8]); 2] = [(&png, PNG), (&html, b"<html>")];
    post(&bad).problem(415, "unsupported-media-type");
    post(&[(&png, b"")]).problem(400, "bad-request");
    post(&[(&png, &file(PNG, 2 * MIB + 1))]).problem(413, "body-too-large");
    post(&[(&png, PNG), ("name=\"a\"; name=\"b\"", b"")]).problem(400, "bad-request");
    let films: [(&str, &[u8]); 2] = [(&png, &file(MP4, 3 * MIB)), (&png, &file(MP4, 3 * MIB))];
    post(&films).problem(413, "body-too-large");
    post(&[("name=\"text\"", &vec![b'x'; 2 * MIB]), (&png, PNG)]).problem(503, "overloaded");
    let headers = [("Content-Type", FORM), ("Content-Encoding", "gzip")];
    let packed = desk.rig.request("POST", "/avatar", &headers, b"\x1f\x8b");
    packed.problem(415, "unsupported-media-type");
    let none = desk.rig.request(
        "POST",
        "/avatar",
        &[("Content-Type", "multipart/form-data")],
        b"x",
    );
    none.problem(400, "bad-request");
    assert_eq!(desk.calls(), 0);

    desk.rig.sim.fault(Fault::new(UPLOAD, 1, errcode(45001)));
    assert_eq!(post(&[(&png, PNG)]).json()["errcode"], 45001);
    assert_eq!(app.targets(), [""; 0]);
    assert_eq!(post(&[(&png, PNG)]).status, 200);
    assert_eq!(app.targets(), ["/avatar"]);
}

#[test]
fn without_a_disk_uploads_go_through_memory() {
    let nowhere = Path::new("/proc/nowhere");
    let sections = format!("[media]\ncache_dir = \"{}\"\n", nowhere.display());
    let desk = Desk::with("buffer_limit = \"2MiB\"\n", &sections);
    let content = file(PNG, 700_000);
    let told = desk.upload("a.png", &content);
    assert!(desk.at_wechat(id(&told)) == content);
    let answer = desk.post(&form(&[(&named("a.mp4"), &file(MP4, 4 * MIB))]));
    answer.problem(503, "overloaded");
    desk.upload("a.png", &content);
}

#[test]
fn flask_finds_a_field_where_the_file_was() {
    let app = App::start(Kind::Flask, None);
    let route = "[[route]]\npath = \"/api/form\"\nauth = \"none\"\nmedia = \"upload\"\n";
    let desk = Desk::before(&app.url(), "", route);
    let content = file(JPEG, 100_000);
    let body = form(&[
        ("name=\"title\"", "标题".as_bytes()),
        (
            "name=\"照片\"; filename=\"猫.jpg\"\r\nContent-Type: image/jpeg",
            &content,
        ),
        (
            "name=\"file\"; filename=\"\"\r\nContent-Type: application/octet-stream",
            b"",
        ),
        ("name=\"end\"", b"1"),
    ]);
    let headers = [("Content-Type", FORM)];
    let answer = desk.rig.request("POST", "/api/form", &headers, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = answer.json();
    let fields = &seen["fields"];
    let id = fields["照片"].as_str().expect("it is a field").to_owned();
    assert_eq!(*fields, json!({ "title": "标题", "照片": id, "end": "1" }));
    assert_eq!(seen["bytes"], 0, "the file that nobody chose is one still");
    assert!(desk.at_wechat(&id) == content);
}

#[test]
fn no_file_reaches_the_app_in_another_dress() {
    let app = FakeApp::agreeable();
    let desk = Desk::before(&app.url(), "", ROUTE);
    let post = |kind: &str, body: &[u8]| {
        desk.rig
            .request("POST", "/avatar", &[("Content-Type", kind)], body)
    };
    for head in [
        "name=\"pic\"\r\nContent-Type: application/octet-stream",
        "name=\"pic\"\r\ncontent-type: Application/Octet-Stream; x=y",
        "name=\"pic\"\r\nContent-Type: image/png",
        "name=\"pic\"\r\nContent-Type: text/html",
        "name=\"pic\"\r\nContent-Type: text/plain",
    ] {
        let problem = post(FORM, &form(&[(head, PNG)])).problem(415, "unsupported-media-type");
        assert!(problem["hint"].as_str().unwrap().contains("filename"));
    }
    for head in [
        "name=\"pic\"\r\nContent-Type: multipart/mixed; boundary=Q",
        "name=\"pic\"; x=\"; filename=b.html; \"",
        "name=\"pic\"; filename*0=\"b.html\"",
        "name=\"pic; filename=b.html; \"",
    ] {
        let nested = b"--Q\r\nContent-Disposition: attachment; filename=a.html\r\n\r\n<p>\r\n--Q--";
        post(FORM, &form(&[(head, nested)])).problem(400, "bad-request");
    }
    let body = form(&[(&named("a.png"), PNG)]);
    for kind in [
        "multipart/mixed",
        "Multipart/Related",
        "a/b; multipart/form-data",
    ] {
        let kind = format!("{kind}; boundary={BOUNDARY}");
        let problem = post(&kind, &body).problem(415, "unsupported-media-type");
        assert!(problem["hint"].as_str().unwrap().contains("wx.uploadFile"));
    }
    assert_eq!(app.targets(), [""; 0]);
    assert_eq!(desk.calls(), 0);
}

#[test]
fn fields_with_a_type_reach_the_app_as_clients_write_them() {
    let app = FakeApp::agreeable();
    let desk = Desk::before(&app.url(), "", ROUTE);
    let body = form(&[
        // okhttp, Apache HttpClient, Spring, .NET.
        (
            "name=\"a\"\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 6",
            "你好".as_bytes(),
        ),
        (
            "name=\"b\"\r\nContent-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit",
            b"x",
        ),
        ("name=\"c\"\r\nContent-Type: application/json", b"{\"a\":1}"),
        ("name=d\r\nContent-Type: text/plain; charset=utf-8", b""),
        ("name=\"e\"", b"\xff\x00 as it is"),
        // A page whose input for a file was left empty.
        (
            "name=\"f\"; filename=\"\"\r\nContent-Type: application/octet-stream",
            b"",
        ),
    ]);
    let headers = [("Content-Type", FORM)];
    let answer = desk.rig.request("POST", "/avatar", &headers, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = app.only_request();
    assert!(request.body == body, "byte for byte");
    assert_eq!(request.header("X-WX-Media"), Some("0"));
}

/// An app that names a medium in its answer before it has read the request's body.
fn early_app(id: &str, own: usize) -> (FakeApp, Signal) {
    let answered = Signal::default();
    let said = answered.clone();
    let own = "x".repeat(own);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nX-WX-Media-Id: {id}\r\nContent-Length: {}\r\n\r\n{own}",
        own.len()
    );
    let app = FakeApp::start(move |connection| {
        while let Some(mut request) = connection.read_head() {
            connection.write(answer.as_bytes());
            said.give();
            request.complete = connection.read_body(&mut request);
            connection.note(request);
        }
    });
    (app, answered)
}

#[test]
fn an_app_that_names_a_medium_early_gets_the_whole_request() {
    let id = "early-medium-id";
    for own in [0, 3 * MIB] {
        let (app, answered) = early_app(id, own);
        let rig = Rig::with(&app.url(), "auth = \"none\"\n", "");
        let body = file(b"body", 4 * MIB);
        let mut client = rig.client();
        let head = format!(
            "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let (first, rest) = body.split_at(MIB);
        client.send(&[head.as_bytes(), first].concat());
        assert!(answered.wait());
        client.send(rest);
        // There is no such medium, which is told when all has been sent.
        let answer = client.read_response(false);
        assert_eq!(answer.json()["errcode"], 40007, "{}", answer.text());
        let request = app.requests(1).pop().unwrap();
        assert!(request.complete && request.body == body, "{own}");
    }
}

#[test]
fn a_client_that_waits_to_be_told_to_go_on_gets_an_early_medium_at_once() {
    let (app, _) = early_app("early-medium-id", 0);
    let rig = Rig::with(&app.url(), "auth = \"none\"\n", "");
    let mut client = rig.client();
    client
        .send(b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let answer = client.read_response(false);
    assert_eq!(answer.json()["errcode"], 40007, "{}", answer.text());
    assert_eq!(answer.header("connection"), Some("close"));
}
