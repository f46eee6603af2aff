//! Messages to users: subscription messages, and replies of customer service.
//!
//! Nobody receives them; that a subscription message was is pushed. What is kept of WeChat is what it refuses: a template's field that breaks the rule of its type,
//! a user who wants none, an answer that comes too late or too often.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{ok, posted};
use super::exchange::Request;
use super::push::Push;
use super::refusal::{Refusal, Refused};
use super::state::State;
use crate::clock::Timestamp;

/// How long after a user's message it may be answered, and how often.
const REPLY_WINDOW: Duration = Duration::from_secs(48 * 3600);
const REPLIES: u32 = 5;
/// How long after a user's message the typing state may be shown, and how long it then shows.
const TYPING_WINDOW: Duration = Duration::from_secs(30);
const TYPING_LIFE: Duration = Duration::from_secs(15);
/// In bytes.
const LONGEST_TEXT: usize = 2048;

/// A user's conversation with an app's customer service, since the user wrote last.
pub(super) struct Conversation {
    wrote_at: Timestamp,
    replies: u32,
    typing_since: Option<Timestamp>,
}

impl Conversation {
    /// As it is when the user has just written.
    pub(super) fn begun(now: Timestamp) -> Self {
        Self {
            wrote_at: now,
            replies: 0,
            typing_since: None,
        }
    }
}

/// `POST /cgi-bin/message/subscribe/send`.
pub(super) fn subscribe(state: &mut State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        touser: String,
        #[serde(default)]
        template_id: String,
        #[serde(default)]
        page: String,
        #[serde(default)]
        data: BTreeMap<String, Field>,
    }

    #[derive(Deserialize)]
    struct Field {
        #[serde(default)]
        value: String,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = posted(request)?;
    let user = state
        .user_of(app, &body.touser)
        .ok_or(Refusal::OpenIdInvalid)?;
    if body.template_id.is_empty() {
        return Err(Refusal::TemplateInvalid.into());
    }
    // The page may have a query.
    let page = body.page.split('?').next().unwrap_or_default();
    if !state.apps[app].has_page(page) {
        return Err(Refusal::PageInvalid.into());
    }
    if body.data.is_empty() {
        return Err(Refusal::ArgumentInvalid.saying("argument invalid! data is empty".to_owned()));
    }
    for (key, field) in &body.data {
        let wrong = match &*field.value {
            "" => "is empty",
            value if !obeys(key, value) => "invalid",
            _ => continue,
        };
        let errmsg = format!("argument invalid! data.{key}.value {wrong}");
        return Err(Refusal::ArgumentInvalid.saying(errmsg));
    }
    if !state.users[&user].subscribed {
        return Err(Refusal::MessagesRefused.into());
    }
    let msgid = state.ids.message_id();
    let sent = json!({ "List": {
        "TemplateId": body.template_id,
        "MsgID": msgid.to_string(),
        "ErrorCode": "0",
        "ErrorStatus": "success",
    } });
    let event = Push::event("subscribe_msg_sent_event", sent).with_openid(body.touser);
    state.push_soon(app, event);
    Ok(ok(json!({ "msgid": msgid })))
}

/// `POST /cgi-bin/message/custom/send`.
pub(super) fn reply(state: &mut State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        touser: String,
        #[serde(default)]
        msgtype: String,
        text: Option<Text>,
        image: Option<Image>,
        link: Option<Link>,
        miniprogrampage: Option<Page>,
    }

    #[derive(Deserialize)]
    struct Text {
        #[serde(default)]
        content: String,
    }

    #[derive(Deserialize)]
    struct Image {
        #[serde(default)]
        media_id: String,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Link {
        title: String,
        description: String,
        url: String,
        thumb_url: String,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Page {
        title: String,
        pagepath: String,
        thumb_media_id: String,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = posted(request)?;
    let user = state
        .user_of(app, &body.touser)
        .ok_or(Refusal::OpenIdInvalid)?;
    match &*body.msgtype {
        "text" => {
            let content = body.text.ok_or(Refusal::BodyMalformed)?.content;
            if content.is_empty() {
                return Err(Refusal::TextEmpty.into());
            }
            if content.len() > LONGEST_TEXT {
                return Err(Refusal::TextTooLong.into());
            }
        }
        "image" => {
            let image = body.image.ok_or(Refusal::BodyMalformed)?;
            if !state.media.has(app, &image.media_id, state.now()) {
                return Err(Refusal::MediaIdInvalid.into());
            }
        }
        "link" => {
            let link = body.link.ok_or(Refusal::BodyMalformed)?;
            let fields = [link.title, link.description, link.url, link.thumb_url];
            if fields.iter().any(String::is_empty) {
                return Err(Refusal::BodyMalformed.into());
            }
        }
        "miniprogrampage" => {
            let page = body.miniprogrampage.ok_or(Refusal::BodyMalformed)?;
            if page.title.is_empty() || page.pagepath.is_empty() {
                return Err(Refusal::BodyMalformed.into());
            }
            if !state.media.has(app, &page.thumb_media_id, state.now()) {
                return Err(Refusal::MediaIdInvalid.into());
            }
        }
        _ => return Err(Refusal::MessageKindInvalid.into()),
    }

    let now = state.now();
    let conversation = conversation(state, app, &user)
        .filter(|conversation| now.since(conversation.wrote_at) <= REPLY_WINDOW)
        .ok_or(Refusal::ReplyTooLate)?;
    if conversation.replies == REPLIES {
        return Err(Refusal::TooManyReplies.into());
    }
    conversation.replies += 1;
    conversation.typing_since = None;
    Ok(ok(json!({})))
}

/// `POST /cgi-bin/message/custom/typing`.
pub(super) fn typing(state: &mut State, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        touser: String,
        #[serde(default)]
        command: String,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = posted(request)?;
    let user = state
        .user_of(app, &body.touser)
        .ok_or(Refusal::OpenIdInvalid)?;
    let begins = match &*body.command {
        "Typing" => true,
        "CancelTyping" => false,
        _ => return Err(Refusal::CommandInvalid.into()),
    };
    let now = state.now();
    let conversation = conversation(state, app, &user)
        .filter(|conversation| now.since(conversation.wrote_at) <= TYPING_WINDOW)
        .ok_or(Refusal::TypingTooLate)?;
    let types = conversation
        .typing_since
        .is_some_and(|since| now.since(since) < TYPING_LIFE);
    if begins && types {
        return Err(Refusal::AlreadyTyping.into());
    }
    conversation.typing_since = begins.then_some(now);
    Ok(ok(json!({})))
}

fn conversation<'a>(state: &'a mut State, app: usize, user: &str) -> Option<&'a mut Conversation> {
    state.users.get_mut(user)?.conversations.get_mut(&app)
}

/// Whether a value obeys the rule of its field, whose type is the name without its number: `thing1` is a `thing`. A field
/// of another name is in no template.
fn obeys(key: &str, value: &str) -> bool {
    let all = |allowed: fn(char) -> bool| value.chars().all(allowed);
    let length = value.chars().count();
    match key.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "thing" => length <= 20,
        "number" => length <= 32 && is_decimal(value),
        "letter" => length <= 32 && all(|c| c.is_ascii_alphabetic()),
        "symbol" => length <= 5 && all(|c| !c.is_alphanumeric() && !c.is_whitespace()),
        "character_string" => length <= 32 && all(|c| c == ' ' || c.is_ascii_graphic()),
        "time" => is_span(value, |point| is_time(point) || is_date_and_time(point)),
        "date" => is_span(value, |point| is_date(point) || is_date_and_time(point)),
        "amount" => is_amount(value),
        "phone_number" => {
            length <= 17 && all(|c| c == ' ' || c.is_ascii_digit() || c.is_ascii_punctuation())
        }
        "car_number" => length <= 8 && is_car_number(value),
        "name" => length <= if all(|c| c.is_ascii()) { 20 } else { 10 },
        "phrase" => length <= 5 && all(is_hanzi),
        // Which values an enumeration has is the template's secret.
        "enum" => true,
        _ => false,
    }
}

fn is_hanzi(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{323af}')
}

/// Digits, perhaps with a sign and a fraction.
fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    match text.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(text),
    }
}

/// At most ten digits, perhaps a fraction; before them perhaps the sign of a currency, behind them perhaps 元.
fn is_amount(text: &str) -> bool {
    let text = text.strip_suffix('元').unwrap_or(text);
    let text = text
        .strip_prefix(['¥', '￥', '$', '€', '£'])
        .unwrap_or(text);
    let whole = text.split('.').next().unwrap_or_default();
    whole.len() <= 10 && !text.starts_with(['+', '-']) && is_decimal(text)
}

/// Letters and digits, of which the first and the last may be hanzi.
fn is_car_number(text: &str) -> bool {
    let last = text.chars().count().saturating_sub(1);
    text.chars()
        .enumerate()
        .all(|(at, c)| c.is_ascii_alphanumeric() || ((at == 0 || at == last) && is_hanzi(c)))
}

/// One point, or two with `~` between them.
fn is_span(text: &str, is_point: impl Fn(&str) -> bool) -> bool {
    match text.split_once('~') {
        Some((from, to)) => is_point(from.trim()) && is_point(to.trim()),
        None => is_point(text),
    }
}

fn is_date_and_time(text: &str) -> bool {
    text.split_once(' ')
        .is_some_and(|(date, time)| is_date(date) && is_time(time))
}

/// `2019年10月1日`, or with `-`, `/` or `.`.
fn is_date(text: &str) -> bool {
    let cut = |separator: char| text.split(separator).collect::<Vec<_>>();
    let parts = match text.strip_suffix('日') {
        Some(text) => text.split(['年', '月']).collect(),
        None => ['-', '/', '.']
            .into_iter()
            .map(cut)
            .find(|parts| parts.len() == 3)
            .unwrap_or_default(),
    };
    let [year, month, day] = &parts[..] else {
        return false;
    };
    year.len() == 4 && within(year, 0, 9999) && within(month, 1, 12) && within(day, 1, 31)
}

/// `15:01`, perhaps with seconds.
fn is_time(text: &str) -> bool {
    match &text.split(':').collect::<Vec<_>>()[..] {
        [hour, minute] => within(hour, 0, 23) && within(minute, 0, 59),
        [hour, minute, second] => {
            within(hour, 0, 23) && within(minute, 0, 59) && within(second, 0, 59)
        }
        _ => false,
    }
}

fn within(digits: &str, from: u16, to: u16) -> bool {
    let number = digits.bytes().all(|b| b.is_ascii_digit());
    number
        && digits
            .parse()
            .is_ok_and(|number| (from..=to).contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::probe::Probe;
    use crate::sim::state::UserChange;

    const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";
    const REPLY: &str = "/cgi-bin/message/custom/send";
    const TYPING: &str = "/cgi-bin/message/custom/typing";

    fn text(openid: &str) -> Value {
        json!({ "touser": openid, "msgtype": "text", "text": { "content": "你好" } })
    }

    fn wrote() -> UserChange {
        UserChange {
            wrote: true,
            ..UserChange::default()
        }
    }

    #[test]
    fn messages_want_a_token_and_json() {
        for path in [SUBSCRIBE, REPLY, TYPING] {
            Probe::new().assert_takes_json_with_a_token(path);
        }
    }

    #[test]
    fn a_subscription_message_is_checked_in_order_and_gets_a_number() {
        let mut probe = Probe::new();
        let mut body = json!({ "touser": "oNobody" });
        assert_eq!(probe.post(SUBSCRIBE, &body)["errcode"], 40003);
        body["touser"] = json!(probe.openid);
        assert_eq!(probe.post(SUBSCRIBE, &body)["errcode"], 40037);
        body["template_id"] = json!("TEMPLATE");
        assert_eq!(probe.post(SUBSCRIBE, &body)["errcode"], 47003);
        probe.state.apps[0].known.pages = Some(vec!["pages/index".to_owned()]);
        for (page, errcode) in [
            ("pages/other", 41030),
            ("/pages/index", 41030),
            ("pages/index?a=b", 47003),
            ("", 47003),
        ] {
            body["page"] = json!(page);
            assert_eq!(probe.post(SUBSCRIBE, &body)["errcode"], errcode, "{page}");
        }
        body["data"] = json!({ "thing1": "bare" });
        assert_eq!(probe.post(SUBSCRIBE, &body)["errcode"], 47001);
        body["data"] = json!({ "thing1": { "value": "已发货" }, "date2": { "value": "soon" } });
        let told = probe.post(SUBSCRIBE, &body);
        assert_eq!(told["errcode"], 47003);
        let errmsg = told["errmsg"].as_str().unwrap();
        assert!(
            errmsg.starts_with("argument invalid! data.date2.value invalid rid: "),
            "{errmsg}"
        );
        body["data"]["date2"] = json!({});
        let errmsg = probe.post(SUBSCRIBE, &body)["errmsg"].to_string();
        assert!(errmsg.contains("data.date2.value is empty"), "{errmsg}");
        body["data"]["date2"] = json!({ "value": "2019年10月1日" });
        let one = probe.post(SUBSCRIBE, &body);
        let two = probe.post(SUBSCRIBE, &body);
        assert_eq!((&one["errcode"], &one["errmsg"]), (&json!(0), &json!("ok")));
        assert!(one["msgid"].is_u64() && one["msgid"] != two["msgid"]);
    }

    #[test]
    fn who_takes_no_messages_gets_none() {
        let mut probe = Probe::new();
        let body = json!({
            "touser": probe.openid, "template_id": "T", "data": { "thing1": { "value": "x" } },
        });
        for (subscribed, errcode) in [(false, 43101), (true, 0)] {
            probe.change(&UserChange {
                subscribed: Some(subscribed),
                ..UserChange::default()
            });
            assert_eq!(probe.post(SUBSCRIBE, &body)["errcode"], errcode);
        }
    }

    #[test]
    fn a_value_obeys_the_rule_of_its_fields_name() {
        let twenty = "二".repeat(20);
        let right = [
            ("thing1", &*twenty),
            ("number2", "39208499.50"),
            ("letter3", "Abc"),
            ("symbol4", "+-*/"),
            ("character_string5", "NO.2019-1 a"),
            ("time6", "15:01"),
            ("time6", "2019年10月1日 15:01~16:20:05"),
            ("date7", "2019-10-01"),
            ("date7", "2019年10月1日 ~ 2019年10月2日 15:01"),
            ("amount8", "￥100.5元"),
            ("phone_number9", "+86-0766-66888866"),
            ("car_number10", "粤A8Z888挂"),
            ("name11", "张三"),
            ("name11", "Ludwig van Beethoven"),
            ("phrase12", "配送中"),
            ("enum13", "any"),
        ];
        for (key, value) in right {
            assert!(obeys(key, value), "{key} {value}");
        }
        let twenty_one = "二".repeat(21);
        let wrong = [
            ("thing1", &*twenty_one),
            ("number2", "12a"),
            ("number2", "1."),
            ("letter3", "abc1"),
            ("symbol4", "a"),
            ("symbol4", "++++++"),
            ("character_string5", "编号7"),
            ("time6", "24:01"),
            ("time6", "15:01～16:20"),
            ("time6", "15"),
            ("date7", "2019年13月1日"),
            ("date7", "10-01"),
            ("date7", "15:01"),
            ("amount8", "-1"),
            ("amount8", "¥12345678901"),
            ("phone_number9", "call me"),
            ("car_number10", "粤粤A8Z888"),
            ("name11", "一二三四五六七八九十甲"),
            ("phrase12", "ok"),
            ("phrase12", "一二三四五六"),
            ("keyword1", "x"),
        ];
        for (key, value) in wrong {
            assert!(!obeys(key, value), "{key} {value}");
        }
    }

    #[test]
    fn a_reply_is_checked_by_its_kind() {
        let mut probe = Probe::new();
        probe.change(&wrote());
        let long = "x".repeat(LONGEST_TEXT + 1);
        let refused = [
            (json!({ "msgtype": "music" }), 40008),
            (json!({ "msgtype": "text" }), 47001),
            (json!({ "msgtype": "text", "text": {} }), 44004),
            (
                json!({ "msgtype": "text", "text": { "content": long } }),
                45002,
            ),
            (json!({ "msgtype": "image", "image": {} }), 40007),
            (
                json!({ "msgtype": "link", "link": { "title": "t" } }),
                47001,
            ),
            (
                json!({ "msgtype": "miniprogrampage", "miniprogrampage": { "title": "t", "pagepath": "p" } }),
                40007,
            ),
        ];
        for (mut body, errcode) in refused {
            assert_eq!(probe.post(REPLY, &body)["errcode"], 40003, "{body}");
            body["touser"] = json!(probe.openid);
            assert_eq!(probe.post(REPLY, &body)["errcode"], errcode, "{body}");
        }
        let link = json!({
            "touser": probe.openid, "msgtype": "link",
            "link": { "title": "t", "description": "d", "url": "u", "thumb_url": "v" },
        });
        assert_eq!(probe.post(REPLY, &link)["errcode"], 0);
    }

    #[test]
    fn a_users_message_may_be_answered_five_times_in_two_days() {
        let mut probe = Probe::new();
        let body = text(&probe.openid);
        assert_eq!(probe.post(REPLY, &body)["errcode"], 45015);
        probe.change(&wrote());
        for _ in 0..REPLIES {
            assert_eq!(probe.post(REPLY, &body)["errcode"], 0);
        }
        assert_eq!(probe.post(REPLY, &body)["errcode"], 45047);
        probe.change(&wrote());
        probe.pass(48 * 3600 + 1);
        probe.token = probe.state.token(0).access_token;
        assert_eq!(probe.post(REPLY, &body)["errcode"], 45015);
    }

    #[test]
    fn typing_shows_once_and_soon_after_the_users_message() {
        let mut probe = Probe::new();
        let typing = json!({ "touser": probe.openid, "command": "Typing" });
        let cancel = json!({ "touser": probe.openid, "command": "CancelTyping" });
        assert_eq!(probe.post(TYPING, &json!({}))["errcode"], 40003);
        let unknown = json!({ "touser": probe.openid, "command": "typing" });
        assert_eq!(probe.post(TYPING, &unknown)["errcode"], 45072);
        assert_eq!(probe.post(TYPING, &typing)["errcode"], 45080);
        probe.change(&wrote());
        assert_eq!(probe.post(TYPING, &typing)["errcode"], 0);
        assert_eq!(probe.post(TYPING, &typing)["errcode"], 45081);
        assert_eq!(probe.post(TYPING, &cancel)["errcode"], 0);
        assert_eq!(probe.post(TYPING, &typing)["errcode"], 0);
        probe.pass(15);
        assert_eq!(probe.post(TYPING, &typing)["errcode"], 0, "it had ended");
        probe.pass(16);
        assert_eq!(probe.post(TYPING, &typing)["errcode"], 45080);
    }
}
