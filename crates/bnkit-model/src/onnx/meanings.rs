//! What the names of a scope mean, and how many values or nodes bear a name. There are as many as values, so the tables hold ids alone: the
//! texts are in the values.

use std::hash::{BuildHasher, RandomState};

use hashbrown::hash_table::{Entry, HashTable};

use super::model::{Node, Value, ValueId};

/// What each name of a scope means. The values are those of the model, always the same list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meanings {
    ids: HashTable<ValueId>,
    hasher: RandomState,
}

impl Meanings {
    /// The value that `name` means.
    pub(crate) fn get(&self, name: &str, values: &[Value]) -> Option<ValueId> {
        let bears_it = |id: &ValueId| values[id.index()].name == *name;
        self.ids.find(self.hasher.hash_one(name), bears_it).copied()
    }

    /// From now on the name of `id` means `id`. What it meant before, if anything.
    pub(super) fn insert(&mut self, id: ValueId, values: &[Value]) -> Option<ValueId> {
        let name = |id: &ValueId| values[id.index()].name.as_str();
        let hash = |id: &ValueId| self.hasher.hash_one(name(id));
        let wanted = name(&id);
        match self
            .ids
            .entry(hash(&id), |other| name(other) == wanted, hash)
        {
            Entry::Occupied(mut entry) => Some(std::mem::replace(entry.get_mut(), id)),
            Entry::Vacant(entry) => {
                entry.insert(id);
                None
            }
        }
    }

    /// The name of `id` means nothing any more, if it meant `id`.
    pub(super) fn remove(&mut self, id: ValueId, values: &[Value]) {
        let hash = self.hasher.hash_one(values[id.index()].name.as_str());
        if let Ok(entry) = self.ids.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
    }
}

/// What has a name.
pub(crate) trait Named {
    fn name(&self) -> &str;
}

impl Named for Value {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for Node {
    fn name(&self) -> &str {
        &self.name
    }
}

/// How many values, or nodes, bear each name. They are those of the model, always the same list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bearers {
    /// The place of one that bears the name, or did, and how many do.
    counts: HashTable<(u32, u32)>,
    hasher: RandomState,
}

impl Bearers {
    /// How many bear `name`.
    pub(crate) fn count(&self, name: &str, list: &[impl Named]) -> u32 {
        let is_it = |&(place, _): &(u32, u32)| list[place as usize].name() == name;
        let found = self.counts.find(self.hasher.hash_one(name), is_it);
        found.map_or(0, |&(_, count)| count)
    }

    /// The one at `index` bears its name from now on.
    pub(super) fn add(&mut self, index: usize, list: &[impl Named]) {
        let name = |&(place, _): &(u32, u32)| list[place as usize].name();
        let wanted = (u32::try_from(index).expect("ids are 32 bits"), 1);
        let hash = |entry: &(u32, u32)| self.hasher.hash_one(name(entry));
        let is_it = |other: &(u32, u32)| name(other) == name(&wanted);
        match self.counts.entry(hash(&wanted), is_it, hash) {
            Entry::Occupied(mut entry) => entry.get_mut().1 += 1,
            Entry::Vacant(entry) => {
                entry.insert(wanted);
            }
        }
    }

    /// The one at `index` bears its name no longer.
    pub(super) fn remove(&mut self, index: usize, list: &[impl Named]) {
        let name = list[index].name();
        let is_it = |&(place, _): &(u32, u32)| list[place as usize].name() == name;
        let Ok(mut entry) = self.counts.find_entry(self.hasher.hash_one(name), is_it) else {
            return;
        };
        match entry.get_mut() {
            (_, 1) => {
                entry.remove();
            }
            (_, count) => *count -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearers_of_a_name_come_and_go() {
        let value = |name: &str| Value::new(ScopeId::new(0), name.into(), Origin::Input);
        let values = ["a", "b", "a", "a"].map(value);
        let mut bearers = Bearers::default();
        for index in 0..4 {
            bearers.add(index, &values);
        }
        let counts = |bearers: &Bearers| ["a", "b", "c"].map(|name| bearers.count(name, &values));
        assert_eq!(counts(&bearers), [3, 1, 0]);
        // The first may go; the others still bear the name.
        bearers.remove(0, &values);
        bearers.remove(1, &values);
        assert_eq!(counts(&bearers), [2, 0, 0]);
        bearers.remove(3, &values);
        bearers.remove(2, &values);
        bearers.add(1, &values);
        assert_eq!(counts(&bearers), [0, 1, 0]);
    }
    use crate::onnx::model::{Origin, ScopeId};

    #[test]
    fn names_mean_what_was_said_last() {
        let value = |name: &str| Value::new(ScopeId::new(0), name.into(), Origin::Input);
        let mut values: Vec<Value> = (0..1000).map(|index| value(&format!("v{index}"))).collect();
        values.push(value("v7"));
        let mut meanings = Meanings::default();
        let id = ValueId::new;
        for index in 0..1000 {
            assert_eq!(meanings.insert(id(index), &values), None);
        }
        assert_eq!(meanings.insert(id(1000), &values), Some(id(7)));
        assert_eq!(meanings.get("v7", &values), Some(id(1000)));
        // It means another by now.
        meanings.remove(id(7), &values);
        assert_eq!(meanings.get("v7", &values), Some(id(1000)));
        meanings.remove(id(1000), &values);
        assert_eq!(meanings.get("v7", &values), None);
        assert_eq!(meanings.get("v999", &values), Some(id(999)));
    }
}
