//! What an app gets of the documentation's messages in both formats, whose they are, and when two are one.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::wechat::push::{Reply, passive_reply};

fn of_json(document: &str) -> Message {
    Message::parse(Format::Json, document.as_bytes())
        .unwrap_or_else(|flaw| panic!("{document}: {flaw}"))
}

fn of_xml(elements: &str) -> Message {
    let document = format!("<xml>{elements}</xml>");
    Message::parse(Format::Xml, document.as_bytes())
        .unwrap_or_else(|flaw| panic!("{document}: {flaw}"))
}

fn of(value: &Value) -> Message {
    of_json(&value.to_string())
}

/// An event of a user who looks real, with more fields.
fn event(name: &str, more: &Value) -> Message {
    of(&with(
        &json!({
            "ToUserName": "gh_97417a04a28d", "FromUserName": "o9AgO5Kd5ggOC-bXrbNODIiE3bGY", "CreateTime": 1714112445,
            "MsgType": "event", "Event": name,
        }),
        more,
    ))
}

fn with(base: &Value, more: &Value) -> Value {
    let mut fields = base.as_object().unwrap().clone();
    fields.extend(more.as_object().unwrap().clone());
    Value::Object(fields)
}

#[test]
fn a_json_push_is_passed_on_to_the_byte() {
    let document = r#"{ "ToUserName" : "toUser","FromUserName":"fromUser", "CreateTime":1482048670,"MsgType":"text",
        "Content":"this is \u4e00 test \/","MsgId":23637352235060880, "x":1.0 }"#;
    let message = of_json(&format!("\u{feff}{document}\n"));
    assert_eq!(str::from_utf8(message.json()), Ok(document));
    assert_eq!(message.msg_type(), "text");
    assert_eq!(message.event(), None);
    assert_eq!(message.to(), Some("toUser"));
    assert_eq!(message.from(), Some("fromUser"));
    assert_eq!(message.user().map(OpenId::as_str), Some("fromUser"));
    assert_eq!(message.lane(), "fromUser");
    assert_eq!(message.content(), Some("this is 一 test /"));
    assert_eq!(message.create_time(), Some(1_482_048_670));
    assert_eq!(message.id(), "23637352235060880");
    assert!(message.is_user_message() && !message.is_xpay() && !message.is_container_check());
    assert_eq!(message.into_json(), document.as_bytes());
}

#[test]
fn xml_becomes_what_wechat_writes_as_json() {
    let message = of_xml(
        "\n<ToUserName><![CDATA[toUser]]></ToUserName>\n<FromUserName><![CDATA[fromUser]]></FromUserName>\n\
         <CreateTime>1482048670</CreateTime>\n<MsgType><![CDATA[text]]></MsgType>\n\
         <Content><![CDATA[007 ]]]]><![CDATA[> \"x\"\n]]></Content>\n<MsgId>99999999999999999999</MsgId>\n",
    );
    assert_eq!(
        str::from_utf8(message.json()),
        Ok(
            r#"{"ToUserName":"toUser","FromUserName":"fromUser","CreateTime":1482048670,"MsgType":"text","Content":"007 ]]> \"x\"\n","MsgId":99999999999999999999}"#
        )
    );
    assert_eq!(message.content(), Some("007 ]]> \"x\"\n"));
    assert_eq!(message.id(), "99999999999999999999");
}

#[test]
fn a_message_is_the_same_one_in_both_formats() {
    for (json, xml) in [
        (
            r#"{"MsgType":"text","ToUserName":"gh_a","FromUserName":"oUser1","CreateTime":"1482048670","Content":"x","MsgId":"1234567890123456"}"#,
            "<ToUserName><![CDATA[gh_a]]></ToUserName><FromUserName><![CDATA[oUser1]]></FromUserName>\
             <CreateTime>1482048670</CreateTime><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[x]]></Content>\
             <MsgId>1234567890123456</MsgId>",
        ),
        (
            r#"{"ToUserName":"gh_a","FromUserName":"oUser1","CreateTime":"1610969440","MsgType":"event","Event":"subscribe_msg_popup_event","List":{"TemplateId":"t1","SubscribeStatusString":"accept","PopupScene":"0"}}"#,
            "<ToUserName><![CDATA[gh_a]]></ToUserName><FromUserName><![CDATA[oUser1]]></FromUserName>\
             <CreateTime>1610969440</CreateTime><MsgType><![CDATA[event]]></MsgType>\
             <Event><![CDATA[subscribe_msg_popup_event]]></Event><SubscribeMsgPopupEvent><List>\
             <TemplateId><![CDATA[t1]]></TemplateId><SubscribeStatusString><![CDATA[accept]]></SubscribeStatusString>\
             <PopupScene>0</PopupScene></List></SubscribeMsgPopupEvent>",
        ),
        (
            r#"{"Event":"x","List":[{"a":1,"b":""},{"a":"2"}],"n":{"m":{"k":5}},"MsgType":"event","e":{},"o":null}"#,
            "<n><m><k><![CDATA[5]]></k></m></n><MsgType>event</MsgType><Event>x</Event><List><b/><a>1</a></List>\
             <List><a>2</a></List><e/><o></o>",
        ),
    ] {
        let (json, xml) = (of_json(json), of_xml(xml));
        assert_eq!(json.identity(), xml.identity());
        assert_eq!(json.id(), xml.id());
        assert_eq!(json.lane(), xml.lane());
        assert_eq!(json.create_time(), xml.create_time());
    }
}

#[test]
fn the_wrapper_of_subscription_events_is_dissolved_to_a_list() {
    for (name, wrapper) in [
        ("subscribe_msg_popup_event", "SubscribeMsgPopupEvent"),
        ("subscribe_msg_change_event", "SubscribeMsgChangeEvent"),
        ("subscribe_msg_sent_event", "SubscribeMsgSentEvent"),
    ] {
        for (inside, expected) in [
            ("", json!([])),
            ("\n<List></List>\n", json!([])),
            ("<List><A>1</A></List>", json!([{ "A": 1 }])),
            (
                "<List><A>1</A></List><List><A>2</A></List>",
                json!([{ "A": 1 }, { "A": 2 }]),
            ),
        ] {
            for elements in [
                format!("<{wrapper}>{inside}</{wrapper}><z>1</z>"),
                format!("{inside}<z>1</z>"),
            ] {
                if !elements.contains("List") && !elements.contains(wrapper) {
                    continue;
                }
                let message = of_xml(&format!("<Event>{name}</Event>{elements}"));
                let value: Value = serde_json::from_slice(message.json()).unwrap();
                assert_eq!(
                    value,
                    json!({ "Event": name, "List": expected, "z": 1 }),
                    "{elements}"
                );
            }
        }
    }
    // What is not as documented is passed on as it is.
    for (elements, expected) in [
        (
            "<SubscribeMsgPopupEvent><List><A>1</A></List><B>2</B></SubscribeMsgPopupEvent>",
            r#"{"SubscribeMsgPopupEvent":{"List":{"A":1},"B":2}}"#,
        ),
        (
            "<List>1</List><SubscribeMsgPopupEvent><List>2</List></SubscribeMsgPopupEvent>",
            r#"{"List":1,"SubscribeMsgPopupEvent":{"List":2}}"#,
        ),
        (
            "<SubscribeMsgSentEvent>x</SubscribeMsgSentEvent>",
            r#"{"SubscribeMsgSentEvent":"x"}"#,
        ),
        ("<List><A>1</A></List>", r#"{"List":{"A":1}}"#),
    ] {
        assert_eq!(str::from_utf8(of_xml(elements).json()), Ok(expected));
    }
}

#[test]
fn an_event_is_of_the_user_it_names_or_of_who_sent_it_and_never_of_the_platform() {
    let from = "o9AgO5Kd5ggOC-bXrbNODIiE3bGY";
    let user = |name: &str, more: Value| {
        event(name, &more)
            .user()
            .map(|user| user.as_str().to_owned())
    };
    let of = |user: &str| Some(user.to_owned());
    for name in [
        "user_enter_tempsession",
        "subscribe_msg_popup_event",
        "subscribe_msg_change_event",
        "subscribe_msg_sent_event",
        "debug_demo",
        "kf_create_session",
        "something_new",
    ] {
        assert_eq!(user(name, json!({})), of(from), "{name}");
        assert_eq!(event(name, &json!({})).lane(), from);
        assert_eq!(user(name, json!({ "FromUserName": "a\r\nb" })), None);
    }
    for name in [
        "user_authorization_revoke",
        "user_authorization_cancellation",
        "user_info_modified",
        "wxa_media_check",
        "weapp_audit_success",
        "wxa_nickname_audit",
        "wxa_punish_event",
        "wx_verify_pay_succ",
        "trade_manage_remind_shipping",
        "xpay_goods_deliver_notify",
        "add_waybill",
        "check_biz",
        "transport_update",
        "secvod_upload_event",
        "xpay_something_new",
    ] {
        assert_eq!(user(name, json!({})), None, "{name}");
        assert_eq!(
            event(name, &json!({})).lane(),
            from,
            "order is kept by what there is"
        );
        for field in ["OpenID", "OpenId"] {
            assert_eq!(
                user(name, json!({ field: "oUser-1_x" })),
                of("oUser-1_x"),
                "{name}"
            );
            assert_eq!(
                event(name, &json!({ field: "oUser-1_x" })).lane(),
                "oUser-1_x"
            );
            assert_eq!(user(name, json!({ field: "" })), None);
            assert_eq!(user(name, json!({ field: { "a": 1 } })), None);
            assert_eq!(user(name, json!({ field: "not an openid" })), None);
        }
        assert_eq!(
            user(
                name,
                json!({ "openid": "oUser-1_x", "OpenPID": "oUser-1_x" })
            ),
            None
        );
    }
    // The name of an event is no more than that in a user's own message.
    let text = self::of(
        &json!({ "MsgType": "text", "Event": "xpay_x", "OpenId": "oOther1", "FromUserName": "oUser1" }),
    );
    assert_eq!(
        (text.user().map(OpenId::as_str), text.event()),
        (Some("oUser1"), None)
    );
    assert!(!text.is_xpay());
    // An event that does not say which is nobody's.
    for message in [
        json!({ "MsgType": "event", "FromUserName": from }),
        json!({ "FromUserName": from }),
    ] {
        let message = self::of(&message);
        assert_eq!((message.user(), message.lane()), (None, from));
        assert!(!message.is_user_message());
    }
    assert_eq!(self::of(&json!({})).lane(), "");
}

#[test]
fn ids_of_messages_are_digits_however_long() {
    let id = |document: &str| of_json(document).id();
    for (value, expected) in [
        ("1", Some("1")),
        ("9007199254740993", Some("9007199254740993")),
        ("18446744073709551616", Some("18446744073709551616")),
        ("\"4363689963896700987\"", Some("4363689963896700987")),
        ("0", None),
        ("\"00\"", None),
        ("-1", None),
        ("1.0", None),
        ("1e9", None),
        ("null", None),
        ("\"\"", None),
        ("\"a\\r\\nX: 1\"", None),
        ("\"１\"", None),
        ("{}", None),
    ] {
        let id = id(&format!(r#"{{"MsgType":"text","MsgId":{value}}}"#));
        match expected {
            Some(expected) => assert_eq!(id, expected),
            None => assert!(
                id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()),
                "{id}"
            ),
        }
    }
    assert_eq!(
        id(&format!(
            r#"{{"MsgType":"text","MsgId":{}}}"#,
            "7".repeat(64)
        ))
        .len(),
        64
    );
    assert_eq!(
        id(&format!(
            r#"{{"MsgType":"text","MsgId":{}}}"#,
            "7".repeat(65)
        ))
        .len(),
        32
    );
}

/// WxJava's issue 333: fifteen voice messages with one MsgId.
#[test]
fn a_burst_of_messages_with_one_id_survives() {
    let base = json!({ "MsgType": "voice", "CreateTime": 1_482_048_670, "MsgId": 1_234_567_890_123_456_i64 });
    let message = |user: usize| {
        of(&with(
            &base,
            &json!({ "FromUserName": format!("oUser{user:02}") }),
        ))
    };
    let mut identities: Vec<_> = (0..15).map(|user| message(user).identity()).collect();
    assert_eq!(
        message(3).identity(),
        identities[3],
        "a repetition is recognised"
    );
    identities.sort_unstable();
    identities.dedup();
    assert_eq!(identities.len(), 15);
    let later = with(
        &base,
        &json!({ "FromUserName": "oUser03", "CreateTime": 1_482_048_671 }),
    );
    assert!(!identities.contains(&of(&later).identity()));
}

#[test]
fn parts_of_an_identity_cannot_run_into_each_other() {
    let of_text = |id: &str, from: &str, time: &str| {
        of(&json!({ "MsgType": "text", "MsgId": id, "FromUserName": from, "CreateTime": time }))
            .identity()
    };
    assert_ne!(of_text("12", "3", "4"), of_text("1", "23", "4"));
    assert_ne!(of_text("1", "23", "4"), of_text("1", "2", "34"));
    let pairs = [
        (json!({ "a": "bc" }), json!({ "ab": "c" })),
        (json!({ "a": "1", "b": "2" }), json!({ "a": "1b2" })),
        (json!({ "a": ["1", "2"] }), json!({ "a": ["12"] })),
        (json!({ "a": ["1", "2"] }), json!({ "a": ["2", "1"] })),
        (json!({ "a": { "b": "1" } }), json!({ "a": "b1" })),
        (
            json!({ "a": { "b": "1" }, "c": "2" }),
            json!({ "a": { "b": "1", "c": "2" } }),
        ),
        (
            json!({ "a": [{ "b": "1" }, "x"] }),
            json!({ "a": { "b": "1" }, "x": "" }),
        ),
        (json!({ "a": "" }), json!({})),
    ];
    for (one, other) in pairs {
        assert_ne!(of(&one).identity(), of(&other).identity(), "{one} {other}");
    }
}

#[test]
fn what_has_no_id_is_told_apart_by_all_its_fields() {
    let check = |trace: &str| {
        event(
            "wxa_media_check",
            &json!({ "trace_id": trace, "version": 2 }),
        )
    };
    assert_ne!(
        check("a").identity(),
        check("b").identity(),
        "two checks in one second"
    );
    assert_eq!(check("a").identity(), check("a").identity());
    let base = check("a").identity();
    let retried = event(
        "wxa_media_check",
        &json!({ "trace_id": "a", "version": 2, "RetryTimes": 2 }),
    );
    assert_eq!(retried.identity(), base);
    let deeper = event(
        "wxa_media_check",
        &json!({ "trace_id": "a", "version": 2, "x": { "RetryTimes": 1 } }),
    );
    assert_ne!(
        deeper.identity(),
        base,
        "only the one at the top counts repetitions"
    );
    // Fields in another order, numbers as text.
    let other = r#"{"version":"2","trace_id":"a","Event":"wxa_media_check","MsgType":"event","CreateTime":"1714112445","FromUserName":"o9AgO5Kd5ggOC-bXrbNODIiE3bGY","ToUserName":"gh_97417a04a28d"}"#;
    assert_eq!(of_json(other).identity(), base);
    assert_eq!(of_json(other).id().len(), 32);
    // An event's `MsgId` would be a message's.
    let sent = |status: &str| event("x", &json!({ "MsgId": 5, "Status": status }));
    assert_ne!(sent("a").identity(), sent("b").identity());
    assert_eq!(sent("a").id().len(), 32);
}

#[test]
fn payments_are_told_apart_by_what_was_paid() {
    let order = json!({ "OpenId": "oUser1", "OutTradeNo": "N1", "Env": 1, "RetryTimes": 0 });
    for name in ["xpay_goods_deliver_notify", "xpay_coin_pay_notify"] {
        let identity = |more: Value| event(name, &with(&order, &more)).identity();
        let base = identity(json!({}));
        assert_eq!(
            identity(json!({ "CreateTime": 1, "RetryTimes": 7, "GoodsInfo": { "Quantity": 1 } })),
            base
        );
        assert_eq!(identity(json!({ "Env": "1" })), base);
        for other in [
            json!({ "OutTradeNo": "N2" }),
            json!({ "OpenId": "oUser2" }),
            json!({ "Env": 0 }),
        ] {
            assert_ne!(identity(other.clone()), base, "{other}");
        }
        let message = event(name, &order);
        assert!(message.is_xpay());
        assert_eq!(message.window(), Duration::from_secs(24 * 3600));
        assert_eq!(message.user().map(OpenId::as_str), Some("oUser1"));
        // Without the number of the order all fields count.
        let without = |time: u64| identity(json!({ "OutTradeNo": "", "CreateTime": time }));
        assert_ne!(without(1), without(2));
    }
    assert_ne!(
        event("xpay_goods_deliver_notify", &order).identity(),
        event("xpay_coin_pay_notify", &order).identity()
    );
    let refund = json!({ "OpenId": "oUser1", "WxRefundId": "R1", "MchRefundId": "M1", "RetCode": 0, "RefundFee": 100 });
    let identity = |more: Value| event("xpay_refund_notify", &with(&refund, &more)).identity();
    assert_eq!(
        identity(json!({ "CreateTime": 1 })),
        identity(json!({ "CreateTime": 2, "RetryTimes": 1 }))
    );
    for other in [
        json!({ "RetCode": -1 }),
        json!({ "WxRefundId": "R2" }),
        json!({ "MchRefundId": "M2" }),
    ] {
        assert_ne!(identity(other.clone()), identity(json!({})), "{other}");
    }
    let complaint = |request: &str| {
        event(
            "xpay_complaint_notify",
            &json!({ "OpenId": "oUser1", "RequestId": request }),
        )
    };
    assert_ne!(complaint("a").identity(), complaint("b").identity());
    assert_eq!(
        event("debug_demo", &json!({})).window(),
        Duration::from_secs(3600)
    );
}

#[test]
fn the_consoles_question_is_not_a_message() {
    assert!(of_json(r#"{"action":"CheckContainerPath"}"#).is_container_check());
    assert!(of_xml("<action><![CDATA[CheckContainerPath]]></action>").is_container_check());
    for other in [
        json!({ "action": "checkcontainerpath" }),
        json!({ "action": "CheckContainerPath", "MsgType": "text" }),
        json!({ "Action": "CheckContainerPath" }),
        json!({ "action": { "a": "CheckContainerPath" } }),
        json!({}),
    ] {
        assert!(!of(&other).is_container_check(), "{other}");
    }
    assert!(!of_json(r#"{"action":"CheckContainerPath"}"#).is_user_message());
}

#[test]
fn fields_that_are_looked_at_stand_once_and_are_no_lists() {
    for name in LOOKED_AT {
        let flaw = Err(Flaw::Duplicate((*name).to_owned()));
        let twice = format!("<xml><{name}>a</{name}><x/><{name}>a</{name}></xml>");
        assert_eq!(Message::parse(Format::Xml, twice.as_bytes()), flaw);
        let list = json!({ *name: ["a"] }).to_string();
        assert_eq!(Message::parse(Format::Json, list.as_bytes()), flaw);
        let twice = format!(r#"{{"{name}":1,"{name}":1}}"#);
        assert_eq!(Message::parse(Format::Json, twice.as_bytes()), flaw);
    }
}

#[test]
fn a_document_in_the_other_format_is_refused() {
    assert!(Message::parse(Format::Xml, b"{\"a\":1}").is_err());
    assert!(Message::parse(Format::Json, b"<xml><a>1</a></xml>").is_err());
    for format in [Format::Xml, Format::Json] {
        for document in ["", "success", "[]", "<html></html>", "\u{feff}"] {
            assert!(
                Message::parse(format, document.as_bytes()).is_err(),
                "{document}"
            );
        }
        assert_eq!(
            Message::parse(format, b"<xml><a>\xff</a></xml>"),
            Err(Flaw::Encoding)
        );
        assert_eq!(
            Message::parse(format, &vec![b'{'; MAX + 1]),
            Err(Flaw::Size)
        );
        // UTF-16, with and without its mark.
        for order in [b"\xff\xfe<\0x\0m\0l\0>\0", b"<\0x\0m\0l\0>\0{\0"] {
            assert!(Message::parse(format, order).is_err());
        }
    }
}

const MAX: usize = crate::wechat::push::MAX_LEN;

#[test]
fn debug_does_not_show_what_users_write() {
    let message = of(&json!({ "MsgType": "text", "Content": "hunter2", "FromUserName": "oUser1" }));
    let shown = format!("{message:?}");
    assert!(
        shown.contains("text") && !shown.contains("hunter2") && !shown.contains("oUser1"),
        "{shown}"
    );
}

#[test]
fn only_text_has_content() {
    assert_eq!(
        of(&json!({ "MsgType": "event", "Content": "x" })).content(),
        None
    );
    assert_eq!(of(&json!({ "MsgType": "text" })).content(), None);
    assert_eq!(
        of(&json!({ "MsgType": "text", "Content": 5 })).content(),
        Some("5")
    );
    assert_eq!(
        of_xml("<MsgType>text</MsgType><Content/>").content(),
        Some("")
    );
}

#[test]
fn a_time_that_is_none_is_none() {
    for time in [
        json!(-1),
        json!(1.5),
        json!("soon"),
        json!(""),
        json!(null),
        json!({ "a": 1 }),
    ] {
        assert_eq!(of(&json!({ "CreateTime": time })).create_time(), None);
    }
    assert_eq!(
        of_xml("<CreateTime> 5 </CreateTime>").create_time(),
        Some(5)
    );
}

/// Text that XML has, of the kinds that matter to it.
fn xml_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ \t\r\n<>&\\]\"'a0你😀]{0,12}",
        "-?[0-9]{0,24}",
        "(\\]\\]>|<!\\[CDATA\\[|&lt;|<xml>){0,4}",
    ]
}

fn node() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        xml_text().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    scalar.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            members(inner.clone()).prop_map(Value::Object),
            // A list in a list is what XML cannot say, and nothing is what an empty one becomes.
            prop::collection::vec(inner.prop_filter("no list", |it| !it.is_array()), 1..4)
                .prop_map(Value::Array),
        ]
    })
}

fn members(node: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map("[A-Za-z_][A-Za-z0-9_.-]{0,8}", node, 0..5)
        .prop_map(|fields| fields.into_iter().collect())
}

fn document(format: Format, answer: &[u8]) -> Vec<u8> {
    match passive_reply(format, answer) {
        Ok(Reply::Document(document)) => document,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What we write as XML for WeChat, and read of WeChat's XML, are the same thing.
    #[test]
    fn a_document_survives_the_way_through_xml(fields in members(node())) {
        let json = json!({ "MsgType": "x", "a": Value::Object(fields) }).to_string();
        let xml = document(Format::Xml, json.as_bytes());
        let there = of_json(&json);
        let back = Message::parse(Format::Xml, &xml).unwrap();
        prop_assert_eq!(there.identity(), back.identity(), "{} {}", json, String::from_utf8_lossy(&xml));
        let again = document(Format::Json, &xml);
        prop_assert_eq!(again, back.json());
    }

    #[test]
    fn any_bytes_are_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..200)) {
        for format in [Format::Json, Format::Xml] {
            let _outcome = Message::parse(format, &data);
            let _outcome = passive_reply(format, &data);
        }
    }

    #[test]
    fn any_markup_is_read_or_refused(document in "(<xml>|</xml>|<a>|</a>|<a/>|<|>|&|&lt;|&#1;|;|<!--|-->|<!\\[CDATA\\[|\\]\\]>|<!D|<\\?|\\?>|x|1|\"|'| ){0,30}") {
        if let Ok(message) = Message::parse(Format::Xml, document.as_bytes()) {
            let again = Message::parse(Format::Json, message.json());
            prop_assert_eq!(again.as_ref(), Ok(&message));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn long_texts_survive(texts in prop::collection::vec(xml_text(), 0..1), length in 0_usize..65_536) {
        let piece = format!("{}你]]", texts.concat());
        let content: String = piece.chars().cycle().take(length / 3).collect();
        let json = json!({ "MsgType": "text", "Content": content }).to_string();
        let xml = document(Format::Xml, json.as_bytes());
        let back = Message::parse(Format::Xml, &xml).unwrap();
        prop_assert_eq!(back.content(), Some(&*content));
        prop_assert_eq!(str::from_utf8(back.json()).unwrap(), json_of(&content));
        prop_assert_eq!(back.identity(), of_json(&json).identity());
    }
}

fn json_of(content: &str) -> String {
    let content = Value::from(content);
    // Fields come back sorted from `serde_json`.
    format!(r#"{{"Content":{content},"MsgType":"text"}}"#)
}
