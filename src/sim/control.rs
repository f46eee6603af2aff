//! The control endpoints under `/_sim/`: what a test or a developer does to the simulated world. The list is in the
//! module's header; `GET /_sim/` returns the same text.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, Method};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::api_security;
use super::exchange::{Answer, Outcome, Request, percent_decode};
use super::fault::{Effect, FOR_EVER, Fault};
use super::ids::base64_of;
use super::open_data::OpenDataOrder;
use super::payment::{PayKeys, Till};
use super::quota::Limits;
use super::state::{CODE_LIFE, CodeKind, State, UserChange};
use crate::secret::Secret;

const PREFIX: &str = "/_sim";
const HELP: &str = include_str!("help.txt");
/// A delay is for a client's timeout, and none is longer than this.
const LONGEST_DELAY_MS: u64 = 600_000;
/// Ten years: no rule of WeChat's takes longer, and the sum with any real date stays a date.
const LONGEST_ADVANCE_S: u64 = 10 * 365 * 86_400;

/// Whether a path is the simulator's own and not WeChat's.
pub(super) fn owns(path: &str) -> bool {
    path.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a call orders a push, which is answered when it is done.
pub(super) fn is_push(request: &Request) -> bool {
    request.method == Method::POST && request.path == "/_sim/push"
}

/// Understands the order of a push.
pub(super) fn push(state: &mut State, request: &Request) -> Outcome {
    let due = parse(&request.body).and_then(|order| state.ordered_push(order).map_err(Wrong));
    match due {
        Ok(due) => Outcome::Push(Box::new(due)),
        Err(Wrong(why)) => Outcome::Answer(Answer::control(400, &json!({ "error": why }))),
    }
}

/// Answers a control call.
pub(super) fn answer(state: &mut State, request: &Request) -> Answer {
    let path = request.path.strip_prefix(PREFIX).unwrap_or_default();
    let path = path.trim_matches('/');
    let (place, name) = path.split_once('/').unwrap_or((path, ""));
    let answered = match (&request.method, place, name) {
        (&Method::GET, "", _) => return Answer::text(200, HELP),
        (&Method::GET, "code", "") => {
            query_code_order(request).and_then(|order| code(state, &order))
        }
        (&Method::POST, "code", "") => parse(&request.body).and_then(|order| code(state, &order)),
        (&Method::POST, "encrypt", "") => encrypt(state, request),
        (&Method::GET, "users", "") => Ok(users(state, request)),
        (&Method::POST, "users", name) if !name.is_empty() => change_user(state, request, name),
        (&Method::POST, "purchases", "") => purchase(state, request),
        (&Method::GET, "apps", "") => Ok(apps(state)),
        (&Method::POST, "apps", name) if !name.is_empty() => change_app(state, request, name),
        (&Method::GET, "access", "") => Ok(access(state)),
        (&Method::POST, "access", "") => change_access(state, request),
        (&Method::GET, "quota", "") => Ok(quotas(state)),
        (&Method::POST, "quota", "") => set_quota(state, request),
        (&Method::DELETE, "quota", "") => {
            for app in 0..state.apps.len() {
                state.clear_quota(app, None);
            }
            Ok(quotas(state))
        }
        (&Method::GET, "faults", "") => Ok(faults(state)),
        (&Method::POST, "faults", "") => queue_fault(state, request),
        (&Method::DELETE, "faults", "") => {
            state.faults.clear();
            Ok(faults(state))
        }
        (&Method::GET, "calls", "") => {
            Ok(serde_json::to_value(&state.calls).expect("strings and numbers serialise"))
        }
        (&Method::GET, "push", "") => Ok(pushes(state)),
        (&Method::GET, "rids", rid) if !rid.is_empty() => call_by_rid(state, rid),
        (&Method::POST, "clock", "") => advance(state, request),
        (&Method::POST, "reset", "") => {
            state.reset();
            Ok(json!({ "reset": true }))
        }
        (&Method::GET, "video", id) => {
            let video = state.media.video(id, state.now());
            return video.unwrap_or_else(|| Answer::text(404, "there is no such video\n"));
        }
        (method, _, _) => {
            let problem = format!("there is no {method} {}\n\n{HELP}", request.path);
            return Answer::text(404, problem);
        }
    };
    match answered {
        Ok(body) if request.wants_text() || request.query.value("format") == Some("text") => {
            // Only a code has a bare form; whatever else is asked for as text is JSON, which is text as well.
            match body["code"].as_str() {
                Some(code) => Answer::text(200, format!("{code}\n")),
                None => Answer::control(200, &body),
            }
        }
        Ok(body) => Answer::control(200, &body),
        Err(Wrong(why)) => Answer::control(400, &json!({ "error": why })),
    }
}

/// Why a control call makes no sense.
struct Wrong(String);

/// What is asked of `/_sim/code`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeOrder {
    user: String,
    appid: Option<String>,
    #[serde(default)]
    kind: CodeKind,
}

fn query_code_order(request: &Request) -> Result<CodeOrder, Wrong> {
    let text = |name| request.query.value(name).map(str::to_owned);
    let kind = match request.query.value("kind") {
        None | Some("login") => CodeKind::Login,
        Some("phone") => CodeKind::Phone,
        Some(_) => return Err(wrong("`kind` is `login` or `phone`")),
    };
    Ok(CodeOrder {
        user: text("user").ok_or_else(|| wrong("`user` is missing: whose code, as ?user=alice"))?,
        appid: text("appid"),
        kind,
    })
}

fn code(state: &mut State, order: &CodeOrder) -> Result<Value, Wrong> {
    check_user_name(&order.user)?;
    let app = one_app(state, order.appid.as_deref(), "appid")?;
    Ok(json!({
        "code": state.issue_code(app, &order.user, order.kind),
        "openid": state.openid(app, &order.user).as_str(),
        "expires_in": CODE_LIFE.as_secs(),
    }))
}

fn encrypt(state: &mut State, request: &Request) -> Result<Value, Wrong> {
    let order: OpenDataOrder = parse(&request.body)?;
    let app = one_app(state, order.app.as_deref(), "app")?;
    let encrypted = state.encrypt(app, &order).ok_or_else(|| {
        wrong("the user has no such session_key: a login makes the current one, and a second key makes a previous one")
    })?;
    Ok(serde_json::to_value(encrypted).expect("strings serialise"))
}

fn users(state: &State, request: &Request) -> Value {
    let reveal = request.query.value("reveal") == Some("1");
    let names = state.users.keys();
    json!({ "users": names.map(|name| user(state, name, reveal)).collect::<Vec<_>>() })
}

fn change_user(state: &mut State, request: &Request, name: &str) -> Result<Value, Wrong> {
    let name = percent_decode(name);
    check_user_name(&name)?;
    let change: UserChange = parse(&request.body)?;
    let is_number = |phone: &String| {
        (1..=20).contains(&phone.len()) && phone.bytes().all(|b| b.is_ascii_digit())
    };
    if change.phone.as_ref().is_some_and(|phone| !is_number(phone)) {
        return Err(wrong("`phone` is 1 to 20 digits"));
    }
    if change.risk_rank.is_some_and(|rank| rank > 4) {
        return Err(wrong("`risk_rank` is from 0 to 4"));
    }
    state.change_user(&name, &change);
    Ok(user(state, &name, false))
}

fn user(state: &State, name: &str, reveal: bool) -> Value {
    let Some(user) = state.users.get(name) else {
        return Value::Null;
    };
    let apps: Vec<Value> = (0..state.apps.len())
        .map(|app| {
            let session = user.sessions.get(&app);
            let key = session.and_then(|session| session.key.as_ref());
            let previous = session.and_then(|session| session.previous.as_ref());
            let mut shown = json!({
                "appid": state.apps[app].known.appid.as_str(),
                "openid": state.openid(app, name).as_str(),
                "unionid": state.unionid(app, name).as_ref().map(|id| id.as_str()),
                "logged_in": key.is_some(),
                "storage": user.belongings.get(&app).map(|belongings| &belongings.values),
            });
            if reveal {
                shown["session_key"] = json!(key.map(|(key, _)| base64_of(key)));
                shown["previous_session_key"] = json!(previous.map(base64_of));
            }
            shown
        })
        .collect();
    json!({
        "name": name,
        "blocked": user.blocked,
        "unionid": user.unionid,
        "logins_per_minute": user.logins_per_minute,
        "phone": state.phone_number(name),
        "subscribed": user.subscribed,
        "risk_rank": user.risk_rank,
        "apps": apps,
    })
}

fn purchase(state: &mut State, request: &Request) -> Result<Value, Wrong> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Purchase {
        user: String,
        app: Option<String>,
        order_id: String,
        coins: u32,
        #[serde(default)]
        env: u8,
    }

    let order: Purchase = parse(&request.body)?;
    check_user_name(&order.user)?;
    let app = one_app(state, order.app.as_deref(), "app")?;
    if order.env > 1 {
        return Err(wrong("`env` is 0 or 1"));
    }
    let till = Till {
        app,
        env: order.env,
    };
    state
        .buy_coins(till, &order.user, &order.order_id, order.coins)
        .ok_or_else(|| wrong("`order_id` was used before"))?;
    Ok(json!({ "openid": state.openid(app, &order.user).as_str() }))
}

fn apps(state: &State) -> Value {
    let shown: Vec<Value> = state
        .apps
        .iter()
        .map(|app| {
            json!({
                "appid": app.known.appid.as_str(),
                "unionid": app.known.unionid,
                "session_key_period_s": app.known.session_key_period.as_secs(),
                "pages": app.known.pages,
                "api_security": app.known.api_security.is_some(),
            })
        })
        .collect();
    json!({ "apps": shown })
}

fn change_app(state: &mut State, request: &Request, appid: &str) -> Result<Value, Wrong> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Change {
        unionid: Option<bool>,
        session_key_period_s: Option<u64>,
        pages: Option<Vec<String>>,
        api_security: Option<api_security::Order>,
        pay_keys: Option<Keys>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Keys {
        production: String,
        sandbox: String,
    }

    let app = find_app(state, appid)?;
    let change: Change = parse(&request.body)?;
    let api_security = change.api_security.map(api_security::Order::carry_out);
    let api_security = api_security.transpose().map_err(wrong)?;
    let known = &mut state.apps[app].known;
    known.unionid = change.unionid.unwrap_or(known.unionid);
    if let Some(seconds) = change.session_key_period_s {
        known.session_key_period = Duration::from_secs(seconds);
    }
    if change.pages.is_some() {
        known.pages = change.pages;
    }
    if let Some(api_security) = api_security {
        known.api_security = Some(Arc::new(api_security));
    }
    if let Some(keys) = change.pay_keys {
        known.pay_keys = Some(PayKeys {
            production: Secret::new(keys.production),
            sandbox: Secret::new(keys.sandbox),
        });
    }
    Ok(apps(state))
}

fn access(state: &State) -> Value {
    json!({ "white_list": state.access.white_list(), "withheld": state.access.withheld() })
}

fn change_access(state: &mut State, request: &Request) -> Result<Value, Wrong> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Change {
        /// `null` ends the list, and what is not written changes nothing.
        #[serde(default, deserialize_with = "written")]
        white_list: Option<Option<Vec<IpAddr>>>,
        #[serde(default)]
        withhold: Vec<String>,
        #[serde(default)]
        grant: Vec<String>,
    }

    let change: Change = parse(&request.body)?;
    for path in change.withhold.iter().chain(&change.grant) {
        check_path(path)?;
    }
    if let Some(white_list) = change.white_list {
        state.access.allow_only(white_list.as_deref());
    }
    for path in &change.withhold {
        state.access.grant(path, false);
    }
    for path in &change.grant {
        state.access.grant(path, true);
    }
    Ok(access(state))
}

/// Reads a field so that `null` is told from its absence.
fn written<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    field: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}

fn quotas(state: &State) -> Value {
    let shown = state.quotas.limited().map(|path| {
        let used = (0..state.apps.len()).map(|app| {
            let usage = state.quota_of(app, path);
            json!({
                "appid": state.apps[app].known.appid.as_str(),
                "today": usage.today,
                "this_minute": usage.this_minute,
                "remain": usage.remain(),
            })
        });
        let Limits { daily, per_minute } = state.quota_of(0, path).limits;
        json!({
            "path": path,
            "daily": daily,
            "per_minute": per_minute,
            "used": used.collect::<Vec<_>>(),
        })
    });
    json!({ "quotas": shown.collect::<Vec<_>>() })
}

fn set_quota(state: &mut State, request: &Request) -> Result<Value, Wrong> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        path: String,
        daily: Option<u32>,
        per_minute: Option<u32>,
    }

    let order: Order = parse(&request.body)?;
    check_path(&order.path)?;
    let limits = Limits {
        daily: order.daily,
        per_minute: order.per_minute,
    };
    state.quotas.limit(&order.path, limits);
    Ok(quotas(state))
}

fn faults(state: &State) -> Value {
    json!({ "faults": state.faults.to_json() })
}

fn queue_fault(state: &mut State, request: &Request) -> Result<Value, Wrong> {
    state.faults.queue(parse_fault(&request.body)?);
    Ok(faults(state))
}

fn parse_fault(body: &Bytes) -> Result<Fault, Wrong> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        path: String,
        count: Option<Count>,
        fault: OrderedEffect,
    }

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "`count` is a number from 1 on, or \"forever\"")]
    enum Count {
        Calls(u32),
        Word(String),
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct OrderedEffect {
        errcode: Option<i64>,
        errmsg: Option<String>,
        delay_ms: Option<u64>,
        #[serde(default)]
        reset: bool,
        #[serde(default)]
        reset_mid_body: bool,
        #[serde(default)]
        garbage: bool,
        #[serde(default)]
        empty: bool,
        status: Option<u16>,
        body: Option<String>,
        raw: Option<Raw>,
        redirect: Option<String>,
        slow: Option<Slow>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Slow {
        bytes: usize,
        interval_ms: u64,
    }

    let order: Order = parse(body)?;
    check_path(&order.path)?;
    let count = match order.count {
        None => Some(1),
        Some(Count::Calls(calls)) if calls > 0 => Some(calls),
        Some(Count::Word(word)) if word == FOR_EVER => None,
        Some(_) => return Err(wrong("`count` is a number from 1 on, or \"forever\"")),
    };
    let fault = order.fault;
    if fault.errmsg.is_some() && fault.errcode.is_none() {
        return Err(wrong("`errmsg` goes with `errcode`"));
    }
    if fault.body.is_some() && fault.status.is_none() {
        return Err(wrong("`body` goes with `status`"));
    }
    check_status(fault.status)?;
    if fault.delay_ms.is_some_and(|ms| ms > LONGEST_DELAY_MS) {
        return Err(wrong("`delay_ms` is at most 600000, ten minutes"));
    }
    let slow = fault.slow.map(|Slow { bytes, interval_ms }| {
        if bytes == 0 || interval_ms > LONGEST_DELAY_MS {
            return Err(wrong(
                "`slow` has at least 1 of `bytes`, and `interval_ms` of at most 600000",
            ));
        }
        let interval = Duration::from_millis(interval_ms);
        Ok(Effect::Slow { bytes, interval })
    });
    let redirect = fault.redirect.map(|location| {
        let location = header_value("redirect", &location)?;
        Ok(Effect::Redirect { location })
    });

    let errcode = fault.errcode.map(|errcode| Effect::Errcode {
        errcode,
        errmsg: fault.errmsg,
    });
    let status = fault.status.map(|status| Effect::Status {
        status,
        body: fault.body,
    });
    let mut effects = [
        errcode,
        status,
        fault.reset.then_some(Effect::Reset),
        fault.reset_mid_body.then_some(Effect::ResetMidBody),
        fault.garbage.then_some(Effect::Garbage),
        fault.empty.then_some(Effect::Empty),
        fault.raw.map(Raw::effect).transpose()?,
        redirect.transpose()?,
        slow.transpose()?,
    ]
    .into_iter()
    .flatten();
    let effect = match (effects.next(), effects.next()) {
        (Some(effect), None) => effect,
        (None, _) if fault.delay_ms.is_some() => Effect::Answer,
        _ => {
            return Err(wrong(
                "`fault` is one of errcode, delay_ms, reset, reset_mid_body, garbage, status, empty, raw, redirect, \
                 slow; delay_ms may stand beside another",
            ));
        }
    };
    Ok(Fault {
        path: order.path,
        count,
        delay: Duration::from_millis(fault.delay_ms.unwrap_or(0)),
        effect,
    })
}

/// An answer, byte by byte.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    status: Option<u16>,
    content_type: Option<String>,
    body: Option<String>,
    body_base64: Option<String>,
}

impl Raw {
    fn effect(self) -> Result<Effect, Wrong> {
        check_status(self.status)?;
        let content_type = self.content_type.as_deref();
        let content_type = content_type.map(|value| header_value("content_type", value));
        let body = match (self.body, self.body_base64) {
            (Some(_), Some(_)) => return Err(wrong("`raw` has one of `body` and `body_base64`")),
            (Some(text), None) => text.into(),
            (None, Some(base64)) => {
                let body = STANDARD.decode(base64);
                body.map_err(|_| wrong("`body_base64` is not base64"))?
                    .into()
            }
            (None, None) => Bytes::new(),
        };
        Ok(Effect::Raw {
            status: self.status.unwrap_or(200),
            content_type: content_type.transpose()?,
            body,
        })
    }
}

fn check_status(status: Option<u16>) -> Result<(), Wrong> {
    if status.is_some_and(|status| !(200..=599).contains(&status)) {
        return Err(wrong("`status` is from 200 to 599"));
    }
    Ok(())
}

fn header_value(field: &str, value: &str) -> Result<HeaderValue, Wrong> {
    HeaderValue::from_str(value)
        .map_err(|_| Wrong(format!("`{field}` cannot stand in a header field")))
}

fn pushes(state: &State) -> Value {
    let pushed = state.outbox.as_ref().map(|outbox| &outbox.pushed);
    serde_json::json!({ "pushes": pushed })
}

fn call_by_rid(state: &State, rid: &str) -> Result<Value, Wrong> {
    let call = state.call_by_rid(rid);
    let call =
        call.ok_or_else(|| wrong("no call of the last seven days was refused with this rid"))?;
    let app = call.app.map(|app| state.apps[app].known.appid.as_str());
    Ok(json!({ "appid": app, "request": call.to_json() }))
}

fn advance(state: &mut State, request: &Request) -> Result<Value, Wrong> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Step {
        advance_s: u64,
    }

    let step: Step = parse(&request.body)?;
    if step.advance_s > LONGEST_ADVANCE_S {
        return Err(wrong("`advance_s` is at most ten years"));
    }
    state.advance(Duration::from_secs(step.advance_s));
    Ok(json!({ "now_s": state.now().as_secs() }))
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Wrong> {
    serde_json::from_slice(body).map_err(|error| Wrong(format!("the body's JSON: {error}")))
}

/// The app with this appid; without one, the only app.
fn one_app(state: &State, appid: Option<&str>, field: &str) -> Result<usize, Wrong> {
    match appid {
        Some(appid) => find_app(state, appid),
        None if state.apps.len() == 1 => Ok(0),
        None => Err(Wrong(format!(
            "`{field}` is missing, and there are several apps"
        ))),
    }
}

fn find_app(state: &State, appid: &str) -> Result<usize, Wrong> {
    state
        .app_index(appid)
        .ok_or_else(|| wrong("there is no app with this appid; GET /_sim/apps lists them"))
}

fn check_path(path: &str) -> Result<(), Wrong> {
    if !path.starts_with('/') || owns(path) {
        return Err(wrong(
            "`path` is a path of WeChat's, such as /cgi-bin/token",
        ));
    }
    Ok(())
}

fn check_user_name(name: &str) -> Result<(), Wrong> {
    if name.is_empty() || name.len() > 128 {
        return Err(wrong("a user's name is 1 to 128 bytes"));
    }
    Ok(())
}

fn wrong(why: &str) -> Wrong {
    Wrong(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::domain::AppId;
    use crate::secret::Secret;
    use crate::sim::state::SimApp;

    fn state() -> State {
        let apps = ["wx0123456789abcdef", "wxfedcba9876543210"]
            .map(|appid| SimApp::new(AppId::parse(appid).unwrap(), Secret::new("hunter2")));
        State::new(Clock::manual(Timestamp::from_millis(0)), 0, apps.into())
    }

    fn call(state: &mut State, method: Method, target: &str, body: &str) -> (u16, String) {
        let request = Request::of(method, target, body.as_bytes());
        let answer = answer(state, &request);
        let body = std::str::from_utf8(&answer.body).unwrap().to_owned();
        (answer.status, body)
    }

    fn post(state: &mut State, target: &str, body: &str) -> (u16, String) {
        call(state, Method::POST, target, body)
    }

    #[test]
    fn a_code_comes_as_json_or_bare() {
        let mut state = state();
        let body = r#"{"user":"alice","appid":"wxfedcba9876543210"}"#;
        let (status, made) = post(&mut state, "/_sim/code", body);
        let made: Value = serde_json::from_str(&made).unwrap();
        assert_eq!((status, &made["expires_in"]), (200, &json!(300)));
        let login = state.log_in(1, made["code"].as_str().unwrap()).unwrap();
        assert_eq!(made["openid"], json!(login.openid.as_str()));

        let target = "/_sim/code?user=%E4%BD%A0&appid=wx0123456789abcdef&format=text";
        let (_, bare) = call(&mut state, Method::GET, target, "");
        assert!(bare.len() == 33 && bare.ends_with('\n'));
        assert!(state.users.contains_key("你"));
    }

    #[test]
    fn a_wrong_call_is_told_what_is_wrong() {
        let mut state = state();
        let wrong = [
            ("/_sim/code", "", "EOF"),
            ("/_sim/code", r#"{"user":"alice"}"#, "several apps"),
            ("/_sim/code", r#"{"user":""}"#, "name"),
            ("/_sim/code", r#"{"usr":"alice"}"#, "unknown field `usr`"),
            ("/_sim/users/alice", r#"{"blocked":"yes"}"#, "boolean"),
            ("/_sim/apps/wx0", "{}", "no app"),
            ("/_sim/users/alice", r#"{"phone":"+86"}"#, "digits"),
            ("/_sim/encrypt", r#"{"user":"alice"}"#, "several apps"),
            (
                "/_sim/encrypt",
                r#"{"user":"alice","app":"wx0123456789abcdef"}"#,
                "session_key",
            ),
            ("/_sim/clock", r#"{"advance_s":-1}"#, "u64"),
            (
                "/_sim/clock",
                r#"{"advance_s":18446744073709551615}"#,
                "ten years",
            ),
            (
                "/_sim/faults",
                r#"{"path":"x","fault":{"reset":true}}"#,
                "path",
            ),
            (
                "/_sim/faults",
                r#"{"path":"/_sim/*","fault":{"reset":true}}"#,
                "path",
            ),
            ("/_sim/faults", r#"{"path":"/x","fault":{}}"#, "one of"),
            (
                "/_sim/faults",
                r#"{"path":"/x","fault":{"reset":true,"empty":true}}"#,
                "one of",
            ),
            (
                "/_sim/faults",
                r#"{"path":"/x","fault":{"status":99}}"#,
                "200 to 599",
            ),
            (
                "/_sim/faults",
                r#"{"path":"/x","fault":{"body":"x"}}"#,
                "status",
            ),
            (
                "/_sim/faults",
                r#"{"path":"/x","count":0,"fault":{"reset":true}}"#,
                "count",
            ),
            (
                "/_sim/faults",
                r#"{"path":"/x","count":"often","fault":{"reset":true}}"#,
                "forever",
            ),
            (
                "/_sim/faults",
                r#"{"path":"/x","count":-1,"fault":{"reset":true}}"#,
                "from 1 on",
            ),
            (
                "/_sim/faults",
                r#"{"path":"/x","fault":{"raw":{"body":"","body_base64":""}}}"#,
                "one of",
            ),
            (
                "/_sim/faults",
                r#"{"path":"/x","fault":{"raw":{"body_base64":"!"}}}"#,
                "base64",
            ),
            (
                "/_sim/faults",
                r#"{"path":"/x","fault":{"raw":{"status":600}}}"#,
                "200 to 599",
            ),
            (
                "/_sim/faults",
                r#"{"path":"/x","fault":{"redirect":"a\r\nb: c"}}"#,
                "header field",
            ),
            (
                "/_sim/faults",
                r#"{"path":"/x","fault":{"slow":{"bytes":0,"interval_ms":1}}}"#,
                "at least 1",
            ),
            ("/_sim/access", r#"{"white_list":["x"]}"#, "IP address"),
            ("/_sim/access", r#"{"grant":["/_sim/access"]}"#, "path"),
            ("/_sim/quota", r#"{"path":"/_sim/quota"}"#, "path"),
            ("/_sim/quota", r#"{"path":"/x","daily":-1}"#, "u32"),
        ];
        for (path, body, why) in wrong {
            let (status, said) = post(&mut state, path, body);
            assert_eq!(status, 400, "{path} {body}");
            assert!(said.contains(why), "{path} {body}: {said}");
        }
    }

    #[test]
    fn every_fault_can_be_ordered_and_is_listed_as_ordered() {
        let mut state = state();
        let faults = [
            json!({ "errcode": -1, "errmsg": "busy" }),
            json!({ "delay_ms": 500 }),
            json!({ "reset": true, "delay_ms": 20 }),
            json!({ "reset_mid_body": true }),
            json!({ "garbage": true }),
            json!({ "status": 502, "body": "x" }),
            json!({ "empty": true }),
            json!({ "raw": { "status": 200, "content_type": "image/jpeg", "body": "{\"a\":\"\u{1}\"}" } }),
            json!({ "raw": { "status": 404, "content_type": null, "body_base64": "/w==" } }),
            json!({ "redirect": "https://elsewhere.example/a?b=c" }),
            json!({ "slow": { "bytes": 3, "interval_ms": 20 }, "delay_ms": 20 }),
        ];
        for fault in &faults {
            let order = json!({ "path": "/sns/*", "count": 3, "fault": fault });
            let (status, said) = post(&mut state, "/_sim/faults", &order.to_string());
            assert_eq!(status, 200, "{said}");
        }
        let (_, listed) = call(&mut state, Method::GET, "/_sim/faults", "");
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let listed: Vec<_> = listed["faults"].as_array().unwrap().iter().collect();
        assert_eq!(listed.len(), faults.len());
        for (listed, ordered) in listed.iter().zip(&faults) {
            assert_eq!(&listed["fault"], ordered);
            assert_eq!(listed["count"], json!(3));
        }
        let (_, left) = call(&mut state, Method::DELETE, "/_sim/faults", "");
        assert_eq!(left, "{\"faults\":[]}\n");
    }

    #[test]
    fn the_white_list_and_what_is_withheld_change_independently() {
        let mut state = state();
        let mut change = |body| {
            let (status, told) = post(&mut state, "/_sim/access", body);
            assert_eq!(status, 200, "{told}");
            let told: Value = serde_json::from_str(&told).unwrap();
            (told["white_list"].clone(), told["withheld"].clone())
        };
        let (list, withheld) = change(r#"{"white_list":["1.2.3.4"]}"#);
        assert_eq!((list, withheld), (json!(["1.2.3.4"]), json!([])));
        let (list, withheld) = change(r#"{"withhold":["/a","/b"],"grant":["/b"]}"#);
        assert_eq!((list, withheld), (json!(["1.2.3.4"]), json!(["/a"])));
        let (list, withheld) = change(r#"{"white_list":null}"#);
        assert_eq!((list, withheld), (Value::Null, json!(["/a"])));
    }

    #[test]
    fn a_quota_is_set_told_and_given_back() {
        let mut state = state();
        let path = "/sns/jscode2session";
        let body = json!({ "path": path, "daily": 2, "per_minute": 1 }).to_string();
        post(&mut state, "/_sim/quota", &body);
        assert_eq!(state.admit(1, path), Ok(()));
        let told = |state: &mut State, method| {
            let (_, told) = call(state, method, "/_sim/quota", "");
            serde_json::from_str::<Value>(&told).unwrap()["quotas"].clone()
        };
        let expected = |today, remain| {
            let used = json!([
                { "appid": "wx0123456789abcdef", "today": 0, "this_minute": 0, "remain": 2 },
                { "appid": "wxfedcba9876543210", "today": today, "this_minute": 1, "remain": remain },
            ]);
            json!([{ "path": path, "daily": 2, "per_minute": 1, "used": used }])
        };
        assert_eq!(told(&mut state, Method::GET), expected(1, 1));
        assert_eq!(told(&mut state, Method::DELETE), expected(0, 2));
        post(
            &mut state,
            "/_sim/quota",
            &json!({ "path": path }).to_string(),
        );
        assert_eq!(told(&mut state, Method::GET), json!([]));
    }

    #[test]
    fn session_keys_are_listed_only_when_revealed_and_secrets_never() {
        let mut state = state();
        let code = state.issue_code(0, "alice", CodeKind::Login);
        let key = base64_of(&state.log_in(0, &code).unwrap().session_key);
        for target in ["/_sim/users", "/_sim/users?reveal=0", "/_sim/apps"] {
            let (_, listed) = call(&mut state, Method::GET, target, "");
            assert!(!listed.contains(&key) && !listed.contains("hunter2"));
        }
        let (_, listed) = call(&mut state, Method::GET, "/_sim/users?reveal=1", "");
        assert!(listed.contains(&key));
    }

    #[test]
    fn open_data_come_in_the_fields_that_a_client_has_them_in() {
        let mut state = state();
        let code = state.issue_code(0, "alice", CodeKind::Login);
        state.log_in(0, &code).unwrap();
        let order = json!({ "user": "alice", "app": "wx0123456789abcdef", "kind": "werun", "key": "current" });
        let (status, made) = post(&mut state, "/_sim/encrypt", &order.to_string());
        assert_eq!(status, 200, "{made}");
        let made: Value = serde_json::from_str(&made).unwrap();
        for field in ["encryptedData", "iv", "rawData", "signature", "cloudID"] {
            assert!(made[field].is_string(), "{field} in {made}");
        }
    }

    #[test]
    fn a_user_is_changed_by_a_percent_encoded_name() {
        let mut state = state();
        let body = r#"{"blocked":true,"logins_per_minute":5}"#;
        let (status, said) = post(&mut state, "/_sim/users/%E4%BD%A0%20x", body);
        assert_eq!(status, 200, "{said}");
        let user = &state.users["你 x"];
        assert!(user.blocked && user.unionid);
        assert_eq!(user.logins_per_minute, 5);
    }

    #[test]
    fn help_is_at_the_root_and_in_every_404() {
        let mut state = state();
        for root in ["/_sim", "/_sim/"] {
            let (status, said) = call(&mut state, Method::GET, root, "");
            assert_eq!((status, said.as_str()), (200, HELP));
        }
        let (status, said) = call(&mut state, Method::PUT, "/_sim/users/alice", "");
        assert_eq!(status, 404);
        assert!(said.contains("PUT /_sim/users/alice") && said.contains(HELP));
    }
}
