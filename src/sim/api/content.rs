//! Is it harmful? Texts, media and users, judged.
//!
//! What the verdict on a text is, its words decide ([`WORDS`]); of a picture, whether its bytes hold `risky`. The verdict on
//! media that are checked asynchronously is pushed by WeChat, which the simulator does not do.

use serde::Deserialize;
use serde_json::{Value, json};

use super::media::uploaded;
use super::{json_body, ok};
use crate::sim::exchange::Request;
use crate::sim::refusal::{Refusal, Refused};
use crate::sim::state::State;

/// The words that are minded, in lower case, with their labels. `help.txt` lists them too.
const WORDS: &[(&str, Suggest, u32)] = &[
    ("色情", Suggest::Risky, 20002),
    ("porn", Suggest::Risky, 20002),
    ("辱骂", Suggest::Risky, 20003),
    ("abuse", Suggest::Risky, 20003),
    ("赌博", Suggest::Risky, 20006),
    ("gambling", Suggest::Risky, 20006),
    ("诈骗", Suggest::Risky, 20008),
    ("fraud", Suggest::Risky, 20008),
    // Of the text that the documentation gives to try it with.
    ("特3456书", Suggest::Risky, 21000),
    ("广告", Suggest::Review, 10001),
    ("advert", Suggest::Review, 10001),
    ("低俗", Suggest::Review, 20012),
    ("vulgar", Suggest::Review, 20012),
];
/// The label of what is harmless.
const NORMAL: u32 = 100;
/// The longest text, in characters.
const LONGEST: usize = 2500;
/// The largest picture of the old check.
const LARGEST: usize = 1 << 20;

/// What to do about a content, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Suggest {
    Pass,
    Review,
    Risky,
}

/// `POST /wxa/msg_sec_check`, in its second version, and in its first if the call does not ask for the second.
pub(super) fn text(state: &mut State, app: usize, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        content: String,
        version: Option<u32>,
        scene: Option<u32>,
        #[serde(default)]
        openid: String,
        title: Option<String>,
        nickname: Option<String>,
        signature: Option<String>,
    }

    let body: Body = json_body(request)?;
    if body.content.is_empty() {
        return Err(Refusal::BodyMalformed.into());
    }
    if body.content.chars().count() > LONGEST {
        return Err(Refusal::ContentTooLarge.into());
    }
    let second = body.version == Some(2);
    if second {
        check_scene(body.scene)?;
        check_user(state, app, &body.openid)?;
    }
    let texts = [
        Some(body.content),
        body.title,
        body.nickname,
        body.signature,
    ];
    let text = texts.into_iter().flatten().collect::<Vec<_>>().join("\n");
    let hits = hits(&text);
    let worst = hits.iter().max_by_key(|(_, suggest, _)| *suggest);
    let (suggest, label) = match worst {
        Some((_, suggest, label)) => (*suggest, *label),
        None => (Suggest::Pass, NORMAL),
    };
    if !second {
        return match suggest {
            Suggest::Risky => Err(Refusal::ContentRisky.into()),
            Suggest::Review | Suggest::Pass => Ok(ok(json!({}))),
        };
    }

    let mut detail = vec![json!({
        "strategy": "content_model",
        "errcode": 0,
        "suggest": suggest.name(),
        "label": label,
        "prob": 90,
    })];
    detail.extend(hits.iter().map(|(word, suggest, label)| {
        json!({
            "strategy": "keyword",
            "errcode": 0,
            "suggest": suggest.name(),
            "label": label,
            "level": 90,
            "keyword": word,
        })
    }));
    Ok(ok(json!({
        "result": { "suggest": suggest.name(), "label": label },
        "detail": detail,
        "trace_id": state.rid(),
    })))
}

/// `POST /wxa/media_check_async`.
pub(super) fn media(state: &mut State, app: usize, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        media_url: String,
        media_type: Option<u32>,
        version: Option<u32>,
        scene: Option<u32>,
        #[serde(default)]
        openid: String,
    }

    let body: Body = json_body(request)?;
    let is_url = ["http://", "https://"]
        .iter()
        .any(|scheme| body.media_url.starts_with(scheme));
    if !is_url || body.version != Some(2) {
        return Err(Refusal::BodyMalformed.into());
    }
    if !matches!(body.media_type, Some(1 | 2)) {
        return Err(Refusal::MediaTypeInvalid.into());
    }
    check_scene(body.scene)?;
    check_user(state, app, &body.openid)?;
    Ok(ok(json!({ "trace_id": state.rid() })))
}

/// `POST /wxa/img_sec_check`.
pub(super) fn picture(_: &mut State, _: usize, request: &Request) -> Result<Value, Refused> {
    let file = uploaded(request)?;
    if file.content.len() > LARGEST {
        return Err(Refusal::MediaSizeInvalid.into());
    }
    match memchr::memmem::find(&file.content, b"risky") {
        Some(_) => Err(Refusal::ContentRisky.into()),
        None => Ok(ok(json!({}))),
    }
}

/// `POST /wxa/getuserriskrank`.
pub(super) fn risk_rank(
    state: &mut State,
    app: usize,
    request: &Request,
) -> Result<Value, Refused> {
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

    let body: Body = json_body(request)?;
    if body.appid != state.apps[app].known.appid.as_str() {
        return Err(Refusal::AppIdInvalid.into());
    }
    let user = check_user(state, app, &body.openid)?;
    if !matches!(body.scene, Some(0..=2)) || body.client_ip.is_empty() {
        return Err(Refusal::ArgumentsInvalid.into());
    }
    let now = state.now();
    Ok(json!({
        "errcode": 0,
        "errmsg": "getuserriskrank succ",
        "risk_rank": state.users[&user].risk_rank,
        // Spelled as WeChat spells it.
        "unoin_id": state.ids.message_id(now) % (1 << 32),
    }))
}

fn check_scene(scene: Option<u32>) -> Result<(), Refusal> {
    match scene {
        Some(1..=4) => Ok(()),
        _ => Err(Refusal::SceneInvalid),
    }
}

/// The user must be one of this app's, and must have been in it within two hours.
fn check_user(state: &State, app: usize, openid: &str) -> Result<String, Refusal> {
    let Some(user) = state.user_of(app, openid) else {
        let elsewhere = (0..state.apps.len()).any(|app| state.user_of(app, openid).is_some());
        return Err(match elsewhere {
            true => Refusal::OpenIdForeign,
            false => Refusal::OpenIdInvalid,
        });
    };
    match state.was_here(app, &user) {
        true => Ok(user),
        false => Err(Refusal::UserAway),
    }
}

fn hits(text: &str) -> Vec<&'static (&'static str, Suggest, u32)> {
    let text = text.to_lowercase();
    let hits = WORDS.iter().filter(|(word, _, _)| text.contains(word));
    hits.collect()
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sim::api::stage::Stage;
    use crate::sim::multipart::tests::upload as form;
    use crate::sim::state::{CodeKind, UserChange};

    const TEXT: &str = "/wxa/msg_sec_check";
    const MEDIA: &str = "/wxa/media_check_async";
    const PICTURE: &str = "/wxa/img_sec_check";
    const RANK: &str = "/wxa/getuserriskrank";

    #[test]
    fn a_text_is_judged_by_its_words_and_the_worst_counts() {
        let mut stage = Stage::new();
        for (content, suggest, label, keywords) in [
            ("你好", "pass", 100, 0),
            ("一个广告", "review", 10001, 1),
            ("an ADVERT for Gambling", "risky", 20006, 2),
            ("特3456书yuuo", "risky", 21000, 1),
        ] {
            let body =
                json!({ "content": content, "version": 2, "scene": 2, "openid": stage.alice });
            let (errcode, told) = stage.post(TEXT, &body);
            assert_eq!((errcode, &told["errcode"]), (None, &json!(0)));
            assert_eq!(
                told["result"],
                json!({ "suggest": suggest, "label": label })
            );
            let detail = told["detail"].as_array().unwrap();
            assert_eq!(detail.len(), 1 + keywords, "{told}");
            assert_eq!(detail[0]["strategy"], json!("content_model"));
            assert_eq!(told["trace_id"].as_str().unwrap().len(), 26);
        }
        let body = json!({ "content": "x", "version": 2, "scene": 1, "openid": stage.alice, "nickname": "fraud" });
        assert_eq!(
            stage.post(TEXT, &body).1["result"]["suggest"],
            json!("risky")
        );
    }

    #[test]
    fn the_first_version_refuses_what_is_risky() {
        let mut stage = Stage::new();
        assert_eq!(stage.post(TEXT, &json!({ "content": "你好" })).0, None);
        assert_eq!(stage.post(TEXT, &json!({ "content": "广告" })).0, None);
        let refusal = stage.refusal(TEXT, &json!({ "content": "赌博" }));
        assert_eq!(refusal, (87014, "risky content".to_owned()));
    }

    #[test]
    fn a_check_needs_content_a_scene_and_a_user_who_was_here() {
        let mut stage = Stage::new();
        let code = stage.state.issue_code(1, "carol", CodeKind::Login);
        stage.state.log_in(1, &code).unwrap();
        stage.state.issue_code(0, "bob", CodeKind::Login);
        let elsewhere = stage.state.openid(1, "alice");
        let bob = stage.state.openid(0, "bob");
        let text = json!({ "content": "x", "version": 2, "scene": 2, "openid": stage.alice });
        let media = json!({
            "media_url": "https://a/b.png", "media_type": 2, "version": 2, "scene": 2, "openid": stage.alice,
        });
        let users = [
            ("openid", json!("o-nobody"), 40003),
            ("openid", json!(elsewhere.as_str()), 43104),
            ("openid", json!(bob.as_str()), 61010),
            ("scene", json!(0), 40129),
            ("scene", json!(5), 40129),
        ];
        for (path, good) in [(TEXT, &text), (MEDIA, &media)] {
            for (field, value, errcode) in &users {
                let mut body = good.clone();
                body[*field] = value.clone();
                assert_eq!(stage.refusal(path, &body).0, *errcode, "{path} {body}");
            }
            assert_eq!(stage.post(path, good).0, None);
        }
        for (field, value, errcode) in [
            ("content", json!(""), 47001),
            ("content", json!("x".repeat(2501)), 45002),
        ] {
            let mut body = text.clone();
            body[field] = value;
            assert_eq!(stage.refusal(TEXT, &body).0, errcode);
        }
        for (field, value, errcode) in [
            ("media_type", json!(3), 40004),
            ("media_url", json!("file:///etc"), 47001),
            ("version", json!(1), 47001),
        ] {
            let mut body = media.clone();
            body[field] = value;
            assert_eq!(stage.refusal(MEDIA, &body).0, errcode);
        }

        stage.state.advance(Duration::from_secs(7199));
        assert_eq!(stage.post(TEXT, &text).0, None);
        stage.state.advance(Duration::from_secs(1));
        stage.token = stage.state.token(0).access_token;
        assert_eq!(stage.refusal(TEXT, &text).0, 61010);
    }

    #[test]
    fn a_picture_is_risky_if_it_says_so() {
        let mut stage = Stage::new();
        let target = stage.target(PICTURE);
        let large = vec![0; LARGEST + 1];
        let disposition = "name=\"media\"; filename=\"a.png\"\r\nContent-Type: image/png";
        for (content, errcode) in [
            (&b"\x89PNG"[..], None),
            (b"\x89PNG risky", Some(87014)),
            (&large, Some(40006)),
        ] {
            let answer = stage.answer(&form(&target, disposition, content));
            assert_eq!(answer.errcode, errcode);
        }
        let nameless = form(&target, "name=\"media\"", b"x");
        assert_eq!(stage.answer(&nameless).errcode, Some(41005));
    }

    #[test]
    fn a_users_risk_is_what_has_been_set() {
        let mut stage = Stage::new();
        let risk = UserChange {
            risk_rank: Some(3),
            ..UserChange::default()
        };
        stage.state.change_user("alice", &risk);
        let good = json!({
            "appid": "wx0123456789abcdef", "openid": stage.alice, "scene": 0, "client_ip": "203.0.113.7",
        });
        let (_, told) = stage.post(RANK, &good);
        assert_eq!(told["risk_rank"], json!(3));
        assert_eq!(told["errmsg"], json!("getuserriskrank succ"));
        assert!(told["unoin_id"].is_u64());
        for (field, value, errcode) in [
            ("appid", json!("wxfedcba9876543210"), 40013),
            ("openid", json!("o-nobody"), 40003),
            ("scene", json!(3), 40097),
            ("client_ip", json!(""), 40097),
        ] {
            let mut body = good.clone();
            body[field] = value;
            assert_eq!(stage.refusal(RANK, &body).0, errcode);
        }
    }
}
