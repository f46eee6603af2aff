//! What the app is told: whatever a client's lines say, identity, framing and origin are ours alone.
//!
//! The head that we write for the app is read by an independent parser and its names are folded as CGI does, and further:
//! an app behind any server must find each of our lines once, with our value.

use std::rc::Rc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tokio::net::UnixStream;

use super::{decoder, engine};
use crate::clock::Timestamp;
use crate::config::{Cidr, EscapedSlashes, TrustedProxies, Upstream};
use crate::domain::{OpenId, UnionId, User};
use crate::net::Stream;
use crate::path::CanonicalPath;
use crate::proxy::{self, Counting, Forward, Limits, Origin, Peer};
use crate::telemetry::ids::IdSource;
use crate::telemetry::requests::WorkerCells;
use crate::telemetry::timings::Timings;
use crate::wire::http1::ServerConnection;
use crate::wire::http2::Http2Connection;
use crate::wire::{Framing, HeadLimits, RequestHead};

const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024 };
const AUTHORITY: &[u8] = b"app:3000";
const PEER: &str = "192.0.2.1";
/// What the app is told of the user, folded as CGI folds names.
const IDENTITY: &[(&str, &str)] = &[
    ("X_WX_APPID", "wx0123456789abcdef"),
    ("X_WX_OPENID", "openid-of-the-user"),
    ("X_WX_SOURCE", "wx-sidecar"),
    ("X_WX_UNIONID", "unionid-of-the-user"),
];
const APP_LINES: &[u8] = b"X-WX-APPID: wx0123456789abcdef\r\nX-WX-SOURCE: wx-sidecar\r\n";
/// Names that apps believe to be a proxy's; some are set by us, the others must not be there.
const PROXY_NAMES: &[&str] = &[
    "CLIENT_CERT",
    "CLIENT_CERT_CHAIN",
    "CLIENT_IP",
    "PROXY",
    "PROXY_AUTHORIZATION",
    "PROXY_CONNECTION",
    "SSL_CLIENT_CERT",
    "SSL_CLIENT_VERIFY",
    "TRUE_CLIENT_IP",
    "X_ARR_CLIENTCERT",
    "X_CLIENT_CERT",
    "X_CLIENT_IP",
    "X_CLUSTER_CLIENT_IP",
    "X_HTTP_METHOD",
    "X_HTTP_METHOD_OVERRIDE",
    "X_METHOD_OVERRIDE",
    "X_ORIGINAL_HOST",
    "X_ORIGINAL_URI",
    "X_ORIGINAL_URL",
    "X_REWRITE_URL",
    "X_SSL_CLIENT_CERT",
    "X_SSL_CLIENT_VERIFY",
];
/// Fields of one connection; ours to the app has only what `check` lets pass.
const HOP_BY_HOP: &[&str] = &[
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "trailer",
];

/// Any bytes as the field lines of a client, by HTTP/1.1 and by HTTP/2. A LF stands for CR LF.
pub fn headers(data: &[u8]) {
    if data.len() > engine::MAX_INPUT {
        return;
    }
    for method in ["GET", "POST"] {
        let mut head =
            format!("{method} /a/b?c=d HTTP/1.1\r\nHost: public.example\r\n").into_bytes();
        for line in data.split(|&b| b == b'\n') {
            head.extend_from_slice(line);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        engine::run(engine::fed(&[&head], async |stream| {
            let mut connection = ServerConnection::new(stream, Rc::default());
            if connection.read_head(LIMITS).await.is_ok() {
                let (head, _, _) = connection.parts();
                check(head);
                by_http2(head).await;
            }
        }));
    }
}

/// The same lines as a request of HTTP/2, as far as its rules let a client send them; false if it was refused.
async fn by_http2(head: &RequestHead) -> bool {
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::from_bytes(head.method_text()).expect("a token");
    *request.uri_mut() = http::Uri::from_static("http://public.example/a/b?c=d");
    for field in head.fields.iter().filter(|field| field.name != b"Host") {
        let name = HeaderName::from_bytes(field.name).expect("a token");
        let of_one_connection = [
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "transfer-encoding",
            "upgrade",
        ];
        if !of_one_connection.contains(&name.as_str()) {
            let value = HeaderValue::from_bytes(field.value).expect("a value");
            request.headers_mut().append(name, value);
        }
    }
    let (ours, peer) = UnixStream::pair().expect("a pair of sockets");
    let asking = async {
        let (mut requests, connection) = h2::client::handshake(peer).await.ok()?;
        let asking = async move {
            let (answer, _body) = requests.send_request(request, false).ok()?;
            drop(requests);
            answer.await.ok()
        };
        // Either may end first: the answer is a reset.
        tokio::select! {
            answer = asking => answer.map(drop),
            ended = connection => ended.ok(),
        }
    };
    let serving = async {
        let greeted = Http2Connection::handshake(Stream::Unix(ours), Vec::new(), LIMITS).await;
        if let Some((mut request, Ok(()))) = greeted.ok()?.accept().await {
            let (head, _, _) = request.parts();
            check(head);
            return Some(());
        }
        None
    };
    let (_asked, served) = tokio::join!(asking, serving);
    served.is_some()
}

fn check(head: &RequestHead) {
    let user = User {
        openid: OpenId::parse("openid-of-the-user").expect("it is one"),
        unionid: UnionId::parse("unionid-of-the-user").ok(),
    };
    for (user, trusted) in [(Some(&user), false), (None, false), (Some(&user), true)] {
        let sent = encode(head, user, trusted);
        let identity = if user.is_some() { IDENTITY } else { &[] };
        check_sent(head, &sent, identity, trusted);
    }
}

/// The head for the app.
fn encode(head: &RequestHead, user: Option<&User>, trusted: bool) -> Vec<u8> {
    let path = CanonicalPath::parse(head.target(), EscapedSlashes::Reject);
    let ids = IdSource::new();
    let peer = Peer::new(PEER.parse().ok(), false);
    let networks = if trusted {
        vec![Cidr {
            addr: PEER.parse().expect("an address"),
            prefix: 32,
        }]
    } else {
        Vec::new()
    };
    let proxies = TrustedProxies {
        networks,
        unix: false,
    };
    let cells = WorkerCells::default();
    let second = Duration::from_secs(1);
    let upstream = Upstream::Tcp {
        host: "app".to_owned(),
        port: 3000,
    };
    let forward = Forward {
        head,
        path: &path.expect("it is plain"),
        upstream: &upstream,
        authority: AUTHORITY,
        user,
        app_lines: APP_LINES,
        told: &[],
        origin: Origin::new(&peer, &proxies),
        request_id: &ids.request_id(Timestamp::from_millis(0)),
        trace: ids.trace().to_text(),
        trace_goes_on: trusted,
        limits: Limits {
            upstream: second,
            connect: second,
            downstream: second,
            tunnel: second,
            body: 0,
        },
        added: None,
        takes_media: true,
        counting: Counting {
            recorder: &cells.route("none"),
            cells: &cells,
            timings: &Timings::begin(),
        },
    };
    let mut out = Vec::new();
    proxy::encode_request(&forward, &mut out);
    out
}

fn check_sent(head: &RequestHead, sent: &[u8], identity: &[(&str, &str)], trusted: bool) {
    let text = sent.escape_ascii();
    let (method, target, lines) =
        decoder::request_head(sent).unwrap_or_else(|| panic!("no head: {text}"));
    assert_eq!((method, target), (head.method_text(), &b"/a/b?c=d"[..]));
    let folded: Vec<(String, &[u8])> = lines
        .iter()
        .map(|(name, value)| (fold(name), *value))
        .collect();
    let all = |wanted: &str| -> Vec<&[u8]> {
        let matching = folded.iter().filter(|(name, _)| name == wanted);
        matching.map(|(_, value)| *value).collect()
    };

    // Names of one word fold to nothing else.
    let named = |wanted: &str| -> Vec<&[u8]> {
        let is_it = |name: &[u8]| name.eq_ignore_ascii_case(wanted.as_bytes());
        let matching = lines.iter().filter(|(name, _)| is_it(name));
        matching.map(|(_, value)| *value).collect()
    };

    let mut told: Vec<_> = folded
        .iter()
        .filter(|(name, _)| name == "X_WX" || name.starts_with("X_WX_"))
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    told.sort_unstable();
    let expected: Vec<_> = identity.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
    assert_eq!(told, expected, "{text}");

    assert_eq!(named("host"), [AUTHORITY], "{text}");
    let (lengths, codings) = (all("CONTENT_LENGTH"), all("TRANSFER_ENCODING"));
    match head.framing {
        Framing::Chunked => assert_eq!(
            (&lengths[..], &codings[..]),
            (&[][..], &[&b"chunked"[..]][..])
        ),
        Framing::Length(length) => {
            assert_eq!(lengths, [length.to_string().as_bytes()], "{text}");
            assert!(codings.is_empty(), "{text}");
        }
        Framing::Empty | Framing::UntilClose => {
            let expected: &[&[u8]] = if method == b"POST" { &[b"0"] } else { &[] };
            assert_eq!((&lengths[..], codings.len()), (expected, 0), "{text}");
        }
    }

    for name in HOP_BY_HOP {
        assert!(named(name).is_empty(), "{name}: {text}");
    }
    for name in PROXY_NAMES {
        assert!(all(name).is_empty(), "{name}: {text}");
    }
    let of_connection = (
        &named("connection")[..],
        &named("te")[..],
        named("upgrade").len(),
    );
    match of_connection {
        ([], [], 0) => {}
        ([b"te"], [b"trailers"], 0) => {}
        ([b"upgrade"], [], 1) => assert!(head.wants_upgrade, "{text}"),
        _ => panic!("{text}"),
    }

    for name in [
        "X_REAL_IP",
        "X_REQUEST_ID",
        "TRACEPARENT",
        "X_FORWARDED_FOR",
        "X_FORWARDED_HOST",
    ] {
        assert_eq!(all(name).len(), 1, "{name}: {text}");
    }
    assert!(
        all("X_FORWARDED_FOR")[0].ends_with(PEER.as_bytes()),
        "{text}"
    );
    // A trusted proxy's is continued.
    assert!(all("FORWARDED").len() <= usize::from(trusted), "{text}");
    if !trusted {
        assert_eq!(all("X_REAL_IP"), [PEER.as_bytes()], "{text}");
        assert_eq!(all("X_FORWARDED_FOR"), [PEER.as_bytes()], "{text}");
        assert_eq!(all("X_FORWARDED_PROTO"), [b"http"], "{text}");
        assert_eq!(all("X_FORWARDED_HOST"), [b"public.example"], "{text}");
        assert!(all("TRACESTATE").is_empty(), "{text}");
        assert!(all("BAGGAGE").is_empty(), "{text}");
    }
    for (name, _) in &folded {
        let ours = ["X_FORWARDED_FOR", "X_FORWARDED_HOST", "X_FORWARDED_PROTO"];
        assert!(
            !name.starts_with("X_FORWARDED_") || ours.contains(&name.as_str()),
            "{text}"
        );
    }
    for credentials in named("authorization") {
        let token = |prefix: &[u8]| credentials.windows(5).any(|part| part == prefix);
        assert!(!token(b"wxat_") && !token(b"wxrt_"), "{text}");
    }
}

/// As CGI folds a name, and then some: every run of separators is one `_`, and none stands at the ends.
fn fold(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name).to_ascii_uppercase();
    let parts = text.split(|c: char| !c.is_ascii_alphanumeric());
    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
    parts.join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_head_comes_through_by_both_versions() {
        let sent: &[u8] = b"POST /a/b?c=d HTTP/1.1\r\nHost: public.example\r\nX-A: b\r\n\r\n";
        engine::run(engine::fed(&[sent], async |stream| {
            let mut connection = ServerConnection::new(stream, Rc::default());
            connection.read_head(LIMITS).await.expect("a good head");
            assert!(by_http2(connection.parts().0).await);
        }));
    }
}
