//! The inspector: a web page that shows what went through the sidecar lately, and what it asks for.
//!
//! The page is plain files without a build step or anybody else's code, so it works without a network. What is in it comes from
//! `telemetry/inspector.rs`; the state of things comes from the metrics, so that page and dashboard cannot disagree.

mod phone;
mod state;

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Admin, not_allowed, text};
use crate::server::snapshot::Snapshot;
use crate::telemetry::inspector::Names;

pub(in crate::server) use phone::Phone;

/// What of the admin side's paths are the inspector's.
pub(super) const PREFIX: &str = "/inspector/";
/// How long a page may wait for news. A proxy's or a forwarder's idle timeout is longer.
const PATIENCE: Duration = Duration::from_secs(25);
/// What the page may do: nothing but what came with it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self' ws:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page, as it is in the source.
macro_rules! page {
    ($name:literal, $kind:expr) => {
        (
            $name,
            $kind,
            include_str!(concat!("inspector/page/", $name)),
        )
    };
}

/// The files of the page, and the Mini Program's own helper. They are nobody's secret.
const FILES: &[(&str, &str, &str)] = &[
    page!("body.js", JS),
    page!("curl.js", JS),
    page!("detail.js", JS),
    page!("dom.js", JS),
    page!("index.html", HTML),
    page!("inspector.js", JS),
    page!("list.js", JS),
    page!("overview.js", JS),
    page!("phone.js", JS),
    page!("server.js", JS),
    page!("style.css", CSS),
    page!("tour.js", JS),
    page!("words.js", JS),
    page!("wx.js", JS),
    (
        "wx-sidecar.js",
        JS,
        include_str!("../../../examples/miniprogram/wx-sidecar.js"),
    ),
];
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// A file of the page, for everybody; `None` if what was asked for is something else.
pub(super) fn file(request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    let path = request.uri().path();
    if path == PREFIX.trim_end_matches('/') {
        return Some(moved());
    }
    let name = match path.strip_prefix(PREFIX)? {
        "" => "index.html",
        name => name,
    };
    let (_, kind, content) = FILES.iter().find(|(known, _, _)| *known == name)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some(not_allowed("GET, HEAD"));
    }
    let mut response = text(StatusCode::OK, *content);
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, *kind),
        // Another version of the sidecar has another page at the same place.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

/// The page names its files as its neighbours.
fn moved() -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::PERMANENT_REDIRECT, "see /inspector/\n");
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_static("/inspector/"));
    response
}

impl Admin {
    /// Answers `/inspector/...`, for whoever may ask.
    pub(super) async fn inspect(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let snapshot = self.assembly.current.load_full();
        if !snapshot.config.admin.inspector {
            return text(
                StatusCode::NOT_FOUND,
                "the inspector is off; write inspector = true below [admin] in sidecar.toml\n",
            );
        }
        let path = request.uri().path().to_owned();
        let rest = path.strip_prefix(PREFIX).unwrap_or_default();
        if let Some(rest) = rest.strip_prefix("phone/") {
            return match self.assembly.phone.get() {
                Some(phone) => phone.relay(rest, request, &self.assembly).await,
                None => text(
                    StatusCode::NOT_FOUND,
                    "there is a phone in `wx-sidecar dev` only\n",
                ),
            };
        }
        let parts: Vec<&str> = rest.split('/').collect();
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let inspector = &snapshot.shared.inspector;
        let names = self.names(&snapshot);
        match (parts.as_slice(), request.method()) {
            (["exchanges"], _) if is_read => {
                let query = request.uri().query();
                let asked = |name| parameter(query, name);
                let number = |name| asked(name).and_then(|text| text.parse().ok()).unwrap_or(0);
                let patience = Duration::from_secs(number("wait")).min(PATIENCE);
                let since = (asked("boot"), number("after"));
                let told = inspector.changes(since, patience, &names).await;
                found(told)
            }
            (["exchanges", id], _) if is_read => {
                found(id.parse().ok().and_then(|id| inspector.detail(id, &names)))
            }
            (["state"], _) if is_read => json_of(StatusCode::OK, &self.state(&snapshot)),
            (["clear"], &Method::POST) => {
                inspector.clear();
                text(StatusCode::NO_CONTENT, "")
            }
            (["pushes", id, "replay"], &Method::POST) => replay(id, &snapshot).await,
            (["exchanges"] | ["exchanges", _] | ["state"], _) => not_allowed("GET, HEAD"),
            (["clear"] | ["pushes", _, "replay"], _) => not_allowed("POST"),
            _ => text(StatusCode::NOT_FOUND, "the inspector has no such page\n"),
        }
    }

    /// What users are called: only in `dev`, where they are nobody's, by their openids.
    fn names<'s>(&self, snapshot: &'s Snapshot) -> Names<'s> {
        match self.assembly.phone.get() {
            Some(_) => Names::Openids,
            None => Names::Pseudonyms(&snapshot.pseudonyms),
        }
    }
}

/// Has a message that was seen delivered once more.
async fn replay(id: &str, snapshot: &Snapshot) -> Response<Full<Bytes>> {
    let stored = id
        .parse()
        .ok()
        .and_then(|id| snapshot.shared.inspector.stored(id));
    let Some(stored) = stored else {
        return text(StatusCode::NOT_FOUND, "this message is kept no more\n");
    };
    let Some(bus) = &snapshot.bus else {
        return text(
            StatusCode::CONFLICT,
            "no messages are taken here: the configuration has no [push]\n",
        );
    };
    match bus.replay(&stored).await {
        Ok(message_id) => json_of(StatusCode::ACCEPTED, &json!({ "message_id": message_id })),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn found(told: Option<Value>) -> Response<Full<Bytes>> {
    match told {
        Some(told) => json_of(StatusCode::OK, &told),
        None => text(StatusCode::NOT_FOUND, "this is kept no more\n"),
    }
}

fn json_of(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = text(status, value.to_string());
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What a parameter of the query says, if it says something.
fn parameter<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    let pairs = query.unwrap_or_default().split('&');
    let mut values = pairs.filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    values.next().filter(|value| !value.is_empty())
}
