//! Who gets more of the admin side than probes and metrics: the configuration, messages of users, and what changes something.
//!
//! Whoever shows the token. Where there is none, whoever is on this machine; and since a browser is on this machine too, what a
//! page of somebody else's brings it to ask for is refused: by `Origin` and `Sec-Fetch-Site` (Fetch Metadata), and, against a
//! name that is pointed here (DNS rebinding), by a `Host` that is no address of this machine.

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN, WWW_AUTHENTICATE};
use http::uri::Authority;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;

use super::text;
use crate::config::{Admin, Listen};
use crate::crypto::constant_time_eq;

/// Why somebody gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is a token, and it was not shown.
    NoToken,
    /// There is none, and this may be asked from anywhere.
    NotLocal,
    /// A page of somebody else's asks.
    Page,
    /// The name of this machine is not one of its own.
    Name,
}

/// Whether a request may have what is guarded.
pub(super) fn admit<B>(request: &Request<B>, admin: &Admin) -> Result<(), Refused> {
    let headers = request.headers();
    if !admin.tokens.is_empty() {
        let shown = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let shown = shown.and_then(bearer).unwrap_or_default();
        let known = admin.tokens.iter();
        let is_known = known.fold(false, |found, token| {
            found | constant_time_eq(token.expose().as_bytes(), shown)
        });
        return if is_known {
            Ok(())
        } else {
            Err(Refused::NoToken)
        };
    }
    if !is_local(&admin.listen) {
        return Err(Refused::NotLocal);
    }
    let host = match headers.get(HOST) {
        // Browsers always say one.
        None => None,
        Some(host) => Some(authority(host).ok_or(Refused::Name)?),
    };
    if host.as_ref().is_some_and(|host| !is_own(host)) {
        return Err(Refused::Name);
    }
    if is_from_elsewhere(headers, host.as_ref()) {
        return Err(Refused::Page);
    }
    Ok(())
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(b"Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| rest.trim_ascii())
}

fn is_local(listen: &Listen) -> bool {
    match listen {
        Listen::Tcp(addr) => addr.ip().to_canonical().is_loopback(),
        Listen::Unix(_) => true,
    }
}

fn authority(host: &HeaderValue) -> Option<Authority> {
    Authority::try_from(host.as_bytes()).ok()
}

/// Nobody can point an address or `localhost` anywhere.
fn is_own(host: &Authority) -> bool {
    let name = host.host();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

fn is_from_elsewhere(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_ours = |origin: &HeaderValue| {
        let origin = origin.to_str().ok();
        let place = origin.and_then(|origin| origin.strip_prefix("http://"));
        place.is_some_and(|place| host.is_some_and(|host| host == place))
    };
    site.is_some_and(|site| !matches!(site, b"none" | b"same-origin"))
        || headers.get(ORIGIN).is_some_and(|origin| !is_ours(origin))
}

impl Refused {
    pub(super) fn answer(self) -> Response<Full<Bytes>> {
        let (status, why) = match self {
            Self::NoToken => (
                StatusCode::UNAUTHORIZED,
                "show the token of [admin] in `Authorization: Bearer ...`\n",
            ),
            Self::NotLocal => (
                StatusCode::FORBIDDEN,
                "this can be reached from other machines, so there is nothing here but /livez, /readyz and /metrics; \
                 set a token in [admin], or listen on 127.0.0.1\n",
            ),
            Self::Page => (
                StatusCode::FORBIDDEN,
                "this is not for pages of others in browsers\n",
            ),
            Self::Name => (
                StatusCode::FORBIDDEN,
                "the Host header is no address of this machine and not `localhost`; set a token in [admin] to be asked by name\n",
            ),
        };
        let mut refusal = text(status, why);
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"wx-sidecar admin\"");
            refusal.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        }
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    const NEW: &str = "n3w-admin-token-01";
    const OLD: &str = "0ld-admin-token-02";

    fn admin(listen: &str, tokens: &[&str]) -> Admin {
        Admin {
            inspector: false,
            listen: match listen.strip_prefix("unix:") {
                Some(path) => Listen::Unix(path.into()),
                None => Listen::Tcp(listen.parse().unwrap()),
            },
            tokens: tokens.iter().map(|token| Secret::new(*token)).collect(),
        }
    }

    fn asked(admin: &Admin, headers: &[(&str, &str)]) -> Result<(), Refused> {
        let request = headers
            .iter()
            .fold(Request::builder(), |request, (name, value)| {
                request.header(*name, *value)
            });
        admit(&request.body(()).unwrap(), admin)
    }

    #[test]
    fn without_a_token_this_machine_gets_everything_and_nobody_else() {
        for local in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/a"] {
            let admin = admin(local, &[]);
            for host in ["localhost:9901", "127.0.0.1:9901", "[::1]:9901", "10.0.0.9"] {
                assert_eq!(asked(&admin, &[("host", host)]), Ok(()), "{host}");
            }
            assert_eq!(asked(&admin, &[]), Ok(()));
        }
        for open in ["0.0.0.0:1", "10.0.0.9:1", "[::]:1"] {
            let host = [("host", "127.0.0.1")];
            assert_eq!(asked(&admin(open, &[]), &host), Err(Refused::NotLocal));
        }
    }

    #[test]
    fn pages_of_others_get_nothing() {
        let admin = admin("127.0.0.1:9901", &[]);
        for host in [
            "evil.example:9901",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "a b",
            "",
        ] {
            assert_eq!(
                asked(&admin, &[("host", host)]),
                Err(Refused::Name),
                "{host}"
            );
        }
        let here = ("host", "127.0.0.1:9901");
        for (name, value) in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "what-comes-next"),
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:9902"),
            ("origin", "https://127.0.0.1:9901"),
        ] {
            let answer = asked(&admin, &[here, (name, value)]);
            assert_eq!(answer, Err(Refused::Page), "{name}: {value}");
        }
        for (name, value) in [
            ("sec-fetch-site", "none"),
            ("sec-fetch-site", "same-origin"),
            ("origin", "http://127.0.0.1:9901"),
        ] {
            assert_eq!(
                asked(&admin, &[here, (name, value)]),
                Ok(()),
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn where_there_is_a_token_it_is_wanted_of_everybody_and_enough() {
        for listen in ["127.0.0.1:1", "0.0.0.0:1"] {
            let admin = admin(listen, &[NEW, OLD]);
            for token in [NEW, OLD] {
                for scheme in ["Bearer", "bearer"] {
                    let shown = format!("{scheme} {token}");
                    let headers = [
                        ("host", "admin.internal"),
                        ("authorization", shown.as_str()),
                    ];
                    assert_eq!(asked(&admin, &headers), Ok(()), "{shown}");
                }
            }
            for shown in [
                "",
                "Bearer ",
                "Bearer",
                "Bearer n3w-admin-token-0",
                "Bearer n3w-admin-token-011",
                "Basic n3w-admin-token-01",
            ] {
                let headers = [("host", "127.0.0.1"), ("authorization", shown)];
                assert_eq!(asked(&admin, &headers), Err(Refused::NoToken), "{shown}");
            }
        }
    }
}
