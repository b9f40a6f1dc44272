//! Which values are constants, and what they are.
//!
//! A parameter need not be an initializer: exporters also write Constant nodes and *expressions* of constants
//! (`Expand(CastLike(0, x), Shape(W))` is a bias of zeros). [`Constants::tensor`] gives the tensor itself where there is
//! one, so that a stored weight stays a stored weight; everything else is evaluated.
//!
//! Floats are computed in f64 and are *not* rounded between operators, except by Cast and CastLike: a parameter is
//! rounded once, when it is stored, and what lies before that is kept as exact as possible. The rounded f32 results of
//! the original's own operators are at most a few ulp away. Integers are computed in i64; what does not fit the
//! operator's type is refused, because runtimes differ in what they make of it.
//!
//! An expression is evaluated to a limited depth, number of nodes and number of elements: a small file can describe
//! very large constants.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `array` | elements in memory, and how they are moved about |
//! | `evaluate` | one evaluation: limits, leaves, the nodes in between |
//! | `operators` | the operators of which an expression may consist |
//! | `arithmetic` | those that compute something new |

use std::sync::Arc;

use super::model::*;
use super::recipe::Recipe;
use super::types::{Types, attributes};
use crate::{DType, Error};

mod arithmetic;
mod array;
mod evaluate;
mod operators;

/// How many nodes an expression may be deep.
const MAX_DEPTH: usize = 64;
/// Integers beyond this have no exact f64.
const EXACT: u64 = 1 << 53;

/// The constants of a model.
#[derive(Debug, Clone, Copy)]
pub struct Constants<'m> {
    model: &'m Model,
    types: &'m Types,
    assume_overridable: bool,
    /// Reads small tensors only.
    small: bool,
}

/// Elements in memory, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense<T> {
    /// The element type of the constant.
    pub dtype: DType,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Its elements.
    pub values: Vec<T>,
}

/// Why a value is not taken for a constant.
#[derive(Debug)]
pub enum NotConstant {
    /// It is computed from something that is not constant.
    Computed {
        /// What that is: an input, or the result of an operator that is not evaluated.
        value: ValueId,
    },
    /// It hangs on an initializer that the caller of the model may override.
    Overridable {
        /// The initializer, which is also an input.
        value: ValueId,
    },
    /// It is an expression of constants that is not evaluated here.
    Unsupported {
        /// The node that is in the way.
        node: NodeId,
        /// What is in the way.
        why: String,
    },
    /// Its elements cannot be read, or are of the wrong kind.
    Unreadable(Error),
}

impl NotConstant {
    /// The reason in words.
    pub fn explain(&self, model: &Model) -> String {
        let name = |value: &ValueId| model.value(*value).name.clone();
        match self {
            Self::Computed { value } => {
                format!(
                    "it is computed from \"{}\", which is not constant",
                    name(value)
                )
            }
            Self::Overridable { value } => format!(
                "\"{}\" is also an input of the model, so that a caller may override it",
                name(value)
            ),
            Self::Unsupported { node, why } => format!("{}: {why}", model.describe(*node)),
            Self::Unreadable(error) => error.to_string(),
        }
    }
}

/// What a constant begins with.
enum Place<'m> {
    /// A tensor of the model.
    Stored(&'m Arc<TensorDef>),
    /// Numbers in an attribute of a Constant node.
    Literal(Literal<'m>),
    /// An operator that is evaluated, if its operands are constant.
    Node(NodeId),
}

/// What a Constant node holds.
enum Literal<'m> {
    Tensor(&'m Arc<TensorDef>),
    Float(f32),
    Floats(&'m [f32]),
    Int(i64),
    Ints(&'m [i64]),
}

impl<'m> Constants<'m> {
    /// The constants of `model`. With `assume_overridable`, initializers that are also inputs are constant.
    pub fn new(model: &'m Model, types: &'m Types, assume_overridable: bool) -> Self {
        Self {
            model,
            types,
            assume_overridable,
            small: false,
        }
    }

    /// The constants that a shape may depend on: certain, and small.
    pub(super) fn small(model: &'m Model, types: &'m Types) -> Self {
        Self {
            model,
            types,
            assume_overridable: false,
            small: true,
        }
    }

    /// The constant `value` as a tensor: the stored one where there is one, unread and unrounded, or a recipe of the
    /// evaluated elements.
    ///
    /// # Errors
    /// If `value` is not constant, or is an expression that is not evaluated here.
    pub fn tensor(&self, value: ValueId) -> Result<Arc<TensorDef>, NotConstant> {
        if let Place::Stored(tensor) | Place::Literal(Literal::Tensor(tensor)) =
            self.stored_place(value)?
        {
            return Ok(tensor.clone());
        }
        let array = evaluate::evaluate(self, value)?;
        let exact = |value: &i64| value.unsigned_abs() <= EXACT;
        if array.ints().is_some_and(|values| !values.iter().all(exact)) {
            let why = "it holds integers beyond 2^53";
            return Err(match self.model.producer(value) {
                Some((node, _)) => NotConstant::Unsupported {
                    node,
                    why: why.to_owned(),
                },
                None => self.wrong(value, why),
            });
        }
        let (dtype, dims) = (array.dtype, array.dims.clone());
        let recipe = Recipe::values(array.into_f64());
        Ok(TensorDef::computed(dtype, dims.into(), recipe.into()).into())
    }

    /// The elements of the constant `value`, widened to f64; what is computed is not rounded.
    ///
    /// # Errors
    /// As [`Constants::tensor`]; also if the elements cannot be read or are not numbers.
    pub fn f64(&self, value: ValueId) -> Result<Dense<f64>, NotConstant> {
        let array = evaluate::evaluate(self, value)?;
        Ok(Dense {
            dtype: array.dtype,
            dims: array.dims.clone(),
            values: array.into_f64(),
        })
    }

    /// The elements of the constant `value`, which must be integers or booleans.
    ///
    /// # Errors
    /// As [`Constants::tensor`]; also if the elements cannot be read or are not integers.
    pub fn ints(&self, value: ValueId) -> Result<Dense<i64>, NotConstant> {
        if let Some(dtype) = self.types.dtype(value).filter(|dtype| dtype.is_float()) {
            return Err(self.wrong(value, &format!("expected integers, found {dtype}")));
        }
        let array = evaluate::evaluate(self, value)?;
        let (dtype, dims) = (array.dtype, array.dims.clone());
        match array.into_ints() {
            Some(values) => Ok(Dense {
                dtype,
                dims,
                values,
            }),
            None => Err(self.wrong(value, &format!("expected integers, found {dtype}"))),
        }
    }

    /// Whether `value` is stored, or an expression of constants and of operators that are evaluated here. No element is
    /// read, so the evaluation may still fail (on a division by zero, for example).
    pub fn is_constant(&self, value: ValueId) -> bool {
        evaluate::check(self, value).is_ok()
    }

    /// Element type and dimensions of what a Constant node holds.
    pub(super) fn literal_header(node: &Node) -> Option<(DType, Vec<usize>)> {
        Some(match literal(node).ok()? {
            Literal::Tensor(tensor) => (tensor.dtype, tensor.dims.to_vec()),
            Literal::Float(_) => (DType::F32, Vec::new()),
            Literal::Floats(values) => (DType::F32, vec![values.len()]),
            Literal::Int(_) => (DType::I64, Vec::new()),
            Literal::Ints(values) => (DType::I64, vec![values.len()]),
        })
    }

    /// Where `value` comes from.
    fn place(&self, value: ValueId) -> Result<Place<'m>, NotConstant> {
        let model = self.model;
        let content = model.value(value);
        match (content.origin, &content.tensor) {
            (Origin::Initializer, Some(tensor)) => Ok(Place::Stored(tensor)),
            // A sparse initializer: carried, not read.
            (Origin::Initializer, None) => Err(NotConstant::Computed { value }),
            (Origin::Input, Some(tensor)) if content.scope == model.main() => {
                if model.ir_version < 4 || self.assume_overridable {
                    Ok(Place::Stored(tensor))
                } else {
                    Err(NotConstant::Overridable { value })
                }
            }
            (Origin::Node(id, 0), _) if self.types.is_own(model.node(id)) => {
                let node = model.node(id);
                match node.op_type.as_str() {
                    "Constant" => {
                        literal(node)
                            .map(Place::Literal)
                            .map_err(|why| NotConstant::Unsupported {
                                node: id,
                                why: why.to_owned(),
                            })
                    }
                    op if operators::passes(op) && node.input(0).is_none() => {
                        Err(NotConstant::Computed { value })
                    }
                    // What it makes of more than one input, nobody knows.
                    "Identity" if node.inputs.len() > 1 => Err(NotConstant::Computed { value }),
                    // As in eval mode; a third input may switch it on.
                    "Dropout" if node.input(2).is_none() => Ok(Place::Node(id)),
                    op if operators::is_known(op) => Ok(Place::Node(id)),
                    _ => Err(NotConstant::Computed { value }),
                }
            }
            _ => Err(NotConstant::Computed { value }),
        }
    }

    /// Where `value` comes from, behind any number of nodes that give what they read.
    fn stored_place(&self, mut value: ValueId) -> Result<Place<'m>, NotConstant> {
        let start = value;
        // In a graph without cycles that is enough for any chain, and in one with a cycle it ends.
        for _ in 0..=self.model.node_count() {
            let place = self.place(value)?;
            match place {
                Place::Node(id) if operators::passes(&self.model.node(id).op_type) => {
                    let input = self.model.node(id).input(0);
                    value = input.ok_or(NotConstant::Computed { value })?;
                }
                place => return Ok(place),
            }
        }
        Err(NotConstant::Computed { value: start })
    }

    /// The operands of a node whose elements an evaluation needs: none where a type or a shape is all that counts.
    fn operands(&self, id: NodeId) -> Slots {
        let node = self.model.node(id);
        match node.op_type.as_str() {
            "CastLike" | "Dropout" => Slots::from_slice(&[node.input(0)]),
            "Shape" if operators::known_shape(self.types, node, self.opset(id)).is_some() => {
                Slots::new()
            }
            _ => node.inputs.clone(),
        }
    }

    /// The element type that a value has, as far as it shows without evaluation.
    fn dtype(&self, value: ValueId) -> Option<DType> {
        self.types
            .dtype(value)
            .or_else(|| match self.stored_place(value).ok()? {
                Place::Stored(tensor) => Some(tensor.dtype),
                _ => None,
            })
    }

    fn opset(&self, node: NodeId) -> i64 {
        let scope = self.model.node(node).scope;
        self.model.scope(scope).onnx_opset().unwrap_or(1)
    }

    fn wrong(&self, value: ValueId, why: &str) -> NotConstant {
        let name = &self.model.value(value).name;
        NotConstant::Unreadable(Error::invalid(format!("tensor \"{name}\": {why}")))
    }
}

/// What a Constant node holds, which it says in exactly one of several attributes.
fn literal(node: &Node) -> Result<Literal<'_>, &'static str> {
    const FORMS: [&str; 8] = [
        "value",
        "value_float",
        "value_floats",
        "value_int",
        "value_ints",
        "value_string",
        "value_strings",
        "sparse_value",
    ];
    let mut given = FORMS.iter().filter(|form| node.attribute(form).is_some());
    let (Some(&form), None) = (given.next(), given.next()) else {
        return Err("it must hold exactly one value");
    };
    let value = &node.attribute(form).ok_or("it holds no value")?.value;
    match (form, value) {
        ("value", AttributeValue::Tensor(tensor)) => Ok(Literal::Tensor(tensor)),
        ("value_float", AttributeValue::Float(value)) => Ok(Literal::Float(*value)),
        ("value_floats", AttributeValue::Floats(values)) => Ok(Literal::Floats(values)),
        ("value_int", AttributeValue::Int(value)) => Ok(Literal::Int(*value)),
        ("value_ints", AttributeValue::Ints(values)) => Ok(Literal::Ints(values)),
        (_, AttributeValue::Reference(_)) => Err("its value is that of the function's caller"),
        ("sparse_value", _) => Err("sparse tensors are not read"),
        ("value_string" | "value_strings", _) => Err("strings are no numbers"),
        _ => Err("its value is malformed"),
    }
}
