//! Single flight: callers who ask for the same thing at the same time share one answer.
//!
//! The work runs as a task of its own, so a caller who gives up (a phone that loses its network) cancels nothing for the
//! others, and nothing that has already been spent at WeChat.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::telemetry::carried;

/// Flights by key. Shared by all workers.
pub(crate) struct SingleFlight<K, V> {
    /// Guards only the map of flights; held for a look-up, never across an await.
    flights: Arc<Mutex<Flights<K, V>>>,
}

type Flights<K, V> = HashMap<K, watch::Receiver<Option<V>>>;

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        Self {
            flights: Arc::default(),
        }
    }

    /// Joins the flight of `key`, or starts it with `work`. `None` if the work panicked.
    pub(crate) async fn run<F>(&self, key: K, work: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut landing = self.join_or_start(key, work);
        let answer = landing.wait_for(Option::is_some).await.ok()?;
        answer.clone()
    }

    /// Starts the flight of `key` with `work` unless there is one, and does not wait for it.
    pub(crate) fn begin<F>(&self, key: K, work: impl FnOnce() -> F)
    where
        F: Future<Output = V> + Send + 'static,
    {
        let _nobody_waits = self.join_or_start(key, work);
    }

    fn join_or_start<F>(&self, key: K, work: impl FnOnce() -> F) -> watch::Receiver<Option<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key) {
            return flight.clone();
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(key.clone(), receiver.clone());
        let landed = Landing {
            key,
            flights: Arc::clone(&self.flights),
        };
        // It is done for whoever came first.
        let work = carried(work());
        tokio::spawn(async move {
            let answer = work.await;
            // Removed first: whoever comes after the answer is there starts anew and sees what the work has stored.
            drop(landed);
            let _nobody_waits_any_more = sender.send(Some(answer));
        });
        receiver
    }
}

/// Takes the flight off the map when the work ends, even by a panic.
struct Landing<K: Eq + Hash, V> {
    key: K,
    flights: Arc<Mutex<Flights<K, V>>>,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn fifty_callers_cause_one_flight() {
        let flights = Arc::new(SingleFlight::new());
        let count = Arc::new(AtomicUsize::new(0));
        let callers = (0..50).map(|_| {
            let (flights, count) = (Arc::clone(&flights), Arc::clone(&count));
            tokio::spawn(async move {
                let work = move || async move {
                    tokio::task::yield_now().await;
                    count.fetch_add(1, Ordering::SeqCst)
                };
                flights.run("code", work).await
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            assert_eq!(caller.await.unwrap(), Some(0));
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert!(flights.flights.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_panic_in_the_work_is_told_to_all_and_does_not_block_the_next() {
        let flights = SingleFlight::<&str, u8>::new();
        assert_eq!(
            flights
                .run("k", || async { panic!("as the test wants") })
                .await,
            None
        );
        assert_eq!(flights.run("k", || async { 7 }).await, Some(7));
    }

    #[tokio::test]
    async fn a_caller_who_gives_up_does_not_cancel_the_work() {
        let flights = Arc::new(SingleFlight::new());
        let (go, gate) = tokio::sync::oneshot::channel::<()>();
        let first = flights.run("k", || async move {
            let _ = gate.await;
            1
        });
        assert!(
            tokio::time::timeout(std::time::Duration::ZERO, first)
                .await
                .is_err()
        );
        let second = flights.run("k", || async { 2 });
        go.send(()).unwrap();
        assert_eq!(second.await, Some(1));
    }
}
