//! A message as it waits.
//!
//! On the disk and in Redis it is a line of JSON and, behind it, what the app will get, byte for byte. So a journal can be read
//! with no more than a pager, and one that a newer version wrote by an older one: members that are not known are
//! passed over.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::crypto;
use crate::wechat::push::{Format, Message};

/// A message and what has to be known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) head: Head,
    /// The message as JSON.
    pub(crate) body: Bytes,
}

/// What is known of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// `X-WX-Msg-Id`
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) msg_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<String>,
    /// The user whom it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) openid: Option<String>,
    /// The text of a text message, for routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
    /// Messages of one lane are delivered one after the other.
    pub(crate) lane: u64,
    /// When it was sent, in Unix seconds, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<u64>,
    /// When it came, in Unix milliseconds.
    pub(crate) received: u64,
    /// When it began to wait, in Unix milliseconds: when it came, or when it was last replayed.
    pub(crate) queued: u64,
    /// What WeChat wrote it in: "xml" or "json".
    pub(crate) format: String,
    /// The request that brought it.
    pub(crate) request_id: String,
    /// `traceparent` for the app.
    pub(crate) trace: String,
    /// What else the app is told of it: names and values of header lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) lines: Vec<(String, String)>,
    /// What became of it, if it is a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) death: Option<Death>,
}

/// What has to be known of a message that waits, however many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Place {
    pub(crate) lane: u64,
    pub(crate) queued: u64,
}

/// Why a message is delivered no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Death {
    /// What the last attempt came to.
    pub(crate) reason: String,
    /// How often it was tried.
    pub(crate) attempts: u32,
    /// When it was given up, in Unix milliseconds.
    pub(crate) at: u64,
}

impl Entry {
    pub(crate) fn new(
        message: Message,
        format: Format,
        now: Timestamp,
        request_id: &str,
        trace: &str,
    ) -> Self {
        let head = Head {
            id: message.id(),
            msg_type: message.msg_type().to_owned(),
            event: message.event().map(str::to_owned),
            openid: message.user().map(|user| user.as_str().to_owned()),
            content: message.content().map(str::to_owned),
            lane: lane(message.lane()),
            created: message.create_time(),
            received: now.as_millis(),
            queued: now.as_millis(),
            format: format.label().to_owned(),
            request_id: request_id.to_owned(),
            trace: trace.to_owned(),
            lines: Vec::new(),
            death: None,
        };
        Self {
            head,
            body: message.into_json().into(),
        }
    }

    /// As it is written down.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out =
            serde_json::to_vec(&self.head).expect("a head has no maps with other keys than text");
        out.reserve_exact(1 + self.body.len());
        out.push(b'\n');
        out.extend_from_slice(&self.body);
        out
    }

    /// What was written down; `None` if it was not written by us.
    pub(crate) fn decode(written: &[u8]) -> Option<Self> {
        let (head, body) = split(written)?;
        Some(Self {
            head,
            body: Bytes::copy_from_slice(body),
        })
    }
}

impl Head {
    /// The head of what was written down.
    pub(crate) fn decode(written: &[u8]) -> Option<Self> {
        split(written).map(|(head, _)| head)
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            lane: self.lane,
            queued: self.queued,
        }
    }
}

impl Place {
    /// The same of what was written down, at a fraction of the cost: a start looks at all that waits.
    pub(crate) fn decode(written: &[u8]) -> Option<Self> {
        split(written).map(|(place, _)| place)
    }
}

fn split<H: DeserializeOwned>(written: &[u8]) -> Option<(H, &[u8])> {
    let end = memchr::memchr(b'\n', written)?;
    let head = serde_json::from_slice(&written[..end]).ok()?;
    Some((head, &written[end + 1..]))
}

/// The number of a lane. Two names may share one; then messages wait for each other that need not.
fn lane(name: &str) -> u64 {
    let hash = crypto::sha256(name.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
impl Head {
    /// Some head, for tests that care about a part of it.
    pub(crate) fn example() -> Self {
        Self {
            id: "1234567890123456".to_owned(),
            msg_type: "text".to_owned(),
            event: None,
            openid: Some("oUser-of-tests-000000000001".to_owned()),
            content: Some("hello".to_owned()),
            lane: 7,
            created: Some(1_700_000_000),
            received: 1_700_000_000_500,
            queued: 1_700_000_000_500,
            format: "json".to_owned(),
            request_id: "request".to_owned(),
            trace: String::new(),
            lines: Vec::new(),
            death: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_back() {
        let entry = Entry {
            head: Head::example(),
            body: Bytes::from_static(b"{\"Content\":\"a\\nb\",\n\"MsgId\":1}"),
        };
        let written = entry.encode();
        assert_eq!(Place::decode(&written), Some(entry.head.place()));
        assert_eq!(Entry::decode(&written), Some(entry));
    }

    #[test]
    fn members_of_a_newer_version_are_passed_over() {
        let entry = Entry {
            head: Head::example(),
            body: Bytes::from_static(b"{}"),
        };
        let mut written = entry.encode();
        written.splice(0..1, *b"{\"of_tomorrow\":[1,{}],");
        assert_eq!(Entry::decode(&written), Some(entry));
    }

    #[test]
    fn what_we_have_not_written_is_not_read() {
        for written in [&b""[..], b"{}", b"\n{}", b"{\"id\":1}\n{}", b"\xff\n"] {
            assert_eq!(Entry::decode(written), None);
        }
    }
}
