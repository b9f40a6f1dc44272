//! Property tests of the fold over generated models.
//!
//! `BNKIT_CASES` raises the number of models, `BNKIT_SEED` takes other ones, and `BNKIT_DUMP` names a folder that
//! every model and its folded one are written to, for a look with other tools. Models that showed a fault once are
//! golden graphs, so that they outlive changes of the generator.

mod constants;
mod net;
mod steps;
mod tape;
mod unseen;

use std::collections::{HashMap, HashSet};

use bnkit::fold::{self, Options, Plan};
use bnkit::report::{Decision, Verdict};
use bnkit::verify::{self, VerifyOptions};
use bnkit_engine::{LoadOptions, Precision as Run, Session};
use bnkit_model::onnx::{Model, Precision};
use bnkit_model::proto::{GraphProto, ModelProto, NodeProto};
use bnkit_model::{DType, Tensor};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use prost::Message;

use tape::{Numbers, recipes};

type Shapes = Vec<(String, Vec<usize>)>;

/// A model and everything that came of it.
struct Case {
    bytes: Vec<u8>,
    shapes: Shapes,
    model: Model,
    plan: Plan,
    folded: Vec<u8>,
}

fn fails(what: impl std::fmt::Display) -> String {
    what.to_string()
}

impl Case {
    fn new(model: &ModelProto, shapes: Shapes) -> Result<Self, String> {
        let bytes = net::bytes(model);
        let model = Model::from_bytes(bytes.clone()).map_err(|e| format!("refused: {e}"))?;
        let plan = fold::plan(&model, &Options::default()).map_err(|e| format!("no plan: {e}"))?;
        let folded = plan.apply().to_bytes(Precision::Stored).map_err(fails)?;
        Ok(Self {
            bytes,
            shapes,
            model,
            plan,
            folded,
        })
    }

    /// All properties.
    fn check(&self) -> Result<(), String> {
        self.round_trips()?;
        self.is_deterministic()?;
        self.decides_once()?;
        self.leaves_nothing_behind()?;
        self.keeps_its_interface()?;
        self.is_done()?;
        self.computes_the_same()?;
        self.is_proved()
    }

    /// What is not changed is the same, byte by byte.
    fn round_trips(&self) -> Result<(), String> {
        let again = self.model.to_bytes(Precision::Stored).map_err(fails)?;
        expect(again == self.bytes, "the round trip is not lossless")
    }

    fn is_deterministic(&self) -> Result<(), String> {
        let model = Model::from_bytes(self.bytes.clone()).map_err(fails)?;
        let plan = fold::plan(&model, &Options::default()).map_err(fails)?;
        let folded = plan.apply().to_bytes(Precision::Stored).map_err(fails)?;
        expect(folded == self.folded, "a second plan gives other bytes")?;
        let json = |plan: &Plan| serde_json::to_string(&plan.sites).expect("sites are JSON");
        expect(
            json(&plan) == json(&self.plan),
            "a second plan decides otherwise",
        )
    }

    /// Every BatchNorm has one decision, and the counts are true.
    fn decides_once(&self) -> Result<(), String> {
        let (before, after) = (decode(&self.bytes), decode(&self.folded));
        let norms = |graph: &GraphProto| -> Vec<String> {
            let norms = graph
                .node
                .iter()
                .filter(|node| node.op_type() == "BatchNormalization");
            norms.map(|node| node.name().to_owned()).collect()
        };
        let (all, left) = (norms(&before), norms(&after));
        let plan = &self.plan;
        let sites: Vec<&str> = plan.sites.iter().map(|site| site.node.as_str()).collect();
        let distinct: HashSet<&str> = sites.iter().copied().collect();
        expect(distinct.len() == sites.len(), "a BatchNorm appears twice")?;
        let expected: HashSet<&str> = all.iter().map(String::as_str).collect();
        expect(distinct == expected, "a BatchNorm has no decision")?;
        for site in &plan.sites {
            let stands = left.iter().any(|name| site.node == *name);
            let folded = site.decision == Decision::Folded;
            let name = &site.node;
            expect(
                stands != folded,
                format!("{name}: {:?} is not true", site.decision),
            )?;
            expect(
                folded == site.refusal.is_none(),
                format!("{name}: no reason"),
            )?;
            expect(
                folded != site.into.is_empty(),
                format!("{name}: into nothing"),
            )?;
        }
        let summary = &plan.summary;
        let sum = summary.folded + summary.half_folded + summary.merged + summary.lowered;
        let sum = sum + summary.kept + summary.skipped;
        expect(
            summary.batch_norms == all.len() && sum == all.len(),
            "the sum is wrong",
        )?;
        expect(
            summary.kept == left.len(),
            "the number of those kept is wrong",
        )?;
        expect(
            summary.nodes_before == before.node.len(),
            "nodes_before is wrong",
        )?;
        expect(
            summary.nodes_after == after.node.len(),
            "nodes_after is wrong",
        )?;
        expect(
            plan.routes.len() == summary.folded + summary.affines_folded,
            "routes and folds differ in number",
        )
    }

    /// No training mode, and no constant that has lost its readers.
    fn leaves_nothing_behind(&self) -> Result<(), String> {
        let (before, after) = (decode(&self.bytes), decode(&self.folded));
        for node in &after.node {
            let flag = node
                .attribute
                .iter()
                .any(|a| a.name() == "training_mode" && a.i() != 0);
            let training =
                node.op_type() == "BatchNormalization" && (flag || node.output.len() > 1);
            // Statistics that callers may override do not keep it in training mode either.
            let overridable = node
                .input
                .iter()
                .skip(3)
                .any(|name| is_input(&before, name));
            expect(
                !training || overridable,
                format!("{} is in training mode", node.name()),
            )?;
        }
        let read_before = reads(&before);
        let read = reads(&after);
        for tensor in &after.initializer {
            let name = tensor.name();
            let known = before.initializer.iter().any(|old| old.name() == name);
            let useless = !read.contains(name) && (!known || read_before.contains(name));
            let promised = is_input(&after, name);
            expect(
                !useless || promised,
                format!("nobody reads \"{name}\" any more"),
            )?;
        }
        for node in &after.node {
            let unread = node.output.iter().all(|name| !read.contains(name.as_str()));
            let was = before.node.iter().any(|old| {
                old.output == node.output
                    && old
                        .output
                        .iter()
                        .all(|name| !read_before.contains(name.as_str()))
            });
            expect(
                !unread || was,
                format!("nobody reads {} any more", node.name()),
            )?;
        }
        Ok(())
    }

    /// Inputs and outputs stay, but for the outputs of training mode; what is said of types stays true.
    fn keeps_its_interface(&self) -> Result<(), String> {
        let (before, after) = (decode(&self.bytes), decode(&self.folded));
        let training = |name: &str| name.starts_with("training_");
        let outputs: Vec<_> = before
            .output
            .iter()
            .filter(|o| !training(o.name()))
            .collect();
        expect(
            outputs.iter().copied().eq(&after.output),
            "the outputs are others",
        )?;
        if self.model.ir_version >= 4 {
            expect(before.input == after.input, "the inputs are others")?;
        }
        let made: HashSet<&str> = after
            .node
            .iter()
            .flat_map(|node| node.output.iter().map(String::as_str))
            .collect();
        for info in &after.value_info {
            let name = info.name();
            expect(
                made.contains(name),
                format!("value_info of \"{name}\", which is gone"),
            )?;
        }
        Ok(())
    }

    /// A second fold finds nothing to do. An Add that the first one put behind a MatMul may go further in the second,
    /// which knows it as a node of the file; then the third has nothing to do.
    fn is_done(&self) -> Result<(), String> {
        let nodes = |bytes: &[u8]| decode(bytes).node.into_iter().map(|node| node.output);
        let before: HashSet<_> = nodes(&self.bytes).collect();
        let grew = nodes(&self.folded).any(|node| !before.contains(&node));
        let (plan, second) = refold(&self.folded)?;
        if plan.routes.is_empty() {
            return expect(
                second == self.folded,
                format!("a second fold changes the file: {:?}", plan.cleanup),
            );
        }
        let what = format!(
            "a second fold folds {:?} and {} affines",
            folded_names(&plan),
            plan.summary.affines_folded
        );
        expect(grew && plan.summary.folded == 0, what)?;
        let (_, third) = refold(&second)?;
        expect(third == second, "a third fold changes the file")
    }

    /// Both models agree in f64, with the folded constants as they are before rounding.
    fn computes_the_same(&self) -> Result<(), String> {
        let exact = self
            .plan
            .apply()
            .to_bytes(Precision::Exact)
            .map_err(fails)?;
        let load = |bytes: &[u8], which: &str| {
            let options = LoadOptions {
                precision: Run::F64,
                input_dims: &self.shapes,
                model_dir: None,
                extra_outputs: &[],
                perturbation: None,
            };
            Session::load(bytes, &options).map_err(|e| format!("{which} does not load: {e}"))
        };
        // The outputs of training mode are no part of the comparison.
        let mut eval = ModelProto::decode(self.bytes.as_slice()).map_err(fails)?;
        let graph = eval.graph.as_mut().expect("a graph");
        graph
            .output
            .retain(|output| !output.name().starts_with("training_"));
        let original = load(&net::bytes(&eval), "the original")?;
        let folded = load(&exact, "the folded model")?;
        let mut numbers = Numbers(7);
        let inputs: Vec<(String, Tensor)> = self
            .shapes
            .iter()
            .map(|(name, dims)| {
                let values = numbers.many(dims.iter().product(), -2.0, 2.0);
                let tensor = Tensor::from_f64(DType::F64, dims.clone(), &values);
                (name.clone(), tensor.expect("an input"))
            })
            .collect();
        let expected = original
            .run(&inputs)
            .map_err(|e| format!("the original: {e}"))?;
        let found = folded
            .run(&inputs)
            .map_err(|e| format!("the folded model: {e}"))?;
        let found: HashMap<String, Tensor> = found.into_iter().collect();
        expect(
            expected.len() == found.len(),
            "the number of outputs differs",
        )?;
        for (name, expected) in expected {
            let found = found
                .get(&name)
                .ok_or_else(|| format!("\"{name}\" is missing"))?;
            expect(
                expected.dims() == found.dims(),
                format!("\"{name}\" has another shape"),
            )?;
            let (expected, found) = (numbers_of(&expected)?, numbers_of(found)?);
            let size = expected.iter().fold(0.0f64, |size, x| size.max(x.abs()));
            for (a, b) in expected.iter().zip(&found) {
                let near = (a - b).abs() <= 1e-9 * size || a == b || (a.is_nan() && b.is_nan());
                expect(near, format!("\"{name}\": {a} became {b}"))?;
            }
        }
        Ok(())
    }

    /// The proof says so, too, of the model as it is stored.
    fn is_proved(&self) -> Result<(), String> {
        let options = VerifyOptions {
            shapes: self.shapes.clone(),
            samples: 2,
            ..VerifyOptions::default()
        };
        let proof = verify::prove(&self.model, &self.plan, &Options::default(), &options);
        let proof = proof.map_err(|e| format!("no proof: {e}"))?;
        expect(
            proof.verdict == Verdict::Equivalent,
            format!(
                "{:?}, culprit {:?}, {:?}, f64 {:?}, {:?}",
                proof.verdict, proof.culprit, proof.notes, proof.f64, proof.outputs
            ),
        )
    }
}

/// Folds a folded model once more.
fn refold(folded: &[u8]) -> Result<(Plan, Vec<u8>), String> {
    let model = Model::from_bytes(folded.to_vec())
        .map_err(|e| format!("the folded model is refused: {e}"))?;
    let plan = fold::plan(&model, &Options::default())
        .map_err(|e| format!("the folded model cannot be planned: {e}"))?;
    let again = plan.apply().to_bytes(Precision::Stored).map_err(fails)?;
    Ok((plan, again))
}

fn expect(holds: bool, otherwise: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn numbers_of(tensor: &Tensor) -> Result<Vec<f64>, String> {
    if tensor.dtype().is_float() {
        return tensor.to_f64().map_err(fails);
    }
    let values = tensor.to_i64().map_err(fails)?;
    Ok(values.into_iter().map(|value| value as f64).collect())
}

fn folded_names(plan: &Plan) -> Vec<&str> {
    let folded = plan
        .sites
        .iter()
        .filter(|site| site.decision == Decision::Folded);
    folded.map(|site| site.node.as_str()).collect()
}

fn decode(bytes: &[u8]) -> GraphProto {
    let model = ModelProto::decode(bytes).expect("a model");
    model.graph.expect("a graph")
}

fn is_input(graph: &GraphProto, name: &str) -> bool {
    graph.input.iter().any(|input| input.name() == name)
}

/// Every name that a node reads or that is an output.
fn reads(graph: &GraphProto) -> HashSet<&str> {
    let of = |node: &NodeProto| node.input.clone();
    debug_assert!(
        graph
            .node
            .iter()
            .all(|node| !of(node).is_empty() || node.op_type() == "Constant")
    );
    let nodes = graph
        .node
        .iter()
        .flat_map(|node| node.input.iter().map(String::as_str));
    nodes
        .chain(graph.output.iter().map(|output| output.name()))
        .collect()
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// So many models, unless the environment wants others.
fn config(cases: u64) -> Config {
    Config {
        cases: from_env("BNKIT_CASES").unwrap_or(cases) as u32,
        rng_seed: RngSeed::Fixed(from_env("BNKIT_SEED").unwrap_or(1)),
        failure_persistence: None,
        max_shrink_iters: 3000,
        ..Config::default()
    }
}

#[test]
fn generated_models_keep_their_meaning() {
    let dump = std::env::var_os("BNKIT_DUMP").map(std::path::PathBuf::from);
    let mut written = 0;
    let mut census: HashMap<&'static str, usize> = HashMap::new();
    let count = std::cell::RefCell::new((&mut written, &mut census));
    let outcome = TestRunner::new(config(1500)).run(&recipes(9), |recipe| {
        let (model, shapes) = steps::build(&recipe);
        let case = Case::new(&model, shapes).map_err(TestCaseError::fail)?;
        let (written, census) = &mut *count.borrow_mut();
        for site in &case.plan.sites {
            let key = site.refusal.as_ref().map(|refusal| refusal.code);
            *census.entry(key.or(site.rule).unwrap_or("?")).or_default() += 1;
        }
        if let Some(dump) = &dump {
            let write = |kind: &str, bytes: &[u8]| {
                std::fs::write(dump.join(format!("{written:06}.{kind}.onnx")), bytes)
            };
            write("original", &case.bytes)
                .and_then(|()| write("folded", &case.folded))
                .expect("a folder");
            **written += 1;
        }
        case.check().map_err(TestCaseError::fail)
    });
    if let Err(proptest::test_runner::TestError::Fail(reason, recipe)) = &outcome {
        let (model, _) = steps::build(recipe);
        if let Some(dump) = &dump {
            std::fs::write(dump.join("failure.onnx"), net::bytes(&model)).expect("a folder");
        }
        panic!("{reason}\n{recipe:?}\n{}", show(&model));
    }
    outcome.expect("nothing else goes wrong");
    // The generator reaches what it is there for.
    for code in [
        "into-conv",
        "into-conv-transpose",
        "into-gemm",
        "into-matmul",
        "into-constant",
    ] {
        assert!(
            census.contains_key(code),
            "no BatchNorm went {code}: {census:?}"
        );
    }
}

/// A model as text, for messages.
fn show(model: &ModelProto) -> String {
    let Some(graph) = &model.graph else {
        return String::new();
    };
    let mut text = format!("opset {:?}\n", model.opset_import[0].version());
    let shape =
        |info: &bnkit_model::proto::ValueInfoProto| format!("{} {:?}", info.name(), info.r#type);
    for input in &graph.input {
        text += &format!("input {}\n", shape(input));
    }
    for tensor in &graph.initializer {
        text += &format!(
            "{}: {} {:?}\n",
            tensor.name(),
            DType::from_onnx(tensor.data_type()),
            tensor.dims
        );
    }
    for node in &graph.node {
        let attributes: Vec<String> = node
            .attribute
            .iter()
            .map(|a| format!("{}={:?}{:?}{:?}{:?}", a.name(), a.i, a.f, a.ints, a.s))
            .collect();
        text += &format!(
            "{:?} = {}({:?}) {attributes:?}\n",
            node.output,
            node.op_type(),
            node.input
        );
    }
    let outputs: Vec<&str> = graph.output.iter().map(|output| output.name()).collect();
    text += &format!("outputs {outputs:?}\n");
    text
}
