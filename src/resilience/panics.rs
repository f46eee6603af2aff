//! Panics: a defect costs the request in which it is found, and nothing else.
//!
//! What panics is caught where the damage ends: at the request, at the connection, at a background task. A panic's message
//! may quote what it was about (`str` slicing does), and that may be a token; so what stands in quotes is left out of the
//! log. The place in the source is what helps.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

/// How much of a message is told.
const LONGEST: usize = 200;

thread_local! {
    /// Whether whoever panics now is caught by [`caught`].
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// Where the last panic of this thread was, if the hook saw it.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Panicked {
    message: String,
    place: Option<String>,
}

pin_project! {
    /// A future whose panics are caught. Written out, because an `async fn` would hold the future twice, and it is large.
    pub(crate) struct Caught<F> {
        #[pin]
        future: F,
    }
}

/// The output of `future`, or the panic in which it ended.
///
/// What the future has lent is whole again: a panic drops what it holds, guards among it.
pub(crate) fn caught<F: Future>(future: F) -> Caught<F> {
    Caught { future }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.project().future;
        let before = CATCHING.replace(true);
        let polled = panic::catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
        CATCHING.set(before);
        match polled {
            Ok(poll) => poll.map(Ok),
            Err(payload) => Poll::Ready(Err(Panicked::of(&*payload))),
        }
    }
}

/// From now on a panic of this process is one line of the log, not text on standard error. For a process of our own: a
/// program that embeds the sidecar decides for itself.
pub(crate) fn log_panics() {
    panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let place = info.location().map(ToString::to_string);
        if CATCHING.get() {
            // Whoever catches it knows which request it was, and tells.
            PLACE.set(place);
            return;
        }
        let panicked = Panicked {
            message: message(info.payload()),
            place,
        };
        tracing::error!(error = %panicked, "panicked");
    }));
}

impl Panicked {
    fn of(payload: &(dyn Any + Send)) -> Self {
        Self {
            message: message(payload),
            place: PLACE.take(),
        }
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = match payload.downcast_ref::<&'static str>() {
        Some(text) => text,
        None => payload.downcast_ref::<String>().map_or("", String::as_str),
    };
    text.split(['`', '"'])
        .next()
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST)
        .collect()
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panicked: {}", self.message)?;
        match &self.place {
            Some(place) => write!(f, " at {place}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Panicked {}

/// Panics that tests order; in a build that is not for tests there are none.
pub(crate) mod faults {
    #[cfg(test)]
    static ARMED: std::sync::Mutex<Vec<(&'static str, usize)>> = std::sync::Mutex::new(Vec::new());

    /// Orders are for the whole process, and whoever comes by first takes them: who gives some, or comes by a place without
    /// wanting any, is alone with this.
    #[cfg(test)]
    pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
        static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        ONE.lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    #[cfg(test)]
    type Held = (&'static str, std::sync::mpsc::Receiver<()>);

    #[cfg(test)]
    static HELD: std::sync::Mutex<Vec<Held>> = std::sync::Mutex::new(Vec::new());

    /// Has the thread of whoever comes to `point` next stand still there, until what is returned is dropped.
    #[cfg(test)]
    pub(crate) fn hold(point: &'static str) -> std::sync::mpsc::Sender<()> {
        let (release, released) = std::sync::mpsc::channel();
        HELD.lock().unwrap().push((point, released));
        release
    }

    /// Has whoever comes to `point` next panic, once, after so many have passed.
    #[cfg(test)]
    pub(crate) fn arm(point: &'static str, passing: usize) {
        ARMED.lock().unwrap().push((point, passing));
    }

    /// A place where a test may have it panic.
    #[cfg(test)]
    pub(crate) fn strike(point: &'static str) {
        let struck = {
            let mut armed = ARMED.lock().unwrap();
            let place = armed.iter().position(|(armed, _)| *armed == point);
            match place.map(|place| (place, armed[place].1)) {
                None => false,
                Some((place, 0)) => {
                    armed.remove(place);
                    true
                }
                Some((place, _)) => {
                    armed[place].1 -= 1;
                    false
                }
            }
        };
        assert!(!struck, "as the test wants, at `{point}`");
        let held = {
            let mut held = HELD.lock().unwrap();
            let place = held.iter().position(|(held, _)| *held == point);
            place.map(|place| held.remove(place).1)
        };
        if let Some(released) = held {
            let _released = released.recv();
        }
    }

    /// A place where a test may have it panic.
    #[cfg(not(test))]
    #[inline(always)]
    pub(crate) fn strike(_point: &'static str) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_panic_passes_and_what_does_is_told_without_what_it_quotes() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let text = String::from("é and a token");
        let sliced = caught(async { text[1..].len() }).await.unwrap_err();
        assert!(sliced.message.contains("char boundary"), "{sliced}");
        assert!(!sliced.to_string().contains("token"), "{sliced}");
        let long = caught(async { panic!("{}\r\n", "x".repeat(999)) }).await;
        let long: Panicked = long.map(|(): ()| ()).unwrap_err();
        assert_eq!(long.message, "x".repeat(LONGEST));
        assert!(!CATCHING.get());
    }
}
