//! How slowly a client may send a body.
//!
//! A silence is ended by `idle_timeout`, but a byte now and then is none: who drips holds a connection, and often one of
//! the app's, for hours. So all the waiting within one body has a limit that grows with what has come.

use std::time::Duration;

/// Bytes for each second of waiting, besides one whole silence; what Apache's mod_reqtimeout asks for.
const LEAST_PER_SECOND: u64 = 500;

/// The waiting within one body.
pub(crate) struct Pace {
    silence: Duration,
    waited: Duration,
    /// Whether it may take its time: a conversation, where the other side has its say in between.
    free: bool,
}

impl Pace {
    pub(crate) fn new(silence: Duration) -> Self {
        Self {
            silence,
            waited: Duration::ZERO,
            free: false,
        }
    }

    /// From now on only silence counts.
    pub(crate) fn set_free(&mut self) {
        self.free = true;
    }

    /// How long the next bytes may take, after so many.
    pub(crate) fn limit(&self, received: u64) -> Duration {
        if self.free {
            return self.silence;
        }
        let earned = Duration::from_millis(received.saturating_mul(1000) / LEAST_PER_SECOND);
        let left = (self.silence + earned).saturating_sub(self.waited);
        left.min(self.silence)
    }

    /// Counts a wait.
    pub(crate) fn count(&mut self, wait: Duration) {
        self.waited += wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_drip_runs_out_of_time_and_a_slow_line_does_not() {
        let mut drip = Pace::new(60 * SECOND);
        let mut received = 0;
        while drip.limit(received) >= 10 * SECOND {
            drip.count(10 * SECOND);
            received += 1;
        }
        assert_eq!(received, 6);

        let mut slow = Pace::new(60 * SECOND);
        for second in 0..36_000 {
            assert_eq!(slow.limit(second * 600), 60 * SECOND, "{second}");
            slow.count(SECOND);
        }
    }

    #[test]
    fn a_conversation_may_take_its_time() {
        let mut pace = Pace::new(SECOND);
        pace.set_free();
        pace.count(100 * SECOND);
        assert_eq!(pace.limit(0), SECOND);
    }
}
