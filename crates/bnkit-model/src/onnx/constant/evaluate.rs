//! One evaluation of one expression: its limits, its leaves, and the nodes in between.

use std::collections::{HashMap, HashSet};

use super::array::{Array, Why};
use super::{Constants, Literal, MAX_DEPTH, NotConstant, Place, operators};
use crate::onnx::model::*;
use crate::{DType, Error, Limits};

/// The most elements that an expression may make out of less, in tensors that a shape depends on.
const MAX_SMALL: u64 = 1 << 12;
/// Results up to this size are kept, so that what is read twice is computed once.
const MAX_KEPT: usize = 1024;

/// Whether `value` is an expression that can be evaluated, by its form.
pub(super) fn check(constants: &Constants<'_>, value: ValueId) -> Result<(), NotConstant> {
    let mut check = Check {
        constants,
        seen: HashSet::new(),
    };
    check.value(value, 0)
}

/// The elements of the constant `value`.
pub(super) fn evaluate(constants: &Constants<'_>, value: ValueId) -> Result<Array, NotConstant> {
    // By its form first: nothing is read for an expression that cannot be evaluated.
    check(constants, value)?;
    let largest = if constants.small {
        MAX_SMALL
    } else {
        Limits::get().constant_elements
    };
    let mut evaluation = Evaluation {
        constants,
        kept: HashMap::new(),
        nodes: 0,
        largest,
        live: 0,
        spent: 0,
    };
    evaluation.value(value, 0)
}

/// How many nodes an expression may visit, repetitions included.
fn most_nodes() -> usize {
    usize::try_from(Limits::get().constant_nodes).unwrap_or(usize::MAX)
}

fn too_deep(node: NodeId) -> NotConstant {
    let why = format!("the constant expression is more than {MAX_DEPTH} nodes deep");
    NotConstant::Unsupported { node, why }
}

fn too_many(node: NodeId) -> NotConstant {
    let why = format!(
        "the constant expression has more than {} nodes",
        most_nodes()
    );
    NotConstant::Unsupported { node, why }
}

struct Check<'c, 'm> {
    constants: &'c Constants<'m>,
    seen: HashSet<ValueId>,
}

impl Check<'_, '_> {
    fn value(&mut self, value: ValueId, depth: usize) -> Result<(), NotConstant> {
        if !self.seen.insert(value) || self.constants.types.known_contents(value).is_some() {
            return Ok(());
        }
        let Place::Node(id) = self.constants.place(value)? else {
            return Ok(());
        };
        if depth >= MAX_DEPTH {
            return Err(too_deep(id));
        }
        if self.seen.len() > most_nodes() {
            return Err(too_many(id));
        }
        for operand in self.constants.operands(id).into_iter().flatten() {
            self.value(operand, depth + 1)?;
        }
        let node = self.constants.model.node(id);
        if node.op_type == "CastLike" {
            operators::like(self.constants, node)
                .map_err(|why| NotConstant::Unsupported { node: id, why })?;
        }
        Ok(())
    }
}

/// The state of an evaluation. The recursion is as deep as the expression, which is limited.
struct Evaluation<'c, 'm> {
    constants: &'c Constants<'m>,
    kept: HashMap<ValueId, Array>,
    nodes: usize,
    /// The most elements that one result may have: what the largest tensor that was read has, or the limit.
    largest: u64,
    /// How many elements are held now.
    live: u64,
    /// How many elements were made so far.
    spent: u64,
}

impl Evaluation<'_, '_> {
    fn value(&mut self, value: ValueId, depth: usize) -> Result<Array, NotConstant> {
        if let Some(array) = self.kept.get(&value) {
            self.live += array.len() as u64;
            return Ok(array.clone());
        }
        let array = match self.known(value) {
            Some(array) => self.hold(array, value)?,
            None => match self.constants.place(value)? {
                Place::Stored(tensor) | Place::Literal(Literal::Tensor(tensor)) => {
                    let array = self.read(tensor, value)?;
                    self.hold(array, value)?
                }
                Place::Literal(literal) => self.hold(spelled_out(&literal), value)?,
                Place::Node(id) => self.node(id, value, depth)?,
            },
        };
        if array.len() <= MAX_KEPT {
            self.kept.insert(value, array.clone());
        }
        Ok(array)
    }

    /// What shape arithmetic found out.
    fn known(&self, value: ValueId) -> Option<Array> {
        let types = self.constants.types;
        let values = types.known_contents(value)?;
        let dims = match types.dims(value)? {
            [] => Vec::new(),
            _ => vec![values.len()],
        };
        let whole = !dims.is_empty() || values.len() == 1;
        whole.then_some(Array::int(types.dtype(value)?, dims, values))
    }

    fn node(&mut self, id: NodeId, value: ValueId, depth: usize) -> Result<Array, NotConstant> {
        if depth >= MAX_DEPTH {
            return Err(too_deep(id));
        }
        self.nodes += 1;
        if self.nodes > most_nodes() {
            return Err(too_many(id));
        }
        let held = self.live;
        let mut inputs = Vec::new();
        for operand in self.constants.operands(id) {
            inputs.push(match operand {
                Some(operand) => Some(self.value(operand, depth + 1)?),
                None => None,
            });
        }
        let room = self
            .largest
            .min(self.largest.saturating_mul(3).saturating_sub(self.live));
        let array = operators::apply(self.constants, id, inputs, room)
            .map_err(|why| NotConstant::Unsupported { node: id, why })?;
        self.live = held;
        self.hold(array, value)
    }

    /// Accounts for a result that is held from now on.
    fn hold(&mut self, array: Array, value: ValueId) -> Result<Array, NotConstant> {
        let count = array.len() as u64;
        self.live = self.live.saturating_add(count);
        self.spent = self.spent.saturating_add(count);
        if self.live > self.largest.saturating_mul(3)
            || self.spent > self.largest.saturating_mul(16)
        {
            return Err(self
                .constants
                .wrong(value, "the constant expression is too large"));
        }
        Ok(array)
    }

    fn read(&mut self, tensor: &TensorDef, value: ValueId) -> Result<Array, NotConstant> {
        let count = tensor.len() as u64;
        if self.constants.small && count > self.largest {
            return Err(self.constants.wrong(value, "it is too large for a shape"));
        }
        self.largest = self.largest.max(count);
        if self.live.saturating_add(count) > self.largest.saturating_mul(3) {
            return Err(self
                .constants
                .wrong(value, "the constant expression is too large"));
        }
        stored(self.constants.model, tensor).map_err(NotConstant::Unreadable)
    }
}

/// The elements of a tensor of the model.
pub(super) fn stored(model: &Model, tensor: &TensorDef) -> Result<Array, Error> {
    let (dtype, dims) = (tensor.dtype, tensor.dims.to_vec());
    if !dtype.is_integer() && dtype != DType::Bool {
        return Ok(Array::float(dtype, dims, model.read_f64(tensor)?));
    }
    let values = model.read_tensor(tensor)?.to_i64()?;
    if dtype == DType::U64 && values.iter().any(|&value| value < 0) {
        return Err(Error::invalid("it holds integers beyond 2^63"));
    }
    Ok(Array::int(dtype, dims, values))
}

fn spelled_out(literal: &Literal<'_>) -> Array {
    let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect();
    match literal {
        Literal::Float(value) => Array::float(DType::F32, Vec::new(), wide(&[*value])),
        Literal::Floats(values) => Array::float(DType::F32, vec![values.len()], wide(values)),
        Literal::Int(value) => Array::int(DType::I64, Vec::new(), vec![*value]),
        Literal::Ints(values) => Array::int(DType::I64, vec![values.len()], values.to_vec()),
        // Tensors are read by their owner, which limits their size.
        Literal::Tensor(tensor) => Array::int(tensor.dtype, vec![0], Vec::new()),
    }
}

/// The only element of an optional tensor attribute's value.
pub(super) fn single(model: &Model, tensor: &TensorDef) -> Why<Array> {
    if tensor.dims.iter().any(|&dim| dim != 1) {
        return Err(format!(
            "expected one element, found shape {:?}",
            tensor.dims
        ));
    }
    stored(model, tensor).map_err(|error| error.to_string())
}
