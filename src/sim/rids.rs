//! What a rid stands for: the refused calls of the last seven days, for `/cgi-bin/openapi/rid/get`.
//!
//! Secrets are masked before they are kept, in queries and in the JSON of bodies, which WeChat does not do: what a
//! developer looks up here ends up in bug reports. Of bodies only the beginning is kept.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::calls::MASKED;
use crate::clock::Timestamp;

/// How long WeChat remembers.
pub(super) const LIFE: Duration = Duration::from_secs(7 * 86_400);
const KEPT: usize = 500;
const BODY_LEN: usize = 16 << 10;

/// A call, as WeChat remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    /// The index of the app that called, if the call told that.
    pub(super) app: Option<usize>,
    pub(super) path: String,
    pub(super) invoked_at: Timestamp,
    pub(super) cost: Duration,
    /// The parameters of its URL.
    pub(super) query: String,
    pub(super) request_body: String,
    pub(super) response_body: String,
    pub(super) client_ip: IpAddr,
}

impl Remembered {
    /// The `request` of WeChat's answer.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "invoke_time": self.invoked_at.as_secs(),
            "cost_in_ms": self.cost.as_millis(),
            "request_url": self.query,
            "request_body": self.request_body,
            "response_body": self.response_body,
            "client_ip": self.client_ip,
        })
    }
}

/// The calls by their rids, the oldest first.
#[derive(Default)]
pub(super) struct Rids(VecDeque<(String, Remembered)>);

impl Rids {
    pub(super) fn keep(&mut self, rid: String, call: Remembered) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((rid, call));
    }

    pub(super) fn find(&self, rid: &str, now: Timestamp) -> Option<&Remembered> {
        let (_, call) = self.0.iter().find(|(known, _)| known == rid)?;
        (now.since(call.invoked_at) <= LIFE).then_some(call)
    }
}

/// When a rid was made, which its first group tells; `None` if it is none.
pub(super) fn made_at(rid: &str) -> Option<Timestamp> {
    let number = |group: &str| u64::from_str_radix(group, 16).ok();
    let groups: Option<Vec<u64>> = rid.split('-').map(number).collect();
    match groups?[..] {
        [seconds, _, _] => Some(Timestamp::from_millis(seconds.saturating_mul(1000))),
        _ => None,
    }
}

/// The beginning of a body, as text. JSON with secrets is written anew without them.
pub(super) fn beginning(body: &[u8]) -> String {
    let text =
        |body: &[u8]| String::from_utf8_lossy(&body[..body.len().min(BODY_LEN)]).into_owned();
    let Ok(Value::Object(mut members)) = serde_json::from_slice(body) else {
        return text(body);
    };
    let mut is_masked = false;
    for name in MASKED {
        if let Some(value) = members.get_mut(name) {
            *value = json!("***");
            is_masked = true;
        }
    }
    match is_masked {
        true => text(Value::Object(members).to_string().as_bytes()),
        false => text(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_040_000);

    fn call() -> Remembered {
        Remembered {
            app: Some(0),
            path: String::new(),
            invoked_at: START,
            cost: Duration::ZERO,
            query: String::new(),
            request_body: String::new(),
            response_body: String::new(),
            client_ip: IpAddr::from([127, 0, 0, 1]),
        }
    }

    #[test]
    fn a_rid_is_known_for_seven_days() {
        let mut rids = Rids::default();
        rids.keep("a".to_owned(), call());
        assert_eq!(rids.find("a", START.plus(LIFE)), Some(&call()));
        let later = START.plus(LIFE + Duration::from_millis(1));
        assert_eq!(rids.find("a", later), None);
        assert_eq!(rids.find("b", START), None);
    }

    #[test]
    fn rids_and_bodies_are_bounded() {
        let mut rids = Rids::default();
        for n in 0..=KEPT {
            rids.keep(n.to_string(), call());
        }
        assert_eq!(rids.0.len(), KEPT);
        assert_eq!(rids.find("0", START), None);
        assert!(rids.find(&KEPT.to_string(), START).is_some());
        assert_eq!(beginning(&vec![b'x'; BODY_LEN + 1]).len(), BODY_LEN);
    }

    #[test]
    fn bodies_are_kept_as_they_are_but_for_secrets() {
        for plain in [r#"{ "a":1.0, "b":[] }"#, "", "[1]", "a=b"] {
            assert_eq!(beginning(plain.as_bytes()), plain);
        }
        let body = br#"{"appid": "wx", "secret": "hunter2"}"#;
        assert_eq!(beginning(body), r#"{"appid":"wx","secret":"***"}"#);
    }
}
