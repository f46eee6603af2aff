//! A message that WeChat pushes, decrypted, as the app gets it: JSON, with what one has to know to deliver it.
//!
//! Source: developers.weixin.qq.com, 指南 / 基础能力 / 服务端能力 / 消息推送, and the pages of the events. What an app gets of JSON is
//! the bytes that WeChat wrote; XML is converted so that it looks like WeChat's JSON of the same message.
//!
//! What makes two messages the same one is decided here, and a wrong answer either way costs: a message that is taken for
//! another is lost, and a repetition that is not recognised is handled twice. The former is worse, so all fields count
//! unless it is known which ones do. The ids of messages alone do not: WeChat has given one to 15 voice messages of
//! different users (WxJava's issue 333).

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::node::{Member, Members, Node, digits, member};
use super::{Flaw, Format, hex, json, text, xml};
use crate::crypto::sha256;
use crate::domain::OpenId;

/// How long WeChat repeats a message that is not answered, and more: three times, 5 seconds apart.
const WINDOW: Duration = Duration::from_hours(1);
/// Virtual payment's: 15 times, each after twice the time, which is nine hours.
const XPAY_WINDOW: Duration = Duration::from_hours(24);
/// The longest id that goes into a header as it is; WeChat's have up to 19 digits.
const MAX_ID: usize = 64;
/// A field that counts repetitions.
const RETRY_TIMES: &str = "RetryTimes";

/// Fields that are looked at, and so must not stand twice.
const LOOKED_AT: &[&str] = &[
    "ToUserName",
    "FromUserName",
    "CreateTime",
    "MsgType",
    "Event",
    "MsgId",
    "Content",
    "OpenID",
    "OpenId",
    "action",
];

/// Where an event says whose it is.
const OWNERS: &[&str] = &["OpenID", "OpenId"];

/// Events of the platform, by what their names begin with: their `FromUserName` is the platform, though it may look like
/// an openid.
const OF_THE_PLATFORM: &[&str] = &[
    "add_express_path",
    "add_single_waybill",
    "add_waybill",
    "book_",
    "cancel_single_waybill",
    "cancel_waybill",
    "check_biz",
    "complaint_callback",
    "get_quota",
    "iot_voip_notify",
    "mock_update_order_status",
    "notify_service_msg_send_result",
    "open_product_order_pay",
    "retail_",
    "secbook_",
    "secvod_",
    "trade_manage_",
    "transport_",
    "update_business_bind_result",
    "update_waybill_status",
    "user_authorization_",
    "user_info_modified",
    "waybill_",
    "weapp_",
    "wx_verify_",
    "wxa_",
    "wxainsurance_",
    "wxalive_",
    "xpay_",
];

/// Virtual payment's events, and the fields that make each one what it is. Its own repetitions may differ in the rest,
/// `CreateTime` among it. Of the events that are not here it is not known; all their fields count.
const XPAY_KEYS: &[(&str, &[&str])] = &[
    (
        "xpay_goods_deliver_notify",
        &["OutTradeNo", "OpenId", "Env"],
    ),
    ("xpay_coin_pay_notify", &["OutTradeNo", "OpenId", "Env"]),
    (
        "xpay_refund_notify",
        &[
            "WxRefundId",
            "MchRefundId",
            "OpenId",
            "RetCode",
            "RefundStartTimestamp",
        ],
    ),
];

/// A message. `Debug` shows what kind it is, and not what is in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    json: Vec<u8>,
    msg_type: String,
    event: Option<String>,
    to: Option<String>,
    from: Option<String>,
    user: Option<OpenId>,
    content: Option<String>,
    create_time: Option<u64>,
    /// Digits, and more than zero.
    msg_id: Option<String>,
    identity: [u8; 16],
    is_container_check: bool,
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// If it is no document of that format, or could be read in two ways.
    pub fn parse(format: Format, document: &[u8]) -> Result<Self, Flaw> {
        let document = text(document)?;
        match format {
            Format::Json => {
                let document = json::text(document)?;
                let members = json::parse(&document)?;
                Self::of(&members, document.as_bytes().to_vec())
            }
            Format::Xml => {
                let members = dissolve(xml::parse(document)?);
                Self::of(&members, json::write(&members).into_bytes())
            }
        }
    }

    /// What the app gets: an object. That of a JSON push is what WeChat wrote, to the byte; only control characters that
    /// stand in its strings unescaped, which no reader of JSON takes, are escaped.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// As [`Message::json`].
    pub fn into_json(self) -> Vec<u8> {
        self.json
    }

    /// `text`, `event` and so on; empty if it does not say.
    pub fn msg_type(&self) -> &str {
        &self.msg_type
    }

    /// Which event it is, if it is one.
    pub fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }

    /// The Mini Program's original id, `gh_…`.
    pub fn to(&self) -> Option<&str> {
        self.to.as_deref()
    }

    /// A user's openid, or the platform.
    pub fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// Whose message it is, if a user's: who wrote it, or whom the event names. A name of the platform's is none, though
    /// it may look like an openid.
    pub fn user(&self) -> Option<&OpenId> {
        self.user.as_ref()
    }

    /// What is kept in order: messages of one lane are delivered one after the other.
    pub fn lane(&self) -> &str {
        match &self.user {
            Some(user) => user.as_str(),
            None => self.from.as_deref().unwrap_or(""),
        }
    }

    /// What the user wrote, in a message of text.
    pub fn content(&self) -> Option<&str> {
        self.content.as_deref()
    }

    /// When WeChat made it, in Unix seconds.
    pub fn create_time(&self) -> Option<u64> {
        self.create_time
    }

    /// A name for the app, the same in all repetitions: WeChat's `MsgId` if a message has one, else the
    /// [`Message::identity`] in hexadecimal. At most 64 letters and digits.
    pub fn id(&self) -> String {
        match &self.msg_id {
            Some(id) => id.clone(),
            None => hex(&self.identity),
        }
    }

    /// What is the same in all repetitions of a message, and in no other message.
    pub fn identity(&self) -> [u8; 16] {
        self.identity
    }

    /// How long a repetition can come.
    pub fn window(&self) -> Duration {
        match self.is_xpay() {
            true => XPAY_WINDOW,
            false => WINDOW,
        }
    }

    /// Whether it is the question of the console whether there is anybody here, which is not for the app.
    pub fn is_container_check(&self) -> bool {
        self.is_container_check
    }

    /// Whether a user wrote it, so that WeChat shows them a fault if it is answered wrongly.
    pub fn is_user_message(&self) -> bool {
        is_users(&self.msg_type)
    }

    /// Whether it is of virtual payment, which wants its own answer.
    pub fn is_xpay(&self) -> bool {
        self.event().is_some_and(|event| event.starts_with("xpay_"))
    }

    fn of(members: &[Member<'_>], json: Vec<u8>) -> Result<Self, Flaw> {
        for name in LOOKED_AT {
            // That is how a field that stands twice comes out of XML; no field of these is a list.
            if let Some(Node::Array(_)) = member(members, name) {
                return Err(Flaw::duplicate(name));
            }
        }
        let field = |name| member(members, name).and_then(Node::scalar);
        let owned = |name| field(name).map(str::to_owned);
        let msg_type = field("MsgType").unwrap_or("");
        let is_users = is_users(msg_type);
        let event = field("Event").filter(|event| !event.is_empty() && !is_users);
        let from = field("FromUserName");
        // An event that has a `MsgId` has that of a message, if anything: it is not the event's own.
        let msg_id = field("MsgId").and_then(msg_id).filter(|_| is_users);
        Ok(Self {
            json,
            msg_type: msg_type.to_owned(),
            event: event.map(str::to_owned),
            to: owned("ToUserName"),
            from: from.map(str::to_owned),
            user: match is_users {
                true => from.and_then(|from| OpenId::parse(from).ok()),
                false => owner(members, event, from),
            },
            content: owned("Content").filter(|_| msg_type == "text"),
            create_time: field("CreateTime").and_then(|time| digits(time)?.parse().ok()),
            msg_id: msg_id.map(str::to_owned),
            identity: identity(members, event, msg_id),
            is_container_check: members.len() == 1 && field("action") == Some("CheckContainerPath"),
        })
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("msg_type", &self.msg_type)
            .field("event", &self.event)
            .field("create_time", &self.create_time)
            .finish_non_exhaustive()
    }
}

/// A subscription event's items stand in an element of the event's name in XML, and at the top in JSON. They are an array
/// here also if there is one, or none.
fn dissolve(members: Members<'_>) -> Members<'_> {
    let is_wrapper = |name: &str| name.starts_with("SubscribeMsg") && name.ends_with("Event");
    let places = members.iter();
    let places = places.filter(|(name, _)| is_wrapper(name) || name == "List");
    if places.count() != 1 {
        return members;
    }
    let is_subscription = member(&members, "Event")
        .and_then(Node::scalar)
        .is_some_and(|event| event.starts_with("subscribe_msg_"));
    let dissolved = members.into_iter().map(|(name, node)| match &*name {
        "List" if is_subscription => (name, Node::Array(items(node))),
        wrapper if is_wrapper(wrapper) => match list(node) {
            Ok(items) => (Cow::Borrowed("List"), Node::Array(items)),
            Err(node) => (name, node),
        },
        _ => (name, node),
    });
    dissolved.collect()
}

/// The items in a wrapper, if there is nothing else in it.
fn list(wrapper: Node<'_>) -> Result<Vec<Node<'_>>, Node<'_>> {
    match wrapper {
        Node::Text(text) if text.is_empty() => Ok(Vec::new()),
        Node::Object(members) if matches!(&members[..], [(name, _)] if name == "List") => {
            Ok(members
                .into_iter()
                .flat_map(|(_, list)| items(list))
                .collect())
        }
        other => Err(other),
    }
}

fn items(list: Node<'_>) -> Vec<Node<'_>> {
    match list {
        Node::Array(items) => items,
        Node::Text(text) if text.is_empty() => Vec::new(),
        item => vec![item],
    }
}

fn is_users(msg_type: &str) -> bool {
    !matches!(msg_type, "" | "event")
}

/// The user whom an event is about.
fn owner(members: &[Member<'_>], event: Option<&str>, from: Option<&str>) -> Option<OpenId> {
    let named = OWNERS.iter().find_map(|name| {
        let owner = member(members, name)?.scalar()?;
        OpenId::parse(owner).ok()
    });
    let is_platforms = |event: &str| {
        let mut beginnings = OF_THE_PLATFORM.iter();
        beginnings.any(|beginning| event.starts_with(beginning))
    };
    let is_users = event.is_some_and(|event| !is_platforms(event));
    named.or_else(|| OpenId::parse(from.filter(|_| is_users)?).ok())
}

/// An id that is one.
fn msg_id(text: &str) -> Option<&str> {
    let id = digits(text)?;
    let is_id = id.len() <= MAX_ID && id.bytes().any(|digit| digit != b'0');
    is_id.then_some(id)
}

fn identity(members: &[Member<'_>], event: Option<&str>, msg_id: Option<&str>) -> [u8; 16] {
    let field = |name: &str| member(members, name).and_then(Node::scalar).unwrap_or("");
    let mut digest = Digest::default();
    if msg_id.is_some() {
        digest.kind("message");
        for name in ["MsgId", "FromUserName", "CreateTime"] {
            digest.text(field(name));
        }
        return digest.finish();
    }
    let known = XPAY_KEYS.iter().find(|(name, _)| Some(*name) == event);
    let keys = known.map_or(&[][..], |(_, keys)| keys);
    // Without the first one, what is left says too little.
    if keys.first().is_some_and(|key| !field(key).is_empty()) {
        digest.kind("payment");
        digest.text(event.unwrap_or(""));
        keys.iter().for_each(|name| digest.text(field(name)));
        return digest.finish();
    }
    digest.kind("document");
    let counts = |(name, _): &&(Cow<'_, str>, Node<'_>)| name != RETRY_TIMES;
    digest.members(members.iter().filter(counts).collect());
    digest.finish()
}

/// A digest of values that does not depend on how they were written: a number is the text of its digits, the order of
/// fields is nothing, one item is a list of one, and what is empty is empty. All parts have their length in front.
#[derive(Default)]
struct Digest(Vec<u8>);

impl Digest {
    /// What is digested, so that things of two kinds are never the same.
    fn kind(&mut self, name: &str) {
        self.text(name);
    }

    fn text(&mut self, text: &str) {
        self.0.push(b't');
        self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn node(&mut self, node: &Node<'_>) {
        match node {
            Node::Array(items) => match &items[..] {
                [] => self.text(""),
                [item] => self.node(item),
                items => {
                    self.0.push(b'a');
                    self.length(items.len());
                    items.iter().for_each(|item| self.node(item));
                }
            },
            Node::Object(members) => match members.is_empty() {
                true => self.text(""),
                false => self.members(members.iter().collect()),
            },
            scalar => self.text(scalar.scalar().unwrap_or("")),
        }
    }

    fn members(&mut self, mut members: Vec<&(Cow<'_, str>, Node<'_>)>) {
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.0.push(b'o');
        self.length(members.len());
        for (name, node) in members {
            self.text(name);
            self.node(node);
        }
    }

    fn length(&mut self, length: usize) {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
    }

    fn finish(self) -> [u8; 16] {
        let mut half = [0; 16];
        half.copy_from_slice(&sha256(&self.0)[..16]);
        half
    }
}

#[cfg(test)]
mod tests;
