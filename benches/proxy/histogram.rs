//! Latencies in log-linear buckets: 64 to the octave, so no figure is off by more than 1.6 %.
//!
//! Recording is an index and an increment, with no allocation, because it happens between two requests of the
//! generator, which shares its core with the app.

/// Buckets to the octave, as a power of two.
const BITS: u32 = 6;
const SUB: u64 = 1 << BITS;

/// Counts of nanosecond values.
#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Histogram {
        let buckets = (u64::BITS - BITS + 1) as usize * SUB as usize;
        Histogram {
            counts: vec![0; buckets],
            total: 0,
            max: 0,
        }
    }

    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.total += 1;
        self.max = self.max.max(nanoseconds);
    }

    /// The value that `share` (0 to 1) of all values do not exceed, in nanoseconds; 0 when nothing was recorded.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return highest_in(index).min(self.max);
            }
        }
        self.max
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }
}

/// Values below [`SUB`] have a bucket each; above, the leading `BITS + 1` bits choose it.
fn bucket(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let shift = u64::BITS - value.leading_zeros() - (BITS + 1);
    (u64::from(shift) * SUB + (value >> shift)) as usize
}

/// The inverse of [`bucket`]: the largest value that falls into it.
fn highest_in(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB {
        return index;
    }
    let shift = index / SUB - 1;
    let leading = index - shift * SUB;
    (leading << shift) | ((1 << shift) - 1)
}
