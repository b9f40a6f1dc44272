//! One operator after the other, each valid for the shapes that are there. A step that fits nowhere does nothing.

mod carriers;
mod contractions;
mod norms;

use bnkit_model::DType;
use bnkit_model::proto::ModelProto;

use super::net::{Net, Value};
use super::tape::{Recipe, Tape};

type Step = fn(&mut Net, &mut Tape<'_>, &Value);

/// The operators, the more important ones more often.
const STEPS: &[Step] = &[
    carriers::identity,
    norms::batch_norm,
    contractions::conv,
    norms::batch_norm,
    contractions::conv_transpose,
    norms::batch_norm,
    contractions::gemm,
    norms::batch_norm,
    contractions::matmul,
    norms::batch_norm,
    norms::by_constant,
    norms::batch_norm,
    norms::by_constant,
    norms::decomposed,
    contractions::conv,
    contractions::gemm,
    contractions::conv,
    carriers::dropout,
    carriers::flatten,
    carriers::transpose,
    carriers::reshape,
    carriers::squeeze,
    carriers::pad,
    carriers::activation,
    carriers::pool,
    carriers::global_pool,
    carriers::branches,
    carriers::branches,
    carriers::concat,
    carriers::split,
    carriers::cast,
    carriers::shape_reader,
    carriers::output,
];

/// How large a value may become.
const MOST: usize = 600;

/// The model of a recipe, and its inputs with their real dimensions.
pub(crate) fn build(recipe: &Recipe) -> (ModelProto, Vec<(String, Vec<usize>)>) {
    let mut tape = Tape::new(&recipe.head);
    let dtype = tape.of(&[
        DType::F32,
        DType::F32,
        DType::F32,
        DType::F32,
        DType::F64,
        DType::F16,
        DType::BF16,
    ]);
    let opset = tape.of(&[17, 7, 9, 11, 13, 15, 18, 20]);
    let opset = if dtype == DType::BF16 { 22 } else { opset };
    let ir_version = match (opset, tape.below(4)) {
        (7, 3) => 3,
        (..22, _) => 8,
        _ => 10,
    };
    let mut net = Net::new(opset, ir_version, recipe.seed);
    net.value_info = tape.once_in(3);
    let rank = tape.of(&[4, 4, 4, 3, 2, 2, 5, 3]);
    let mut dims = vec![1 + tape.below(2), 1 + tape.below(6)];
    let most = [0, 0, 0, 9, 7, 4][rank];
    dims.extend((2..rank).map(|_| 1 + (4 + tape.below(most)) % most));
    let open: &[usize] = match tape.below(6) {
        3 | 4 => &[0],
        5 if rank > 2 => &[0, 2],
        _ => &[],
    };
    net.input("x", dtype, &dims, open);
    if tape.once_in(6) {
        net.input("z", dtype, &dims, open);
    }
    for step in &recipe.steps {
        let mut tape = Tape::new(step);
        let kind = tape.below(STEPS.len());
        // Mostly the latest value; a step back makes a fan-out.
        let back = [0, 0, 0, 0, 0, 0, 1, 2][tape.below(8)];
        let from = net.values.len().saturating_sub(1 + back);
        let value = net.values[from].clone();
        STEPS[kind](&mut net, &mut tape, &value);
    }
    let inputs = net.inputs.clone();
    if net.graph.node.is_empty() {
        let value = net.values[0].clone();
        carriers::identity(&mut net, &mut Tape::new(&[]), &value);
    }
    (net.finish(), inputs)
}

fn fits(dims: &[usize]) -> bool {
    let count: usize = dims.iter().product();
    count <= MOST && dims.iter().all(|&dim| dim > 0)
}
