//! Which API of WeChat's a request is for.
//!
//! Apps come in three ways: with the sidecar's address in place of WeChat's (origin-form, any `Host` here; see `caller`), with the sidecar as
//! their proxy (absolute-form, RFC 9112 §3.2.2), and with WeChat's name leading to the sidecar. Where the call goes is
//! never theirs to say: it is the configured endpoint, and of the target only a path is taken that has one meaning. WeChat's
//! paths are letters, digits, `_`, `-`, `.` and single slashes, so nothing else is: no escapes, no dot segments, no
//! `//host`, no `@`, no backslash.

use http::{Method, Uri};

use crate::error::{Error, Kind};

/// WeChat's own names, which a proxied request may be for beside the configured ones.
const HOSTS: [&str; 5] = [
    "api.weixin.qq.com",
    "api2.weixin.qq.com",
    "sh.api.weixin.qq.com",
    "sz.api.weixin.qq.com",
    "hk.api.weixin.qq.com",
];

/// A path of WeChat's, and the query as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) path: String,
    pub(crate) query: String,
}

impl Target {
    /// The target of a request. `hosts` are the names of the configured endpoints.
    ///
    /// # Errors
    /// What is wrong with it, and how it should be.
    pub(crate) fn parse<'a>(
        method: &Method,
        uri: &Uri,
        hosts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Error> {
        match *method {
            Method::GET | Method::POST => {}
            Method::CONNECT => return Err(no_tunnels()),
            _ => {
                let detail = (
                    "WeChat's APIs take GET and POST",
                    "微信接口只接受 GET 和 POST",
                );
                return Err(
                    Error::downstream(Kind::MethodNotAllowed, detail).with_allow("GET, POST")
                );
            }
        }
        if let Some(authority) = uri.authority() {
            if authority.as_str().contains('@') {
                let detail = (
                    "an address with `@` in it can be read in two ways",
                    "含有 `@` 的地址有歧义",
                );
                return Err(Error::downstream(Kind::AmbiguousPath, detail));
            }
            if !is_wechats(authority.host(), hosts) {
                return Err(elsewhere());
            }
        }
        let path = uri.path();
        if let Some(why) = ambiguous(path) {
            return Err(Error::downstream(Kind::AmbiguousPath, why));
        }
        Ok(Self {
            path: path.to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
        })
    }
}

/// Whether a name is one of WeChat's own or of the `configured` endpoints.
pub(super) fn is_wechats<'a>(name: &str, configured: impl IntoIterator<Item = &'a str>) -> bool {
    let mut known = configured.into_iter().chain(HOSTS);
    known.any(|known| bare(known).eq_ignore_ascii_case(bare(name)))
}

/// A name without the dot that ends it and without brackets.
pub(super) fn bare(name: &str) -> &str {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.trim_matches(['[', ']'])
}

fn ambiguous(path: &str) -> Option<(&'static str, &'static str)> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/_-.".contains(&b);
    if !path.bytes().all(plain) {
        return Some((
            "a path of WeChat's has letters, digits, `_`, `-`, `.` and `/` in it and nothing else",
            "微信接口的路径只含字母、数字、`_`、`-`、`.` 和 `/`",
        ));
    }
    let mut segments = path.strip_prefix('/')?.split('/');
    segments
        .any(|segment| matches!(segment, "" | "." | ".."))
        .then_some((
            "a path of WeChat's has no empty segment, no `.` and no `..`",
            "微信接口的路径不含空段、`.` 和 `..`",
        ))
}

fn no_tunnels() -> Error {
    let detail = (
        "a tunnel is encrypted from end to end, so that the sidecar could not add the access_token",
        "隧道是端到端加密的，sidecar 无法加入 access_token",
    );
    Error::downstream(Kind::MethodNotAllowed, detail)
        .with_allow("GET, POST")
        .with_hint((
            "call http://api.weixin.qq.com/... (not https) through this proxy, or http://<this address>/...",
            "请通过本代理调用 http://api.weixin.qq.com/...（不是 https），或 http://<本代理的地址>/...",
        ))
}

fn elsewhere() -> Error {
    let detail = (
        "this proxy leads to WeChat and nowhere else",
        "本代理只通往微信",
    );
    Error::downstream(Kind::CallDenied, detail)
        .with_hint((
            "name the other hosts in `no_proxy`, or leave http_proxy out and call the sidecar's own address",
            "请把其他主机写入 `no_proxy`，或不设置 http_proxy，直接调用 sidecar 的地址",
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &Method, uri: &str) -> Result<Target, (u16, Kind)> {
        Target::parse(method, &uri.parse().unwrap(), ["wechat.test", "::1"])
            .map_err(|error| (error.status(), error.kind()))
    }

    fn get(uri: &str) -> Result<Target, (u16, Kind)> {
        parse(&Method::GET, uri)
    }

    #[test]
    fn all_three_ways_in_lead_to_the_same_path() {
        for uri in [
            "/wxa/getwxacode?a=1&b=%2F",
            "http://api.weixin.qq.com/wxa/getwxacode?a=1&b=%2F",
            "https://API.weixin.qq.com:443/wxa/getwxacode?a=1&b=%2F",
            "http://wechat.test:9000/wxa/getwxacode?a=1&b=%2F",
            "http://[::1]:9000/wxa/getwxacode?a=1&b=%2F",
        ] {
            let target = get(uri).unwrap();
            assert_eq!(target.path, "/wxa/getwxacode", "{uri}");
            assert_eq!(target.query, "a=1&b=%2F", "{uri}");
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for path in [
            "//evil.test/wxa/getwxacode",
            "/wxa//getwxacode",
            "/wxa/../cgi-bin/token",
            "/wxa/./getwxacode",
            "/wxa/%2e%2e/cgi-bin/token",
            "/wxa%2fgetwxacode",
            "/wxa\\getwxacode",
            "/@evil.test/wxa",
            "/wxa;x=1/getwxacode",
            "/wxa/get:80",
            "/wxa/",
            "/",
            "http://api.weixin.qq.com",
        ] {
            assert_eq!(get(path), Err((400, Kind::AmbiguousPath)), "{path}");
        }
        assert_eq!(
            get("http://api.weixin.qq.com@evil.test/wxa/getwxacode"),
            Err((400, Kind::AmbiguousPath))
        );
        for host in [
            "evil.test",
            "api.weixin.qq.com.evil.test",
            "evilapi.weixin.qq.com",
            "169.254.169.254",
        ] {
            let uri = format!("http://{host}/wxa/getwxacode");
            assert_eq!(get(&uri), Err((403, Kind::CallDenied)), "{host}");
        }
    }

    #[test]
    fn a_tunnel_is_refused_with_what_to_do_instead() {
        let uri = "api.weixin.qq.com:443".parse().unwrap();
        let error = Target::parse(&Method::CONNECT, &uri, []).unwrap_err();
        assert_eq!(error.status(), 405);
        let problem = error.to_problem("request-1", crate::error::Language::English);
        assert!(String::from_utf8(problem).unwrap().contains("not https"));
        assert_eq!(
            parse(&Method::DELETE, "/wxa/getwxacode"),
            Err((405, Kind::MethodNotAllowed))
        );
    }
}
