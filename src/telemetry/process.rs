//! What the kernel knows of this process, as Prometheus' own libraries call it.
//!
//! The collector of the crate counts CPU time in whole seconds, so that a rate over a minute is nothing or a jump. The clock of the
//! process tells it to the nanosecond.

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Counter, MetricFamily};
use rustix::time::{ClockId, clock_gettime};

const CPU: &str = "process_cpu_seconds_total";

/// The facts.
pub(super) struct ProcessFacts(ProcessCollector);

impl ProcessFacts {
    pub(super) fn new() -> Self {
        Self(ProcessCollector::for_self())
    }
}

impl Collector for ProcessFacts {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        for family in families.iter_mut().filter(|it| it.name() == CPU) {
            for metric in family.mut_metric() {
                let mut spent = Counter::default();
                spent.set_value(cpu_seconds());
                metric.set_counter(spent);
            }
        }
        families
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a process that runs for 100 days is exact to the nanosecond"
)]
fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_told_in_fractions_of_a_second() {
        let families = ProcessFacts::new().collect();
        let cpu = families.iter().find(|it| it.name() == CPU);
        let told = cpu.expect("it is among them").get_metric()[0].get_counter();
        let (told, now) = (told.get_value(), cpu_seconds());
        assert!(told > 0.0 && told <= now, "{told}, and {now} later");
        let grows = std::iter::repeat_with(cpu_seconds).take_while(|it| it.fract() == 0.0);
        assert!(grows.take(1000).count() < 1000, "whole seconds only");
    }
}
