//! Faults on order: what the next calls of a path get in place of, or on the way to, their answer.

use std::collections::VecDeque;
use std::time::Duration;

use ::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

/// What stands for a number of calls that has no end.
pub(super) const FOR_EVER: &str = "forever";

/// A fault for the next calls of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The path; a `*` at its end stands for anything.
    pub path: String,
    /// How many calls it lasts; for ever, until faults are cleared or all is reset, if there is no number.
    pub count: Option<u32>,
    /// How long the answer, or what comes in its place, is held back.
    pub delay: Duration,
    /// What comes in place of the answer.
    pub effect: Effect,
}

/// What comes in place of the true answer.
///
/// Only [`Effect::Answer`], [`Effect::ResetMidBody`] and [`Effect::Slow`] let the call act, that is spend its code or make
/// its token; the others stand for a call that never reached WeChat's logic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing does: the true answer comes, perhaps late. The call acts when it arrives, so a caller that gives up
    /// waiting has lost its code, as with the real WeChat.
    Answer,
    /// An errcode; without an errmsg, WeChat's own wording and a rid.
    Errcode {
        /// The number.
        errcode: i64,
        /// The text, taken as it is.
        errmsg: Option<String>,
    },
    /// The connection is reset (a TCP RST) before any answer.
    Reset,
    /// The connection is reset after the head and half the body of the true answer.
    ResetMidBody,
    /// HTTP 200 with a body that is not JSON.
    Garbage,
    /// An HTTP status, as from a broken gateway.
    Status {
        /// The status, 200 to 999; what cannot be sent becomes 502.
        status: u16,
        /// The body; HTML such as a gateway sends if there is none.
        body: Option<String>,
    },
    /// HTTP 200 without a body.
    Empty,
    /// An answer as it is told, such as JSON that is called a picture.
    Raw {
        /// The status, 200 to 999; what cannot be sent becomes 502.
        status: u16,
        /// The Content-Type; that of the path's JSON if there is none.
        content_type: Option<HeaderValue>,
        /// The body, any bytes.
        body: Bytes,
    },
    /// HTTP 302, without a body.
    Redirect {
        /// Where to. If it ends with `?`, the query of the call follows, and its access_token with it.
        location: HeaderValue,
    },
    /// The true answer, whose body comes in pieces.
    Slow {
        /// How long a piece is; an empty one is as long as one byte.
        bytes: usize,
        /// How long each piece is waited for.
        interval: Duration,
    },
}

impl Fault {
    /// A fault without a delay.
    pub fn new(path: impl Into<String>, count: u32, effect: Effect) -> Self {
        Self {
            path: path.into(),
            count: Some(count),
            delay: Duration::ZERO,
            effect,
        }
    }

    /// A fault without a delay and without an end.
    pub fn for_ever(path: impl Into<String>, effect: Effect) -> Self {
        Self {
            count: None,
            ..Self::new(path, 0, effect)
        }
    }

    /// True answers that come late.
    pub fn delay(path: impl Into<String>, count: u32, delay: Duration) -> Self {
        Self {
            delay,
            ..Self::new(path, count, Effect::Answer)
        }
    }

    fn covers(&self, path: &str) -> bool {
        match self.path.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == self.path,
        }
    }

    fn to_json(&self) -> Value {
        let mut fault = self.effect.to_json();
        if !self.delay.is_zero() {
            fault["delay_ms"] = json!(self.delay.as_millis());
        }
        let count = self.count.map_or(json!(FOR_EVER), |count| json!(count));
        json!({ "path": self.path, "count": count, "fault": fault })
    }
}

impl Effect {
    /// One word for the list of calls.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Answer => "delay",
            Self::Errcode { .. } => "errcode",
            Self::Reset => "reset",
            Self::ResetMidBody => "reset_mid_body",
            Self::Garbage => "garbage",
            Self::Status { .. } => "status",
            Self::Empty => "empty",
            Self::Raw { .. } => "raw",
            Self::Redirect { .. } => "redirect",
            Self::Slow { .. } => "slow",
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Answer => json!({}),
            Self::Errcode { errcode, errmsg } => json!({ "errcode": errcode, "errmsg": errmsg }),
            Self::Status { status, body } => json!({ "status": status, "body": body }),
            Self::Raw {
                status,
                content_type,
                body,
            } => {
                let shown =
                    |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
                let body = match std::str::from_utf8(body) {
                    Ok(text) => ("body", text.to_owned()),
                    Err(_) => ("body_base64", STANDARD.encode(body)),
                };
                json!({ "raw": {
                    "status": status,
                    "content_type": content_type.as_ref().map(shown),
                    body.0: body.1,
                } })
            }
            Self::Redirect { location } => {
                json!({ "redirect": String::from_utf8_lossy(location.as_bytes()) })
            }
            Self::Slow { bytes, interval } => {
                json!({ "slow": { "bytes": bytes, "interval_ms": interval.as_millis() } })
            }
            Self::Reset | Self::ResetMidBody | Self::Garbage | Self::Empty => {
                json!({ self.name(): true })
            }
        }
    }
}

/// The faults still to come, in the order in which they were queued. A call takes one from the first that covers it.
#[derive(Default)]
pub(super) struct Faults(VecDeque<Fault>);

impl Faults {
    pub(super) fn queue(&mut self, fault: Fault) {
        if fault.count != Some(0) {
            self.0.push_back(fault);
        }
    }

    /// What a call of `path` meets.
    pub(super) fn meet(&mut self, path: &str) -> Option<(Duration, Effect)> {
        let at = self.0.iter().position(|fault| fault.covers(path))?;
        let fault = &mut self.0[at];
        fault.count = fault.count.map(|left| left - 1);
        let met = (fault.delay, fault.effect.clone());
        if fault.count == Some(0) {
            self.0.remove(at);
        }
        Some(met)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn to_json(&self) -> Value {
        self.0.iter().map(Fault::to_json).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_a_path_come_in_the_order_they_were_queued_and_end() {
        let mut faults = Faults::default();
        faults.queue(Fault::new("/a", 2, Effect::Empty));
        faults.queue(Fault::new("/a", 1, Effect::Reset));
        faults.queue(Fault::new("/a", 0, Effect::Garbage));
        let met: Vec<_> = (0..4)
            .map(|_| faults.meet("/a").map(|(_, effect)| effect))
            .collect();
        let empty = Some(Effect::Empty);
        assert_eq!(met, [empty.clone(), empty, Some(Effect::Reset), None]);
    }

    #[test]
    fn a_fault_for_ever_ends_when_it_is_cleared_and_not_before() {
        let mut faults = Faults::default();
        faults.queue(Fault::for_ever("/a", Effect::Empty));
        faults.queue(Fault::new("/a", 1, Effect::Reset));
        for _ in 0..1000 {
            let met = faults.meet("/a");
            assert_eq!(met.map(|(_, effect)| effect), Some(Effect::Empty));
        }
        faults.clear();
        assert_eq!(faults.meet("/a"), None);
    }

    #[test]
    fn a_star_covers_every_path_with_its_prefix() {
        let mut faults = Faults::default();
        faults.queue(Fault::new("/cgi-bin/*", 1, Effect::Empty));
        assert_eq!(faults.meet("/sns/jscode2session"), None);
        assert!(faults.meet("/cgi-bin/token").is_some());
    }
}
