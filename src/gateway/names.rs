//! Where the names of servers lead: as the system says, or as it last said.
//!
//! Name servers fail more often than WeChat moves. So a name that cannot be looked up, or not soon, leads where it last
//! led; TLS proves who is there all the same. A lookup occupies a thread and cannot be stopped: all who want the same name
//! at the same time wait for one, and the thread is none of the runtime's, which would wait for it when it ends.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::oneshot;
use tower_service::Service;

use crate::resilience::SingleFlight;
use crate::telemetry::throttle::Throttle;

/// How many addresses of each family are tried. The time for connecting is divided among them, and no connection comes
/// about in a hundredth of it.
const MOST_OF_A_FAMILY: usize = 4;

type Cause = Box<dyn StdError + Send + Sync>;
type Addresses = Arc<[IpAddr]>;
type Lookup = Box<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// A resolver for hyper-util. Clones know the same names.
#[derive(Clone)]
pub(super) struct Names(Arc<Shared>);

struct Shared {
    lookup: Lookup,
    /// How long a lookup may take when there is an answer from before; `None` if none is kept.
    patience: Option<Duration>,
    lookups: SingleFlight<Arc<str>, Result<Addresses, Arc<io::Error>>>,
    /// The last answers. Held for a look, never across an await; has as many entries as there are servers configured.
    known: Mutex<HashMap<Arc<str>, Addresses>>,
    /// Names in the log that were not looked up.
    failures: Throttle<Arc<str>>,
}

impl Names {
    /// As the system says, within `patience` if there is an answer from before.
    pub(super) fn of_the_system(patience: Duration) -> Self {
        Self::by(system, patience)
    }

    /// Only to addresses like these, as the system says each time: these names are others' words, and there may be many.
    pub(super) fn only(like: fn(IpAddr) -> bool) -> Self {
        let lookup = move |name: &str| {
            let found: Vec<IpAddr> = system(name)?;
            let wanted: Vec<IpAddr> = found.iter().copied().filter(|ip| like(*ip)).collect();
            match wanted.is_empty() && !found.is_empty() {
                true => Err(io::Error::other(
                    "it leads to no address that may be connected to",
                )),
                false => Ok(wanted),
            }
        };
        Self::new(Box::new(lookup), None)
    }

    /// As `lookup` says, which may block.
    pub(super) fn by(
        lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
        patience: Duration,
    ) -> Self {
        Self::new(Box::new(lookup), Some(patience))
    }

    fn new(lookup: Lookup, patience: Option<Duration>) -> Self {
        Self(Arc::new(Shared {
            lookup,
            patience,
            lookups: SingleFlight::new(),
            known: Mutex::default(),
            failures: Throttle::default(),
        }))
    }

    async fn resolve(&self, name: Arc<str>) -> Result<Addresses, Cause> {
        let lookup = self.look_up(Arc::clone(&name));
        let Some((patience, known)) = self.0.patience.zip(self.known(&name)) else {
            return lookup.await;
        };
        let cause = match tokio::time::timeout(patience, lookup).await {
            Ok(Ok(addresses)) => return Ok(addresses),
            Ok(Err(cause)) => cause,
            Err(_) => "it took too long".into(),
        };
        if let Some(suppressed) = self.0.failures.pass(Arc::clone(&name), Instant::now()) {
            tracing::warn!(
                name = &*name,
                cause,
                suppressed,
                "this name cannot be looked up; going by the last answer"
            );
        }
        Ok(known)
    }

    async fn look_up(&self, name: Arc<str>) -> Result<Addresses, Cause> {
        let names = self.clone();
        let key = Arc::clone(&name);
        let outcome = self.0.lookups.run(key, || async move {
            let (answer, found) = oneshot::channel();
            let (shared, asked) = (Arc::clone(&names.0), Arc::clone(&name));
            let lookup = move || {
                let _nobody_waits_any_more = answer.send((shared.lookup)(&asked));
            };
            thread::Builder::new()
                .name("wx-names".to_owned())
                .spawn(lookup)?;
            let addresses = tried(&found.await.map_err(io::Error::other)??);
            if addresses.is_empty() {
                return Err(io::Error::from(io::ErrorKind::AddrNotAvailable).into());
            }
            if names.0.patience.is_some() {
                let mut known = names.0.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(name, Arc::clone(&addresses));
            }
            Ok(addresses)
        });
        match outcome.await {
            Some(outcome) => Ok(outcome?),
            None => Err("the lookup ended with the thread that waited for it".into()),
        }
    }

    fn known(&self, name: &str) -> Option<Addresses> {
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).cloned()
    }
}

impl Service<Name> for Names {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Cause>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let names = self.clone();
        Box::pin(async move {
            let addresses = names.resolve(name.as_str().into()).await?;
            // hyper-util puts the port in.
            let places = addresses.iter().map(|ip| SocketAddr::new(*ip, 0));
            Ok(places.collect::<Vec<_>>().into_iter())
        })
    }
}

fn system(name: &str) -> io::Result<Vec<IpAddr>> {
    let addresses = (name, 0).to_socket_addrs()?;
    Ok(addresses.map(|address| address.ip()).collect())
}

/// Those of an answer that are tried, in its order: the system puts the best first.
fn tried(addresses: &[IpAddr]) -> Addresses {
    let mut of_each = [0; 2];
    let mut has_room = |address: &&IpAddr| {
        let count = &mut of_each[usize::from(address.is_ipv6())];
        *count += 1;
        *count <= MOST_OF_A_FAMILY
    };
    addresses.iter().filter(&mut has_room).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(3600);

    /// Names by answers that are sent one by one; a lookup waits for the next.
    fn by_answers(patience: Duration) -> (Names, mpsc::Sender<io::Result<Vec<IpAddr>>>) {
        let (sender, answers) = mpsc::channel::<io::Result<Vec<IpAddr>>>();
        let answers = Mutex::new(answers);
        let lookup = move |_: &str| {
            let answers = answers.lock().unwrap();
            answers.recv().unwrap_or_else(|_| Ok(Vec::new()))
        };
        (Names::by(lookup, patience), sender)
    }

    fn failure() -> io::Result<Vec<IpAddr>> {
        Err(io::Error::other("SERVFAIL"))
    }

    async fn resolve(names: &Names) -> Result<Vec<IpAddr>, String> {
        let addresses = names.resolve("api.test".into()).await;
        addresses
            .map(|addresses| addresses.to_vec())
            .map_err(|cause| cause.to_string())
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_looked_up_leads_where_it_last_led() {
        let (names, answers) = by_answers(LONG);
        let elsewhere = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        for (answer, expected) in [
            (failure(), Err("SERVFAIL".to_owned())),
            (Ok(vec![]), Err("address not available".to_owned())),
            (Ok(vec![HERE]), Ok(vec![HERE])),
            (failure(), Ok(vec![HERE])),
            (Ok(vec![]), Ok(vec![HERE])),
            (Ok(vec![elsewhere]), Ok(vec![elsewhere])),
            (failure(), Ok(vec![elsewhere])),
        ] {
            answers.send(answer).unwrap();
            assert_eq!(resolve(&names).await, expected);
        }
    }

    #[tokio::test]
    async fn a_lookup_that_hangs_is_waited_for_only_where_there_is_no_answer_from_before() {
        let (names, answers) = by_answers(Duration::from_millis(1));
        let waiting = tokio::spawn({
            let names = names.clone();
            async move { resolve(&names).await }
        });
        answers.send(Ok(vec![HERE])).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(vec![HERE]));
        // Nobody answers this one.
        assert_eq!(resolve(&names).await, Ok(vec![HERE]));
        drop(answers);
    }

    #[test]
    fn a_lookup_that_hangs_does_not_keep_a_runtime_from_ending() {
        let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
        let (sender, release) = mpsc::channel::<()>();
        let release = Mutex::new(release);
        let lookup = move |_: &str| {
            begun.send(()).unwrap();
            let _ = release.lock().unwrap().recv();
            Ok(vec![HERE])
        };
        let names = Names::by(lookup, LONG);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            tokio::select! {
                answer = resolve(&names) => panic!("{answer:?}"),
                _ = has_begun.recv() => {}
            }
        });
        drop(runtime);
        drop(sender);
    }

    #[tokio::test]
    async fn a_thousand_who_want_a_name_at_once_have_it_looked_up_once() {
        let lookups = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&lookups);
        let (sender, release) = mpsc::channel::<()>();
        let release = Mutex::new(release);
        let lookup = move |_: &str| {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = release.lock().unwrap().recv();
            Ok(vec![HERE])
        };
        let names = Names::by(lookup, LONG);
        let wanting = Arc::new(AtomicUsize::new(0));
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let (names, wanting) = (names.clone(), Arc::clone(&wanting));
            all.spawn(async move {
                wanting.fetch_add(1, Ordering::SeqCst);
                resolve(&names).await
            });
        }
        // One yield lets only some of them begin, and the others would come when the lookup is over.
        while wanting.load(Ordering::SeqCst) < 1000 {
            tokio::task::yield_now().await;
        }
        drop(sender);
        let answers = all.join_all().await;
        assert!(answers.iter().all(|answer| *answer == Ok(vec![HERE])));
        assert_eq!(lookups.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn of_a_hundred_addresses_the_best_of_each_family_are_tried() {
        let v4 = |n| IpAddr::V4(Ipv4Addr::new(127, 0, 0, n));
        let v6 = |n| IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, n));
        let hundred: Vec<IpAddr> = (1..=50).map(v6).chain((1..=50).map(v4)).collect();
        let expected: Vec<IpAddr> = (1..=4).map(v6).chain((1..=4).map(v4)).collect();
        assert_eq!(*tried(&hundred), *expected);
    }
}
