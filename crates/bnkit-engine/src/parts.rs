//! Large graphs, rewritten part by part.
//!
//! tract looks at the whole graph for each of its rewrites, of which there are several a node: that takes a millisecond for each node
//! of a graph of 3,000, and grows faster than the square of their number where operators share a constant. Parts of a fixed size make it
//! grow with the number of nodes. What is lost is a rewrite across the border of two parts: speed there, nothing else, since a part
//! computes what it computed before.

use std::collections::{HashMap, HashSet};

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{InletId, OutletId, format_err};
use tract_onnx::tract_core::model::TypedNode;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::source::TypedSource;

/// How many nodes a part has, not counting constants.
const PART: usize = 128;

/// Does `work` to `model`: as a whole if it is small, else to parts of it that follow each other.
pub(crate) fn in_parts(
    model: &mut TypedModel,
    work: impl Fn(&mut TypedModel) -> TractResult<()>,
) -> TractResult<()> {
    in_parts_of(model, PART, work)
}

fn in_parts_of(
    model: &mut TypedModel,
    size: usize,
    work: impl Fn(&mut TypedModel) -> TractResult<()>,
) -> TractResult<()> {
    let computes = |&id: &usize| !is_given(model, id);
    let order: Vec<usize> = model.eval_order()?.into_iter().filter(computes).collect();
    if order.len() <= 2 * size {
        return work(model);
    }
    let mut whole = Whole::of(model)?;
    let outputs: HashSet<OutletId> = model.output_outlets()?.iter().copied().collect();
    for nodes in order.chunks(size) {
        let mut part = Part::of(model, nodes, &outputs)?;
        work(&mut part.model)?;
        whole.append(part)?;
    }
    *model = whole.finish()?;
    Ok(())
}

/// Whether a node computes nothing: an input or a constant.
fn is_given(model: &TypedModel, id: usize) -> bool {
    let node = model.node(id);
    node.op_is::<TypedSource>() || node.op_is::<Const>()
}

/// Adds a node of another model. `places` says where the values of that one are in `model`, those of the node from now on, too.
fn copy(
    node: &TypedNode,
    name: String,
    model: &mut TypedModel,
    places: &mut HashMap<OutletId, OutletId>,
) -> TractResult<()> {
    let facts = node.outputs.iter().map(|output| output.fact.clone());
    let id = model.add_node(name, node.op.clone(), facts.collect())?;
    for (slot, input) in node.inputs.iter().enumerate() {
        model.add_edge(place(places, *input)?, InletId::new(id, slot))?;
    }
    for slot in 0..node.outputs.len() {
        places.insert(OutletId::new(node.id, slot), OutletId::new(id, slot));
    }
    Ok(())
}

fn place(places: &HashMap<OutletId, OutletId>, outlet: OutletId) -> TractResult<OutletId> {
    let place = places.get(&outlet).copied();
    place.ok_or_else(|| format_err!("{outlet:?} is read before it is computed"))
}

/// Some nodes of a model, as a model of their own.
struct Part {
    model: TypedModel,
    /// Where the values of the model are.
    places: HashMap<OutletId, OutletId>,
    /// The values of the model that are its inputs.
    takes: Vec<OutletId>,
    /// The values of the model that are its outputs.
    gives: Vec<OutletId>,
}

impl Part {
    /// `outputs`: those of the whole.
    fn of(whole: &TypedModel, nodes: &[usize], outputs: &HashSet<OutletId>) -> TractResult<Self> {
        let mut part = Self {
            model: TypedModel {
                symbols: whole.symbols.clone(),
                ..TypedModel::default()
            },
            places: HashMap::new(),
            takes: vec![],
            gives: vec![],
        };
        let own: HashSet<usize> = nodes.iter().copied().collect();
        let is_elsewhere = |inlet: &InletId| !own.contains(&inlet.node);
        for &id in nodes {
            let node = whole.node(id);
            for &input in &node.inputs {
                part.provide(whole, input)?;
            }
            copy(node, node.name.clone(), &mut part.model, &mut part.places)?;
            for (slot, output) in node.outputs.iter().enumerate() {
                let outlet = OutletId::new(id, slot);
                if output.successors.iter().any(is_elsewhere) || outputs.contains(&outlet) {
                    part.gives.push(outlet);
                    part.model.outputs.push(part.places[&outlet]);
                }
            }
        }
        Ok(part)
    }

    /// Sees to it that a node can read a value that the part does not compute: a constant it gets for itself, all else is an input.
    fn provide(&mut self, whole: &TypedModel, outlet: OutletId) -> TractResult<()> {
        if self.places.contains_key(&outlet) {
            return Ok(());
        }
        let node = whole.node(outlet.node);
        if node.op_is::<Const>() {
            return copy(node, node.name.clone(), &mut self.model, &mut self.places);
        }
        let name = match outlet.slot {
            0 => node.name.clone(),
            slot => format!("{}:{slot}", node.name),
        };
        let fact = whole.outlet_fact(outlet)?.clone();
        let source = self.model.add_source(name, fact)?;
        self.places.insert(outlet, source);
        self.takes.push(outlet);
        Ok(())
    }
}

/// The model that the parts make.
struct Whole<'m> {
    before: &'m TypedModel,
    model: TypedModel,
    /// Where the values of the model before are.
    places: HashMap<OutletId, OutletId>,
    names: HashSet<String>,
    /// How many parts there are so far.
    parts: usize,
}

impl<'m> Whole<'m> {
    /// With the inputs of `before`, and without what they are for.
    fn of(before: &'m TypedModel) -> TractResult<Self> {
        let mut whole = Self {
            before,
            model: TypedModel {
                symbols: before.symbols.clone(),
                properties: before.properties.clone(),
                ..TypedModel::default()
            },
            places: HashMap::new(),
            names: HashSet::new(),
            parts: 0,
        };
        for &outlet in before.input_outlets()? {
            let name = whole.free(&before.node(outlet.node).name);
            let fact = before.outlet_fact(outlet)?.clone();
            let place = whole.model.add_source(name, fact)?;
            whole.places.insert(outlet, place);
        }
        Ok(whole)
    }

    /// Puts the nodes of a part behind those that are there.
    fn append(&mut self, part: Part) -> TractResult<()> {
        self.parts += 1;
        let mut places = HashMap::new();
        for (&input, outlet) in part.model.input_outlets()?.iter().zip(&part.takes) {
            places.insert(input, place(&self.places, *outlet)?);
        }
        for id in part.model.eval_order()? {
            let node = part.model.node(id);
            if node.op_is::<TypedSource>() {
                continue;
            }
            let name = self.free(&node.name);
            copy(node, name, &mut self.model, &mut places)?;
        }
        for (outlet, output) in part.gives.into_iter().zip(part.model.output_outlets()?) {
            self.places.insert(outlet, place(&places, *output)?);
        }
        self.model.properties.extend(part.model.properties);
        Ok(())
    }

    /// `name`, or with the number of the part if there is a node of that name: parts may have the same constants.
    fn free(&mut self, name: &str) -> String {
        let mut free = name.to_owned();
        while !self.names.insert(free.clone()) {
            free = format!("{free}.part{}", self.parts);
        }
        free
    }

    /// With the outputs of the model before.
    fn finish(mut self) -> TractResult<TypedModel> {
        for &outlet in self.before.output_outlets()? {
            let node = self.before.node(outlet.node);
            if node.op_is::<Const>() && !self.places.contains_key(&outlet) {
                let name = self.free(&node.name);
                copy(node, name, &mut self.model, &mut self.places)?;
            }
            let place = place(&self.places, outlet)?;
            self.model.outputs.push(place);
            if let Some(label) = self.before.outlet_label(outlet) {
                self.model.set_outlet_label(place, label.to_owned())?;
            }
        }
        Ok(self.model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{declutter, optimize};
    use tract_onnx::tract_core::internal::tensor3;
    use tract_onnx::tract_core::ops::array::{Topk, TypedConcat};
    use tract_onnx::tract_core::ops::math;

    /// Two inputs; a constant that several read; a node with two outputs; an input, a constant and a value in the middle that are
    /// outputs; what is read far behind.
    fn branches() -> TypedModel {
        let mut model = TypedModel::default();
        let fact = f32::fact([1, 3, 2]);
        let x = model.add_source("x", fact.clone()).unwrap();
        let z = model.add_source("z", fact).unwrap();
        let three = tensor3(&[[[3f32], [1.0], [-2.0]]]);
        let three = model.add_const("three", three).unwrap();
        let count = model.add_const("count", tensor0(2i64)).unwrap();
        let two = |model: &mut TypedModel, name: &str, op: Box<dyn TypedOp>, a, b| {
            model.wire_node(name, op, &[a, b]).unwrap()[0]
        };
        let a = two(&mut model, "a", Box::new(math::add()), x, three);
        let b = two(&mut model, "b", Box::new(math::mul()), a, three);
        let c = two(&mut model, "c", Box::new(math::max()), b, z);
        let topk = Topk {
            axis: 1,
            largest: true,
            fallback_k: 2.to_dim(),
        };
        let top = model.wire_node("top", topk, &[c, count]).unwrap();
        let best = two(&mut model, "best", Box::new(math::add()), top[0], top[0]);
        let d = two(&mut model, "d", Box::new(math::sub()), c, three);
        let e = two(&mut model, "e", Box::new(math::mul()), d, a);
        let joined = two(&mut model, "f", Box::new(TypedConcat::new(1)), e, best);
        let outputs = [joined, z, three, top[1], b, joined];
        model.select_output_outlets(&outputs).unwrap();
        model.set_outlet_label(b, "middle".to_owned()).unwrap();
        model
    }

    fn run(model: TypedModel) -> Vec<Tensor> {
        let input = |low: f32| {
            let values: Vec<f32> = (0..6).map(|n| low + n as f32 * 0.75).collect();
            tensor1(&values)
                .into_shape(&[1, 3, 2])
                .unwrap()
                .into_tvalue()
        };
        let found = model.into_runnable().unwrap();
        let found = found.run(tvec!(input(-2.0), input(-1.5))).unwrap();
        found.into_iter().map(TValue::into_tensor).collect()
    }

    #[test]
    fn parts_of_any_size_compute_what_the_whole_does() {
        let expected = run(branches());
        type Work = fn(&mut TypedModel) -> TractResult<()>;
        let works: [(&str, Work); 3] = [
            ("nothing", |_| Ok(())),
            ("declutter", declutter),
            ("optimize", optimize),
        ];
        for (name, work) in works {
            for size in 1..4 {
                let mut model = branches();
                in_parts_of(&mut model, size, work).unwrap();
                let names: HashSet<&str> = model.node_names().collect();
                assert_eq!(names.len(), model.nodes().len(), "{name}, {size}");
                let middle = model.output_outlets().unwrap()[4];
                assert_eq!(model.outlet_label(middle), Some("middle"));
                let found = run(model);
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(&expected) {
                    assert_eq!(found, expected, "{name}, {size}");
                }
            }
        }
    }

    #[test]
    fn every_part_is_worked_on_and_a_small_model_is_one() {
        let sizes = |size: usize| {
            let sizes = std::cell::RefCell::new(vec![]);
            let mut model = branches();
            in_parts_of(&mut model, size, |part| {
                let computed = (0..part.nodes().len()).filter(|&id| !is_given(part, id));
                sizes.borrow_mut().push(computed.count());
                Ok(())
            })
            .unwrap();
            sizes.into_inner()
        };
        assert_eq!(sizes(4), [8]);
        assert_eq!(sizes(3), [3, 3, 2]);
    }

    /// As a whole, the copies of the constant alone would take hours: the name of each is searched for among all of them.
    #[test]
    fn a_chain_of_20_000_operators_that_share_a_constant_is_simplified() {
        let mut model = TypedModel::default();
        let zero = model.add_const("zero", tensor3(&[[[0f32]]])).unwrap();
        let mut value = model.add_source("x", f32::fact([1, 3, 2])).unwrap();
        for index in 0..20_000 {
            let node = model.add_node(format!("{index}"), math::max(), tvec!(f32::fact([1, 3, 2])));
            let node = node.unwrap();
            model.add_edge(value, InletId::new(node, 0)).unwrap();
            model.add_edge(zero, InletId::new(node, 1)).unwrap();
            value = node.into();
        }
        model.select_output_outlets(&[value]).unwrap();
        declutter(&mut model).unwrap();
        optimize(&mut model).unwrap();
        let x = tensor3(&[[[-1f32, 2.0], [3.0, -4.0], [0.5, -0.5]]]);
        let found = model.into_runnable().unwrap().run(tvec!(x.into_tvalue()));
        let expected = tensor3(&[[[0f32, 2.0], [3.0, 0.0], [0.5, 0.0]]]);
        assert_eq!(*found.unwrap()[0], expected);
    }
}
