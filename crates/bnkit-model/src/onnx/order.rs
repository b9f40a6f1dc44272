//! The order of the nodes of a scope: a list that is linked through the nodes, so that taking a node out, or putting one between two
//! others, costs the same however many there are.

use super::model::*;

/// The neighbours of a node.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Neighbours {
    before: Option<NodeId>,
    after: Option<NodeId>,
}

/// The first and the last node of a scope.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ends {
    pub(super) first: Option<NodeId>,
    last: Option<NodeId>,
}

impl Model {
    /// The nodes of a scope, in file order; nodes of an edit stand where they were inserted.
    pub fn nodes_of(&self, scope: ScopeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(self.scope(scope).ends.first, |&id| self.next_node(id))
    }

    /// The node that follows in the same scope.
    pub(super) fn next_node(&self, id: NodeId) -> Option<NodeId> {
        self.node(id).neighbours.after
    }

    /// Puts a node that stands nowhere yet behind another of its scope; at its beginning, if there is none.
    pub(super) fn link_behind(&mut self, id: NodeId, before: Option<NodeId>) {
        let ends = self.scopes[self.node(id).scope.index()].ends;
        let after = before.map_or(ends.first, |before| self.next_node(before));
        self.join(before, Some(id), id);
        self.join(Some(id), after, id);
    }

    /// Puts a node that stands nowhere yet in front of another of its scope; at its end, if there is none.
    pub(super) fn link_in_front(&mut self, id: NodeId, after: Option<NodeId>) {
        let ends = self.scopes[self.node(id).scope.index()].ends;
        let before = after.map_or(ends.last, |after| self.node(after).neighbours.before);
        self.link_behind(id, before);
    }

    /// Takes a node out.
    pub(super) fn unlink(&mut self, id: NodeId) {
        let Neighbours { before, after } = self.node(id).neighbours;
        self.join(before, after, id);
        self.nodes[id.index()].neighbours = Neighbours::default();
    }

    /// Makes neighbours of two nodes of the scope of `of`; `None` is the end of the scope.
    fn join(&mut self, before: Option<NodeId>, after: Option<NodeId>, of: NodeId) {
        let scope = self.node(of).scope.index();
        match before {
            Some(before) => self.nodes[before.index()].neighbours.after = after,
            None => self.scopes[scope].ends.first = after,
        }
        match after {
            Some(after) => self.nodes[after.index()].neighbours.before = before,
            None => self.scopes[scope].ends.last = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{Edit, Precision};
    use crate::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
    use prost::Message;

    /// Relu behind Relu: `x → v0 → v1 → …`, the last of which is the output.
    fn chain(count: usize) -> Model {
        let value = |index: usize| match index {
            0 => "x".to_owned(),
            index => format!("v{}", index - 1),
        };
        let node = (0..count).map(|index| {
            NodeProto::of("Relu", [value(index)], [value(index + 1)]).named(format!("n{index}"))
        });
        let graph = GraphProto {
            node: node.collect(),
            input: vec![ValueInfoProto::untyped(value(0))],
            output: vec![ValueInfoProto::untyped(value(count))],
            ..Default::default()
        };
        Model::from_bytes(ModelProto::of(graph, 17).encode_to_vec()).unwrap()
    }

    fn names(model: &Model) -> Vec<&str> {
        model.nodes().map(|(_, node)| node.name.as_str()).collect()
    }

    /// Takes the `index`-th node of a [`chain`] out.
    fn without(model: &mut Model, index: usize) {
        let node = NodeId::new(index);
        let output = model.node(node).output(0).unwrap();
        let input = model.node(node).input(0).unwrap();
        let edits = [
            Edit::ReplaceUses {
                value: output,
                by: input,
            },
            Edit::RemoveNode { node },
        ];
        model.apply(&edits).unwrap();
    }

    fn insert(model: &mut Model, before: Option<usize>, name: &str) {
        let edit = Edit::InsertNode {
            scope: model.main(),
            before: before.map(NodeId::new),
            op_type: "Neg".to_owned(),
            name: name.to_owned(),
            inputs: vec![model.node(NodeId::new(0)).inputs[0].map(Into::into)],
            outputs: vec![crate::onnx::Operand::New(format!("{name}_out"))],
            attributes: Vec::new(),
        };
        model.apply(&[edit]).unwrap();
    }

    #[test]
    fn nodes_keep_their_order_when_some_come_and_go_in_memory_and_in_the_file() {
        let mut model = chain(5);
        insert(&mut model, Some(1), "a");
        insert(&mut model, Some(0), "first");
        insert(&mut model, None, "last");
        without(&mut model, 1);
        without(&mut model, 3);
        insert(&mut model, Some(4), "b");
        // Its place is gone, so it comes last.
        insert(&mut model, Some(3), "c");
        let expected = ["first", "n0", "a", "n2", "b", "n4", "last", "c"];
        assert_eq!(names(&model), expected);
        let bytes = model.to_bytes(Precision::Stored).unwrap();
        assert_eq!(names(&Model::from_bytes(bytes).unwrap()), expected);
        assert_eq!(model.fresh_node_name("n2"), "n2_1");
        assert_eq!(model.fresh_node_name("n1"), "n1", "it was removed");
    }

    #[test]
    fn all_nodes_of_a_scope_can_be_replaced() {
        let mut model = chain(2);
        without(&mut model, 0);
        insert(&mut model, None, "new");
        assert_eq!(names(&model), ["n1", "new"]);
        let bytes = model.to_bytes(Precision::Stored).unwrap();
        assert_eq!(names(&Model::from_bytes(bytes).unwrap()), ["n1", "new"]);
    }

    /// Quadratic, this would take minutes; recursive, it would overflow the stack.
    #[test]
    fn a_chain_of_100_000_nodes_is_read_taken_apart_and_written() {
        let mut model = chain(100_000);
        assert_eq!(
            model.topological_order(model.main()).unwrap().len(),
            100_000
        );
        for index in 0..99_999 {
            without(&mut model, index);
        }
        let bytes = model.to_bytes(Precision::Stored).unwrap();
        assert_eq!(names(&Model::from_bytes(bytes).unwrap()), ["n99999"]);
    }
}
