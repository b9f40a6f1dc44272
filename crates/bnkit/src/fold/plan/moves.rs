//! Moving one affine: the walk says where to, and its edits are carried out on the copy at once.

use std::collections::HashSet;

use bnkit_model::onnx::{Edit, Model, NodeId, Use, ValueId};

use super::Planner;
use crate::affine::Affine;
use crate::fold::absorb::{Absorption, absorber};
use crate::fold::context::Context;
use crate::fold::walk::{Journey, pull, push};
use crate::refusal::Answer;
use crate::report::Refusal;
use crate::route::{Absorbed, Rest, Route, Side};

impl Planner<'_> {
    /// Moves the affine of `site` backwards, out of the graph.
    pub(super) fn try_pull(
        &mut self,
        site: NodeId,
        data_slot: usize,
        affine: &Affine,
        may_add: bool,
    ) -> Answer<(Journey, Route)> {
        let context = self.context(may_add);
        let input = context.input(site, data_slot)?;
        let output = sole_output(&context, site)?;
        let journey = pull(&context, site, data_slot, affine)?;
        let takes_over = takes_over(&self.model, input, output)?;
        let absorbed = self.carry_out(&journey, may_add)?;
        let remove = Edit::RemoveNode { node: site };
        if takes_over {
            // The producer of what the site read now computes what the site wrote, and takes over its name; what read
            // only the type or shape of the old value reads that of the new one.
            let (producer, slot) = self.model.producer(input).expect("a pull ends at a node");
            let set_output = Edit::SetOutput {
                node: producer,
                slot,
                value: output.into(),
            };
            let replace = Edit::ReplaceUses {
                value: input,
                by: output,
            };
            self.model.apply(&[remove, set_output, replace])?;
        } else {
            let replace = Edit::ReplaceUses {
                value: output,
                by: input,
            };
            self.model.apply(&[replace, remove])?;
        }
        Ok(moved(site, journey, absorbed))
    }

    /// Moves the affine of `site` forwards, into everything that reads it.
    pub(super) fn try_push(
        &mut self,
        site: NodeId,
        data_slot: usize,
        affine: &Affine,
        may_add: bool,
    ) -> Answer<(Journey, Route)> {
        let context = self.context(may_add);
        let input = context.input(site, data_slot)?;
        let output = sole_output(&context, site)?;
        let journey = push(&context, output, affine)?;
        let absorbed = self.carry_out(&journey, may_add)?;
        let edits = [
            Edit::ReplaceUses {
                value: output,
                by: input,
            },
            Edit::RemoveNode { node: site },
        ];
        self.model.apply(&edits)?;
        Ok(moved(site, journey, absorbed))
    }

    /// Applies the absorptions of a journey. If one depends on another, it is asked again on the way; should it then
    /// refuse, nothing has happened.
    pub(super) fn carry_out(&mut self, journey: &Journey, may_add: bool) -> Answer<Vec<Absorbed>> {
        let mut touched: HashSet<String> = HashSet::new();
        let mut names = |absorption: &Absorption, model: &Model| {
            let keys: Vec<String> = absorption
                .edits
                .iter()
                .filter_map(|edit| key(edit, model))
                .collect();
            keys.into_iter().all(|key| touched.insert(key))
        };
        let independent = journey
            .arrivals
            .iter()
            .all(|arrival| names(&arrival.absorption, &self.model));
        let mut absorbed = Vec::with_capacity(journey.arrivals.len());
        let snapshot = (!independent).then(|| self.model.clone());
        for arrival in &journey.arrivals {
            let fresh;
            let absorption = if independent {
                &arrival.absorption
            } else {
                let context = self.context(may_add);
                let absorber = absorber(&context, arrival.node).expect("it absorbed before");
                let asked = match arrival.side {
                    Side::Output => (absorber.output)(&context, arrival.node, &arrival.affine),
                    Side::Input => {
                        (absorber.input)(&context, arrival.node, arrival.slot, &arrival.affine)
                    }
                };
                match asked {
                    Ok(absorption) => fresh = absorption,
                    Err(stop) => {
                        self.model = snapshot.expect("taken above");
                        return Err(stop);
                    }
                }
                &fresh
            };
            self.model.apply(&absorption.edits)?;
            absorbed.push(Absorbed {
                node: arrival.node,
                side: arrival.side,
                part: absorption.part,
                data_slot: absorption.data_slot,
                channels: absorption.channels.clone(),
                share: arrival.affine.share,
            });
        }
        Ok(absorbed)
    }
}

/// A journey whose affine went as a whole, and its record.
fn moved(site: NodeId, journey: Journey, absorbed: Vec<Absorbed>) -> (Journey, Route) {
    let route = Route {
        site,
        constant_slot: None,
        absorbed,
        via: journey.via.clone(),
        rest: Rest::Nothing,
    };
    (journey, route)
}

/// What an edit claims for itself: two edits with the same key depend on each other.
fn key(edit: &Edit, model: &Model) -> Option<String> {
    match edit {
        Edit::SetConstant { value, .. } => Some(model.value(*value).name.to_string()),
        Edit::AddConstant { name, .. } => Some(name.clone()),
        Edit::SetInput { node, slot, .. } => model
            .node(*node)
            .input(*slot)
            .map(|value| model.value(value).name.to_string()),
        _ => None,
    }
}

/// Whether what computes `input` can take over the name of `output`, which appears earlier in the graph then: no body
/// may have a name of its own like that. Otherwise the readers of `output` can read `input`, if they all see it.
fn takes_over(model: &Model, input: ValueId, output: ValueId) -> Answer<bool> {
    if model.is_unique_name(output) {
        return Ok(true);
    }
    let only_nodes = |value: ValueId| {
        model
            .value(value)
            .uses
            .iter()
            .all(|user| matches!(user, Use::Node(..)))
    };
    if only_nodes(output) && model.is_unique_name(input) {
        return Ok(false);
    }
    let name = &model.value(output).name;
    Err(Refusal::new(
        "name-conflict",
        format!("\"{name}\" is also the name of another value, in a body"),
    )
    .with("value", name.as_str())
    .into())
}

/// The output of a site; its other outputs must be gone. Somebody must read it: of what leads nowhere, parts may be gone when all is
/// done, and what they absorbed with them.
pub(super) fn sole_output(context: &Context<'_>, site: NodeId) -> Answer<ValueId> {
    let outputs = &context.model.node(site).outputs;
    match *outputs.as_slice() {
        [Some(output)] if context.model.value(output).uses.is_empty() => {
            let message = format!("{} is read by nobody", context.model.describe(site));
            Err(Refusal::new("no-absorber", message)
                .with("node", context.model.label(site))
                .into())
        }
        [Some(output)] => Ok(output),
        _ => Err(Refusal::new(
            "training-output-read",
            format!(
                "{} has outputs of training mode that are read",
                context.model.describe(site)
            ),
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use crate::fold::{Options, plan};
    use crate::verify::algebra;
    use crate::verify::nets::Net;

    /// What a fold of everything that may be asked for does, proved: where the BatchNorm went, or why it stays.
    fn decide(net: Net) -> String {
        let original = net.model();
        let options = Options {
            through_branches: true,
            aggressive: true,
            ..Options::default()
        };
        let plan = plan(&original, &options).unwrap();
        let checked = algebra::check(&original, plan.apply(), &plan.routes).unwrap();
        assert!(checked.failures.is_empty(), "{:?}", checked.failures);
        let site = &plan.sites[0];
        match &site.refusal {
            None => format!("into {}", site.into.join(", ")),
            Some(refusal) => refusal.message.clone(),
        }
    }

    /// A network with a BatchNorm's parameters and two constants.
    fn net() -> Net {
        Net::new("x", &[1, 2, 4, 4])
            .constant("g", &[2], &[1.5, 4.0])
            .constant("b", &[2], &[0.5, 0.25])
            .constant("m", &[2], &[0.25, 1.0])
            .constant("v", &[2], &[3.0, 2.0])
            .constant("one", &[1], &[1.5])
            .constant("image", &[1, 2, 1, 1], &[0.5, 2.0])
    }

    const PARAMETERS: [&str; 4] = ["g", "b", "m", "v"];

    fn batch_norm(net: Net, data: &str, output: &str) -> Net {
        let [g, b, m, v] = PARAMETERS;
        net.node("BatchNormalization", &[data, g, b, m, v], output)
    }

    #[test]
    fn what_leads_nowhere_absorbs_nothing() {
        // Nobody reads the BatchNorm: what stands before it would be gone with it.
        let dead = batch_norm(net().node("Sub", &["x", "one"], "sub"), "sub", "bn");
        let dead = dead.node("Relu", &["x"], "y").output("y");
        assert_eq!(
            decide(dead),
            "node \"bn\" (BatchNormalization) is read by nobody"
        );
        // An Identity, and the ratio of a Dropout, are read by nobody once they are gone.
        for (operator, reader) in [("Identity", vec!["sub"]), ("Dropout", vec!["z", "sub"])] {
            let net = batch_norm(net().input("z", Some(&[1, 2, 4, 4])), "x", "bn").node(
                "Sub",
                &["bn", "image"],
                "sub",
            );
            let net = net
                .node(operator, &reader, "gone")
                .node("Relu", &["z"], "y");
            assert_eq!(
                decide(net.output("y")),
                "node \"sub\" (Sub) is read by nobody",
                "{operator}"
            );
        }
        // Read, it absorbs.
        let net = net().constant("w", &[2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0]);
        let net = net.node("Conv", &["x", "w"], "conv");
        let net = batch_norm(net.node("Sub", &["conv", "one"], "sub"), "sub", "bn");
        assert_eq!(
            decide(net.node("Relu", &["bn"], "y").output("y")),
            "into conv"
        );
    }

    #[test]
    fn a_step_on_the_way_to_a_constant_absorbs_nothing() {
        let net = net().constant("two", &[1, 2, 1, 1], &[2.0, 3.0]);
        let net = net.constant("w", &[2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0]);
        let net = net.node("Sub", &["image", "two"], "sub");
        let net = batch_norm(net, "sub", "constant").node("Conv", &["x", "w"], "conv");
        let net = net.node("Add", &["conv", "constant"], "sum");
        let net = batch_norm(net, "sum", "y").output("y");
        assert_eq!(decide(net), "node \"sub\" (Sub) is constant itself");
    }
}
