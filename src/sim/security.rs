//! Content security: texts, pictures and users, judged by marks that a test puts into them, because nobody here reads.
//!
//! A text that has `[risky]` in it is risky and one that has `[review]` doubtful; `[risky:20002]` names the label too.
//! WeChat's own sample text is what its documentation says it is, and that is risky for version 1 only.

use std::net::IpAddr;
use std::time::Duration;

use ::http::{Method, Uri};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{ok, posted};
use super::exchange::{Request, percent_decode};
use super::multipart;
use super::push::Push;
use super::refusal::{Refusal, Refused};
use super::state::State;

const SAMPLE: &str = "特3456书yuuo莞6543李zxcz蒜7782法fgnv级";
/// In characters.
const LONGEST_TEXT: usize = 2500;
/// In bytes.
const LARGEST_PICTURE: usize = 1 << 20;
/// How long ago a user may have been in the app at most.
const RECENT: Duration = Duration::from_secs(2 * 3600);
const NORMAL: u32 = 100;
const OTHER: u32 = 21_000;
/// The errcode of a verdict on what could not be had.
const NOT_FETCHED: i64 = -1008;

/// `POST /wxa/msg_sec_check`. Without a version it is version 1, which knows no user and refuses what is risky.
pub(super) fn text(state: &mut State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        content: String,
        version: Option<Version>,
        scene: Option<u32>,
        #[serde(default)]
        openid: String,
        #[serde(default)]
        title: String,
        #[serde(default)]
        nickname: String,
        #[serde(default)]
        signature: String,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = posted(request)?;
    if body.content.is_empty() {
        return Err(Refusal::BodyMalformed.into());
    }
    if body.content.chars().count() > LONGEST_TEXT {
        return Err(Refusal::TextTooLong.into());
    }
    if body.version.is_none_or(|version| version.is("1")) {
        let risky = body.content.contains(SAMPLE) || Mark::in_text(&body.content).is_risky();
        return innocent(risky);
    }
    check_scene(body.scene)?;
    check_user(state, app, &body.openid)?;
    let texts = [&body.content, &body.title, &body.nickname, &body.signature];
    let mark = texts
        .into_iter()
        .map(|text| Mark::in_text(text))
        .max_by_key(|mark| mark.suggest)
        .unwrap_or(Mark::NONE);
    let (suggest, label) = (mark.suggest.name(), mark.label);
    let mut detail = vec![json!({
        "strategy": "content_model", "errcode": 0, "suggest": suggest, "label": label, "prob": 90,
    })];
    if mark.suggest != Suggest::Pass {
        detail.push(json!({
            "strategy": "keyword", "errcode": 0, "suggest": suggest, "label": label, "level": 90,
            "keyword": suggest,
        }));
    }
    Ok(ok(json!({
        "result": { "suggest": suggest, "label": label },
        "detail": detail,
        "trace_id": state.rid(),
    })))
}

/// `POST /wxa/media_check_async`. What comes of it is pushed. What is on this machine is fetched first, and anything else
/// judged by its URL.
pub(super) fn media(state: &mut State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        media_url: String,
        media_type: Option<u32>,
        version: Option<Version>,
        scene: Option<u32>,
        #[serde(default)]
        openid: String,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = posted(request)?;
    if body.media_url.is_empty() || !body.version.is_some_and(|version| version.is("2")) {
        return Err(Refusal::BodyMalformed.into());
    }
    if !matches!(body.media_type, Some(1 | 2)) {
        return Err(Refusal::MediaKindInvalid.into());
    }
    check_scene(body.scene)?;
    check_user(state, app, &body.openid)?;
    let trace_id = state.rid();
    let look = Look {
        appid: state.apps[app].known.appid.as_str().to_owned(),
        openid: body.openid,
        trace_id: trace_id.clone(),
        url: body.media_url,
    };
    match look.is_near() {
        true => state.look_soon(app, look),
        false => state.push_soon(app, look.verdict(&Seen::Nothing)),
    }
    Ok(ok(json!({ "trace_id": trace_id })))
}

/// A medium that is to be judged.
pub(super) struct Look {
    appid: String,
    openid: String,
    trace_id: String,
    pub(super) url: String,
}

/// What was found at a medium's URL.
pub(super) enum Seen<'a> {
    /// It was not looked at.
    Nothing,
    /// It cannot be fetched.
    Failed,
    Bytes(&'a [u8]),
}

impl Look {
    /// Whether it is on this machine; nothing else is fetched.
    fn is_near(&self) -> bool {
        let Ok(url) = self.url.parse::<Uri>() else {
            return false;
        };
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    /// By a mark in the URL or anywhere in the bytes, and an errcode.
    fn judge(&self, seen: &Seen<'_>) -> (Mark, i64) {
        let by_url = Mark::in_text(&percent_decode(&self.url));
        match seen {
            Seen::Nothing => (by_url, 0),
            Seen::Failed => (Mark::NONE, NOT_FETCHED),
            Seen::Bytes(bytes) => {
                let by_bytes = Mark::in_text(&String::from_utf8_lossy(bytes));
                let is_graver = by_bytes.suggest > by_url.suggest;
                (if is_graver { by_bytes } else { by_url }, 0)
            }
        }
    }

    /// What WeChat pushes.
    pub(super) fn verdict(self, seen: &Seen<'_>) -> Push {
        let (mark, errcode) = self.judge(seen);
        let errmsg = match errcode {
            0 => "ok",
            _ => "fetch media_url failed",
        };
        let (suggest, label) = (mark.suggest.name(), mark.label);
        let event = Push::event(
            "wxa_media_check",
            json!({
                "appid": self.appid,
                "trace_id": self.trace_id,
                "version": 2,
                "errcode": errcode,
                "errmsg": errmsg,
                "result": { "suggest": suggest, "label": label },
                "detail": [{
                    "strategy": "content_model", "errcode": errcode, "suggest": suggest, "label": label, "prob": 90,
                }],
            }),
        );
        event.with_openid(self.openid)
    }
}

/// `POST /wxa/img_sec_check`. The mark may stand in the picture's name or anywhere in its bytes.
pub(super) fn picture(state: &State, request: &Request) -> Result<Value, Refused> {
    state.check_access_token(request.query.value("access_token"))?;
    if request.method != Method::POST {
        return Err(Refusal::PostRequired.into());
    }
    let file = multipart::file(request, "media").ok_or(Refusal::MediaMissing)?;
    if file.data.is_empty() || file.data.len() > LARGEST_PICTURE {
        return Err(Refusal::FileSizeInvalid.into());
    }
    let data = String::from_utf8_lossy(&file.data);
    innocent(
        [&*file.filename, &*data]
            .iter()
            .any(|text| Mark::in_text(text).is_risky()),
    )
}

/// `POST /wxa/getuserriskrank`.
pub(super) fn user(state: &mut State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        appid: String,
        #[serde(default)]
        openid: String,
        scene: Option<u32>,
        #[serde(default)]
        client_ip: String,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = posted(request)?;
    if body.appid != state.apps[app].known.appid.as_str() {
        return Err(Refusal::AppIdInvalid.into());
    }
    if !matches!(body.scene, Some(0..=2)) || body.client_ip.is_empty() {
        return Err(Refusal::ArgumentsInvalid.into());
    }
    let user = check_user(state, app, &body.openid)?;
    Ok(json!({
        "errcode": 0,
        "errmsg": "getuserriskrank succ",
        "risk_rank": state.users[&user].risk_rank,
        "unoin_id": state.ids.message_id(),
    }))
}

/// A version, which callers write as a number or as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Version {
    Number(u32),
    Text(String),
}

impl Version {
    fn is(&self, version: &str) -> bool {
        match self {
            Self::Number(number) => number.to_string() == version,
            Self::Text(text) => text == version,
        }
    }
}

fn check_scene(scene: Option<u32>) -> Result<(), Refusal> {
    match scene {
        Some(1..=4) => Ok(()),
        _ => Err(Refusal::SceneInvalid),
    }
}

/// The user, who has been in the app of late.
fn check_user(state: &State, app: usize, openid: &str) -> Result<String, Refusal> {
    let Some(user) = state.user_of(app, openid) else {
        let elsewhere = (0..state.apps.len()).any(|app| state.user_of(app, openid).is_some());
        return Err(if elsewhere {
            Refusal::OpenIdOfOtherApp
        } else {
            Refusal::OpenIdInvalid
        });
    };
    let session = state.users[&user].sessions.get(&app);
    let been_there = session.and_then(|session| session.logged_in_at);
    if been_there.is_none_or(|at| state.now().since(at) > RECENT) {
        return Err(Refusal::UserNotSeen);
    }
    Ok(user)
}

/// The judgement of version 1.
fn innocent(risky: bool) -> Result<Value, Refused> {
    if risky {
        return Err(Refusal::ContentRisky.into());
    }
    Ok(ok(json!({})))
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Suggest {
    Pass,
    Review,
    Risky,
}

/// What a text's mark says of it.
#[derive(Clone, Copy)]
struct Mark {
    suggest: Suggest,
    label: u32,
}

impl Suggest {
    fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Review => "review",
            Self::Risky => "risky",
        }
    }
}

impl Mark {
    const NONE: Self = Self {
        suggest: Suggest::Pass,
        label: NORMAL,
    };

    /// The first mark of the gravest kind.
    fn in_text(text: &str) -> Self {
        [Suggest::Risky, Suggest::Review]
            .into_iter()
            .find_map(|suggest| {
                text.split('[').skip(1).find_map(|rest| {
                    let rest = rest.strip_prefix(suggest.name())?;
                    let label = match rest.strip_prefix(':') {
                        Some(label) => label.split_once(']')?.0.parse().ok()?,
                        None => rest.starts_with(']').then_some(OTHER)?,
                    };
                    Some(Self { suggest, label })
                })
            })
            .unwrap_or(Self::NONE)
    }

    fn is_risky(self) -> bool {
        self.suggest == Suggest::Risky
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::probe::{APPID, Probe, form, json};
    use crate::sim::state::{CodeKind, UserChange};

    const TEXT: &str = "/wxa/msg_sec_check";
    const MEDIA: &str = "/wxa/media_check_async";
    const USER: &str = "/wxa/getuserriskrank";

    fn text(openid: &str, content: &str) -> Value {
        json!({ "version": 2, "scene": 2, "openid": openid, "content": content })
    }

    #[test]
    fn checks_want_a_token_and_json() {
        for path in [TEXT, MEDIA, USER] {
            Probe::new().assert_takes_json_with_a_token(path);
        }
    }

    #[test]
    fn a_text_is_judged_by_its_mark_and_a_judgement_is_no_refusal() {
        let mut probe = Probe::new();
        let openid = probe.openid.clone();
        for (content, suggest, label) in [
            ("你好", "pass", 100),
            ("a [risky] b", "risky", 21000),
            ("[review]", "review", 21000),
            ("[review] [risky:20002]", "risky", 20002),
            ("[risky:x] [riskyer] risky]", "pass", 100),
        ] {
            let told = probe.post(TEXT, &text(&openid, content));
            assert_eq!(told["errcode"], 0, "{told}");
            assert_eq!(
                told["result"],
                json!({ "suggest": suggest, "label": label }),
                "{content}"
            );
            assert_eq!(told["detail"][0]["suggest"], suggest);
            assert!(told["trace_id"].as_str().unwrap().starts_with("6553f128-"));
        }
        let mut body = text(&openid, "fine");
        body["nickname"] = json!("[review:10001]");
        assert_eq!(
            probe.post(TEXT, &body)["result"],
            json!({ "suggest": "review", "label": 10001 })
        );
    }

    #[test]
    fn version_one_refuses_wechats_own_sample_and_version_two_lets_it_pass() {
        let mut probe = Probe::new();
        let refused = probe.post(TEXT, &json!({ "content": SAMPLE }));
        assert_eq!(refused["errcode"], 87014);
        assert_eq!(
            probe.post(TEXT, &json!({ "content": "[risky]" }))["errcode"],
            87014
        );
        assert_eq!(
            probe.post(TEXT, &json!({ "content": "fine" }))["errcode"],
            0
        );
        let body = text(&probe.openid, SAMPLE);
        assert_eq!(probe.post(TEXT, &body)["result"]["suggest"], "pass");
    }

    #[test]
    fn the_arguments_of_a_text_are_checked() {
        let mut probe = Probe::new();
        let openid = probe.openid.clone();
        let long = "长".repeat(2501);
        for (field, value, errcode) in [
            ("content", json!(""), 47001),
            ("content", json!(long), 45002),
            ("scene", json!(5), 40129),
            ("scene", json!(null), 40129),
            ("openid", json!("oNobody"), 40003),
        ] {
            let mut body = text(&openid, "fine");
            body[field] = value;
            assert_eq!(probe.post(TEXT, &body)["errcode"], errcode, "{field}");
        }
        let mut body = text(&openid, "fine");
        body["version"] = json!("2");
        assert_eq!(
            probe.post(TEXT, &body)["errcode"],
            0,
            "a text is a version too"
        );
    }

    #[test]
    fn only_who_was_in_the_app_within_two_hours_is_checked() {
        let mut probe = Probe::new();
        let bob = probe.state.openid(0, "bob");
        probe.state.issue_code(0, "bob", CodeKind::Login);
        let body = text(bob.as_str(), "fine");
        assert_eq!(probe.post(TEXT, &body)["errcode"], 61010, "never logged in");
        let elsewhere = probe.state.openid(1, "bob");
        let body = text(elsewhere.as_str(), "fine");
        assert_eq!(probe.post(TEXT, &body)["errcode"], 43104);

        probe.pass(2 * 3600);
        probe.token = probe.state.token(0).access_token;
        let body = text(&probe.openid, "fine");
        assert_eq!(probe.post(TEXT, &body)["errcode"], 0);
        probe.pass(1);
        assert_eq!(probe.post(TEXT, &body)["errcode"], 61010);
    }

    #[test]
    fn a_medium_is_checked_later_and_gets_a_trace_id_now() {
        let mut probe = Probe::new();
        let good = json!({
            "media_url": "https://example.com/a.png", "media_type": 2, "version": 2, "scene": 1,
            "openid": probe.openid,
        });
        assert!(probe.post(MEDIA, &good)["trace_id"].is_string());
        for (field, errcode) in [
            ("media_url", 47001),
            ("version", 47001),
            ("media_type", 40004),
            ("scene", 40129),
        ] {
            let mut body = good.clone();
            body.as_object_mut().unwrap().remove(field);
            assert_eq!(probe.post(MEDIA, &body)["errcode"], errcode, "{field}");
        }
    }

    #[test]
    fn only_what_is_on_this_machine_is_fetched_and_then_judged_by_its_bytes_too() {
        let look = |url: &str| Look {
            appid: APPID.to_owned(),
            openid: "o".to_owned(),
            trace_id: "t".to_owned(),
            url: url.to_owned(),
        };
        for (url, is_near) in [
            ("http://127.0.0.1:8080/wx/media/m?e=1", true),
            ("http://[::1]/m", true),
            ("https://localhost/m", true),
            ("https://example.com/127.0.0.1", false),
            ("m", false),
        ] {
            assert_eq!(look(url).is_near(), is_near, "{url}");
        }
        for (url, seen, expected) in [
            ("http://a/", Seen::Bytes(b"fine"), ("pass", 0)),
            ("http://a/", Seen::Bytes(b"\xff[review]"), ("review", 0)),
            ("http://a/%5Brisky%5D", Seen::Bytes(b"fine"), ("risky", 0)),
            ("http://a/%5Brisky%5D", Seen::Nothing, ("risky", 0)),
            ("http://a/", Seen::Failed, ("pass", -1008)),
        ] {
            let (mark, errcode) = look(url).judge(&seen);
            assert_eq!((mark.suggest.name(), errcode), expected);
        }
    }

    #[test]
    fn a_picture_is_judged_by_its_name_or_its_bytes() {
        let mut probe = Probe::new();
        let target = probe.with_token("/wxa/img_sec_check");
        let large = vec![0; LARGEST_PICTURE + 1];
        for (filename, data, errcode) in [
            ("a.png", &b"\xff fine"[..], 0),
            ("a[risky].png", b"x", 87014),
            ("a.png", b"\xff[risky]\xff", 87014),
            ("a.png", b"", 40006),
            ("a.png", &large, 40006),
            ("", b"x", 41005),
        ] {
            let (headers, body) = form(filename, data);
            let answer = probe.call_with(Method::POST, &target, headers, &body);
            assert_eq!(json(&answer)["errcode"], errcode, "{filename}");
        }
    }

    #[test]
    fn a_users_rank_is_what_it_was_made() {
        let mut probe = Probe::new();
        let mut body = json!({
            "appid": APPID, "openid": probe.openid, "scene": 0, "client_ip": "127.0.0.1",
        });
        assert_eq!(probe.post(USER, &body)["risk_rank"], 0);
        probe.change(&UserChange {
            risk_rank: Some(4),
            ..UserChange::default()
        });
        let told = probe.post(USER, &body);
        assert_eq!(told["risk_rank"], 4);
        assert!(told["unoin_id"].is_u64());
        body["scene"] = json!(3);
        assert_eq!(probe.post(USER, &body)["errcode"], 40097);
        body["appid"] = json!("wx");
        assert_eq!(probe.post(USER, &body)["errcode"], 40013);
    }
}
