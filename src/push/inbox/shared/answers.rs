//! What the app answers to a message, from whoever delivers it to whoever received it.
//!
//! The replica that received a message holds WeChat's request, and another one may have the part that it belongs to. So the
//! answer is written under the message's identity for a minute, and whoever waits looks for it. That also serves WeChat's
//! second attempt, which may come to a third replica.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio::time::Instant;

use super::{PAUSE, Shared, millis};
use crate::push::inbox::AnswerTo;

/// How long an answer stays.
const TTL: Duration = Duration::from_secs(60);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(40);
/// How long it is looked for: WeChat asks three times, five seconds each.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often writing it is tried.
const TRIES: usize = 3;

/// A message's identity and what the app said to it.
pub(super) type Answer = ([u8; 16], Bytes);

/// Answers on their way.
pub(super) struct Answers {
    /// Who waits, and how long. Held for a few lines.
    expected: Mutex<HashMap<[u8; 16], Vec<(watch::Sender<Option<Bytes>>, Instant)>>>,
    /// Somebody waits.
    looked_for: Notify,
    given: UnboundedSender<Answer>,
    /// Taken by whoever passes answers on, which is one.
    to_pass_on: AsyncMutex<UnboundedReceiver<Answer>>,
}

impl Answers {
    pub(super) fn new() -> Self {
        let (given, to_pass_on) = unbounded_channel();
        Self {
            expected: Mutex::default(),
            looked_for: Notify::new(),
            given,
            to_pass_on: AsyncMutex::new(to_pass_on),
        }
    }

    /// Somebody here waits for the answer to a message.
    pub(super) fn expect(&self, identity: [u8; 16], to: watch::Sender<Option<Bytes>>) {
        let until = Instant::now() + PATIENCE;
        self.expected()
            .entry(identity)
            .or_default()
            .push((to, until));
        self.looked_for.notify_one();
    }

    /// Where the answer to a message goes that is delivered here.
    pub(super) fn recipient(&self, identity: [u8; 16]) -> AnswerTo {
        AnswerTo::Elsewhere(identity, self.given.clone())
    }

    /// Tells whoever waits here.
    fn tell(&self, identity: &[u8; 16], answer: &Bytes) {
        for (to, _) in self.expected().remove(identity).unwrap_or_default() {
            to.send_replace(Some(answer.clone()));
        }
    }

    /// For whom answers are looked for. Who waits no more is forgotten.
    fn identities(&self) -> Vec<[u8; 16]> {
        let now = Instant::now();
        let mut expected = self.expected();
        expected.retain(|_, waiting| {
            waiting.retain(|(to, until)| *until > now && !to.is_closed());
            !waiting.is_empty()
        });
        expected.keys().copied().collect()
    }

    fn expected(
        &self,
    ) -> MutexGuard<'_, HashMap<[u8; 16], Vec<(watch::Sender<Option<Bytes>>, Instant)>>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Writes answers and looks for them, for ever.
    pub(super) async fn pass_answers_on(&self) {
        tokio::join!(self.write_answers(), self.look_for_answers());
    }

    async fn write_answers(&self) {
        let mut to_pass_on = self.answers.to_pass_on.lock().await;
        while let Some((identity, answer)) = to_pass_on.recv().await {
            self.answers.tell(&identity, &answer);
            let name = self.names.of("answer", &identity);
            let mut set = redis::cmd("SET");
            set.arg(&name).arg(self.names.seal_answer(&name, &answer));
            set.arg("PX").arg(millis(TTL));
            for _ in 0..TRIES {
                if self.ask::<Value>("answer", &set).await.is_ok() {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn look_for_answers(&self) {
        loop {
            let identities = self.answers.identities();
            if identities.is_empty() {
                self.answers.looked_for.notified().await;
                continue;
            }
            let names = identities
                .iter()
                .map(|identity| self.names.of("answer", identity));
            let names: Vec<_> = names.collect();
            let mut get = redis::cmd("MGET");
            get.arg(&names);
            let found: Vec<Option<Vec<u8>>> = self.ask("answers", &get).await.unwrap_or_default();
            for ((identity, name), sealed) in identities.iter().zip(&names).zip(found) {
                let answer = sealed.and_then(|sealed| self.names.open_answer(name, &sealed));
                if let Some(answer) = answer {
                    self.answers.tell(identity, &answer);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
