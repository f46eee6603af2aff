//! What the inspector is told of a message, and how one that it remembers is delivered once more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::courier::Delivered;
use super::entry::{Entry, Head};
use super::inbox::{NotStored, Put};
use super::{Bus, Settings};
use crate::crypto;
use crate::telemetry::inspector::{Attempt, Came, Inspector, Record};

/// For how long a replay cannot come a second time; nobody knows its name, so it cannot anyhow.
const WINDOW: Duration = Duration::from_secs(60);

impl Bus {
    /// Has messages be seen.
    pub(crate) fn show_to(&self, inspector: Inspector) {
        let _there_is_one = self.inspector.set(inspector);
    }

    /// Tells of a message, and what there is new of it.
    pub(super) fn show(&self, entry: &Entry, change: impl FnOnce(&mut Record)) {
        let Some(inspector) = self.inspector.get() else {
            return;
        };
        let head = &entry.head;
        let came = Came {
            id: &head.id,
            kind: &head.msg_type,
            event: head.event.as_deref(),
            openid: head.openid.as_deref(),
            request_id: &head.request_id,
            trace: &head.trace,
            body: &entry.body,
            stored: &|| entry.encode().into(),
        };
        inspector.message(&came, change);
    }

    /// Tells what became of a message.
    pub(super) fn show_end(&self, head: Option<&Head>, outcome: &'static str) {
        if let (Some(inspector), Some(head)) = (self.inspector.get(), head) {
            inspector.came_to(&head.id, outcome);
        }
    }

    /// Puts a message that the inspector remembers into the inbox once more, as it came: with its `X-WX-Msg-Id`, by which an app
    /// that has taken it may know it again. Says that id.
    ///
    /// # Errors
    /// Why not, for people.
    pub(crate) async fn replay(&self, stored: &Bytes) -> Result<String, String> {
        let entry = Entry::decode(stored);
        let mut entry = entry.ok_or_else(|| "this is no message".to_owned())?;
        entry.head.queued = self.inbox.clock().now().as_millis();
        entry.head.death = None;
        let id = entry.head.id.clone();
        let put = Put {
            entry: Arc::new(entry),
            identity: crypto::random(),
            window: WINDOW,
            nonce: None,
            answer: None,
        };
        match self.inbox.put(put).await {
            Ok(_) => Ok(id),
            Err(why @ (NotStored::Full | NotStored::Failed(_))) => Err(why.to_string()),
        }
    }
}

/// An attempt that has just ended.
pub(super) fn attempt(
    settings: &Settings,
    entry: &Entry,
    (number, began): (u32, Instant),
    posted: &Delivered,
) -> Attempt {
    let (status, error) = match posted {
        Delivered::Taken(status, _) => (Some(*status), None),
        Delivered::Refused { status, .. } => (Some(*status), Some("refused".to_owned())),
        Delivered::Late => (None, Some("the app does not answer in time".to_owned())),
        Delivered::Away(why) => (None, Some(format!("the app cannot be reached: {why}"))),
    };
    Attempt {
        path: settings.routes.of(&entry.head).path.clone(),
        number,
        status: status.map(|status| status.as_u16()),
        error,
        took: began.elapsed(),
    }
}
