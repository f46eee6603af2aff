//! Keeping going when others do not: coarse timeouts, single flight.

mod single_flight;
mod timers;

pub(crate) use single_flight::SingleFlight;
pub(crate) use timers::Timers;
