//! Content safety (内容安全): WeChat's judgement of texts and media.
//!
//! Source: developers.weixin.qq.com, 服务端 / 内容安全 / 文本内容安全识别, 音视频内容安全识别. Of a text it is said at once, and a
//! judgement is no refusal: the errcode is 0 for what is risky, too. Of a medium it is said later, by a push that names the
//! `trace_id` and nothing else that we know.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Invalid};
use super::api::{Api, json_body};
use super::push::Message;
use crate::domain::OpenId;

/// How texts are checked: by POST, with an access_token.
pub const TEXT: Api = Api {
    path: "/wxa/msg_sec_check",
    if_lost: None,
};
/// How media are.
pub const MEDIA: Api = Api {
    path: "/wxa/media_check_async",
    if_lost: None,
};
/// The longest text, in characters.
pub const LONGEST_TEXT: usize = 2500;
/// The event that brings the judgement of a medium.
const JUDGED: &str = "wxa_media_check";
/// The longest `trace_id` that is one, in bytes.
const LONGEST_TRACE: usize = 128;
/// With which version 1 refuses what is risky.
const RISKY: i64 = 87014;

/// Where something will stand, which WeChat judges by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// A user's profile (资料).
    Profile = 1,
    /// A comment (评论).
    Comment = 2,
    /// A post in a forum (论坛).
    Forum = 3,
    /// A social log (社交日志).
    Social = 4,
}

impl Scene {
    /// WeChat's number.
    pub fn number(self) -> i64 {
        self as i64
    }

    /// The scene of that number.
    pub fn of(number: i64) -> Option<Self> {
        let all = [Self::Profile, Self::Comment, Self::Forum, Self::Social];
        all.into_iter().find(|scene| scene.number() == number)
    }
}

/// What WeChat suggests to do with a text; the later is the graver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suggest {
    /// It is harmless.
    Pass,
    /// Somebody should look at it.
    Review,
    /// It must not be published.
    Risky,
}

/// What a text is about, by WeChat's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(pub i64);

/// What WeChat says of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What to do.
    pub suggest: Suggest,
    /// What it is about.
    pub label: Label,
}

/// What WeChat can listen to or look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// Sound.
    Audio = 1,
    /// A picture.
    Image = 2,
}

impl Label {
    const OTHER: Self = Self(21_000);

    /// What it means, in English and in Chinese.
    pub fn meaning(self) -> (&'static str, &'static str) {
        match self.0 {
            100 => ("normal", "正常"),
            10_001 => ("advertising", "广告"),
            20_001 => ("politics", "时政"),
            20_002 => ("pornography", "色情"),
            20_003 => ("abuse", "辱骂"),
            20_006 => ("crime", "违法犯罪"),
            20_008 => ("fraud", "欺诈"),
            20_012 => ("vulgarity", "低俗"),
            20_013 => ("copyright", "版权"),
            _ => ("other", "其他"),
        }
    }
}

impl Judgement {
    /// What a refusal with `errcode` says of a text, if that is what it is about.
    pub fn of_refusal(errcode: i64) -> Option<Self> {
        (errcode == RISKY).then_some(Self {
            suggest: Suggest::Risky,
            label: Label::OTHER,
        })
    }
}

/// What is asked of a text of at most [`LONGEST_TEXT`] characters.
pub fn text_body(openid: &OpenId, scene: Scene, text: &str) -> Bytes {
    json_body(&json!({
        "content": text, "version": 2, "scene": scene.number(), "openid": openid.as_str(),
    }))
}

/// What is asked of a medium, which WeChat fetches from `url`.
pub fn media_body(openid: &OpenId, scene: Scene, url: &str, media_type: MediaType) -> Bytes {
    json_body(&json!({
        "media_url": url, "media_type": media_type as u8, "version": 2, "scene": scene.number(),
        "openid": openid.as_str(),
    }))
}

/// Reads a judgement. A suggestion that is not known is none; a label may be a new one.
pub fn parse_text(answer: &Answer) -> Result<Judgement, Invalid> {
    let result = answer.fields().get("result").and_then(Value::as_object);
    let result = result.ok_or(Invalid::Field("the result is missing or not an object"))?;
    let suggest = match result.get("suggest").and_then(Value::as_str) {
        Some("pass") => Suggest::Pass,
        Some("review") => Suggest::Review,
        Some("risky") => Suggest::Risky,
        _ => return Err(Invalid::Field("the suggestion is none that is known")),
    };
    let label = result.get("label").and_then(Value::as_i64);
    let label = label.map_or(Label::OTHER, Label);
    Ok(Judgement { suggest, label })
}

/// Reads the `trace_id` that the judgement of a medium will come with.
pub fn parse_media(answer: &Answer) -> Result<String, Invalid> {
    let trace = answer.fields().get("trace_id").and_then(Value::as_str);
    match trace.filter(|trace| is_trace(trace)) {
        Some(trace) => Ok(trace.to_owned()),
        None => Err(Invalid::Field("the trace_id is missing or not one")),
    }
}

/// The `trace_id` of the medium that a push judges, if it does.
pub fn judged(message: &Message) -> Option<String> {
    #[derive(Deserialize)]
    struct Judged {
        trace_id: String,
    }

    if message.event() != Some(JUDGED) {
        return None;
    }
    let Judged { trace_id } = serde_json::from_slice(message.json()).ok()?;
    is_trace(&trace_id).then_some(trace_id)
}

fn is_trace(text: &str) -> bool {
    (1..=LONGEST_TRACE).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::super::answer;
    use super::super::push::Format;
    use super::*;

    /// As the documentation has it.
    const RISKY_TEXT: &str = r#"{"errcode":0,"errmsg":"ok","result":{"suggest":"risky","label":20001},"detail":[
        {"strategy":"content_model","errcode":0,"suggest":"risky","label":20006,"prob":90},
        {"strategy":"keyword","errcode":0,"suggest":"pass","label":20006,"level":20,"keyword":"命中的关键词1"}],
        "trace_id":"60ae120f-371d5872-7941a05b"}"#;

    fn judgement(body: &str) -> Result<Judgement, Invalid> {
        parse_text(&answer::parse(body.as_bytes())?)
    }

    #[test]
    fn the_result_counts_and_not_the_details_or_the_errcode() {
        let judged = judgement(RISKY_TEXT).unwrap();
        assert_eq!(
            (judged.suggest, judged.label),
            (Suggest::Risky, Label(20001))
        );
        assert_eq!(judged.label.meaning(), ("politics", "时政"));
        for (written, suggest) in [("pass", Suggest::Pass), ("review", Suggest::Review)] {
            let body = RISKY_TEXT.replacen("risky", written, 1);
            assert_eq!(judgement(&body).unwrap().suggest, suggest);
        }
    }

    #[test]
    fn a_judgement_that_says_nothing_known_is_invalid() {
        for (from, to) in [
            ("\"result\"", "\"results\""),
            ("{\"suggest\":\"risky\",\"label\":20001}", "null"),
            ("\"risky\"", "\"fine\""),
            ("\"risky\"", "\"RISKY\""),
            ("\"risky\"", "1"),
        ] {
            let body = RISKY_TEXT.replacen(from, to, 1);
            assert!(matches!(judgement(&body), Err(Invalid::Field(_))), "{body}");
        }
    }

    #[test]
    fn a_label_that_is_not_known_is_some_other_one() {
        for label in ["null", "\"x\"", "4711"] {
            let body = RISKY_TEXT.replacen("20001", label, 1);
            let judged = judgement(&body).unwrap();
            assert_eq!(judged.suggest, Suggest::Risky);
            assert_eq!(judged.label.meaning(), ("other", "其他"));
        }
    }

    #[test]
    fn what_version_one_refuses_is_risky() {
        let risky = Judgement::of_refusal(87014).unwrap();
        assert_eq!(risky.suggest, Suggest::Risky);
        assert_eq!(Judgement::of_refusal(61010), None);
    }

    #[test]
    fn a_body_is_what_the_documentation_asks_for() {
        let openid = OpenId::parse("o6zAJs1Z").unwrap();
        let text = text_body(&openid, Scene::Comment, "你\"好\n");
        let text: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            text,
            json!({ "content": "你\"好\n", "version": 2, "scene": 2, "openid": "o6zAJs1Z" })
        );
        let media = media_body(&openid, Scene::Profile, "https://a/b", MediaType::Audio);
        let media: Value = serde_json::from_slice(&media).unwrap();
        assert_eq!(
            media,
            json!({
                "media_url": "https://a/b", "media_type": 1, "version": 2, "scene": 1, "openid": "o6zAJs1Z",
            })
        );
    }

    #[test]
    fn a_trace_id_is_read_or_the_answer_is_invalid() {
        let trace = |body: &str| parse_media(&answer::parse(body.as_bytes()).unwrap());
        assert_eq!(
            trace(r#"{"errcode":0,"trace_id":"60ae-1"}"#).unwrap(),
            "60ae-1"
        );
        let long = format!(r#"{{"trace_id":"{}"}}"#, "a".repeat(129));
        for body in [
            "{}",
            r#"{"trace_id":""}"#,
            r#"{"trace_id":7}"#,
            r#"{"trace_id":"a b"}"#,
            &long,
        ] {
            assert!(trace(body).is_err(), "{body}");
        }
    }

    #[test]
    fn a_push_that_judges_a_medium_names_it_in_both_formats() {
        let judged_by =
            |format, document: &str| judged(&Message::parse(format, document.as_bytes()).unwrap());
        let event =
            r#"{"MsgType":"event","Event":"wxa_media_check","trace_id":"60ae-1","version":2}"#;
        assert_eq!(judged_by(Format::Json, event).as_deref(), Some("60ae-1"));
        let xml = "<xml><MsgType>event</MsgType><Event>wxa_media_check</Event><trace_id>60ae-1</trace_id></xml>";
        assert_eq!(judged_by(Format::Xml, xml).as_deref(), Some("60ae-1"));
        for other in [
            event.replace("wxa_media_check", "other"),
            event.replace("\"60ae-1\"", "{}"),
            event.replace("60ae-1", "60ae\\r\\n1"),
        ] {
            assert_eq!(judged_by(Format::Json, &other), None, "{other}");
        }
    }
}
