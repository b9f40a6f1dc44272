//! Half a fold: the scale goes, the shift stays in the place of the BatchNorm, as one Add.
//!
//! Backwards, `s·x + t = x' + t`, where x' = s·x is what the operators before it compute now: for a Relu on the way,
//! which lets a positive scale pass and no shift. Forwards, `s·x + t = s·(x + t/s)`, and everything that reads it takes
//! the factor s: for a Conv that pads with zeros, since 0 = s·0, but s·0 + t ≠ 0. The sum x + t/s is rounded as finely,
//! relative to what it becomes behind s, as s·x + t is. A channel with s = 0 and t ≠ 0 has no t/s: refused.
//!
//! It costs nothing at run time (an Add instead of a Mul and an Add), but saves next to nothing either, and the values
//! behind the Add are other ones. Hence only on request.

use bnkit_model::onnx::{Edit, NewTensor, NodeId, Operand, ValueId};

use super::Planner;
use super::moves::sole_output;
use crate::Result;
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::fold::walk::{Journey, pull, push};
use crate::refusal::{Answer, Stop, refuse};
use crate::report::{Decision, Refusal};
use crate::route::{Rest, Route};
use crate::site::Parameters;

impl Planner<'_> {
    /// Tries to fold half of every BatchNorm that still stands. Whether any moved.
    pub(super) fn half_pass(&mut self, batch_norms: &[NodeId]) -> Result<bool> {
        let mut moved = false;
        for &node in batch_norms {
            let Some(index) = self.standing(node) else {
                continue;
            };
            match self.half(node) {
                Ok((journey, route)) => {
                    self.record(index, &journey, Decision::HalfFolded);
                    self.routes.push(route);
                    moved = true;
                }
                Err(Stop::Refused(half)) => {
                    let site = &mut self.sites[index].1;
                    let half = format!("{}: {}", half.code, half.message);
                    let refusal = site.refusal.take();
                    site.refusal = refusal.map(|refusal| refusal.with("half_fold", half));
                }
                Err(Stop::Broken(error)) => return Err(error.into()),
            }
        }
        Ok(moved)
    }

    fn half(&mut self, site: NodeId) -> Answer<(Journey, Route)> {
        let affine = Parameters::read(&self.context(false), site)?.affine();
        if affine.has_no_shift() || affine.has_no_scale() {
            return refuse("no-absorber", "scale or shift alone: there are no halves");
        }
        match self.half_backwards(site, &affine) {
            Err(Stop::Refused(backward)) => match self.half_forwards(site, &affine) {
                // Where nothing stands before it, only the way forwards can tell anything.
                Err(Stop::Refused(_)) if backward.code != "graph-input" => {
                    Err(Stop::Refused(backward))
                }
                other => other,
            },
            other => other,
        }
    }

    fn half_backwards(&mut self, site: NodeId, affine: &Affine) -> Answer<(Journey, Route)> {
        let context = self.context(false);
        let shift = per_channel(&context, site, affine.shift.clone())?;
        let journey = pull(&context, site, 0, &scale_alone(affine))?;
        self.leave_shift(site, journey, shift, |add| Rest::Shift { add })
    }

    fn half_forwards(&mut self, site: NodeId, affine: &Affine) -> Answer<(Journey, Route)> {
        let context = self.context(false);
        let quotients = shift_before(affine)?;
        let shift = per_channel(&context, site, quotients)?;
        let output = sole_output(&context, site)?;
        let journey = push(&context, output, &scale_alone(affine))?;
        self.leave_shift(site, journey, shift, |add| Rest::ShiftBefore { add })
    }

    /// Carries the scale's journey out and puts the Add of `shift` in the place of `site`.
    fn leave_shift(
        &mut self,
        site: NodeId,
        journey: Journey,
        shift: NewTensor,
        rest: impl Fn(NodeId) -> Rest,
    ) -> Answer<(Journey, Route)> {
        let context = self.context(false);
        let input = context.input(site, 0)?;
        let output = sole_output(&context, site)?;
        // An Add that an earlier fold made is no operator of the original: the proof knows it as a part of that fold.
        let made = |node: NodeId| self.model.node(node).is_new();
        if let Some(arrival) = journey.arrivals.iter().find(|arrival| made(arrival.node)) {
            let node = self.model.describe(arrival.node);
            return refuse("no-absorber", format!("{node} stands for another fold"));
        }
        let absorbed = self.carry_out(&journey, false)?;
        let shift = Constant {
            tensor: shift,
            of: site,
            role: "shift",
        };
        let add = self.put_operator(site, "Add", input, shift, output.into())?;
        self.model.apply(&[Edit::RemoveNode { node: site }])?;
        let route = Route {
            site,
            constant_slot: None,
            absorbed,
            via: journey.via.clone(),
            rest: rest(add),
        };
        Ok((journey, route))
    }

    /// Puts a Mul or Add by a constant right behind a node, and gives its id.
    pub(super) fn put_operator(
        &mut self,
        after: NodeId,
        op_type: &'static str,
        data: ValueId,
        constant: Constant,
        output: Operand,
    ) -> Answer<NodeId> {
        let context = self.context(false);
        let scope = self.model.node(after).scope;
        let Constant { tensor, of, role } = constant;
        let label = self.model.label(of);
        let name = self.model.fresh_name(&format!("{label}_{role}"));
        // Engines make nodes of constants, so that the two need different names.
        let node_name = context.fresh_node_name(&self.model.node(of).name, &op_type.to_lowercase());
        self.model.apply(&[
            Edit::AddConstant {
                scope,
                name: name.clone(),
                tensor,
            },
            Edit::AddNode {
                after,
                op_type,
                name: node_name,
                inputs: vec![data.into(), Operand::New(name)],
                outputs: vec![output],
            },
        ])?;
        Ok(self.model.newest_node().expect("one was added"))
    }

    /// The index of a BatchNorm that stands and may go, as far as it is concerned itself.
    pub(super) fn standing(&self, node: NodeId) -> Option<usize> {
        let index = *self.site_of.get(&node)?;
        let site = &self.sites[index].1;
        let stays_for_good = |refusal: &Refusal| !super::sites::is_about_the_way(refusal);
        let kept = site.decision == Decision::Kept && self.model.node(node).alive;
        (kept && !site.refusal.as_ref().is_some_and(stays_for_good)).then_some(index)
    }
}

/// What a new operator multiplies by or adds.
pub(super) struct Constant {
    pub(super) tensor: NewTensor,
    /// The BatchNorm that it is a part of, and is named after.
    pub(super) of: NodeId,
    pub(super) role: &'static str,
}

/// s alone; t stays.
fn scale_alone(affine: &Affine) -> Affine {
    affine.scale_only().with_shift_times(0.0)
}

/// t/s, and 0 where t = 0.
fn shift_before(affine: &Affine) -> Answer<Vec<f64>> {
    let pairs = affine.shift.iter().zip(&affine.scale);
    let quotients: Vec<f64> = pairs
        .map(|(&t, &s)| if t == 0.0 { 0.0 } else { t / s })
        .collect();
    match quotients.iter().position(|quotient| !quotient.is_finite()) {
        None => Ok(quotients),
        Some(channel) => Err(Refusal::new(
            "zero-scale",
            format!("scale is 0 in channel {channel}, and the shift is not"),
        )
        .with("channel", channel)
        .into()),
    }
}

/// One number per channel as a constant that broadcasts against the data of the BatchNorm `site`, in its type.
pub(super) fn per_channel(
    context: &Context<'_>,
    site: NodeId,
    values: Vec<f64>,
) -> Answer<NewTensor> {
    if context.opset(site) < 7 {
        return refuse(
            "old-opset",
            "Mul and Add before opset 7 broadcast by other rules",
        );
    }
    let (input, output) = (context.input(site, 0)?, sole_output(context, site)?);
    let Some(rank) = [input, output]
        .into_iter()
        .find_map(|value| context.types.rank(value))
    else {
        return refuse(
            "unknown-shape",
            format!(
                "the rank of what {} reads is not known",
                context.model.describe(site)
            ),
        );
    };
    let known = [input, output]
        .into_iter()
        .find_map(|value| context.types.dtype(value));
    let dtype = match known {
        Some(dtype) => dtype,
        // Until opset 15, scale and bias have the type of the data.
        None if context.opset(site) < 15 => Parameters::read(context, site)?.dtype,
        None => {
            return refuse(
                "unknown-shape",
                format!(
                    "the type of what {} reads is not known",
                    context.model.describe(site)
                ),
            );
        }
    };
    if dtype.max_finite().is_none() || !dtype.is_float() {
        return refuse("dtype", format!("the data is {dtype}, not a float type"));
    }
    let mut dims = vec![1; rank.saturating_sub(1).max(1)];
    dims[0] = values.len();
    context.dense(dtype, dims, values)
}
