//! What was used last stays: entries with a size and an end, as many as fit.
//!
//! The order of use, the sizes and the ends are one table for any kind of value, so that a kind costs little code.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Key;
use crate::clock::Timestamp;

/// Entries by key.
pub(super) struct Lru<V> {
    values: HashMap<Key, V>,
    order: Order,
}

/// When which entry was used, how large it is and when it ends.
struct Order {
    capacity: u64,
    bytes: u64,
    slots: HashMap<Key, Slot>,
    /// From the one that was used longest ago.
    by_use: BTreeMap<i64, Key>,
    by_end: BTreeSet<(Timestamp, Key)>,
    first: i64,
    last: i64,
}

#[derive(Clone, Copy)]
struct Slot {
    bytes: u64,
    used: i64,
    ends_at: Timestamp,
}

impl<V> Lru<V> {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            values: HashMap::new(),
            order: Order {
                capacity,
                bytes: 0,
                slots: HashMap::new(),
                by_use: BTreeMap::new(),
                by_end: BTreeSet::new(),
                first: 0,
                last: 0,
            },
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.order.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn capacity(&self) -> u64 {
        self.order.capacity
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.values.contains_key(key)
    }

    /// An entry that has not ended, which is used by that.
    pub(super) fn get(&mut self, key: &Key, now: Timestamp) -> Option<&V> {
        self.order.touch(key, now).then(|| &self.values[key])
    }

    /// Keeps a value in the place of the one before. What makes room for it is given back; that is itself if it is larger
    /// than all there is.
    pub(super) fn insert(
        &mut self,
        key: Key,
        value: V,
        bytes: u64,
        ends_at: Timestamp,
    ) -> Vec<(Key, V)> {
        self.remove(&key);
        self.order.last += 1;
        let used = self.order.last;
        self.place(key, value, used, bytes, ends_at)
    }

    /// As [`Lru::insert`], as if it had been used before all others. One that is there stays.
    pub(super) fn insert_oldest(
        &mut self,
        key: Key,
        value: V,
        bytes: u64,
        ends_at: Timestamp,
    ) -> Vec<(Key, V)> {
        if self.has(&key) {
            return Vec::new();
        }
        self.order.first -= 1;
        let used = self.order.first;
        self.place(key, value, used, bytes, ends_at)
    }

    fn place(
        &mut self,
        key: Key,
        value: V,
        used: i64,
        bytes: u64,
        ends_at: Timestamp,
    ) -> Vec<(Key, V)> {
        if bytes > self.order.capacity {
            return vec![(key, value)];
        }
        let slot = Slot {
            bytes,
            used,
            ends_at,
        };
        self.order.add(key, slot);
        self.values.insert(key, value);
        self.shrink()
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<V> {
        self.order.remove(key);
        self.values.remove(key)
    }

    /// Changes how much may be kept; what is too much is given back.
    pub(super) fn resize(&mut self, capacity: u64) -> Vec<(Key, V)> {
        self.order.capacity = capacity;
        self.shrink()
    }

    /// Takes out what has ended.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<(Key, V)> {
        let keys = self.order.ended(now);
        self.take(&keys)
    }

    fn shrink(&mut self) -> Vec<(Key, V)> {
        let keys = self.order.surplus();
        self.take(&keys)
    }

    fn take(&mut self, keys: &[Key]) -> Vec<(Key, V)> {
        let taken = keys.iter().filter_map(|key| {
            let value = self.values.remove(key)?;
            Some((*key, value))
        });
        taken.collect()
    }
}

impl Order {
    fn touch(&mut self, key: &Key, now: Timestamp) -> bool {
        let Some(slot) = self.slots.get_mut(key).filter(|slot| slot.ends_at > now) else {
            return false;
        };
        self.by_use.remove(&slot.used);
        self.last += 1;
        slot.used = self.last;
        self.by_use.insert(self.last, *key);
        true
    }

    fn add(&mut self, key: Key, slot: Slot) {
        self.bytes += slot.bytes;
        self.slots.insert(key, slot);
        self.by_use.insert(slot.used, key);
        self.by_end.insert((slot.ends_at, key));
    }

    fn remove(&mut self, key: &Key) {
        if let Some(slot) = self.slots.remove(key) {
            self.bytes -= slot.bytes;
            self.by_use.remove(&slot.used);
            self.by_end.remove(&(slot.ends_at, *key));
        }
    }

    fn surplus(&mut self) -> Vec<Key> {
        let mut keys = Vec::new();
        while self.bytes > self.capacity {
            let Some((_, &key)) = self.by_use.first_key_value() else {
                break;
            };
            self.remove(&key);
            keys.push(key);
        }
        keys
    }

    fn ended(&mut self, now: Timestamp) -> Vec<Key> {
        let mut keys = Vec::new();
        while let Some(&(ends_at, key)) = self.by_end.first() {
            if ends_at > now {
                break;
            }
            self.remove(&key);
            keys.push(key);
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1000);
    const LATER: Timestamp = Timestamp::from_millis(2000);

    const NOBODY: [u8; 0] = [];

    fn key(name: u8) -> Key {
        Key([name; 16])
    }

    fn names(taken: Vec<(Key, ())>) -> Vec<u8> {
        taken.into_iter().map(|(Key(name), ())| name[0]).collect()
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut lru = Lru::new(10);
        for name in [1, 2, 3] {
            assert_eq!(names(lru.insert(key(name), (), 3, LATER)), NOBODY);
        }
        assert!(lru.get(&key(1), NOW).is_some());
        assert_eq!(names(lru.insert(key(4), (), 4, LATER)), [2]);
        assert_eq!((lru.bytes(), lru.len()), (10, 3));
        assert_eq!(names(lru.insert(key(5), (), 10, LATER)), [3, 1, 4]);
        assert_eq!(names(lru.insert(key(6), (), 11, LATER)), [6]);
        assert_eq!((lru.bytes(), lru.len()), (10, 1));
    }

    #[test]
    fn a_new_value_takes_the_place_of_the_old_one() {
        let mut lru = Lru::new(10);
        lru.insert(key(1), (), 6, LATER);
        assert_eq!(names(lru.insert(key(1), (), 7, LATER)), NOBODY);
        assert_eq!((lru.bytes(), lru.len()), (7, 1));
        assert!(lru.remove(&key(1)).is_some());
        assert!(lru.remove(&key(1)).is_none());
        assert_eq!((lru.bytes(), lru.len()), (0, 0));
    }

    #[test]
    fn what_was_there_before_goes_first() {
        let mut lru = Lru::new(10);
        lru.insert(key(1), (), 4, LATER);
        for name in [2, 3, 1] {
            lru.insert_oldest(key(name), (), 3, LATER);
        }
        assert_eq!(lru.bytes(), 10);
        assert_eq!(names(lru.insert(key(4), (), 3, LATER)), [3]);
    }

    #[test]
    fn what_has_ended_is_not_found_and_can_be_taken_out() {
        let mut lru = Lru::new(10);
        lru.insert(key(1), (), 3, LATER);
        lru.insert(key(2), (), 3, LATER.plus(std::time::Duration::from_secs(1)));
        assert!(lru.get(&key(1), LATER).is_none());
        assert!(lru.get(&key(2), LATER).is_some());
        assert_eq!(names(lru.expire(NOW)), NOBODY);
        assert_eq!(names(lru.expire(LATER)), [1]);
        assert_eq!(lru.bytes(), 3);
    }

    #[test]
    fn less_room_takes_effect_at_once() {
        let mut lru = Lru::new(10);
        for name in [1, 2, 3] {
            lru.insert(key(name), (), 3, LATER);
        }
        assert_eq!(names(lru.resize(5)), [1, 2]);
        assert_eq!(names(lru.resize(0)), [3]);
        assert_eq!(names(lru.insert(key(1), (), 1, LATER)), [1]);
    }
}
