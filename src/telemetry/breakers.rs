//! The states of breakers at the moment of the scrape.
//!
//! Asked for then and not written at each change, because a breaker that has been open until midnight is closed after it
//! though no call has come yet that would notice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntGaugeVec;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::apis::Apis;
use super::families::{self, accepted};

/// The state of one breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSeen {
    /// The API's path from the table of endpoints, `other`, or `all`.
    pub cgi_path: &'static str,
    /// What it is about.
    pub class: &'static str,
    /// 0 closed, 1 half-open, 2 open.
    pub state: i64,
}

type Source = Box<dyn Fn() -> Vec<BreakerSeen> + Send + Sync>;

/// The gauge. Clones have the same source.
#[derive(Clone)]
pub(super) struct BreakerStates {
    gauge: IntGaugeVec,
    /// Which APIs have a label of their own.
    apis: Arc<Apis>,
    /// Guards where the states come from; held while they are asked for.
    source: Arc<Mutex<Option<Source>>>,
}

impl BreakerStates {
    pub(super) fn new(apis: Arc<Apis>) -> Self {
        Self {
            gauge: accepted(families::BREAKER_STATE.gauges_of_collector()),
            apis,
            source: Arc::default(),
        }
    }

    /// Has the states come from `source`, which takes the place of the one before.
    pub(super) fn come_from(&self, source: impl Fn() -> Vec<BreakerSeen> + Send + Sync + 'static) {
        let mut place = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Some(Box::new(source));
    }
}

impl Collector for BreakerStates {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = source.as_ref().map(|source| source()).unwrap_or_default();
        // All APIs without a label of their own share one; the worst of them is told.
        let mut worst = BTreeMap::new();
        for BreakerSeen {
            cgi_path,
            class,
            state,
        } in seen
        {
            let cgi_path = match cgi_path {
                "all" => cgi_path,
                path => self.apis.label(path),
            };
            let told = worst.entry((cgi_path, class)).or_insert(state);
            *told = state.max(*told);
        }
        self.gauge.reset();
        for ((cgi_path, class), state) in worst {
            self.gauge.with_label_values(&[cgi_path, class]).set(state);
        }
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_are_those_of_now_and_of_one_label_the_worst() {
        let states = BreakerStates::new(Arc::default());
        assert!(states.collect()[0].get_metric().is_empty());
        let seen = |cgi_path, state| BreakerSeen {
            cgi_path,
            class: "transient",
            state,
        };
        let values = || {
            let families = states.collect();
            let gauges = families[0].get_metric().iter();
            let mut values: Vec<_> = gauges
                .map(|metric| {
                    let labels = metric.get_label().iter();
                    let label = labels.map(|pair| pair.value().to_owned()).next();
                    (label.unwrap(), metric.get_gauge().get_value())
                })
                .collect();
            values.sort_by(|a, b| a.0.cmp(&b.0));
            values
        };
        states.come_from(move || vec![seen("other", 0), seen("other", 2), seen("other", 1)]);
        assert_eq!(values(), [("other".to_owned(), 2.0)]);
        states.come_from(move || vec![seen("all", 1)]);
        assert_eq!(values(), [("all".to_owned(), 1.0)]);
    }
}
