//! The end of a sidecar, in order: say "not ready", wait until the news has spread, stop accepting, finish what is in
//! flight, stop. The app's own calls to WeChat come last, because the app may make some until its last request is answered.
//!
//! The order is in one ordered enum and one watch channel; everybody waits for the phase that concerns them.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// In service.
    Serving,
    /// Still serving, but load balancers are told to look elsewhere.
    Leaving,
    /// No new connections; requests in flight go on.
    Draining,
    /// Requests still in flight are cut off; the app's calls to WeChat go on, and no new ones are taken.
    Finishing,
    /// Whatever is still in flight is cut off.
    Stopped,
}

/// The shortest time that the app's calls to WeChat have, even if requests have used all of `timeout`.
const LEAST_TIME_FOR_CALLS: Duration = Duration::from_secs(1);

/// Walks through the phases. `idle` ends when no request is in flight any more, `silent` when no call to WeChat is.
pub(super) async fn drain(
    phase: &watch::Sender<Phase>,
    delay: Duration,
    timeout: Duration,
    idle: impl Future<Output = ()>,
    silent: impl Future<Output = ()>,
) {
    tracing::info!(
        delay_ms = millis(delay),
        "leaving: not ready any more, still serving"
    );
    phase.send_replace(Phase::Leaving);
    tokio::time::sleep(delay).await;
    tracing::info!(timeout_ms = millis(timeout), "draining: no new connections");
    phase.send_replace(Phase::Draining);
    let began = Instant::now();
    if tokio::time::timeout(timeout, idle).await.is_err() {
        tracing::warn!("requests still in flight after drain_timeout are cut off");
    }
    phase.send_replace(Phase::Finishing);
    let left = timeout
        .saturating_sub(began.elapsed())
        .max(LEAST_TIME_FOR_CALLS);
    if tokio::time::timeout(left, silent).await.is_err() {
        tracing::warn!("calls to WeChat still in flight after drain_timeout are cut off");
    }
    phase.send_replace(Phase::Stopped);
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
