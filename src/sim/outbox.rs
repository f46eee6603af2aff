//! What the running simulator pushes: what follows from the app's calls, some moments after them, and what is ordered
//! under `/_sim/push`.
//!
//! A rule only puts a push into the outbox of the state; the network side takes it out after the call and sends it, so
//! that rules stay plain functions.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::Conversation;
use super::push::{
    Field, Fields, Format, Mode, Outcome, Push, PushOptions, Pusher, SAMPLES, is_name,
};
use super::security::Look;
use super::state::State;
use crate::domain::Malformed;

/// After the call that a push follows from. WeChat takes up to half an hour for a picture.
const SOON: Duration = Duration::from_millis(300);
/// How many outcomes are kept.
const KEPT: usize = 100;

/// A receiver, what it is to get, and what it got.
pub(super) struct Outbox {
    options: PushOptions,
    pusher: Pusher,
    /// The receiver's addresses, as they were at the start.
    pub(super) addresses: Vec<IpAddr>,
    due: Vec<Due>,
    pub(super) pushed: VecDeque<Pushed>,
}

/// What is to be sent, when it is time.
pub(super) struct Due {
    pub(super) after: Duration,
    pub(super) pusher: Pusher,
    pub(super) work: Work,
}

/// A push, or what is looked at before there is one.
pub(super) enum Work {
    Push(Box<Push>),
    Look(Look),
}

/// What was sent, and what came of it.
#[derive(Serialize)]
pub(super) struct Pushed {
    kind: String,
    openid: String,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

impl Outbox {
    pub(super) fn new(options: PushOptions) -> io::Result<Self> {
        let pusher = Pusher::new(options.clone()).map_err(invalid)?;
        let (host, port) = pusher.place();
        // A receiver that has no name yet may get one before the first push.
        let addresses = (host.as_str(), port).to_socket_addrs();
        let addresses = addresses.map(|addresses| addresses.map(|address| address.ip()).collect());
        Ok(Self {
            addresses: addresses.unwrap_or_default(),
            pusher,
            options,
            due: Vec::new(),
            pushed: VecDeque::new(),
        })
    }

    /// Forgets what was pushed.
    pub(super) fn clear(&mut self) {
        self.due.clear();
        self.pushed.clear();
    }

    /// Whether it is this app that is pushed to.
    pub(super) fn is_of(&self, appid: &str) -> bool {
        self.options.appid.as_str() == appid
    }

    pub(super) fn keep(&mut self, push: &Push, outcome: Outcome) {
        if self.pushed.len() == KEPT {
            self.pushed.pop_front();
        }
        self.pushed.push_back(Pushed {
            kind: push.kind().to_owned(),
            openid: push.openid().to_owned(),
            outcome,
        });
    }

    fn pusher_for(&self, mode: Option<Mode>, format: Option<Format>) -> Result<Pusher, Malformed> {
        if mode.is_none() && format.is_none() {
            return Ok(self.pusher.clone());
        }
        Pusher::new(PushOptions {
            mode: mode.unwrap_or(self.options.mode),
            format: format.unwrap_or(self.options.format),
            ..self.options.clone()
        })
    }
}

fn invalid(error: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("pushes: {error}"))
}

impl State {
    /// Has a push follow from a call of the app, if it is pushed to.
    pub(super) fn push_soon(&mut self, app: usize, push: Push) {
        self.soon(app, Work::Push(Box::new(push)));
    }

    /// Has a medium looked at and the verdict pushed, if the app is pushed to.
    pub(super) fn look_soon(&mut self, app: usize, look: Look) {
        self.soon(app, Work::Look(look));
    }

    fn soon(&mut self, app: usize, work: Work) {
        let appid = self.apps[app].known.appid.clone();
        if let Some(outbox) = self
            .outbox
            .as_mut()
            .filter(|outbox| outbox.is_of(appid.as_str()))
        {
            let pusher = outbox.pusher.clone();
            outbox.due.push(Due {
                after: SOON,
                pusher,
                work,
            });
        }
    }

    /// Takes out what is to be sent.
    pub(super) fn take_due(&mut self) -> Vec<Due> {
        let outbox = self.outbox.as_mut();
        outbox
            .map(|outbox| std::mem::take(&mut outbox.due))
            .unwrap_or_default()
    }

    /// Understands what is ordered under `/_sim/push`.
    pub(super) fn ordered_push(&mut self, order: Order) -> Result<Due, String> {
        let Some(outbox) = &self.outbox else {
            return Err(
                "there is nobody to push to: start the simulator with --push-to".to_owned(),
            );
        };
        let pusher = outbox
            .pusher_for(order.mode, order.format)
            .map_err(|error| error.to_string())?;
        let app = self
            .app_index(outbox.options.appid.as_str())
            .ok_or("the app that is pushed to does not exist here")?;
        let openid = match (&order.user, order.openid) {
            (Some(_), Some(_)) => return Err("`user` or `openid`, not both".to_owned()),
            (Some(user), None) if user.is_empty() => return Err("`user` is empty".to_owned()),
            (Some(user), None) => Some(self.openid(app, user).as_str().to_owned()),
            (None, openid) => openid,
        };
        let mut push = match (&*order.kind, order.event, order.sample) {
            ("event", Some(event), None) => Push::event_of(event, Fields::default()),
            ("event", None, Some(sample)) => Push::sample(&sample)
                .ok_or_else(|| format!("`sample` is one of {}", SAMPLES.join(", ")))?,
            ("event", ..) => return Err("an event has either `event` or `sample`".to_owned()),
            (kind @ ("text" | "image" | "page"), None, None) => {
                let kind = if kind == "page" {
                    "miniprogrampage"
                } else {
                    kind
                };
                Push::sample(kind).expect("there is a sample of each kind of message")
            }
            (_, None, None) => return Err("`kind` is text, image, page or event".to_owned()),
            _ => return Err("`event` and `sample` go with the kind event".to_owned()),
        };
        if let Some(openid) = openid {
            push = push.with_openid(openid);
        }
        if let Some(content) = order.content {
            push = push.with_field("Content", Field::Text(content));
        }
        for (name, field) in order.fields.0 {
            if !is_name(&name) {
                return Err(format!("`{name}` cannot be the name of a field"));
            }
            push = push.with_field(&name, field);
        }
        if let Some(msg_id) = order.msg_id {
            push = push.with_msg_id(msg_id);
        }
        // Who writes to customer service may be answered.
        if let Some(user) = order.user.filter(|_| push.is_message()) {
            let begun = Conversation::begun(self.now());
            let user = self.users.entry(user).or_default();
            user.conversations.insert(app, begun);
        }
        Ok(Due {
            after: Duration::ZERO,
            pusher,
            work: Work::Push(Box::new(push)),
        })
    }
}

/// What is ordered under `/_sim/push`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    kind: String,
    user: Option<String>,
    openid: Option<String>,
    content: Option<String>,
    event: Option<String>,
    sample: Option<String>,
    #[serde(default)]
    fields: Fields,
    msg_id: Option<u64>,
    mode: Option<Mode>,
    format: Option<Format>,
}
