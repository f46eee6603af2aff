//! Signed URLs of media: whoever has one can load the medium without a token, until it ends and in no other way.

use std::time::Duration;

use crate::http_client::{Client, Response};
use crate::media::{Gallery, picture, upload};
use crate::rig::{START, Session, canary, start};

const DAYS: u64 = 86_400;

impl Gallery {
    fn asked(&self, query: &str) -> Response {
        let target = format!("{}/url{query}", self.path);
        self.rig.get_as(&self.session, &target)
    }

    /// The URL that the user gets, and when it ends, in seconds from the start of the clock.
    fn url(&self, query: &str) -> (String, u64) {
        let answer = self.asked(query);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let told = answer.json();
        let url = told["url"].as_str().unwrap().to_owned();
        let (_, signature) = url.rsplit_once("&s=").unwrap();
        canary(signature);
        (url, told["expires_at"].as_u64().unwrap() - START.as_secs())
    }

    fn load(&self, url: &str) -> Response {
        self.rig.request("GET", url, &[], b"")
    }
}

#[test]
fn a_url_is_all_that_an_image_element_needs() {
    let stage = Gallery::new();
    let (url, life) = stage.url("");
    assert_eq!(life, 3 * DAYS);
    assert!(url.starts_with(&format!("{}?e=", stage.path)), "{url}");
    let answer = stage.load(&url);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body == stage.picture);
    assert_eq!(stage.url("").0, url, "the same within a minute");
    let more = format!("{url}&from=timeline&from=again&filename=b.png");
    let disposition = stage.load(&more);
    assert_eq!(
        disposition.header("content-disposition"),
        Some("attachment; filename=\"b.png\"")
    );
    let ranged = stage
        .rig
        .request("GET", &url, &[("Range", "bytes=0-7")], b"");
    assert_eq!(
        (ranged.status, &ranged.body[..]),
        (206, &stage.picture[..8])
    );
    assert_eq!(stage.rig.request("HEAD", &url, &[], b"").status, 200);
    // It says nothing of what else it may be shown with.
    let bad = [("Authorization", "Bearer wxat_nonsense")];
    assert_eq!(stage.rig.request("GET", &url, &bad, b"").status, 200);
}

#[test]
fn a_url_ends_when_it_says_and_no_cache_keeps_it_longer() {
    let stage = Gallery::new();
    let (url, life) = stage.url("?ttl=10m");
    assert_eq!(life, 600);
    stage.rig.advance(Duration::from_secs(100));
    let answer = stage.load(&url);
    let rule = answer.header("cache-control");
    assert_eq!(rule, Some("private, max-age=500, immutable"));
    stage.rig.advance(Duration::from_secs(499));
    assert_eq!(stage.load(&url).status, 200);
    stage.rig.advance(Duration::from_secs(1));
    let told = stage.load(&url).problem(403, "media-url-invalid");
    assert!(told["detail"].as_str().unwrap().contains("expired"));
    assert!(told["hint"].as_str().unwrap().contains("/url"));
}

#[test]
fn a_url_that_was_changed_is_refused_whichever_part_it_was() {
    let stage = Gallery::new();
    let (url, _) = stage.url("?bind=true");
    assert_eq!(stage.load(&url).status, 200);
    let (path, query) = url.split_once('?').unwrap();
    let parts: Vec<&str> = query.split('&').collect();
    assert_eq!(parts.len(), 3, "{query}");
    for (index, part) in parts.iter().enumerate() {
        let with = |changed: &[&str]| {
            let parts = [&parts[..index], changed, &parts[index + 1..]].concat();
            format!("{path}?{}", parts.join("&"))
        };
        let (name, value) = part.split_once('=').unwrap();
        let last = if value.ends_with('1') { "2" } else { "1" };
        let altered = format!("{name}={}{last}", &value[..value.len() - 1]);
        for bad in [
            with(&[&altered]),
            with(&[]),
            with(&[&format!("{name}=")]),
            with(&[part, part]),
            with(&[&format!("{part}0")]),
        ] {
            stage.load(&bad).problem(403, "media-url-invalid");
        }
    }
    let other = upload(&stage.rig, "image", "b.png", &picture(2000));
    let moved = format!("/wx/media/{other}?{query}");
    stage.load(&moved).problem(403, "media-url-invalid");
    // A token does not make a bad URL good.
    let refusal = stage.rig.get_as(&stage.session, &moved);
    refusal.problem(403, "media-url-invalid");
}

#[test]
fn a_bound_url_is_not_for_whoever_shows_that_he_is_another() {
    let stage = Gallery::new();
    let (url, _) = stage.url("?bind=true");
    assert!(!url.contains(&stage.session.openid), "{url}");
    let bob = stage.rig.login("bob");
    assert_eq!(stage.load(&url).status, 200, "an image shows no token");
    assert_eq!(stage.rig.get_as(&stage.session, &url).status, 200);
    let told = stage.rig.get_as(&bob, &url);
    told.problem(403, "media-url-invalid");
    let code = stage.rig.code("bob");
    let by_code = stage.rig.request("GET", &url, &[("X-WX-Code", &code)], b"");
    by_code.problem(403, "media-url-invalid");
    let (free, _) = stage.url("?bind=false");
    assert_eq!(stage.rig.get_as(&bob, &free).status, 200);
}

#[test]
fn a_url_needs_a_user_and_a_sensible_wish() {
    let stage = Gallery::with("[media]\nurl_ttl = \"1h\"\n");
    let target = format!("{}/url", stage.path);
    let stranger = stage.rig.request("GET", &target, &[], b"");
    stranger.problem(401, "token-missing");
    for query in [
        "?ttl=0s",
        "?ttl=61m",
        "?ttl=10",
        "?ttl=-1m",
        "?ttl=",
        "?ttl=1m&ttl=1m",
        "?bind=yes",
        "?bind",
    ] {
        stage.asked(query).problem(400, "bad-request");
    }
    stage.rig.advance(Duration::from_secs(30));
    assert_eq!(stage.url("").1, 3660, "at a whole minute");
    assert_eq!(stage.url("?ttl=1s").1, 60);
    let bad = stage.rig.get_as(&stage.session, "/wx/media/a.b/url");
    bad.problem(400, "bad-request");
}

#[test]
fn a_code_brings_tokens_with_the_url() {
    let stage = Gallery::new();
    let code = stage.rig.code("bob");
    let target = format!("{}/url?bind=true", stage.path);
    let answer = stage
        .rig
        .request("GET", &target, &[("X-WX-Code", &code)], b"");
    let session = Session::of_headers(&answer, "bob");
    let url = answer.json()["url"].as_str().unwrap().to_owned();
    assert_eq!(stage.rig.get_as(&session, &url).status, 200);
    assert_eq!(stage.rig.get_as(&stage.session, &url).status, 403);
}

#[test]
fn urls_begin_where_the_operator_says() {
    let stage = Gallery::with("[media]\nbase_url = \"https://mini.example.com\"\n");
    let (url, _) = stage.url("");
    let path = url.strip_prefix("https://mini.example.com").unwrap();
    assert_eq!(stage.load(path).status, 200);
}

#[test]
fn urls_outlive_a_change_of_the_key() {
    let (old, new) = (
        "an-old-key-of-32-characters-0123",
        "a-new-key-of-32-characters-01234",
    );
    canary(old);
    canary(new);
    let stage = Gallery::with(&format!("[session]\nkey = \"{old}\"\n"));
    let (url, _) = stage.url("?bind=true");
    let with = |keys: String| {
        let (old, keys) = (format!("key = \"{old}\""), format!("key = {keys}"));
        let config = stage.rig.config_with(&old, &keys);
        start(&config, &stage.rig.clock)
    };
    let get = |sidecar: &wx_sidecar::Sidecar, headers: &[(&str, &str)], target: &str| {
        Client::connect(sidecar.inbound_addr()).request("GET", target, headers, b"")
    };
    let both = with(format!("[\"{new}\", \"{old}\"]"));
    assert_eq!(get(&both, &[], &url).status, 200);
    let bearer = stage.session.bearer();
    let as_alice = [("Authorization", bearer.as_str())];
    assert_eq!(get(&both, &as_alice, &url).status, 200);
    let only_new = with(format!("\"{new}\""));
    get(&only_new, &[], &url).problem(403, "media-url-invalid");
    let target = format!("{}/url", stage.path);
    let newer = get(&both, &as_alice, &target).json();
    let newer = newer["url"].as_str().unwrap();
    assert_eq!(get(&only_new, &[], newer).status, 200, "the new key signs");
    stage.load(newer).problem(403, "media-url-invalid");
}
