//! One message or event, as yet without a receiver.

use super::document::{Field, Fields};
use super::{Format, PushOptions, sample};
use crate::clock::Timestamp;
use crate::crypto;

/// A message of a user's, or an event.
///
/// What is not said is made up: a new `MsgId` for each message that is built, and the time of its sending as
/// `CreateTime`. Whoever wants the same push twice sends the same value twice, and for an event, which has no `MsgId`,
/// gives it a [`Push::with_create_time`].
#[derive(Clone, Debug)]
pub struct Push {
    kind: Kind,
    /// Whose message or event it is.
    openid: String,
    create_time: Option<u64>,
    msg_id: Option<u64>,
    fields: Fields,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Message(&'static str),
    Event {
        name: String,
        /// Whether the platform tells it and not the user.
        by_platform: bool,
    },
    /// No message at all: CloudRun asks so whether a container is there, in JSON, without a signature.
    Bare,
}

/// Who is meant where nobody is named.
pub(super) const USER: &str = "oSimulatedUser00000000000000";
/// In whose name the platform tells its own events.
const PLATFORM: &str = "oSimulatedPlatform0000000000";
/// What stands in samples for the AppID and the user's openid.
const APPID: &str = "$appid";
const OPENID: &str = "$openid";

impl Push {
    /// A text that a user sent to customer service.
    pub fn text(openid: impl Into<String>, content: impl Into<String>) -> Self {
        Self::message("text", openid).with_field("Content", Field::Text(content.into()))
    }

    /// A picture that a user sent to customer service.
    pub fn image(openid: impl Into<String>) -> Self {
        Self::message("image", openid)
            .with_field(
                "PicUrl",
                "http://mmbiz.qpic.cn/mmbiz_jpg/simulated/0".into(),
            )
            .with_field("MediaId", "simulated-media-id".into())
    }

    /// A page of the Mini Program that a user sent to customer service.
    pub fn page(openid: impl Into<String>) -> Self {
        Self::message("miniprogrampage", openid)
            .with_field("Title", "A page".into())
            .with_field("AppId", APPID.into())
            .with_field("PagePath", "pages/index/index".into())
            .with_field(
                "ThumbUrl",
                "http://mmbiz.qpic.cn/mmbiz_jpg/simulated/0".into(),
            )
            .with_field("ThumbMediaId", "simulated-thumb-id".into())
    }

    /// An event, with the members of an object as its fields, such as
    /// `Push::event("debug_demo", json!({ "debug_str": "hello" }))`. They come in the order of their names; lists of
    /// subscription events are `List`, as in JSON.
    ///
    /// # Panics
    /// If `fields` is no object.
    pub fn event(name: impl Into<String>, fields: serde_json::Value) -> Self {
        match Field::from(fields) {
            Field::Object(fields) => Self::event_of(name.into(), fields),
            _ => panic!("the fields of an event are an object"),
        }
    }

    pub(in crate::sim) fn event_of(name: String, fields: Fields) -> Self {
        Self {
            kind: Kind::Event {
                name,
                by_platform: false,
            },
            openid: USER.to_owned(),
            create_time: None,
            msg_id: None,
            fields,
        }
    }

    /// One of [`super::SAMPLES`], such as `subscribe_popup_many` or `xpay_goods_deliver_notify`; `None` if there is none
    /// of that name.
    pub fn sample(name: &str) -> Option<Self> {
        sample::sample(name)
    }

    /// The same of another user: `FromUserName`, or where the platform tells of a user, the field that says of whom.
    #[must_use]
    pub fn with_openid(mut self, openid: impl Into<String>) -> Self {
        self.openid = openid.into();
        self
    }

    /// The same with this `MsgId`.
    #[must_use]
    pub fn with_msg_id(mut self, msg_id: u64) -> Self {
        self.msg_id = Some(msg_id);
        self
    }

    /// The same with this `CreateTime`, in Unix seconds.
    #[must_use]
    pub fn with_create_time(mut self, seconds: u64) -> Self {
        self.create_time = Some(seconds);
        self
    }

    /// The same with a field of this name and value (`json!(...)`), in place of the one it had.
    #[must_use]
    pub fn with(self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.with_field(name, Field::from(value.into()))
    }

    /// The `MsgId`, if it has one: messages have.
    pub fn msg_id(&self) -> Option<u64> {
        self.msg_id
    }

    /// Whose message or event it is.
    pub fn openid(&self) -> &str {
        &self.openid
    }

    fn message(kind: &'static str, openid: impl Into<String>) -> Self {
        // Beyond 2^53, as WeChat's are, and within 2^63.
        let msg_id = (1 << 54) + (u64::from_ne_bytes(crypto::random()) >> 2);
        Self {
            kind: Kind::Message(kind),
            openid: openid.into(),
            create_time: None,
            msg_id: Some(msg_id),
            fields: Fields::default(),
        }
    }

    pub(super) fn bare(fields: Fields) -> Self {
        Self {
            kind: Kind::Bare,
            ..Self::event_of(String::new(), fields)
        }
    }

    pub(super) fn told_by_platform(mut self) -> Self {
        if let Kind::Event { by_platform, .. } = &mut self.kind {
            *by_platform = true;
        }
        self
    }

    pub(in crate::sim) fn with_field(mut self, name: &str, field: Field) -> Self {
        self.fields.set(name, field);
        self
    }

    pub(super) fn created_at(&self, now: Timestamp) -> Self {
        let create_time = self.create_time.unwrap_or(now.as_secs());
        self.clone().with_create_time(create_time)
    }

    pub(super) fn is_bare(&self) -> bool {
        self.kind == Kind::Bare
    }

    /// Whether a user wrote it, so that it may be handed to a person.
    pub(in crate::sim) fn is_message(&self) -> bool {
        matches!(self.kind, Kind::Message(_))
    }

    /// The event, or the kind of message.
    pub(in crate::sim) fn kind(&self) -> &str {
        match &self.kind {
            Kind::Message(kind) => kind,
            Kind::Event { name, .. } => name,
            Kind::Bare => "container_check",
        }
    }

    pub(super) fn event_name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Event { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Whether it says how often it has been sent before.
    pub(super) fn counts_retries(&self) -> bool {
        self.fields.get("RetryTimes").is_some()
    }

    /// The document, for the try of this number.
    pub(super) fn document(&self, options: &PushOptions, number: u32, now: Timestamp) -> Fields {
        let mut own = self.fields.clone();
        fill_in(&mut own, options.appid.as_str(), &self.openid);
        let (kind, event, from) = match &self.kind {
            Kind::Bare => return own,
            Kind::Message(kind) => (*kind, None, &*self.openid),
            Kind::Event { name, by_platform } => {
                let from = if *by_platform { PLATFORM } else { &self.openid };
                ("event", Some(&**name), from)
            }
        };
        if self.counts_retries() {
            own.set("RetryTimes", u64::from(number - 1).into());
        }
        let create_time = self.create_time.unwrap_or(now.as_secs());
        let mut document = Fields::default();
        document.set("ToUserName", options.original_id.as_str().into());
        document.set("FromUserName", from.into());
        // Subscription events write it as a text in JSON, and in XML as all others do.
        document.set(
            "CreateTime",
            match (self.wrapper(), options.format) {
                (Some(_), Format::Json) => Field::Text(create_time.to_string()),
                _ => create_time.into(),
            },
        );
        document.set("MsgType", kind.into());
        if let Some(event) = event {
            document.set("Event", event.into());
        }
        for (name, field) in own.0 {
            document.set(&name, field);
        }
        if let Some(msg_id) = self.msg_id {
            document.set("MsgId", msg_id.into());
        }
        document
    }

    /// A document in a format.
    pub(super) fn spelled(&self, document: &Fields, format: Format) -> String {
        let list = |field: &Field| match field {
            Field::List(items) => items.clone(),
            one => vec![one.clone()],
        };
        let wrapped = self.wrapper().zip(document.get("List").map(list));
        let Some((wrapper, items)) = wrapped else {
            return match format {
                Format::Json => document.json(),
                Format::Xml => document.xml(),
            };
        };
        let spelled = document.0.iter().map(|(name, field)| {
            match (name.as_str(), format) {
                // A list of one is no list.
                ("List", Format::Json) if items.len() == 1 => (name.clone(), items[0].clone()),
                ("List", Format::Xml) => {
                    let list = Fields(vec![("List".to_owned(), Field::List(items.clone()))]);
                    (wrapper.to_owned(), Field::Object(list))
                }
                _ => (name.clone(), field.clone()),
            }
        });
        let spelled = Fields(spelled.collect());
        match format {
            Format::Json => spelled.json(),
            Format::Xml => spelled.xml(),
        }
    }

    /// The element around the list of a subscription event in XML.
    fn wrapper(&self) -> Option<&'static str> {
        match self.event_name()? {
            "subscribe_msg_popup_event" => Some("SubscribeMsgPopupEvent"),
            "subscribe_msg_change_event" => Some("SubscribeMsgChangeEvent"),
            "subscribe_msg_sent_event" => Some("SubscribeMsgSentEvent"),
            _ => None,
        }
    }
}

/// Puts the AppID and the openid where a sample has left room for them.
fn fill_in(fields: &mut Fields, appid: &str, openid: &str) {
    for (_, field) in &mut fields.0 {
        match field {
            Field::Text(text) if text == APPID => *text = appid.to_owned(),
            Field::Text(text) if text == OPENID => *text = openid.to_owned(),
            Field::Object(fields) => fill_in(fields, appid, openid),
            _ => {}
        }
    }
}
