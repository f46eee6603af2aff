//! Messages to users: subscription messages and those of customer service.
//!
//! What the documentation leaves open is decided so: a template exists if its id has the form of one, and a user may be
//! written to unless `/_sim/users` says otherwise.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{json_body, ok};
use crate::sim::exchange::Request;
use crate::sim::refusal::{Refusal, Refused};
use crate::sim::state::State;

/// Length of a template's id, which is base64url.
const TEMPLATE_ID_LEN: usize = 43;

/// `POST /cgi-bin/message/subscribe/send`.
pub(super) fn subscribe_send(
    state: &mut State,
    app: usize,
    request: &Request,
) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        touser: String,
        #[serde(default)]
        template_id: String,
        page: Option<String>,
        #[serde(default)]
        data: BTreeMap<String, Datum>,
    }

    #[derive(Deserialize)]
    struct Datum {
        #[serde(default)]
        value: String,
    }

    let body: Body = json_body(request)?;
    let user = state.user_of(app, &body.touser);
    let user = user.ok_or(Refusal::OpenIdInvalid)?;
    if !is_template_id(&body.template_id) {
        return Err(Refusal::TemplateInvalid.into());
    }
    let page = body.page.as_deref().filter(|page| !page.is_empty());
    if page.is_some_and(|page| !state.apps[app].known.has_page(page)) {
        return Err(Refusal::PageInvalid.into());
    }
    if body.data.is_empty() {
        return Err(Refusal::ArgumentInvalid.saying("argument invalid! data is empty"));
    }
    for (key, datum) in &body.data {
        let wrong = match datum.value.is_empty() {
            true => "is empty",
            false if fits(key, &datum.value) => continue,
            false => "invalid",
        };
        let errmsg = format!("argument invalid! data.{key}.value {wrong}");
        return Err(Refusal::ArgumentInvalid.saying(errmsg));
    }
    if state.users[&user].refuses_messages {
        return Err(Refusal::MessageRefused.into());
    }
    let now = state.now();
    Ok(ok(json!({ "msgid": state.ids.message_id(now) })))
}

/// `POST /cgi-bin/message/custom/send`.
pub(super) fn send(state: &mut State, app: usize, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        touser: String,
        #[serde(default)]
        msgtype: String,
        #[serde(default)]
        text: Text,
        #[serde(default)]
        image: Image,
        #[serde(default)]
        link: Link,
        #[serde(default)]
        miniprogrampage: Page,
    }

    #[derive(Default, Deserialize)]
    struct Text {
        #[serde(default)]
        content: String,
    }

    #[derive(Default, Deserialize)]
    struct Image {
        #[serde(default)]
        media_id: String,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Link {
        title: String,
        url: String,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Page {
        title: String,
        pagepath: String,
        thumb_media_id: String,
    }

    let body: Body = json_body(request)?;
    let user = state.user_of(app, &body.touser);
    let user = user.ok_or(Refusal::OpenIdInvalid)?;
    let page = &body.miniprogrampage;
    let (filled, media_id) = match body.msgtype.as_str() {
        "text" => (!body.text.content.is_empty(), None),
        "image" => (true, Some(&body.image.media_id)),
        "link" => (
            !body.link.title.is_empty() && !body.link.url.is_empty(),
            None,
        ),
        "miniprogrampage" => (
            !page.title.is_empty() && !page.pagepath.is_empty(),
            Some(&page.thumb_media_id),
        ),
        _ => return Err(Refusal::MessageTypeInvalid.into()),
    };
    if !filled {
        return Err(Refusal::ContentEmpty.into());
    }
    if media_id.is_some_and(|id| state.media(app, id).is_none()) {
        return Err(Refusal::MediaIdInvalid.into());
    }
    if state.users[&user].out_of_contact {
        return Err(Refusal::OutOfContact.into());
    }
    state.end_typing(app, &user);
    Ok(ok(json!({})))
}

/// `POST /cgi-bin/message/custom/typing`.
pub(super) fn typing(state: &mut State, app: usize, request: &Request) -> Result<Value, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        touser: String,
        #[serde(default)]
        command: String,
    }

    let body: Body = json_body(request)?;
    let user = state.user_of(app, &body.touser);
    let user = user.ok_or(Refusal::OpenIdInvalid)?;
    match body.command.as_str() {
        "Typing" if state.users[&user].out_of_contact => {
            return Err(Refusal::NoRecentMessage.into());
        }
        "Typing" => state.begin_typing(app, &user)?,
        "CancelTyping" => state.end_typing(app, &user),
        _ => return Err(Refusal::CommandInvalid.into()),
    }
    Ok(ok(json!({})))
}

fn is_template_id(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    text.len() == TEMPLATE_ID_LEN && text.bytes().all(fine)
}

/// Whether a value keeps the rule that its key names, such as `thing1`.
fn fits(key: &str, value: &str) -> bool {
    let kind = key.trim_end_matches(|c: char| c.is_ascii_digit());
    let length = value.chars().count();
    let all = |is: fn(char) -> bool| value.chars().all(is);
    if kind == key || value.chars().any(char::is_control) {
        return false;
    }
    match kind {
        "thing" => length <= 20,
        "number" => length <= 32 && is_number(value),
        "letter" => length <= 32 && all(|c| c.is_ascii_alphabetic()),
        "symbol" => length <= 5 && all(|c| !c.is_alphanumeric()),
        "character_string" => length <= 32 && all(|c| c.is_ascii()),
        "time" => are_moments(value, |moment| moment.time),
        "date" => are_moments(value, |moment| moment.date),
        "amount" => is_amount(value),
        "phone_number" => length <= 17 && all(|c| c.is_ascii_digit() || c.is_ascii_punctuation()),
        "car_number" => length <= 8 && is_car_number(value),
        "name" => length <= 10 && all(is_hanzi) || length <= 20 && !value.chars().any(is_hanzi),
        "phrase" => length <= 5 && all(is_hanzi),
        // Which values there are is the template's own affair.
        "enum" => true,
        _ => false,
    }
}

fn is_number(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    are_digits(whole) && are_digits(fraction)
}

/// A sign of a currency and `元` may stand around up to ten digits.
fn is_amount(text: &str) -> bool {
    let text = text.strip_suffix('元').unwrap_or(text);
    let sign = text.chars().next().filter(|c| !c.is_ascii_digit());
    let number = &text[sign.map_or(0, char::len_utf8)..];
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    digits <= 10 && is_number(number)
}

/// Letters and digits, but the first and the last may be Chinese.
fn is_car_number(text: &str) -> bool {
    let inner = text.trim_start_matches(is_hanzi).trim_end_matches(is_hanzi);
    let outer = text.chars().filter(|c| is_hanzi(*c)).count();
    outer <= 2 && !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// What a moment says.
struct Moment {
    date: bool,
    time: bool,
}

/// One moment that says what is wanted, or two with a `~` between them.
fn are_moments(text: &str, says: fn(&Moment) -> bool) -> bool {
    let mut moments = text.split('~').map(Moment::parse);
    let first = moments.next().flatten();
    let second = moments.next();
    first.is_some_and(|moment| says(&moment))
        && second.is_none_or(|moment| moment.is_some())
        && moments.next().is_none()
}

impl Moment {
    /// `2019年10月1日`, `2019-10-01` or the like, `15:01` or `15:01:30`, or a date and a time.
    fn parse(text: &str) -> Option<Self> {
        let text = text.replace('日', "日 ");
        let mut moment = Self {
            date: false,
            time: false,
        };
        for word in text.split_whitespace() {
            let part = match word.contains(':') {
                true if is_time(word) => &mut moment.time,
                false if is_date(word) && !moment.time => &mut moment.date,
                _ => return None,
            };
            if std::mem::replace(part, true) {
                return None;
            }
        }
        (moment.date || moment.time).then_some(moment)
    }
}

fn is_time(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let limits = [24, 60, 60];
    (2..=3).contains(&parts.len())
        && std::iter::zip(parts, limits).all(|(part, limit)| is_below(part, limit))
}

fn is_date(text: &str) -> bool {
    let text = text.strip_suffix('日').unwrap_or(text);
    let parts: Vec<&str> = text.split(['年', '月', '-', '/', '.']).collect();
    let [year, month, day] = parts[..] else {
        return false;
    };
    year.len() == 4 && are_digits(year) && is_below(month, 13) && is_below(day, 32)
}

fn is_below(text: &str, limit: u8) -> bool {
    text.len() <= 2 && are_digits(text) && text.parse::<u8>().is_ok_and(|n| n < limit)
}

fn are_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_hanzi(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{323af}')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sim::api::stage::Stage;
    use crate::sim::media::MediaKind;
    use crate::sim::state::UserChange;

    const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";
    const CUSTOM: &str = "/cgi-bin/message/custom/send";
    const TYPING: &str = "/cgi-bin/message/custom/typing";
    const TEMPLATE: &str = "BAwMUEtXUEJYd0ZYSnBLU0dGTVlYbnBoc2tBQkNERUY";

    fn change(stage: &mut Stage, change: &UserChange) {
        stage.state.change_user("alice", change);
    }

    #[test]
    fn a_subscription_message_is_checked_from_its_address_to_its_data() {
        let mut stage = Stage::new();
        stage.state.apps[0].known.pages = vec!["pages/index".to_owned()];
        let mut message = json!({});
        let steps = [
            ("touser", json!("o-nobody"), 40003, "invalid openid"),
            ("touser", json!(stage.alice), 40037, "invalid template_id"),
            ("template_id", json!("T"), 40037, "invalid template_id"),
            (
                "template_id",
                json!(TEMPLATE),
                47003,
                "argument invalid! data is empty",
            ),
            ("page", json!("pages/other?a=b"), 41030, "invalid page"),
            (
                "page",
                json!("pages/index?a=b"),
                47003,
                "argument invalid! data is empty",
            ),
            (
                "data",
                json!({ "thing1": { "value": "x".repeat(21) } }),
                47003,
                "argument invalid! data.thing1.value invalid",
            ),
            (
                "data",
                json!({ "time2": { "value": "" } }),
                47003,
                "argument invalid! data.time2.value is empty",
            ),
            (
                "data",
                json!({ "thing1": { "value": 1 } }),
                47001,
                "data format error",
            ),
        ];
        assert_eq!(stage.refusal(SUBSCRIBE, &message).0, 40003);
        for (field, value, errcode, errmsg) in steps {
            message[field] = value;
            let refusal = stage.refusal(SUBSCRIBE, &message);
            assert_eq!(refusal, (errcode, errmsg.to_owned()), "{message}");
        }

        message["data"] = json!({ "thing1": { "value": "你好" } });
        let (errcode, sent) = stage.post(SUBSCRIBE, &message);
        assert_eq!(errcode, None);
        assert_eq!(sent["errcode"], json!(0));
        let msgid = sent["msgid"].as_i64().unwrap();
        assert!(msgid > 1 << 53, "more than a double holds");
        assert_ne!(stage.post(SUBSCRIBE, &message).1["msgid"], json!(msgid));

        let refuses = UserChange {
            refuses_messages: Some(true),
            ..UserChange::default()
        };
        change(&mut stage, &refuses);
        let refusal = stage.refusal(SUBSCRIBE, &message);
        assert_eq!(refusal, (43101, "user refuse to accept the msg".to_owned()));
    }

    #[test]
    fn a_value_keeps_the_rule_of_its_key() {
        let long = |c: &str, n| c.repeat(n);
        let fitting = [
            ("thing1", long("你", 20)),
            ("number01", "12.50".to_owned()),
            ("letter1", "abcXYZ".to_owned()),
            ("symbol1", "!@#$￥".to_owned()),
            ("character_string7", "NO.2024-001 a".to_owned()),
            ("time2", "15:01".to_owned()),
            ("time2", "2019年10月1日 15:01".to_owned()),
            ("time2", "2019年10月1日15:01:59~16:00".to_owned()),
            ("date3", "2019年10月1日".to_owned()),
            ("date3", "2019-10-01 15:01~2019/10/02".to_owned()),
            ("amount4", "￥1234567890.12元".replace(".12", "")),
            ("amount4", "12.5".to_owned()),
            ("phone_number5", "+86-0766-66888866".to_owned()),
            ("car_number6", "粤A8Z888挂".to_owned()),
            ("name7", long("张", 10)),
            ("name7", long("a", 20)),
            ("phrase8", "配送中".to_owned()),
            ("enum9", "anything".to_owned()),
        ];
        for (key, value) in fitting {
            assert!(fits(key, &value), "{key} {value}");
        }
        let wrong = [
            ("thing1", long("你", 21)),
            ("thing1", "two\nlines".to_owned()),
            ("thing", "no number".to_owned()),
            ("nothing1", "x".to_owned()),
            ("number1", "1.".to_owned()),
            ("number1", long("1", 33)),
            ("letter1", "a1".to_owned()),
            ("symbol1", "!!!!!!".to_owned()),
            ("symbol1", "!a".to_owned()),
            ("character_string1", "编号1".to_owned()),
            ("time1", "2019年10月1日".to_owned()),
            ("time1", "25:00".to_owned()),
            ("time1", "15:01～16:00".to_owned()),
            ("time1", "15:01~16:00~17:00".to_owned()),
            ("date1", "15:01".to_owned()),
            ("date1", "2019-13-01".to_owned()),
            ("date1", "tomorrow".to_owned()),
            ("amount1", "12345678901".to_owned()),
            ("amount1", "￥￥1".to_owned()),
            ("amount1", "元".to_owned()),
            ("phone_number1", long("1", 18)),
            ("car_number1", "粤A中8888".to_owned()),
            ("car_number1", "粤A12345678".to_owned()),
            ("name1", long("张", 11)),
            ("name1", format!("{}a", long("张", 10))),
            ("phrase1", "六个汉字太多".to_owned()),
            ("phrase1", "ok".to_owned()),
        ];
        for (key, value) in wrong {
            assert!(!fits(key, &value), "{key} {value}");
        }
    }

    #[test]
    fn a_message_of_customer_service_needs_a_kind_content_and_a_user_in_contact() {
        let mut stage = Stage::new();
        let text = |content: &str| json!({ "msgtype": "text", "text": { "content": content } });
        let content = bytes::Bytes::from_static(b"x");
        let media_id = stage.state.keep_media(0, MediaKind::Image, content);
        let page =
            |id: &str| json!({ "title": "T", "pagepath": "pages/index", "thumb_media_id": id });
        let link = json!({ "title": "T", "description": "D", "url": "https://a", "thumb_url": "" });
        let steps = [
            (json!({}), Some(40008)),
            (json!({ "msgtype": "smoke" }), Some(40008)),
            (json!({ "msgtype": "text" }), Some(44004)),
            (text(""), Some(44004)),
            (
                json!({ "msgtype": "link", "link": { "title": "T" } }),
                Some(44004),
            ),
            (text("你好"), None),
            (json!({ "msgtype": "link", "link": link }), None),
            (
                json!({ "msgtype": "miniprogrampage", "miniprogrampage": page("M") }),
                Some(40007),
            ),
            (
                json!({ "msgtype": "miniprogrampage", "miniprogrampage": page(&media_id) }),
                None,
            ),
            (
                json!({ "msgtype": "image", "image": { "media_id": "M" } }),
                Some(40007),
            ),
            (
                json!({ "msgtype": "image", "image": { "media_id": media_id } }),
                None,
            ),
        ];
        for (mut message, errcode) in steps {
            message["touser"] = json!("o-nobody");
            assert_eq!(stage.refusal(CUSTOM, &message).0, 40003);
            message["touser"] = json!(stage.alice);
            assert_eq!(stage.post(CUSTOM, &message).0, errcode, "{message}");
        }

        let away = UserChange {
            in_contact: Some(false),
            ..UserChange::default()
        };
        change(&mut stage, &away);
        let mut message = text("你好");
        message["touser"] = json!(stage.alice);
        assert_eq!(stage.refusal(CUSTOM, &message).0, 45015);
    }

    #[test]
    fn typing_lasts_fifteen_seconds_or_until_a_message() {
        let mut stage = Stage::new();
        let alice = stage.alice.clone();
        let command = |command: &str| json!({ "touser": alice, "command": command });
        let (start, end) = (command("Typing"), command("CancelTyping"));
        assert_eq!(
            stage.refusal(TYPING, &json!({ "command": "Typing" })).0,
            40003
        );
        assert_eq!(stage.refusal(TYPING, &command("typing")).0, 45072);
        assert_eq!(stage.post(TYPING, &start).0, None);
        assert_eq!(stage.refusal(TYPING, &start).0, 45081);
        stage.state.advance(Duration::from_secs(15));
        assert_eq!(stage.post(TYPING, &start).0, None);
        assert_eq!(stage.post(TYPING, &end).0, None);
        assert_eq!(stage.post(TYPING, &start).0, None);
        let message = json!({ "touser": alice, "msgtype": "text", "text": { "content": "x" } });
        assert_eq!(stage.post(CUSTOM, &message).0, None);
        assert_eq!(stage.post(TYPING, &start).0, None);

        let away = UserChange {
            in_contact: Some(false),
            ..UserChange::default()
        };
        change(&mut stage, &away);
        assert_eq!(stage.refusal(TYPING, &start).0, 45080);
    }
}
