//! Who may call, and the tokens that SDKs want to see.
//!
//! An SDK cannot be told to do without an access_token: it fetches one with its AppSecret and writes it into every URL. So the
//! two token endpoints are answered here, with a virtual token that WeChat has never seen, and that is replaced on its way. What
//! the SDK believes to be its AppSecret is the caller token where one is configured; the virtual token is derived from it, so
//! that nothing has to be remembered and every replica knows it. Without one, whoever reaches the listener may call.
//!
//! A page in a browser on the same machine reaches it too. Browsers say where a request comes from, and servers do not, so
//! whoever says it is refused. They do not say it if the page's own name has been pointed here (DNS rebinding), so a name that
//! anybody can have in the public DNS is refused as well, unless it is one of WeChat's.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN, PROXY_AUTHORIZATION};
use http::uri::Authority;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::query::Shown;
use super::target::{bare, is_wechats};
use crate::answer::Answer;
use crate::config;
use crate::crypto::{constant_time_eq, hmac_sha256};
use crate::domain::AppId;
use crate::error::{Error, Kind};
use crate::secret::Secret;
use crate::wechat::answer::Refusal;

/// How long an SDK may keep a virtual token, in seconds. As long as a real one: some SDKs expect that.
const LIFE: u64 = 7200;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Names below these are nobody's in the public DNS (RFC 6761, RFC 6762, and ICANN for `internal`).
const PRIVATE: [&str; 6] = [
    "localhost",
    "local",
    "internal",
    "test",
    "example",
    "invalid",
];

/// Those who may call.
pub(crate) struct Callers {
    /// Where the calls go, whose names may lead here.
    endpoints: Vec<String>,
    /// Whether a page in a browser could ask at all.
    has_port: bool,
    appid: AppId,
    /// Newest first; empty if nobody has to show anything.
    known: Vec<Known>,
    /// The virtual token where there is nothing to derive it from.
    open: Secret,
}

struct Known {
    token: Secret,
    virtual_token: Secret,
}

/// What a token endpoint is asked.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) grant_type: String,
    pub(crate) appid: String,
    pub(crate) secret: Zeroizing<String>,
}

impl Callers {
    pub(crate) fn new(
        appid: &AppId,
        outbound: &config::Outbound,
        endpoints: &[config::Endpoint],
    ) -> Self {
        let known = outbound.caller_tokens.iter().map(|token| Known {
            virtual_token: virtual_token(appid, token.expose()),
            token: token.clone(),
        });
        Self {
            endpoints: endpoints.iter().map(|it| it.host.clone()).collect(),
            has_port: !matches!(outbound.listen, Some(config::Listen::Unix(_))),
            known: known.collect(),
            open: virtual_token(appid, ""),
            appid: appid.clone(),
        }
    }

    /// Whether a caller may call, by what it shows in its headers and its URL; and which of the caller tokens that was,
    /// counted from the newest, if there are any.
    ///
    /// # Errors
    /// If it may not.
    pub(crate) fn admit(&self, headers: &HeaderMap, shown: &Shown) -> Result<Option<usize>, Error> {
        if self.known.is_empty() {
            from_no_browser(headers)?;
            return self.by_own_name(headers).map(|()| None);
        }
        let in_headers = [AUTHORIZATION, PROXY_AUTHORIZATION]
            .into_iter()
            .filter_map(|name| credential(headers.get(name)?.to_str().ok()?));
        let in_url = shown.tokens.iter().map(Zeroizing::clone);
        if let Some(slot) = in_headers.chain(in_url).find_map(|shown| self.slot(&shown)) {
            return Ok(Some(slot));
        }
        let detail = (
            "the call does not show the caller token of the sidecar's configuration",
            "调用没有出示 sidecar 配置中的 caller_token",
        );
        Err(Error::downstream(Kind::CallerUnknown, detail).with_hint((
            "give it to your SDK as its AppSecret, or send `Authorization: Bearer <caller token>`",
            "请把它作为 AppSecret 填入 SDK，或发送 `Authorization: Bearer <caller token>`",
        )))
    }

    /// Refuses a name that a page may have pointed here.
    fn by_own_name(&self, headers: &HeaderMap) -> Result<(), Error> {
        let Some(host) = headers.get(HOST) else {
            return Ok(());
        };
        let authority = Authority::try_from(host.as_bytes()).ok();
        let name = authority.as_ref().map_or("", Authority::host);
        let is_said = !host.is_empty() && self.has_port;
        let endpoints = self.endpoints.iter().map(String::as_str);
        if !is_said || is_nobodys(name) || is_wechats(name, endpoints) {
            return Ok(());
        }
        let detail = (
            "the call comes by a name that is neither WeChat's nor of this machine, as a page in a browser might have it",
            "调用所用的主机名既不是微信的，也不是本机的，可能来自浏览器中的网页",
        );
        Err(Error::downstream(Kind::CallDenied, detail).with_hint((
            "call an address such as http://127.0.0.1:8081, or set [outbound] caller_token and show it",
            "请使用 http://127.0.0.1:8081 这样的地址，或设置 [outbound] caller_token 并在调用时出示",
        )))
    }

    /// The answer of a token endpoint: as WeChat's, with a virtual token.
    ///
    /// # Errors
    /// If WeChat would refuse; in its words, and with ours.
    pub(crate) fn grant(&self, asked: &Asked) -> Result<Answer, Refusal> {
        let refuse = |errcode: i64, errmsg: &str| Err(Refusal::of(errcode, errmsg, &[]));
        if asked.grant_type != "client_credential" {
            return refuse(40002, "invalid grant_type");
        }
        if asked.appid != self.appid.as_str() {
            let errmsg = format!("invalid appid: this sidecar is {}'s", self.appid);
            return refuse(40013, &errmsg);
        }
        let token = match self.known.iter().find(|known| known.is(&asked.secret)) {
            Some(known) => &known.virtual_token,
            None if self.known.is_empty() => &self.open,
            None => {
                let errmsg = "invalid appsecret: the sidecar takes its caller token in place of the AppSecret";
                return refuse(40125, errmsg);
            }
        };
        let body = json!({ "access_token": token.expose(), "expires_in": LIFE });
        Ok(Answer::json(200, &body))
    }

    fn slot(&self, shown: &str) -> Option<usize> {
        self.known.iter().position(|known| known.is(shown))
    }
}

impl Known {
    fn is(&self, shown: &str) -> bool {
        [&self.token, &self.virtual_token]
            .into_iter()
            .any(|known| constant_time_eq(known.expose().as_bytes(), shown.as_bytes()))
    }
}

impl Asked {
    /// From the parameters of a GET.
    pub(crate) fn of_query(query: &str) -> Self {
        let mut asked = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
            match name {
                "grant_type" => asked.grant_type = value.into_owned(),
                "appid" => asked.appid = value.into_owned(),
                "secret" => asked.secret = Zeroizing::new(value.into_owned()),
                _ => {}
            }
        }
        asked
    }

    /// From the JSON of a POST; of what is no JSON, nothing.
    pub(crate) fn of_json(body: &[u8]) -> Self {
        let mut body: Value = serde_json::from_slice(body).unwrap_or_default();
        let mut text = |name: &str| match body.get_mut(name).map(Value::take) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        Self {
            grant_type: text("grant_type"),
            appid: text("appid"),
            secret: Zeroizing::new(text("secret")),
        }
    }
}

fn from_no_browser(headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(ORIGIN) || headers.contains_key(SEC_FETCH_SITE) {
        let detail = (
            "this is for servers, and the request comes from a page in a browser",
            "此端口供服务端使用，而请求来自浏览器中的网页",
        );
        return Err(Error::downstream(Kind::CallDenied, detail));
    }
    Ok(())
}

/// Whether this is an address, or a name that nobody can have in the public DNS.
fn is_nobodys(name: &str) -> bool {
    let name = bare(name);
    let top = name.rsplit('.').next().unwrap_or_default();
    let is_name = !name.is_empty();
    is_name
        && (!name.contains('.')
            || name.parse::<std::net::IpAddr>().is_ok()
            || PRIVATE.iter().any(|it| it.eq_ignore_ascii_case(top)))
}

/// The token of `Bearer <token>`, or the password of `Basic`, which is how proxy URLs show one.
fn credential(value: &str) -> Option<Zeroizing<String>> {
    let (scheme, rest) = value.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Zeroizing::new(rest.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = Zeroizing::new(BASE64_STANDARD.decode(rest).ok()?);
    let (_, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some(Zeroizing::new(password.to_owned()))
}

fn virtual_token(appid: &AppId, token: &str) -> Secret {
    let parts: [&[u8]; 2] = [
        b"wx-sidecar virtual access_token 1|",
        appid.as_str().as_bytes(),
    ];
    let digest = hmac_sha256(token.as_bytes(), &parts);
    Secret::new(format!("virtual_{}", BASE64_URL_SAFE_NO_PAD.encode(digest)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const OURS: &str = "wx0123456789abcdef";
    const OLD: &str = "0ld-caller-token";
    const NEW: &str = "n3w-caller-token";

    fn callers(tokens: &[&str]) -> Callers {
        let config = config::Config::from_toml(&format!(
            "[app]\nappid = \"{OURS}\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
             [inbound]\nupstream = \"http://127.0.0.1:1\"\n"
        ));
        let mut config = config.unwrap();
        config.outbound.caller_tokens = tokens.iter().map(|token| Secret::new(*token)).collect();
        Callers::new(
            &config.app.appid,
            &config.outbound,
            &config.wechat.endpoints,
        )
    }

    fn asked(secret: &str) -> Asked {
        Asked {
            grant_type: "client_credential".to_owned(),
            appid: OURS.to_owned(),
            secret: Zeroizing::new(secret.to_owned()),
        }
    }

    fn granted(callers: &Callers, asked: &Asked) -> Result<String, i64> {
        let granted = callers.grant(asked).map_err(|refusal| refusal.errcode)?;
        let answer: Value = serde_json::from_slice(&granted.body).unwrap();
        assert_eq!(answer["expires_in"], 7200);
        Ok(answer["access_token"].as_str().unwrap().to_owned())
    }

    fn admits(callers: &Callers, name: &'static str, value: &str) -> bool {
        let name = HeaderName::from_static(name);
        let value = HeaderValue::from_str(value).unwrap();
        let headers = HeaderMap::from_iter([(name, value)]);
        callers.admit(&headers, &Shown::default()).is_ok()
    }

    fn admits_token(callers: &Callers, token: &str) -> bool {
        let tokens = vec![Zeroizing::new(token.to_owned())];
        callers.admit(&HeaderMap::new(), &Shown { tokens }).is_ok()
    }

    #[test]
    fn without_a_caller_token_every_server_may_call_and_no_page() {
        let callers = callers(&[]);
        assert!(callers.admit(&HeaderMap::new(), &Shown::default()).is_ok());
        assert!(admits(&callers, "sec-fetch-mode", "cors"), "Node says that");
        assert!(!admits(&callers, "origin", "https://evil.test"));
        assert!(!admits(&callers, "origin", "null"));
        assert!(!admits(&callers, "sec-fetch-site", "cross-site"));
        let token = granted(&callers, &asked("anything")).unwrap();
        assert_eq!(granted(&callers, &asked("")), Ok(token));
    }

    #[test]
    fn without_a_caller_token_nobody_calls_by_a_name_that_a_page_can_have() {
        let open = callers(&[]);
        for host in [
            "127.0.0.1:8081",
            "[::1]:8081",
            "10.1.2.3",
            "localhost:8081",
            "sidecar:8081",
            "host.docker.internal:8081",
            "wx-sidecar.shop.svc.cluster.local",
            "wx.test:8081",
            "",
            "api.weixin.qq.com",
            "API2.weixin.qq.com.:80",
        ] {
            assert!(admits(&open, "host", host), "{host}");
        }
        for host in [
            "evil.example.com:8081",
            "api.weixin.qq.com.evil.cn",
            "127.0.0.1.evil.cn",
            "localhost.evil.cn:8081",
            "a b",
        ] {
            assert!(!admits(&open, "host", host), "{host}");
        }
        let known = callers(&[NEW]);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("wechat.example.com"));
        let bearer = HeaderValue::from_str(&format!("Bearer {NEW}")).unwrap();
        headers.insert(AUTHORIZATION, bearer);
        assert!(known.admit(&headers, &Shown::default()).is_ok());
    }

    #[test]
    fn a_caller_token_is_shown_as_an_app_secret_a_password_or_a_bearer_token() {
        let callers = callers(&[NEW, OLD]);
        assert!(callers.admit(&HeaderMap::new(), &Shown::default()).is_err());
        for token in [NEW, OLD] {
            assert!(admits(
                &callers,
                "authorization",
                &format!("Bearer {token}")
            ));
            assert!(admits(
                &callers,
                "authorization",
                &format!("bearer  {token}")
            ));
            let basic = BASE64_STANDARD.encode(format!("app:{token}"));
            assert!(admits(
                &callers,
                "proxy-authorization",
                &format!("Basic {basic}")
            ));
            let virtual_token = granted(&callers, &asked(token)).unwrap();
            assert!(admits_token(&callers, &virtual_token));
            assert!(admits_token(&callers, token));
        }
        assert_ne!(
            granted(&callers, &asked(NEW)),
            granted(&callers, &asked(OLD))
        );
        let basic = BASE64_STANDARD.encode("app");
        for (name, value) in [
            ("authorization", "Bearer x".to_owned()),
            ("authorization", NEW.to_owned()),
            ("authorization", "Bearer".to_owned()),
            ("proxy-authorization", format!("Basic {basic}")),
            ("proxy-authorization", "Basic *".to_owned()),
        ] {
            assert!(!admits(&callers, name, &value), "{value}");
        }
        let open = self::callers(&[]);
        let open = granted(&open, &asked("")).unwrap();
        assert!(!admits_token(&callers, &open), "that anybody can compute");
    }

    #[test]
    fn a_token_endpoint_refuses_as_wechats_does() {
        let callers = callers(&[NEW]);
        assert_eq!(granted(&callers, &asked("x")), Err(40125));
        let other_app = Asked {
            appid: "wxfedcba9876543210".to_owned(),
            ..asked(NEW)
        };
        assert_eq!(granted(&callers, &other_app), Err(40013));
        assert_eq!(granted(&callers, &Asked::default()), Err(40002));
    }

    #[test]
    fn what_is_asked_is_read_from_a_query_or_from_json() {
        let callers = callers(&[NEW]);
        let query = format!("grant_type=client_credential&appid={OURS}&secret={NEW}");
        let body = json!({"grant_type": "client_credential", "appid": OURS, "secret": NEW, "force_refresh": true});
        let by_query = granted(&callers, &Asked::of_query(&query)).unwrap();
        let by_json = granted(&callers, &Asked::of_json(body.to_string().as_bytes()));
        assert_eq!(by_json, Ok(by_query));
        assert_eq!(granted(&callers, &Asked::of_json(b"x")), Err(40002));
    }
}
