//! Coarse timeouts for the request path.
//!
//! A proxied request waits four times, each time under a timeout that almost never fires. Registering each wait with the
//! runtime's timer wheel costs more than parsing the head. Here a wait is one entry in a table; a single sweep every 100 ms
//! wakes whoever has waited too long. A timeout fires up to two ticks late, never early.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::sync::Notify;

use super::panics::faults;

const TICK_MILLIS: u64 = 100;
const TICK: Duration = Duration::from_millis(TICK_MILLIS);

/// The waits of one worker. Clones share the table.
#[derive(Clone, Default)]
pub(crate) struct Timers(Rc<Table>);

/// The wait was longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

#[derive(Default)]
struct Table {
    /// Counts sweeps, not time: it stands still while nobody waits.
    tick: Cell<u64>,
    waits: RefCell<Waits>,
    first_wait: Notify,
}

#[derive(Default)]
struct Waits {
    slots: Vec<Option<Wait>>,
    free: Vec<usize>,
}

struct Wait {
    /// The tick at which it is over.
    until: u64,
    /// By what it can be interrupted.
    idle: Option<Flag>,
    waker: Waker,
}

/// Which flag it is, by its address: whoever waits holds it, so no other can be there meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Flag(usize);

impl Flag {
    fn of(flag: &Cell<bool>) -> Self {
        Self(std::ptr::from_ref(flag).addr())
    }
}

pin_project! {
    /// A future that may take only so long. Written out, because an `async fn` would move the future once more, and many
    /// are large.
    pub(crate) struct Within<'a, F> {
        table: &'a Table,
        limit: Duration,
        idle: Option<Flag>,
        armed: Option<Armed<'a>>,
        #[pin]
        future: F,
    }
}

/// A wait in the table; leaves it when dropped.
struct Armed<'a> {
    table: &'a Table,
    slot: usize,
}

impl Timers {
    /// Runs `future`, but not for longer than `limit`.
    pub(crate) fn within<F: Future>(&self, limit: Duration, future: F) -> Within<'_, F> {
        self.wait(limit, None, future)
    }

    /// As [`Timers::within`], for a wait that also ends when [`Timers::interrupt_idle`] is called with the same flag.
    pub(crate) fn within_idle<F: Future>(
        &self,
        limit: Duration,
        ending: &Cell<bool>,
        future: F,
    ) -> Within<'_, F> {
        self.wait(limit, Some(Flag::of(ending)), future)
    }

    fn wait<F: Future>(&self, limit: Duration, idle: Option<Flag>, future: F) -> Within<'_, F> {
        Within {
            table: &self.0,
            limit,
            idle,
            armed: None,
            future,
        }
    }

    /// Ends all idle waits with this flag as if their time were up.
    pub(crate) fn interrupt_idle(&self, ending: &Cell<bool>) {
        let flag = Some(Flag::of(ending));
        for wait in self.0.waits.borrow_mut().slots.iter_mut().flatten() {
            if wait.idle == flag {
                wait.until = 0;
                wait.waker.wake_by_ref();
            }
        }
    }

    /// Sweeps for ever; one task per worker runs this.
    pub(crate) async fn run(self) {
        loop {
            while self.0.waits.borrow().is_empty() {
                self.0.first_wait.notified().await;
            }
            tokio::time::sleep(TICK).await;
            faults::strike("timers");
            let now = self.0.tick.get() + 1;
            self.0.tick.set(now);
            self.0.waits.borrow().wake_overdue(now);
        }
    }
}

impl<F: Future> Future for Within<'_, F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        match this.armed {
            None => *this.armed = Some(this.table.arm(*this.limit, *this.idle, cx.waker())),
            Some(wait) if wait.is_over(cx.waker()) => return Poll::Ready(Err(Elapsed)),
            Some(_) => {}
        }
        Poll::Pending
    }
}

impl Table {
    fn arm(&self, limit: Duration, idle: Option<Flag>, waker: &Waker) -> Armed<'_> {
        // One tick more, because the current one may be nearly over.
        let until = self.tick.get().saturating_add(ticks(limit) + 1);
        let mut waits = self.waits.borrow_mut();
        if waits.is_empty() {
            self.first_wait.notify_one();
        }
        let slot = waits.insert(Wait {
            until,
            idle,
            waker: waker.clone(),
        });
        Armed { table: self, slot }
    }
}

/// How many ticks it takes until `limit` is over; at the most half of all there are.
fn ticks(limit: Duration) -> u64 {
    const PER_SECOND: u64 = 1000 / TICK_MILLIS;
    let seconds = limit.as_secs().min(u64::MAX / 2 / PER_SECOND - 1);
    seconds * PER_SECOND + u64::from(limit.subsec_millis()).div_ceil(TICK_MILLIS)
}

impl Waits {
    fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    fn insert(&mut self, wait: Wait) -> usize {
        if let Some(slot) = self.free.pop() {
            self.slots[slot] = Some(wait);
            slot
        } else {
            self.slots.push(Some(wait));
            self.slots.len() - 1
        }
    }

    fn wake_overdue(&self, now: u64) {
        for wait in self.slots.iter().flatten().filter(|wait| wait.until <= now) {
            wait.waker.wake_by_ref();
        }
    }
}

impl Armed<'_> {
    /// Whether the wait is over; if not, the wake-up follows the future, which may have moved to another task.
    fn is_over(&self, waker: &Waker) -> bool {
        match &mut self.table.waits.borrow_mut().slots[self.slot] {
            Some(wait) => {
                wait.waker.clone_from(waker);
                wait.until <= self.table.tick.get()
            }
            None => true,
        }
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        let mut waits = self.table.waits.borrow_mut();
        waits.slots[self.slot] = None;
        waits.free.push(self.slot);
        // A burst of connections must not keep its table for ever.
        if waits.is_empty() && waits.slots.len() > 1024 {
            *waits = Waits::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<F: Future>(test: impl FnOnce(Timers) -> F) -> F::Output {
        // A sweep here would take the panic that another test has ordered for its own.
        let _alone = faults::alone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime.unwrap(), async {
            let timers = Timers::default();
            tokio::task::spawn_local(timers.clone().run());
            test(timers).await
        })
    }

    #[test]
    fn any_limit_is_a_number_of_ticks() {
        for (millis, expected) in [(0, 0), (1, 1), (100, 1), (101, 2), (999, 10), (60_000, 600)] {
            assert_eq!(ticks(Duration::from_millis(millis)), expected, "{millis}");
        }
        assert!(ticks(Duration::MAX) > u64::MAX / 4);
    }

    #[test]
    fn a_wait_that_is_long_enough_yields_its_output() {
        let out = run(|timers| async move {
            let nap = tokio::time::sleep(Duration::from_millis(900));
            timers.within(Duration::from_secs(1), nap).await
        });
        assert_eq!(out, Ok(()));
    }

    #[test]
    fn a_wait_ends_after_its_limit_and_never_before() {
        let took = run(|timers| async move {
            let start = tokio::time::Instant::now();
            assert_eq!(
                timers
                    .within(Duration::from_secs(1), std::future::pending::<()>())
                    .await,
                Err(Elapsed)
            );
            start.elapsed()
        });
        assert!(
            (Duration::from_secs(1)..=Duration::from_millis(1200)).contains(&took),
            "{took:?}"
        );
    }

    #[test]
    fn an_interruption_ends_idle_waits_with_its_flag_only() {
        run(|timers| async move {
            let (flag, another) = (Cell::new(false), Cell::new(false));
            let minute = Duration::from_secs(60);
            let idle = timers.within_idle(minute, &flag, std::future::pending::<()>());
            let nap = tokio::time::sleep(Duration::from_secs(30));
            let elsewhere = timers.within_idle(minute, &another, nap);
            let busy = timers.within(
                Duration::from_secs(60),
                tokio::time::sleep(Duration::from_secs(30)),
            );
            let interrupt = async {
                tokio::task::yield_now().await;
                timers.interrupt_idle(&flag);
            };
            let start = tokio::time::Instant::now();
            let idle = async { (idle.await, start.elapsed()) };
            let ((idle, after), elsewhere, busy, ()) =
                tokio::join!(idle, elsewhere, busy, interrupt);
            assert_eq!((idle, after), (Err(Elapsed), Duration::ZERO));
            assert_eq!((elsewhere, busy), (Ok(()), Ok(())));
        });
    }

    #[test]
    fn many_waits_end_each_in_its_own_time_and_leave_the_table_empty() {
        run(|timers| async move {
            let waits = (1..=50u64).map(|n| {
                let timers = timers.clone();
                tokio::task::spawn_local(async move {
                    let limit = Duration::from_millis(100 * n);
                    timers.within(limit, std::future::pending::<()>()).await
                })
            });
            for wait in waits.collect::<Vec<_>>() {
                assert_eq!(wait.await.unwrap(), Err(Elapsed));
            }
            assert!(timers.0.waits.borrow().is_empty());
        });
    }
}
