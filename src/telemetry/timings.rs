//! When what happened within one exchange, and how much of it there was.
//!
//! Written by whoever takes part, the exchange and the proxy below it; read once, at the end, for the metrics, the access
//! log and the spans. It holds cells and no locks, because an exchange is one task of one thread, and reads the clock as seldom
//! as it can: a reading costs as much as finding a route.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

/// The times of one exchange.
#[derive(Clone)]
pub(crate) struct Timings {
    began: Instant,
    ended: Cell<Option<Instant>>,
    asked: Cell<Option<Instant>>,
    sent: Cell<Option<Instant>>,
    answered: Cell<Option<(Instant, u16)>>,
    wechat: Cell<Duration>,
    worked: Cell<Duration>,
    /// Since when the thread is at it, if it is.
    at_it: Cell<Option<Instant>>,
    received: Cell<u64>,
    returned: Cell<u64>,
}

impl Timings {
    /// Of an exchange that begins now, and is worked at.
    pub(crate) fn begin() -> Self {
        let began = Instant::now();
        Self {
            began,
            ended: Cell::default(),
            asked: Cell::default(),
            sent: Cell::default(),
            answered: Cell::default(),
            wechat: Cell::default(),
            worked: Cell::default(),
            at_it: Cell::new(Some(began)),
            received: Cell::default(),
            returned: Cell::default(),
        }
    }

    /// The app is about to be sent the request; all of it at once if `whole`. Said again for a second attempt.
    pub(crate) fn asking(&self, whole: bool) {
        let now = Some(Instant::now());
        self.asked.set(now);
        self.sent.set(now.filter(|_| whole));
    }

    /// The app has the end of a request that was sent piece by piece.
    pub(crate) fn sent(&self) {
        self.sent.set(Some(Instant::now()));
    }

    /// The head of the app's answer is here.
    pub(crate) fn answered(&self, status: u16) {
        self.answered.set(Some((Instant::now(), status)));
    }

    /// So many bytes of the request's body have come, all in all.
    pub(crate) fn received(&self, bytes: u64) {
        self.received.set(bytes);
    }

    /// It ends now, and its answer has a body of so many bytes. Of a tunnel it is said twice, the first time with its 101.
    pub(crate) fn end(&self, returned: u64) {
        let now = Instant::now();
        self.ended.set(Some(now));
        self.returned.set(returned);
        if let Some(since) = self.at_it.replace(Some(now)) {
            self.worked.set(self.worked.get() + (now - since));
        }
    }

    /// `future`, whose waiting is told apart from its work.
    pub(crate) fn work<F: Future>(&self, future: F) -> Work<'_, F> {
        Work {
            timings: self,
            future,
        }
    }

    /// `future`, which waits for WeChat. Two at a time are to be one future.
    pub(crate) fn wechat<F: Future>(&self, future: F) -> OfWechat<'_, F> {
        OfWechat {
            timings: self,
            since: None,
            future,
        }
    }

    /// When its head had come.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// How long it took; until now, if it has not ended.
    pub(crate) fn took(&self) -> Duration {
        self.ended.get().unwrap_or_else(Instant::now) - self.began
    }

    /// When the app was first sent something of the request, if it was.
    pub(crate) fn asked_at(&self) -> Option<Instant> {
        self.asked.get()
    }

    /// When the head of the app's answer was here, and its status, if there was one.
    pub(crate) fn answered_at(&self) -> Option<(Instant, u16)> {
        self.answered.get()
    }

    /// How long the app was waited for: from the whole request to the head of its answer, or in vain to the end. Nothing
    /// if it answered before it had everything; `None` if it was not asked.
    pub(crate) fn upstream(&self) -> Option<Duration> {
        let asked = self.asked.get()?;
        let answered = self.answered.get().map(|(at, _)| at);
        let until = answered.or(self.ended.get())?;
        let sent = self.sent.get();
        // What waits for a client's body does not wait for the app.
        let from = if answered.is_some() {
            sent.unwrap_or(until)
        } else {
            sent.unwrap_or(asked)
        };
        Some(until.saturating_duration_since(from))
    }

    /// How long WeChat was waited for, and whom that needs (a store before a login, other users' calls).
    pub(crate) fn wechat_waited(&self) -> Duration {
        self.wechat.get()
    }

    /// How long the sidecar worked at it, with all waiting left out: for the app, WeChat, the store, and the client.
    pub(crate) fn worked(&self) -> Duration {
        self.worked.get()
    }

    /// How many bytes of the request's body came.
    pub(crate) fn bytes_received(&self) -> u64 {
        self.received.get()
    }

    /// How many bytes the answer's body had.
    pub(crate) fn bytes_returned(&self) -> u64 {
        self.returned.get()
    }
}

pin_project! {
    /// A future whose waiting is told apart from its work. Written out, because an `async fn` would hold the future
    /// twice, and it is large.
    pub(crate) struct Work<'a, F> {
        timings: &'a Timings,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Work<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let timings = *this.timings;
        if timings.at_it.get().is_none() {
            timings.at_it.set(Some(Instant::now()));
        }
        let polled = this.future.poll(cx);
        if polled.is_pending()
            && let Some(since) = timings.at_it.take()
        {
            timings.worked.set(timings.worked.get() + since.elapsed());
        }
        polled
    }
}

pin_project! {
    /// A future that waits for WeChat.
    pub(crate) struct OfWechat<'a, F> {
        timings: &'a Timings,
        since: Option<Instant>,
        #[pin]
        future: F,
    }

    impl<F> PinnedDrop for OfWechat<'_, F> {
        // Whoever is dropped in the middle has waited too.
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            let waited = this.since.take().map(|since| since.elapsed());
            let wechat = &this.timings.wechat;
            wechat.set(wechat.get() + waited.unwrap_or_default());
        }
    }
}

impl<F: Future> Future for OfWechat<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let since = *this.since.get_or_insert_with(Instant::now);
        let polled = this.future.poll(cx);
        if polled.is_ready() {
            *this.since = None;
            let wechat = &this.timings.wechat;
            wechat.set(wechat.get() + since.elapsed());
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn what_has_waited_for_wechat_in_vain_has_waited() {
        let timings = Timings::begin();
        let waiting = timings.wechat(std::future::pending::<()>());
        let _elapsed = tokio::time::timeout(STEP, waiting).await;
        assert_eq!(timings.wechat_waited(), STEP);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_no_work_and_what_waits_for_wechat_is_told() {
        let timings = Timings::begin();
        let waiting = async {
            tokio::time::sleep(STEP).await;
            timings.wechat(tokio::time::sleep(STEP * 2)).await;
        };
        timings.work(waiting).await;
        timings.end(7);
        assert!(timings.took() >= STEP * 3);
        assert!(timings.wechat_waited() >= STEP * 2 && timings.wechat_waited() < STEP * 3);
        assert!(timings.worked() < STEP, "{:?}", timings.worked());
        assert_eq!(timings.bytes_returned(), 7);
        assert_eq!(timings.upstream(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_waited_for_is_work() {
        let timings = Timings::begin();
        tokio::time::advance(STEP).await;
        timings.work(std::future::ready(())).await;
        timings.end(0);
        assert!(timings.worked() >= STEP);
    }

    #[tokio::test(start_paused = true)]
    async fn the_app_is_waited_for_from_the_end_of_the_request_on() {
        let timings = Timings::begin();
        timings.asking(false);
        tokio::time::advance(STEP).await;
        timings.sent();
        tokio::time::advance(STEP * 2).await;
        timings.answered(200);
        tokio::time::advance(STEP).await;
        timings.end(0);
        assert_eq!(timings.upstream(), Some(STEP * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_that_answers_early_was_not_waited_for_and_one_that_does_not_answer_was() {
        let early = Timings::begin();
        early.asking(false);
        tokio::time::advance(STEP).await;
        early.answered(413);
        early.end(0);
        assert_eq!(early.upstream(), Some(Duration::ZERO));
        let silent = Timings::begin();
        silent.asking(true);
        tokio::time::advance(STEP).await;
        silent.end(0);
        assert_eq!(silent.upstream(), Some(STEP));
    }
}
