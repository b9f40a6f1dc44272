//! Who reads a value: nearly always one node, so that one is kept without a list.

use std::collections::VecDeque;
use std::iter::Chain;
use std::slice;

use super::model::{NodeId, ScopeId};

/// Something that reads a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Use {
    /// An input slot of a node, of this scope or of a scope inside it.
    Node(NodeId, usize),
    /// An output slot of a scope.
    Output(ScopeId, usize),
    /// A quantization annotation of a scope, or training information: something that is carried, not understood.
    Annotation(ScopeId),
}

/// The readers of a value, in the order in which they were found.
#[derive(Debug, Clone, Default)]
pub struct Uses(Readers);

#[derive(Debug, Clone, Default)]
enum Readers {
    #[default]
    None,
    One(Use),
    /// A constant may have as many readers as there are nodes, and they leave in about the order in which they came.
    // Boxed, so that the others take no more room than a reader does.
    #[expect(clippy::box_collection)]
    Many(Box<VecDeque<Use>>),
}

impl Uses {
    /// How many there are.
    pub fn len(&self) -> usize {
        let (first, second) = self.slices();
        first.len() + second.len()
    }

    /// Whether nobody reads the value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The readers.
    pub fn iter(&self) -> Chain<slice::Iter<'_, Use>, slice::Iter<'_, Use>> {
        let (first, second) = self.slices();
        first.iter().chain(second)
    }

    /// The reader, if there is one and no other.
    pub fn only(&self) -> Option<Use> {
        (self.len() == 1).then(|| self.iter().next().copied())?
    }

    fn slices(&self) -> (&[Use], &[Use]) {
        match &self.0 {
            Readers::None => (&[], &[]),
            Readers::One(user) => (slice::from_ref(user), &[]),
            Readers::Many(list) => list.as_slices(),
        }
    }

    pub(super) fn push(&mut self, user: Use) {
        match &mut self.0 {
            Readers::None => self.0 = Readers::One(user),
            Readers::One(first) => {
                self.0 = Readers::Many(Box::new([*first, user].into()));
            }
            Readers::Many(list) => list.push_back(user),
        }
    }

    /// Takes a reader off.
    pub(super) fn remove(&mut self, user: Use) {
        match &mut self.0 {
            Readers::One(only) if *only == user => self.0 = Readers::None,
            Readers::Many(list) => {
                if let Some(at) = list.iter().position(|other| *other == user) {
                    list.remove(at);
                }
            }
            _ => {}
        }
    }

    /// Puts `new` where `old` is.
    pub(super) fn replace(&mut self, old: Use, new: Use) {
        let place = match &mut self.0 {
            Readers::None => None,
            Readers::One(user) => Some(user).filter(|user| **user == old),
            Readers::Many(list) => list.iter_mut().find(|user| **user == old),
        };
        if let Some(user) = place {
            *user = new;
        }
    }
}

impl<'u> IntoIterator for &'u Uses {
    type Item = &'u Use;
    type IntoIter = Chain<slice::Iter<'u, Use>, slice::Iter<'u, Use>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_come_and_go_in_order() {
        let reader = |index| Use::Node(NodeId::new(index), 0);
        let mut uses = Uses::default();
        assert!(uses.is_empty() && uses.only().is_none());
        uses.push(reader(3));
        assert_eq!(uses.only(), Some(reader(3)));
        uses.remove(reader(4));
        assert_eq!(uses.len(), 1, "another one was taken off");
        for index in [1, 2, 5] {
            uses.push(reader(index));
        }
        assert!(uses.only().is_none());
        uses.remove(reader(3));
        uses.replace(reader(2), reader(9));
        uses.replace(reader(2), reader(8));
        let all: Vec<Use> = uses.iter().copied().collect();
        assert_eq!(all, [reader(1), reader(9), reader(5)]);
        for index in [5, 1] {
            uses.remove(reader(index));
        }
        assert_eq!(uses.only(), Some(reader(9)));
        uses.remove(reader(9));
        assert!(uses.is_empty());
    }
}
