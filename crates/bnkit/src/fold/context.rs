//! What a rule may ask and do: attributes, constants, shapes, and edits that never change what somebody else reads.

use std::sync::Arc;

use bnkit_model::onnx::{
    AttributeValue, Constants, Dense, Edit, Model, NewTensor, NodeId, NotConstant, Operand, Origin,
    Recipe, Scale, ScopeId, TensorDef, Types, ValueId,
};
use bnkit_model::{DType, Error};

use super::absorb::require_foldable;
use super::unseen::Unseen;
use crate::affine::Affine;
use crate::refusal::{Answer, Stop, refuse};
use crate::report::Refusal;

/// The graph as it is at this point of the plan, and what is known about it.
#[derive(Clone, Copy)]
pub(crate) struct Context<'m> {
    /// The model with all edits so far.
    pub model: &'m Model,
    /// Derived types; values that the plan made are not in it.
    pub types: &'m Types,
    /// Whether initializers that a caller could override count as constants.
    pub assume_constant: bool,
    /// Whether a rule may add a node where an operator has no constant to put a shift into.
    pub may_add_nodes: bool,
    /// Whether an Add or Sub of two branches passes the affine on to both.
    pub through_branches: bool,
    /// Whether a weight with one quantisation scale may get one for each channel.
    pub per_channel_scales: bool,
    /// Where scaled weights are noted that nobody has looked at; if absent, they are looked at at once.
    pub unseen: Option<&'m Unseen>,
}

impl<'m> Context<'m> {
    /// What rules may ask where nothing is folded.
    pub(crate) fn new(model: &'m Model, types: &'m Types, assume_constant: bool) -> Self {
        Self {
            model,
            types,
            assume_constant,
            may_add_nodes: false,
            through_branches: false,
            per_channel_scales: false,
            unseen: None,
        }
    }

    /// What is constant.
    pub(crate) fn constants(&self) -> Constants<'m> {
        Constants::new(self.model, self.types, self.assume_constant)
    }

    /// The same, where what a caller may override is taken for what it is by default.
    pub(crate) fn with_defaults(&self) -> Self {
        Self {
            assume_constant: true,
            ..*self
        }
    }

    /// The version of ONNX's own operators where `node` stands.
    pub(crate) fn opset(&self, node: NodeId) -> i64 {
        let scope = self.model.node(node).scope;
        self.model.scope(scope).onnx_opset().unwrap_or(1)
    }

    fn attribute(&self, node: NodeId, name: &str) -> Answer<Option<&'m AttributeValue>> {
        match self
            .model
            .node(node)
            .attribute(name)
            .map(|attribute| &attribute.value)
        {
            Some(AttributeValue::Reference(_)) => Err(Refusal::new(
                "attribute-reference",
                format!(
                    "{}: \"{name}\" is set by each caller of the function",
                    self.model.describe(node)
                ),
            )
            .into()),
            other => Ok(other),
        }
    }

    fn wrong_type(&self, node: NodeId, name: &str) -> Stop {
        Error::invalid(format!("attribute \"{name}\" has the wrong type"))
            .at(self.model.describe(node))
            .into()
    }

    /// An integer attribute.
    pub(crate) fn int(&self, node: NodeId, name: &str, default: i64) -> Answer<i64> {
        match self.attribute(node, name)? {
            None => Ok(default),
            Some(AttributeValue::Int(value)) => Ok(*value),
            Some(_) => Err(self.wrong_type(node, name)),
        }
    }

    /// A float attribute, widened.
    pub(crate) fn float(&self, node: NodeId, name: &str, default: f32) -> Answer<f64> {
        match self.attribute(node, name)? {
            None => Ok(f64::from(default)),
            Some(AttributeValue::Float(value)) => Ok(f64::from(*value)),
            Some(_) => Err(self.wrong_type(node, name)),
        }
    }

    /// A list of integers; `None` if absent.
    pub(crate) fn ints(&self, node: NodeId, name: &str) -> Answer<Option<&'m [i64]>> {
        match self.attribute(node, name)? {
            None => Ok(None),
            Some(AttributeValue::Ints(values)) => Ok(Some(values)),
            Some(_) => Err(self.wrong_type(node, name)),
        }
    }

    /// A string attribute.
    pub(crate) fn text(&self, node: NodeId, name: &str, default: &'m str) -> Answer<&'m str> {
        match self.attribute(node, name)? {
            None => Ok(default),
            Some(AttributeValue::String(bytes)) => {
                std::str::from_utf8(bytes).map_err(|_| self.wrong_type(node, name))
            }
            Some(_) => Err(self.wrong_type(node, name)),
        }
    }

    /// The value in an input slot that must be there.
    pub(crate) fn input(&self, node: NodeId, slot: usize) -> Answer<ValueId> {
        self.model.node(node).input(slot).ok_or_else(|| {
            Error::invalid(format!("input {slot} is missing"))
                .at(self.model.describe(node))
                .into()
        })
    }

    fn name(&self, value: ValueId) -> &'m str {
        &self.model.value(value).name
    }

    /// The refusal that a value is not constant.
    pub(crate) fn not_constant(&self, reason: NotConstant, code: &'static str, what: &str) -> Stop {
        match reason {
            NotConstant::Unreadable(error) => error.into(),
            NotConstant::Overridable { value } => Refusal::new(
                "overridable-parameter",
                format!(
                    "\"{}\" is a graph input too, so a caller may replace it",
                    self.name(value)
                ),
            )
            .with("value", self.name(value))
            .into(),
            NotConstant::Computed { value } => Refusal::new(
                code,
                format!(
                    "{what} is computed at run time, from \"{}\"",
                    self.name(value)
                ),
            )
            .with("value", self.name(value))
            .into(),
            NotConstant::Unsupported { node, why } => Refusal::new(
                code,
                format!("{what} depends on {}: {why}", self.model.describe(node)),
            )
            .with("node", self.model.label(node))
            .into(),
        }
    }

    /// Refuses a value that a quantization annotation or training information speaks of: those are carried, not
    /// understood, and would be about another content.
    pub(crate) fn require_not_annotated(&self, value: ValueId) -> Answer<()> {
        if self.model.value(value).is_annotated() {
            let message = format!(
                "\"{}\" is named by a quantization annotation or training information",
                self.name(value)
            );
            return Err(Refusal::new("annotated", message)
                .with("value", self.name(value))
                .into());
        }
        Ok(())
    }

    /// The constant float tensor in an input slot.
    pub(crate) fn weight(&self, node: NodeId, slot: usize) -> Answer<Arc<TensorDef>> {
        let value = self.input(node, slot)?;
        self.require_not_annotated(value)?;
        require_foldable(self, node, slot)?;
        let what = format!("\"{}\"", self.name(value));
        let tensor = self
            .constants()
            .tensor(value)
            .map_err(|reason| self.not_constant(reason, "weight-not-constant", &what))?;
        if !tensor.dtype.is_float() {
            return refuse(
                "dtype",
                format!("{what} is {}, not a float type", tensor.dtype),
            );
        }
        // Nothing could show which feature is which.
        if tensor.is_empty() {
            return Err(Refusal::new("no-absorber", "the weight has no elements")
                .with("node", self.model.label(node))
                .with("value", self.name(value))
                .into());
        }
        Ok(tensor)
    }

    /// The elements of the constant in an input slot, unrounded; `None` if the slot is empty.
    pub(crate) fn optional(&self, node: NodeId, slot: usize) -> Answer<Option<Dense<f64>>> {
        let Some(value) = self.model.node(node).input(slot) else {
            return Ok(None);
        };
        self.require_not_annotated(value)?;
        let what = format!("\"{}\"", self.name(value));
        self.constants()
            .f64(value)
            .map(Some)
            .map_err(|reason| self.not_constant(reason, "weight-not-constant", &what))
    }

    /// A tensor multiplied by factors: element e by `factors[(e / inner) % factors.len()]`. `None` if all are 1.
    pub(crate) fn scaled(
        &self,
        tensor: &Arc<TensorDef>,
        inner: usize,
        factors: Vec<f64>,
    ) -> Answer<Option<NewTensor>> {
        if factors.iter().all(|&factor| factor == 1.0) {
            // Nothing to write; but what NaN or infinity computes proves nothing about the rest of the fold.
            return match self.model.magnitude(tensor)?.finite {
                true => Ok(None),
                false => refuse("range", "the weight has NaN or infinite elements"),
            };
        }
        let factors: Arc<[f64]> = factors.into();
        let mut recipe = Recipe::of(tensor).times([Scale {
            inner,
            factors: factors.clone(),
        }]);
        let unseen = self.unseen.filter(|_| tensor.dtype == DType::F32);
        recipe.must_be_finite = unseen.is_some();
        let new = NewTensor {
            dtype: tensor.dtype,
            dims: tensor.dims.clone(),
            recipe: Arc::new(recipe),
        };
        match unseen {
            Some(unseen) => unseen.note(new.recipe.clone()),
            None => require_range(self.model, &new)?,
        }
        if tensor.dtype == DType::F16 {
            self.check_precision(&new, inner, factors)?;
        }
        Ok(Some(new))
    }

    /// A tensor of given values.
    pub(crate) fn dense(
        &self,
        dtype: DType,
        dims: impl Into<Arc<[usize]>>,
        values: Vec<f64>,
    ) -> Answer<NewTensor> {
        let new = NewTensor {
            dtype,
            dims: dims.into(),
            recipe: Arc::new(Recipe::values(values)),
        };
        require_range(self.model, &new)?;
        Ok(new)
    }

    /// Refuses weights that a scale moves into the subnormal numbers of float16, where they lose their digits: the
    /// rounding of each feature must stay near that of normal numbers, about 2⁻¹² of it.
    fn check_precision(&self, tensor: &NewTensor, inner: usize, factors: Arc<[f64]>) -> Answer<()> {
        let features = factors.len();
        let (mut errors, mut norms) = (vec![0.0; features], vec![0.0; features]);
        self.model
            .for_each_chunk(&tensor.clone().into_def(), |start, elements| {
                for (element, &value) in (start..).zip(elements) {
                    let feature = element / inner.max(1) % features;
                    errors[feature] += (tensor.dtype.round(value) - value).powi(2);
                    norms[feature] += value * value;
                }
                Ok(())
            })?;
        const LIMIT: f64 = 1.0 / 256.0;
        let lost = errors
            .iter()
            .zip(&norms)
            .position(|(error, norm)| *error > LIMIT * LIMIT * norm);
        match lost {
            None => Ok(()),
            Some(feature) => Err(Refusal::new(
                "range",
                format!("the folded weights of channel {feature} are too small for {} and would lose their digits", tensor.dtype),
            )
            .with("channel", feature)
            .into()),
        }
    }

    /// Puts `tensor` into an input slot: over the constant that is there if nobody else reads it, beside it otherwise.
    /// `hint` names a constant where there was none.
    pub(crate) fn put(
        &self,
        node: NodeId,
        slot: usize,
        tensor: NewTensor,
        hint: &str,
    ) -> Vec<Edit> {
        let scope = self.model.node(node).scope;
        let name = match self.model.node(node).input(slot) {
            Some(value) if self.owns(value, scope) => {
                return vec![Edit::SetConstant { value, tensor }];
            }
            Some(value) if slot <= 1 => self
                .model
                .fresh_name(&format!("{}_folded", self.name(value))),
            Some(value) => self
                .model
                .fresh_name(&format!("{}_folded_bias", self.name(value))),
            None => self.model.fresh_name(hint),
        };
        let value = Operand::New(name.clone());
        vec![
            Edit::AddConstant {
                scope,
                name,
                tensor,
            },
            Edit::SetInput { node, slot, value },
        ]
    }

    /// Whether a constant of `scope` has a single reader and may get another content under its name.
    fn owns(&self, value: ValueId, scope: ScopeId) -> bool {
        let info = self.model.value(value);
        let replaceable = match info.origin {
            Origin::Initializer => info.tensor.is_some(),
            // Before IR version 4 every initializer is an input; later an input is a promise to callers.
            Origin::Input => info.tensor.is_some() && self.model.ir_version < 4,
            Origin::Node(node, _) => self.model.node(node).is("Constant"),
            Origin::Removed => false,
        };
        replaceable && info.uses.len() == 1 && info.scope == scope
    }

    /// A name for a new node beside the one called `label`; none if that has none. Engines want node names unique.
    pub(crate) fn fresh_node_name(&self, label: &str, role: &str) -> String {
        if label.is_empty() {
            return String::new();
        }
        self.model.fresh_node_name(&format!("{label}_{role}"))
    }

    /// A name for the bias of an operator that has none: after its weight, as frameworks name them.
    pub(crate) fn bias_name(&self, node: NodeId, weight_slot: usize) -> String {
        let weight = self
            .model
            .node(node)
            .input(weight_slot)
            .map_or("", |value| self.name(value));
        match weight.strip_suffix("weight") {
            Some(stem) => format!("{stem}bias"),
            None if weight.is_empty() => format!("{}_bias", self.model.label(node)),
            None => format!("{weight}_bias"),
        }
    }

    /// The features that `affine` must have to act on `count` of them along axis `axis`: itself, or spread out.
    pub(crate) fn expect(
        &self,
        node: NodeId,
        affine: &Affine,
        axis: usize,
        count: usize,
    ) -> Answer<Affine> {
        match affine.axis {
            None => Ok(affine.gather(std::iter::repeat_n(0, count), axis)),
            Some(found) if found != axis => Err(Refusal::new(
                "channel-axis",
                format!(
                    "the channels lie on axis {found}, {} has its features on axis {axis}",
                    self.model.describe(node)
                ),
            )
            .with("node", self.model.label(node))
            .into()),
            Some(_) if affine.len() != count => {
                let found = affine.len();
                Err(
                    Error::invalid(format!("expected {count} channels, found {found}"))
                        .at(self.model.describe(node))
                        .into(),
                )
            }
            Some(_) => Ok(affine.clone()),
        }
    }
}

/// Refuses tensors with elements that their type cannot hold.
pub(super) fn require_range(model: &Model, tensor: &NewTensor) -> Answer<()> {
    let magnitude = model.magnitude(&tensor.clone().into_def())?;
    let limit = tensor.dtype.max_finite().unwrap_or(0.0);
    if !magnitude.finite {
        return refuse(
            "range",
            "a constant that would change has NaN or infinite elements",
        );
    }
    if tensor.dtype.round(magnitude.max_abs) > limit {
        return Err(Refusal::new(
            "range",
            format!(
                "a folded constant reaches {:.3e}, {} ends at {limit:.3e}",
                magnitude.max_abs, tensor.dtype
            ),
        )
        .with("max_abs", magnitude.max_abs)
        .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::fold::{Options, plan};
    use crate::verify::algebra;
    use crate::verify::nets::Net;

    #[test]
    fn a_weight_without_elements_absorbs_nothing() {
        let net = Net::new("x", &[3, 0])
            .constant("w", &[0, 2], &[])
            .constant("g", &[2], &[1.5, 4.0])
            .constant("b", &[2], &[0.5, 0.25])
            .constant("m", &[2], &[0.25, 1.0])
            .constant("v", &[2], &[3.0, 2.0])
            .node("MatMul", &["x", "w"], "p")
            .node("BatchNormalization", &["p", "g", "b", "m", "v"], "y")
            .output("y");
        let original = net.model();
        let plan = plan(&original, &Options::default()).unwrap();
        assert_eq!(plan.summary.kept, 1);
        let refusal = plan.sites[0].refusal.as_ref().unwrap();
        assert_eq!(refusal.code, "no-absorber");
        assert_eq!(refusal.message, "the weight has no elements");
        let checked = algebra::check(&original, plan.apply(), &plan.routes).unwrap();
        assert!(checked.failures.is_empty(), "{:?}", checked.failures);
    }
}
