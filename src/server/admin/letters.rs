//! Messages that wait and dead letters, for whoever operates: to be listed, delivered again, thrown away.
//!
//! A change takes POST or DELETE. Who may is decided before (`guard.rs`).

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::push::{Bus, Letter, Which};

/// How many letters are listed at once if nobody says, and at most.
const USUAL: usize = 100;
const MOST: usize = 1000;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    List { dead: bool },
    Replay(Option<String>),
    Drop(Option<String>),
}

/// Answers `/push/...`; `rest` is what stands behind that.
pub(super) async fn answer(
    bus: Option<&Bus>,
    method: &Method,
    rest: &str,
    query: Option<&str>,
) -> Response<Full<Bytes>> {
    let asked = match asked(method, rest) {
        Ok(asked) => asked,
        Err(status) => return refuse(status, USAGE),
    };
    let Some(bus) = bus else {
        return refuse(
            StatusCode::NOT_FOUND,
            "no messages are taken here: the configuration has no [push]",
        );
    };
    let parameter = |name: &str| {
        let pairs = query.unwrap_or_default().split('&');
        let mut values = pairs.filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        values.next()
    };
    let done = match asked {
        Asked::List { dead } => {
            let from = parameter("from")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
            let most = parameter("limit")
                .and_then(|text| text.parse().ok())
                .unwrap_or(USUAL);
            let most = most.clamp(1, MOST);
            bus.list(dead, from, most)
                .await
                .map(|letters| page(&letters, most))
        }
        Asked::Replay(id) => bus
            .revive(which(id))
            .await
            .map(|count| json!({ "replayed": count })),
        Asked::Drop(id) => bus
            .throw_away(which(id))
            .await
            .map(|count| json!({ "dropped": count })),
    };
    match done {
        Ok(value) => respond(StatusCode::OK, &value),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, &error),
    }
}

const USAGE: &str = "GET /push/inbox, GET /push/dead-letters (?from=NUMBER&limit=N), \
                     POST /push/dead-letters/replay, POST /push/dead-letters/ID/replay, DELETE /push/dead-letters, \
                     DELETE /push/dead-letters/ID, DELETE /push/inbox/ID";

fn asked(method: &Method, rest: &str) -> Result<Asked, StatusCode> {
    let parts: Vec<&str> = rest.split('/').collect();
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    match (parts.as_slice(), method) {
        (["inbox"], _) if is_read => Ok(Asked::List { dead: false }),
        (["dead-letters"], _) if is_read => Ok(Asked::List { dead: true }),
        (["dead-letters", "replay"], &Method::POST) => Ok(Asked::Replay(None)),
        (["dead-letters", id, "replay"], &Method::POST) => Ok(Asked::Replay(Some(decoded(id)))),
        (["dead-letters"], &Method::DELETE) => Ok(Asked::Drop(None)),
        (["dead-letters" | "inbox", id], &Method::DELETE) => Ok(Asked::Drop(Some(decoded(id)))),
        (["inbox" | "dead-letters", ..], _) => Err(StatusCode::METHOD_NOT_ALLOWED),
        _ => Err(StatusCode::NOT_FOUND),
    }
}

fn decoded(id: &str) -> String {
    percent_decode_str(id).decode_utf8_lossy().into_owned()
}

fn which(id: Option<String>) -> Which {
    id.map_or(Which::All, Which::Id)
}

/// A list, and where the next one begins if there is more.
fn page(letters: &[Letter], most: usize) -> Value {
    let next = match letters.last() {
        Some(last) if letters.len() == most => Some(last.number + 1),
        _ => None,
    };
    let listed: Vec<Value> = letters.iter().map(Letter::to_json).collect();
    json!({ "letters": listed, "next": next })
}

fn refuse(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    respond(status, &json!({ "error": why }))
}

fn respond(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(format!("{value}\n").into()));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_is_get_and_what_changes_is_not() {
        let id = || Some("x1".to_owned());
        assert_eq!(
            asked(&Method::GET, "inbox"),
            Ok(Asked::List { dead: false })
        );
        assert_eq!(
            asked(&Method::GET, "dead-letters"),
            Ok(Asked::List { dead: true })
        );
        assert_eq!(
            asked(&Method::POST, "dead-letters/replay"),
            Ok(Asked::Replay(None))
        );
        assert_eq!(
            asked(&Method::POST, "dead-letters/x1/replay"),
            Ok(Asked::Replay(id()))
        );
        assert_eq!(
            asked(&Method::DELETE, "dead-letters/x1"),
            Ok(Asked::Drop(id()))
        );
        assert_eq!(
            asked(&Method::DELETE, "dead-letters"),
            Ok(Asked::Drop(None))
        );
        assert_eq!(
            asked(&Method::GET, "dead-letters/replay"),
            Err(StatusCode::METHOD_NOT_ALLOWED)
        );
        assert_eq!(
            asked(&Method::DELETE, "inbox"),
            Err(StatusCode::METHOD_NOT_ALLOWED),
            "not all that waits"
        );
        assert_eq!(asked(&Method::GET, "other"), Err(StatusCode::NOT_FOUND));
    }
}
