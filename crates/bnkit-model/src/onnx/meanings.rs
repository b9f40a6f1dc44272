//! What the names of a scope mean. There are as many as values, so the table holds ids alone: the texts are in the values.

use std::hash::{BuildHasher, RandomState};

use hashbrown::hash_table::{Entry, HashTable};

use super::model::{Value, ValueId};

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

#[cfg(test)]
mod tests {
    use super::*;
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
