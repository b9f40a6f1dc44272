//! A BatchNorm that nothing can absorb, written as what it computes: `s·x + t`, a Mul and an Add.
//!
//! Both constants have one number per channel, [C, 1, …], so that they broadcast from the right: the rank of the data
//! must be known. s and t are computed in f64 and rounded once, to the type of the data. For engines without a
//! BatchNormalization kernel; as a rule one node is faster than two, hence only on request.

use bnkit_model::onnx::{Edit, NodeId, Operand};

use super::Planner;
use super::moves::sole_output;
use super::rest::{Constant, per_channel};
use crate::Result;
use crate::explain::{Explanation, Kind};
use crate::refusal::{Answer, Stop};
use crate::report::Decision;
use crate::route::{Rest, Route};
use crate::site::Parameters;

/// The rule as reports name it.
pub(crate) const RULE: Explanation = Explanation {
    code: "to-mul-add",
    kind: Kind::Rule,
    title: "written as Mul and Add",
    text: "\
With `--lower`, a BatchNorm that nothing can absorb becomes `Mul → Add` with the constants s = γ/√(σ²+ε) and t = β − μ·s,
of shape [C, 1, …], in the type of the data.

Conditions: opset 7 or later, the rank (and the type) of the data is known, s and t fit the type.",
};

impl Planner<'_> {
    /// Writes every BatchNorm that still stands as Mul and Add.
    pub(super) fn lower_pass(&mut self, batch_norms: &[NodeId]) -> Result<()> {
        for &node in batch_norms {
            let Some(index) = self.standing(node) else {
                continue;
            };
            let lowered = self.lower(node);
            let site = &mut self.sites[index].1;
            match lowered {
                Ok(route) => {
                    site.decision = Decision::Lowered;
                    site.refusal = None;
                    site.rule = Some(RULE.code);
                    self.routes.push(route);
                }
                Err(Stop::Refused(refusal)) => {
                    let why = site.refusal.take();
                    let why = why.map(|why| format!("{}: {}", why.code, why.message));
                    site.refusal = Some(match why {
                        Some(why) => refusal.with("also", why),
                        None => *refusal,
                    });
                }
                Err(Stop::Broken(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn lower(&mut self, site: NodeId) -> Answer<Route> {
        let context = self.context(true);
        let affine = Parameters::read(&context, site)?.affine();
        let input = context.input(site, 0)?;
        let output = sole_output(&context, site)?;
        let scale = per_channel(&context, site, affine.scale)?;
        let shift = per_channel(&context, site, affine.shift)?;
        let label = self.model.label(site);
        let product = self.model.fresh_name(&format!("{label}_product"));
        let product = Operand::New(product);
        let constant = |tensor, role| Constant {
            tensor,
            of: site,
            role,
        };
        let mul = self.put_operator(site, "Mul", input, constant(scale, "scale"), product)?;
        let scaled = self.model.node(mul).output(0);
        let scaled = scaled.expect("it was just made");
        let shift = constant(shift, "shift");
        let add = self.put_operator(mul, "Add", scaled, shift, output.into())?;
        self.model.apply(&[Edit::RemoveNode { node: site }])?;
        Ok(Route {
            site,
            constant_slot: None,
            absorbed: Vec::new(),
            via: Vec::new(),
            rest: Rest::Lowered { mul, add },
        })
    }
}
