//! One call, without its socket: the request as parsed, what is decided about it, and the decision itself.

use std::net::IpAddr;
use std::time::Duration;

use ::http::header::{ACCEPT, LOCATION};
use ::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use serde_json::{Value, json};

use super::calls::masked;
use super::fault::Effect;
use super::outbox::Due;
use super::refusal::{Refused, wording};
use super::rids::{Remembered, beginning};
use super::state::State;
use super::{api, control, media};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
const CGI_JSON: HeaderValue = HeaderValue::from_static("application/json; encoding=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HTML: HeaderValue = HeaderValue::from_static("text/html");
const GARBAGE: &[u8] = b"<xml>\xff\xfe not what you asked for \x00</xml>";
const GATEWAY_PAGE: &str =
    "<html><body><center><h1>Something went wrong</h1></center></body></html>";

/// A request.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    /// As it was sent, not decoded.
    pub(super) path: String,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    /// Where it comes from.
    pub(super) peer: IpAddr,
    pub(super) body: Bytes,
}

/// A query string: as it was sent, and its parameters, decoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    raw: String,
    parameters: Vec<(String, String)>,
}

/// What is to be sent, and when.
pub(super) struct Reply {
    pub(super) delay: Duration,
    pub(super) outcome: Outcome,
}

/// What is to be sent.
pub(super) enum Outcome {
    Answer(Answer),
    /// A TCP reset.
    Reset,
    /// Half of the answer, then a TCP reset.
    Torn(Answer),
    /// The answer, its body in pieces.
    Slow(Answer, Pace),
    /// What came of a push, which is to be sent first.
    Push(Box<Due>),
}

/// How a body comes in pieces.
pub(super) struct Pace {
    /// At least 1.
    pub(super) bytes: usize,
    /// Before each piece.
    pub(super) interval: Duration,
}

/// An HTTP answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: HeaderValue,
    /// Field lines beside the content type.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The errcode that the body tells, for the list of calls.
    pub(super) errcode: Option<i64>,
    /// The rid that the body tells, by which the call is remembered.
    pub(super) rid: Option<String>,
}

/// Decides a call: the whole of the simulator, short of the network.
pub(super) fn receive(state: &mut State, request: Request) -> Reply {
    if control::is_push(&request) {
        return Reply::at_once(control::push(state, &request));
    }
    if control::owns(&request.path) {
        return Reply::at_once(Outcome::Answer(control::answer(state, &request)));
    }
    let met = state.faults.meet(&request.path);
    let fault = met.as_ref().map(|(_, effect)| effect.name());
    let (delay, effect) = met.unwrap_or((Duration::ZERO, Effect::Answer));
    let outcome = suffer(state, &request, effect);
    let answer = match &outcome {
        Outcome::Answer(answer) | Outcome::Torn(answer) | Outcome::Slow(answer, _) => Some(answer),
        Outcome::Reset | Outcome::Push(_) => None,
    };
    if let Some((answer, rid)) = answer.and_then(|answer| Some((answer, answer.rid.clone()?))) {
        let call = remembered(state, &request, answer, delay);
        state.rids.keep(rid, call);
    }
    let errcode = answer.and_then(|answer| answer.errcode);
    state.calls.record(state.now(), request, errcode, fault);
    Reply { delay, outcome }
}

fn remembered(state: &State, request: &Request, answer: &Answer, cost: Duration) -> Remembered {
    let query = &request.query;
    let by_token = state.check_access_token(query.value("access_token")).ok();
    let by_name = || state.app_index(query.value("appid")?);
    Remembered {
        app: by_token.or_else(by_name),
        path: request.path.clone(),
        invoked_at: state.now(),
        cost,
        query: masked(request),
        request_body: beginning(&request.body),
        response_body: beginning(&answer.body),
        client_ip: request.peer,
    }
}

fn suffer(state: &mut State, request: &Request, effect: Effect) -> Outcome {
    let usual = content_type(&request.path);
    Outcome::Answer(match effect {
        Effect::Answer => api::answer(state, request),
        Effect::Errcode { errcode, errmsg } => match errmsg {
            Some(errmsg) => Answer::error(&request.path, errcode, &errmsg),
            None => Answer::error_with_rid(state, &request.path, errcode, wording(errcode)),
        },
        Effect::Reset => return Outcome::Reset,
        Effect::ResetMidBody => return Outcome::Torn(api::answer(state, request)),
        Effect::Garbage => Answer::new(200, HTML, GARBAGE),
        Effect::Status { status, body } => {
            let body = body.map_or(Bytes::from_static(GATEWAY_PAGE.as_bytes()), Bytes::from);
            Answer::new(status, HTML, body)
        }
        Effect::Empty => Answer::new(200, usual, Bytes::new()),
        Effect::Raw {
            status,
            content_type,
            body,
        } => Answer::new(status, content_type.unwrap_or(usual), body),
        Effect::Redirect { location } => {
            let location = match location.as_bytes().ends_with(b"?") {
                true => with_query(&location, request),
                false => location,
            };
            Answer {
                headers: HeaderMap::from_iter([(LOCATION, location)]),
                ..Answer::new(302, HTML, Bytes::new())
            }
        }
        Effect::Slow { bytes, interval } => {
            let bytes = bytes.max(1);
            return Outcome::Slow(api::answer(state, request), Pace { bytes, interval });
        }
    })
}

/// A query comes from a URL that hyper has read, so it is a value of a field as well.
fn with_query(location: &HeaderValue, request: &Request) -> HeaderValue {
    let whole = [location.as_bytes(), request.query.raw().as_bytes()].concat();
    HeaderValue::from_bytes(&whole).unwrap_or_else(|_| location.clone())
}

impl Reply {
    fn at_once(outcome: Outcome) -> Self {
        Self {
            delay: Duration::ZERO,
            outcome,
        }
    }
}

impl Request {
    /// Whether the client would rather have text than JSON.
    pub(super) fn wants_text(&self) -> bool {
        let accept = self.headers.get(ACCEPT);
        accept.is_some_and(|accept| accept.as_bytes().starts_with(b"text/plain"))
    }
}

impl Answer {
    fn new(status: u16, content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            content_type,
            headers: HeaderMap::new(),
            body: body.into(),
            errcode: None,
            rid: None,
        }
    }

    /// A success of WeChat's.
    pub(super) fn success(path: &str, body: &Value) -> Self {
        Self::new(200, content_type(path), body.to_string())
    }

    /// A success of WeChat's that is a file.
    pub(super) fn file(content_type: &'static str, headers: HeaderMap, body: Bytes) -> Self {
        Self {
            headers,
            ..Self::new(200, HeaderValue::from_static(content_type), body)
        }
    }

    /// A refusal of WeChat's: HTTP 200 all the same.
    pub(super) fn refusal(state: &mut State, path: &str, refused: &Refused) -> Self {
        Self::error_with_rid(state, path, refused.refusal.errcode(), &refused.errmsg)
    }

    /// An answer of a control endpoint.
    pub(super) fn control(status: u16, body: &Value) -> Self {
        Self::new(status, JSON, format!("{body}\n"))
    }

    /// Text of a control endpoint.
    pub(super) fn text(status: u16, body: impl Into<Bytes>) -> Self {
        let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
        Self::new(status, content_type, body)
    }

    fn error_with_rid(state: &mut State, path: &str, errcode: i64, errmsg: &str) -> Self {
        let rid = state.rid();
        let told = Self::error(path, errcode, &format!("{errmsg} rid: {rid}"));
        Self {
            content_type: match path {
                media::GET => called_at_random(&rid),
                _ => told.content_type,
            },
            rid: Some(rid),
            ..told
        }
    }

    fn error(path: &str, errcode: i64, errmsg: &str) -> Self {
        let body = json!({ "errcode": errcode, "errmsg": errmsg });
        Self {
            errcode: Some(errcode),
            ..Self::success(path, &body)
        }
    }
}

/// Where a file was asked for, a refusal is at times called one.
fn called_at_random(rid: &str) -> HeaderValue {
    let types = [TEXT, CGI_JSON, HeaderValue::from_static("image/jpeg")];
    let place = rid.bytes().map(usize::from).sum::<usize>() % types.len();
    types
        .into_iter()
        .nth(place)
        .expect("the place is one of them")
}

/// WeChat's content types: logins and media have JSON that is called plain text.
fn content_type(path: &str) -> HeaderValue {
    if path.starts_with("/sns/") || path.starts_with("/cgi-bin/media/") {
        TEXT
    } else {
        CGI_JSON
    }
}

impl Query {
    /// Parameters that came in another way.
    pub(super) fn of(parameters: Vec<(String, String)>) -> Self {
        Self {
            raw: String::new(),
            parameters,
        }
    }

    /// Parses a query string. Never fails, as WeChat's own parser does not: a broken escape stands for itself, and
    /// what is not UTF-8 becomes U+FFFD.
    pub(super) fn parse(text: &str) -> Self {
        let parameters = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |part: &str| percent_decode(&part.replace('+', " "));
            (decode(name), decode(value))
        });
        Self {
            raw: text.to_owned(),
            parameters: parameters.collect(),
        }
    }

    /// As it was sent, without the question mark.
    pub(super) fn raw(&self) -> &str {
        &self.raw
    }

    /// The first value of that name; an empty one is as good as none.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(known, value)| *known == name && !value.is_empty())
            .map(|(_, value)| value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let parameters = self.parameters.iter();
        parameters.map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Decodes `%XX`; see [`Query::parse`] for what is broken.
pub(super) fn percent_decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let escape = (*first == b'%').then(|| after.get(..2)).flatten();
        match escape.and_then(hex_byte) {
            Some(byte) => {
                decoded.push(byte);
                rest = &after[2..];
            }
            None => decoded.push(*first),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0, |byte, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(byte << 4 | u8::try_from(digit).ok()?)
    })
}

#[cfg(test)]
impl Request {
    /// A call without header fields, from the loopback interface.
    pub(super) fn of(
        method: impl TryInto<Method, Error: std::fmt::Debug>,
        target: &str,
        body: &[u8],
    ) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            method: method.try_into().unwrap(),
            path: path.to_owned(),
            query: Query::parse(query),
            headers: HeaderMap::new(),
            peer: IpAddr::from([127, 0, 0, 1]),
            body: Bytes::copy_from_slice(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::domain::AppId;
    use crate::secret::Secret;
    use crate::sim::fault::Fault;
    use crate::sim::probe::Probe;
    use crate::sim::state::SimApp;

    fn state() -> State {
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_040_000));
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        State::new(clock, 0, vec![SimApp::new(appid, Secret::new("s"))])
    }

    fn answer(state: &mut State, method: &str, target: &str) -> Answer {
        match receive(state, Request::of(method, target, b"")).outcome {
            Outcome::Answer(answer) => answer,
            _ => panic!("an answer was due"),
        }
    }

    #[test]
    fn a_query_is_decoded_and_survives_broken_escapes() {
        let query = Query::parse("a=1&b=x%20y+z&c=%zz%4&%e4%bd%a0=%E5%A5%BD&empty=&bare&a=2&d=%ff");
        let expected = [
            ("a", "1"),
            ("b", "x y z"),
            ("c", "%zz%4"),
            ("你", "好"),
            ("d", "\u{fffd}"),
        ];
        for (name, value) in expected {
            assert_eq!(query.value(name), Some(value));
        }
        assert_eq!(query.value("empty"), None);
        assert_eq!(query.value("bare"), None);
    }

    #[test]
    fn calls_are_counted_and_listed_without_secrets() {
        let mut state = state();
        let target = "/sns/jscode2session?appid=wx0123456789abcdef&secret=hunter2&js_code=0abc&access_token=tok_en&x=1";
        assert_eq!(answer(&mut state, "GET", target).errcode, Some(40125));
        answer(&mut state, "GET", "/_sim/users");
        let listed = answer(&mut state, "GET", "/_sim/calls").body;
        let listed = std::str::from_utf8(&listed).unwrap();
        for hidden in ["hunter2", "0abc", "tok_en"] {
            assert!(!listed.contains(hidden), "{listed}");
        }
        let listed: Value = serde_json::from_str(listed).unwrap();
        assert_eq!(listed["counts"], json!({ "/sns/jscode2session": 1 }));
        assert_eq!(listed["last"][0]["errcode"], json!(40125));
        assert!(
            listed["last"][0]["query"]
                .as_str()
                .unwrap()
                .ends_with("x=1")
        );
    }

    #[test]
    fn what_arrived_can_be_had_to_the_byte_and_printing_it_tells_no_secret() {
        let mut state = state();
        let target = "/cgi-bin/stable_token?a=%7e+1&&b";
        let mut request = Request::of("POST", target, b"{\"secret\":\"hunter2\"}");
        let junk = HeaderValue::from_static("hunter2");
        request.headers.append("x-wx-junk", junk.clone());
        request.headers.append("x-wx-junk", junk);
        receive(&mut state, request);
        answer(&mut state, "GET", "/_sim/users");
        answer(&mut state, "GET", "/cgi-bin/token");

        let received = state.calls.received("/cgi-bin/stable_token");
        let [received] = &received[..] else {
            panic!("one call was made: {received:?}");
        };
        assert_eq!(received.method, Method::POST);
        assert_eq!(received.query, "a=%7e+1&&b");
        assert_eq!(received.headers.get_all("x-wx-junk").iter().count(), 2);
        assert_eq!(received.body, "{\"secret\":\"hunter2\"}");
        assert!(!format!("{received:?}").contains("hunter2"));
    }

    #[test]
    fn only_the_last_hundred_calls_are_kept_and_paths_are_bounded() {
        let mut state = state();
        for n in 0..1100 {
            answer(&mut state, "GET", &format!("/{n}"));
        }
        let calls = serde_json::to_value(&state.calls).unwrap();
        assert_eq!(calls["last"].as_array().unwrap().len(), 100);
        assert_eq!(calls["last"][0]["path"], json!("/1099"));
        assert_eq!(state.calls.count("(other)"), 100);
    }

    #[test]
    fn a_fault_in_place_of_the_answer_does_not_spend_the_code_and_a_torn_answer_does() {
        let mut state = state();
        let code = state.issue_code(0, "alice", Default::default());
        let target = format!(
            "/sns/jscode2session?appid=wx0123456789abcdef&secret=s&grant_type=authorization_code&js_code={code}"
        );
        let path = "/sns/jscode2session";
        let errcode = Effect::Errcode {
            errcode: -1,
            errmsg: None,
        };
        state.faults.queue(Fault::new(path, 1, errcode));
        state.faults.queue(Fault::new(path, 1, Effect::Reset));
        state
            .faults
            .queue(Fault::new("/sns/*", 1, Effect::ResetMidBody));
        let failed = answer(&mut state, "GET", &target);
        assert_eq!(failed.errcode, Some(-1));
        assert_eq!(failed.content_type, "text/plain");
        assert!(
            failed
                .body
                .starts_with(br#"{"errcode":-1,"errmsg":"system error rid: "#)
        );
        let replies =
            [(); 2].map(|()| receive(&mut state, Request::of("GET", &target, b"")).outcome);
        assert!(matches!(replies[0], Outcome::Reset));
        assert!(matches!(&replies[1], Outcome::Torn(answer) if answer.errcode.is_none()));
        assert_eq!(answer(&mut state, "GET", &target).errcode, Some(40163));
        assert_eq!(state.calls.count(path), 4);
    }

    #[test]
    fn addresses_are_asked_for_a_token_after_the_secret_and_for_nothing_else() {
        let mut state = state();
        let held = state.token(0).access_token;
        state.access.allow_only(Some(&[IpAddr::from([1, 2, 3, 4])]));
        let mut told = |method, target: &str, body: &str, peer: [u8; 4]| {
            let request = Request {
                peer: IpAddr::from(peer),
                ..Request::of(method, target, body.as_bytes())
            };
            match receive(&mut state, request).outcome {
                Outcome::Answer(answer) => String::from_utf8(answer.body.to_vec()).unwrap(),
                _ => panic!("an answer was due"),
            }
        };
        let classic =
            "/cgi-bin/token?grant_type=client_credential&appid=wx0123456789abcdef&secret=";
        let stable =
            r#"{"grant_type":"client_credential","appid":"wx0123456789abcdef","secret":"s"}"#;
        let (good, bad) = ([1, 2, 3, 4], [1, 2, 3, 5]);
        for (method, target, body) in [
            ("GET", format!("{classic}s"), ""),
            ("POST", "/cgi-bin/stable_token".to_owned(), stable),
        ] {
            assert!(told(method, &target, body, good).contains("access_token"));
            let refused = told(method, &target, body, bad);
            let said = "invalid ip 1.2.3.5 ipv6 ::ffff:1.2.3.5, not in whitelist rid: ";
            assert!(refused.starts_with(r#"{"errcode":40164,"#), "{refused}");
            assert!(refused.contains(said), "{refused}");
        }
        let wrong = told("GET", &format!("{classic}x"), "", bad);
        assert!(wrong.contains("40125"), "{wrong}");
        let target = format!("/cgi-bin/get_api_domain_ip?access_token={held}");
        assert!(told("GET", &target, "", bad).contains("ip_list"));
    }

    #[test]
    fn a_withheld_path_is_refused_to_whoever_has_a_good_token() {
        let mut state = state();
        let path = "/cgi-bin/get_api_domain_ip";
        let token = state.token(0).access_token;
        let target = format!("{path}?access_token={token}");
        state.access.grant(path, false);
        assert_eq!(answer(&mut state, "GET", path).errcode, Some(41001));
        assert_eq!(answer(&mut state, "GET", &target).errcode, Some(48001));
        assert_eq!(state.quota_of(0, path).today, 0);
        state.access.grant(path, true);
        assert_eq!(answer(&mut state, "GET", &target).errcode, None);
    }

    #[test]
    fn a_redirect_that_ends_with_a_question_mark_shows_the_calls_query() {
        let mut state = state();
        for location in ["https://a.example/b?", "https://a.example/b"] {
            let location = HeaderValue::from_static(location);
            let effect = Effect::Redirect { location };
            state.faults.queue(Fault::new("/wxa/*", 1, effect));
        }
        let target = "/wxa/getwxacode?access_token=t%6F_en";
        let [shown, hidden] = [(); 2].map(|()| answer(&mut state, "POST", target).headers);
        assert_eq!(shown[LOCATION], "https://a.example/b?access_token=t%6F_en");
        assert_eq!(hidden[LOCATION], "https://a.example/b");
    }

    #[test]
    fn a_refused_call_is_remembered_by_its_rid_without_the_token() {
        let mut state = state();
        let token = state.token(0).access_token;
        state
            .faults
            .queue(Fault::delay("/wxa/*", 1, Duration::from_millis(30)));
        let target = format!("/wxa/getopendata?access_token={token}&openid=x");
        let request = Request::of("POST", &target, br#"{"cloudid_list":[]}"#);
        let Outcome::Answer(refused) = receive(&mut state, request).outcome else {
            panic!("an answer was due");
        };
        let body = String::from_utf8(refused.body.to_vec()).unwrap();
        let (_, rid) = body.split_once(" rid: ").unwrap();
        let rid = rid.trim_end_matches("\"}");
        let call = state.call_by_rid(rid).unwrap();
        assert_eq!(call.app, Some(0));
        assert_eq!(call.invoked_at, state.now());
        assert_eq!(call.cost, Duration::from_millis(30));
        assert_eq!(call.query, "access_token=***&openid=x");
        assert_eq!(call.request_body, r#"{"cloudid_list":[]}"#);
        assert_eq!(call.response_body, body);
        assert!(call.client_ip.is_loopback());
        let told = answer(&mut state, "GET", &format!("/_sim/rids/{rid}"));
        let told: Value = serde_json::from_slice(&told.body).unwrap();
        assert_eq!(told["appid"], "wx0123456789abcdef");
        assert_eq!(told["request"]["cost_in_ms"], 30);
        assert_eq!(told["request"]["client_ip"], "127.0.0.1");
        state.reset();
        assert_eq!(state.call_by_rid(rid), None);
    }

    #[test]
    fn quotas_are_looked_at_after_the_credentials_and_before_the_arguments() {
        let mut state = state();
        let token = state.token(0).access_token;
        let quota = |path: &str| json!({ "path": path, "daily": 2, "per_minute": 1 }).to_string();
        let secret = "appid=wx0123456789abcdef&secret=s&grant_type";
        for (method, path, good, bad) in [
            (
                "GET",
                "/cgi-bin/get_api_domain_ip",
                format!("access_token={token}"),
                41001,
            ),
            (
                "GET",
                "/wxa/business/getuserphonenumber",
                format!("access_token={token}"),
                41001,
            ),
            (
                "GET",
                "/cgi-bin/token",
                format!("{secret}=client_credential"),
                40002,
            ),
            (
                "GET",
                "/sns/jscode2session",
                format!("{secret}=authorization_code"),
                41002,
            ),
        ] {
            let order = Request::of("POST", "/_sim/quota", quota(path).as_bytes());
            receive(&mut state, order);
            let good = format!("{path}?{good}");
            for _ in 0..3 {
                let refused = answer(&mut state, method, path);
                assert_eq!(refused.errcode, Some(bad), "{path}");
            }
            for expected in [None, Some(45011), Some(45009)] {
                let told = answer(&mut state, method, &good).errcode;
                let is_quota = told.filter(|told| [45009, 45011].contains(told));
                assert_eq!(is_quota, expected, "{path}");
                if expected == Some(45011) {
                    state.advance(Duration::from_secs(60));
                    answer(&mut state, method, &good);
                }
            }
        }
    }

    /// The endpoints, as a pattern.
    const ENDPOINTS: &str = "/sns/jscode2session|/xpay/(query_user_balance|currency_pay|cancel_currency_pay|query_order|\
        present_currency)|/cgi-bin/(token|stable_token|get_api_domain_ip|getcallbackip|callback/check|media/upload|media/get|\
        message/subscribe/send|message/custom/send|message/custom/typing|wxaapp/createwxaqrcode|openapi/quota/get|\
        openapi/quota/clear|openapi/rid/get|clear_quota|clear_quota/v2)|/wxa/(getopendata|checksession|\
        resetusersessionkey|getwxacode|getwxacodeunlimit|msg_sec_check|media_check_async|img_sec_check|getuserriskrank|\
        set_user_storage|remove_user_storage|business/(getuserphonenumber|getuserencryptkey|checkencryptedmsg))";
    /// The members that some endpoint reads, as a pattern.
    const MEMBERS: &str = "user|appid|secret|appsecret|path|count|daily|white_list|fault|advance_s|grant_type|\
        force_refresh|code|openid|touser|template_id|page|data|msgtype|text|image|link|miniprogrampage|command|scene|width|\
        is_hyaline|content|version|media_url|media_type|client_ip|cloudid_list|kv_list|key|encrypted_msg_hash|env|user_ip|\
        amount|order_id|payitem|cgi_path|rid|action|check_operator";

    /// A value of any kind, often one that is expected somewhere.
    fn member() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(json!("OPENID")),
            Just(json!("wx0123456789abcdef")),
            Just(json!(null)),
            any::<bool>().prop_map(|it| json!(it)),
            (0..3).prop_map(|it| json!(it)),
            any::<i64>().prop_map(|it| json!(it)),
            Just(json!(1e99)),
            "text|image|link|Typing|all|CAP|client_credential|https://a/b|.{0,40}"
                .prop_map(|it| json!(it)),
        ];
        scalar.prop_recursive(2, 8, 4, |inner| {
            let key = "[a-z]{1,6}1?|(thing|number|time|date|amount|car_number|name)1|value|content|key|title|media_id";
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(|it| json!(it)),
                proptest::collection::btree_map(key, inner, 0..4).prop_map(|it| json!(it)),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_request_makes_the_simulator_panic(
            method in "GET|POST|PUT|DELETE|HEAD",
            path in prop_oneof![
                4 => ENDPOINTS,
                1 => "/_sim/(code|encrypt|users|users/.{0,9}|apps/.{0,9}|purchases|faults|quota|access|push|clock|reset|calls|rids/.{0,9}|.{0,9})",
                1 => "/.{0,20}",
            ],
            query in "((appid|secret|js_code|grant_type|user|type|media_id|.{0,3})=(.{0,9}|wx0123456789abcdef|right|image|client_credential)&){0,3}(access_token=TOKEN&)?(openid=OPENID&sig_method=hmac_sha256)?",
            body in prop_oneof![
                1 => proptest::collection::vec(any::<u8>(), 0..64),
                4 => proptest::collection::btree_map(prop_oneof![4 => MEMBERS, 1 => "[a-z]{0,9}"], member(), 0..6)
                    .prop_map(|members| serde_json::to_vec(&members).unwrap()),
            ],
        ) {
            let mut probe = Probe::new();
            let meant = |text: &str| text.replace("TOKEN", &probe.token).replace("OPENID", &probe.openid);
            let body = match String::from_utf8(body) {
                Ok(text) => meant(&text).into_bytes(),
                Err(error) => error.into_bytes(),
            };
            let mut request = Request::of(method.as_str(), &path, &body);
            request.query = Query::parse(&meant(&query));
            for _ in 0..2 {
                receive(&mut probe.state, request.clone());
            }
        }
    }
}
