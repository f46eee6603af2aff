//! Which medium a `trace_id` stands for, until WeChat says what it thinks of it.
//!
//! In memory, because it is a convenience: after a restart the app still has the `trace_id` of its own records. It
//! outlives reloads, has an end of time and of number, and nothing waits for a judgement that never comes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::domain::{AppId, MediaId};
use crate::resilience::Recent;
use crate::wechat::media::LIFE;

/// A day's quota is four times as many; WeChat takes minutes.
const MOST: u64 = 50_000;
/// How long a judgement waits for the answer that it may have overtaken. WeChat waits five seconds for ours.
const PATIENCE: Duration = Duration::from_secs(1);

/// The media that are being judged.
pub(crate) struct Traces {
    known: Recent<(AppId, String), MediaId>,
    /// How many `trace_id`s are about to be known.
    asking: watch::Sender<usize>,
}

/// A question under way.
pub(super) struct Asking<'t>(&'t watch::Sender<usize>);

impl Default for Traces {
    fn default() -> Self {
        Self {
            known: Recent::new(MOST, LIFE),
            asking: watch::Sender::new(0),
        }
    }
}

impl Traces {
    /// Which medium `trace` stands for. Kept, because WeChat says some things twice.
    pub(crate) async fn medium(self: Arc<Self>, appid: AppId, trace: String) -> Option<MediaId> {
        let key = (appid, trace);
        let mut asking = self.asking.subscribe();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let nobody_asks = *asking.borrow_and_update() == 0;
            let known = self.known.get(&key);
            if known.is_some() || nobody_asks {
                return known;
            }
            timeout_at(deadline, asking.changed()).await.ok()?.ok()?;
        }
    }

    /// Says that a `trace_id` is about to be known.
    pub(super) fn asking(&self) -> Asking<'_> {
        self.asking.send_modify(|count| *count += 1);
        Asking(&self.asking)
    }

    pub(super) fn remember(&self, appid: &AppId, trace: &str, medium: &MediaId) {
        let key = (appid.clone(), trace.to_owned());
        self.known.insert(key, medium.clone());
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appid(last: char) -> AppId {
        AppId::parse(&format!("wx012345678901234{last}")).unwrap()
    }

    fn medium() -> MediaId {
        MediaId::parse("medium").unwrap()
    }

    async fn asked(traces: &Arc<Traces>, appid: AppId, trace: &str) -> Option<MediaId> {
        Arc::clone(traces).medium(appid, trace.to_owned()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_trace_stands_for_its_medium_in_its_app_for_three_days() {
        let traces = Arc::<Traces>::default();
        traces.remember(&appid('a'), "t", &medium());
        assert_eq!(asked(&traces, appid('a'), "t").await, Some(medium()));
        assert_eq!(asked(&traces, appid('a'), "t").await, Some(medium()));
        assert_eq!(asked(&traces, appid('b'), "t").await, None);
        assert_eq!(asked(&traces, appid('a'), "u").await, None);
        tokio::time::advance(LIFE).await;
        assert_eq!(asked(&traces, appid('a'), "t").await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_judgement_that_overtook_the_answer_waits_for_it() {
        let traces = Arc::<Traces>::default();
        let asking = traces.asking();
        let waiting = asked(&traces, appid('a'), "t");
        let answer = async {
            tokio::task::yield_now().await;
            traces.remember(&appid('a'), "t", &medium());
            drop(asking);
        };
        assert_eq!(tokio::join!(waiting, answer).0, Some(medium()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_judgement_of_something_else_does_not_wait_for_long() {
        let traces = Arc::<Traces>::default();
        let _asking = traces.asking();
        assert_eq!(asked(&traces, appid('a'), "t").await, None);
    }
}
