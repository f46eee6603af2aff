//! Maps that are bounded: by weight, giving up what has not been used for the longest time, and by age.
//!
//! Why not moka, which the sessions use: the owner of an [`Lru`] must do something with what is given up (remove a file, count
//! it) in the same moment, and a few thousand entries behind a lock need none of its threads of upkeep, nor the 60 KB of code
//! that each of its maps is.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Entries by their key. Whoever shares one puts it behind a lock.
pub(crate) struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// By when they were last used.
    order: BTreeMap<u64, K>,
    uses: u64,
    weight: u64,
    most: u64,
}

struct Entry<V> {
    value: V,
    weight: u64,
    used: u64,
}

/// What was said not long ago. Shared by all threads.
pub(crate) struct Recent<K, V> {
    /// Guards the map, for a look or a change.
    entries: Mutex<Lru<K, (V, Instant)>>,
    ttl: Duration,
}

impl<K: Clone + Eq + Hash, V: Clone> Recent<K, V> {
    /// An empty memory of `most` entries, each for so long.
    pub(crate) fn new(most: u64, ttl: Duration) -> Self {
        Self {
            entries: Mutex::new(Lru::new(most)),
            ttl,
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, said) = entries.get(key)?;
        (said.elapsed() < self.ttl).then(|| value.clone())
    }

    pub(crate) fn insert(&self, key: K, value: V) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.put(key, (value, Instant::now()), 1);
    }
}

impl<K: Clone + Eq + Hash, V> Lru<K, V> {
    /// An empty one that holds `most` at the most.
    pub(crate) fn new(most: u64) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            weight: 0,
            most,
        }
    }

    /// The entry of `key`, which is used by that.
    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        let entry = self.entries.get_mut(key)?;
        self.order.remove(&entry.used);
        self.uses += 1;
        entry.used = self.uses;
        self.order.insert(self.uses, key.clone());
        Some(&entry.value)
    }

    /// Adds or replaces an entry; gives those that had to make room, and itself if there is none for it at all.
    pub(crate) fn put(&mut self, key: K, value: V, weight: u64) -> Vec<(K, V)> {
        self.remove(&key);
        if weight > self.most {
            return vec![(key, value)];
        }
        self.uses += 1;
        self.order.insert(self.uses, key.clone());
        self.weight += weight;
        let used = self.uses;
        let entry = Entry {
            value,
            weight,
            used,
        };
        self.entries.insert(key, entry);
        let mut given_up = Vec::new();
        while self.weight > self.most
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            let oldest = oldest.clone();
            given_up.extend(self.remove(&oldest).map(|value| (oldest, value)));
        }
        given_up
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.used);
        self.weight -= entry.weight;
        Some(entry.value)
    }

    /// Takes out all entries that are `gone`.
    pub(crate) fn purge(&mut self, gone: impl Fn(&V) -> bool) -> Vec<(K, V)> {
        let gone: Vec<K> = self
            .entries
            .iter()
            .filter(|(_, entry)| gone(&entry.value))
            .map(|(key, _)| key.clone())
            .collect();
        gone.into_iter()
            .filter_map(|key| self.remove(&key).map(|value| (key, value)))
            .collect()
    }

    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_the_longest_time_makes_room() {
        let mut lru = Lru::new(10);
        assert!(lru.put("a", 1, 4).is_empty());
        assert!(lru.put("b", 2, 4).is_empty());
        assert_eq!(lru.get(&"a"), Some(&1));
        assert_eq!(lru.put("c", 3, 4), [("b", 2)]);
        assert_eq!((lru.len(), lru.weight()), (2, 8));
        assert_eq!(lru.put("d", 4, 10), [("a", 1), ("c", 3)]);
        assert_eq!(lru.get(&"b"), None);
    }

    #[test]
    fn what_is_too_heavy_comes_back_and_drives_nobody_out() {
        let mut lru = Lru::new(10);
        lru.put("a", 1, 10);
        assert_eq!(lru.put("b", 2, 11), [("b", 2)]);
        assert_eq!(lru.get(&"a"), Some(&1));
    }

    #[test]
    fn a_new_value_takes_the_place_of_the_old_one() {
        let mut lru = Lru::new(10);
        lru.put("a", 1, 3);
        assert!(lru.put("a", 2, 9).is_empty());
        assert_eq!(lru.weight(), 9);
        assert_eq!(lru.get(&"a"), Some(&2));
        assert_eq!(lru.remove(&"a"), Some(2));
        assert_eq!((lru.len(), lru.weight(), lru.order.len()), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_said_is_known_for_so_long_and_no_more_than_so_much() {
        let recent = Recent::new(2, Duration::from_secs(60));
        recent.insert("a", 1);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(recent.get(&"a"), Some(1));
        recent.insert("b", 2);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((recent.get(&"a"), recent.get(&"b")), (None, Some(2)));
        recent.insert("c", 3);
        recent.insert("d", 4);
        assert_eq!(recent.get(&"b"), None);
        assert_eq!((recent.get(&"c"), recent.get(&"d")), (Some(3), Some(4)));
    }

    #[test]
    fn what_is_gone_is_taken_out() {
        let mut lru = Lru::new(10);
        for n in 0..5 {
            lru.put(n, n, 1);
        }
        let mut gone = lru.purge(|n| n % 2 == 0);
        gone.sort_unstable();
        assert_eq!(gone, [(0, 0), (2, 2), (4, 4)]);
        assert_eq!((lru.len(), lru.weight()), (2, 2));
    }
}
