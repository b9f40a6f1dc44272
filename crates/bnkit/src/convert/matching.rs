//! Which tensor of a checkpoint belongs to which of a graph: pure functions over names, shapes and types.
//!
//! First by name: a name that both have is one tensor, and then shape and type must fit, or it is an error. What is left
//! over is matched by shape, if that is unique both ways: one tensor of this shape is left in the graph, and one in the checkpoint. A
//! matrix may also be found transposed (PyTorch keeps the weight of a Linear layer as [out, in], an exported MatMul as [in, out]),
//! if nobody else left over has either shape. A square matrix is never matched by shape: it may be either.
//!
//! Shapes prove nothing where BatchNorms were folded on the way to the graph: its weights are products then. So if
//! running statistics of the checkpoint find no place by name or shape, nothing fits.
//!
//! Scalars and vectors of one element are never matched by shape.

use std::collections::HashMap;

use bnkit_model::DType;

use super::names::{is_counter, is_statistic};
use super::report::How;

/// A tensor, as far as matching looks at it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Side {
    pub(super) name: String,
    /// `None`: a type that ONNX does not have.
    pub(super) dtype: Option<DType>,
    pub(super) shape: Vec<usize>,
}

/// A tensor of the graph and one of the checkpoint, by their places in the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) graph: usize,
    pub(super) weight: usize,
    pub(super) how: How,
}

/// What belongs together, in the order of the graph, and what does not.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Matches {
    pub(super) pairs: Vec<Match>,
    pub(super) kept: Vec<usize>,
    pub(super) unused: Vec<usize>,
    pub(super) counters: Vec<usize>,
}

/// Finds what belongs together. `dtype` is the float type that may be rounded to. Names are unique on each side.
///
/// # Errors
/// If tensors of one name do not fit, naming both, or nothing does.
pub(super) fn find(
    graph: &[Side],
    weights: &[Side],
    dtype: Option<DType>,
) -> Result<Matches, String> {
    let by_name: HashMap<&str, usize> = (weights.iter().enumerate())
        .map(|(place, side)| (side.name.as_str(), place))
        .collect();
    let mut partner: Vec<Option<(usize, How)>> = vec![None; graph.len()];
    let mut used = vec![false; weights.len()];
    for (place, side) in graph.iter().enumerate() {
        let Some(&weight) = by_name.get(side.name.as_str()) else {
            continue;
        };
        check(side, &weights[weight], dtype)?;
        partner[place] = Some((weight, How::Name));
        used[weight] = true;
    }
    let counters: Vec<usize> = (0..weights.len())
        .filter(|&place| !used[place] && is_counter(&weights[place].name))
        .collect();
    let left = |used: &[bool]| -> Vec<usize> {
        let free = |place: &usize| !used[*place] && !counters.contains(place);
        (0..weights.len()).filter(free).collect()
    };
    let free: Vec<usize> = (0..graph.len())
        .filter(|&place| partner[place].is_none())
        .collect();
    for found in by_shape(graph, &free, weights, &left(&used)) {
        if fits(&graph[found.graph], &weights[found.weight], dtype) {
            partner[found.graph] = Some((found.weight, found.how));
            used[found.weight] = true;
        }
    }
    let unused = left(&used);
    check_statistics(weights, &unused)?;
    let mut matches = Matches {
        unused,
        counters,
        ..Matches::default()
    };
    for (place, partner) in partner.into_iter().enumerate() {
        match partner {
            Some((weight, how)) => matches.pairs.push(Match {
                graph: place,
                weight,
                how,
            }),
            None => matches.kept.push(place),
        }
    }
    if matches.pairs.is_empty() {
        return Err(
            "no tensor of the checkpoint fits one of the graph, by name or by shape".into(),
        );
    }
    Ok(matches)
}

/// Running statistics without a place: the graph's BatchNorms are gone, and its weights are others.
fn check_statistics(weights: &[Side], unused: &[usize]) -> Result<(), String> {
    let statistics = unused
        .iter()
        .filter(|&&place| is_statistic(&weights[place].name));
    let names: Vec<&str> = statistics
        .map(|&place| weights[place].name.as_str())
        .collect();
    match names.first() {
        None => Ok(()),
        Some(first) => Err(format!(
            "the graph has no place for {} running statistics of the checkpoint (\"{first}\" is the first): if its \
             BatchNorms were folded on export, these weights do not fit it; export it with its BatchNorms \
             (docs/exporting.md)",
            names.len()
        )),
    }
}

/// Whether two tensors of one name are one tensor.
fn check(graph: &Side, weight: &Side, dtype: Option<DType>) -> Result<(), String> {
    let name = &graph.name;
    if graph.shape != weight.shape {
        return Err(format!(
            "tensor \"{name}\" has shape {:?} in the graph and {:?} in the checkpoint",
            graph.shape, weight.shape
        ));
    }
    if fits(graph, weight, dtype) {
        return Ok(());
    }
    let text = |side: &Side| {
        side.dtype
            .map_or("another type".to_owned(), |dtype| dtype.to_string())
    };
    let is_float = |side: &Side| side.dtype.is_some_and(DType::is_float);
    let advice = match is_float(graph) && is_float(weight) {
        true => "; --dtype with the graph's type allows to round",
        false => "",
    };
    Err(format!(
        "tensor \"{name}\" is {} in the graph and {} in the checkpoint{advice}",
        text(graph),
        text(weight)
    ))
}

/// Whether the elements of `weight` may become those of `graph`: the same type, a wider float, or a float that the user
/// named.
fn fits(graph: &Side, weight: &Side, dtype: Option<DType>) -> bool {
    match (weight.dtype, graph.dtype) {
        (Some(from), Some(to)) if from == to => true,
        (Some(from), Some(to)) => {
            is_wider(from, to) || (from.is_float() && to.is_float() && dtype == Some(to))
        }
        _ => false,
    }
}

/// Whether every float of type `from` is one of type `to`.
pub(super) fn is_wider(from: DType, to: DType) -> bool {
    matches!(
        (from, to),
        (DType::F16 | DType::BF16, DType::F32 | DType::F64) | (DType::F32, DType::F64)
    )
}

/// Pairs among what is left over whose shapes leave no choice.
fn by_shape(graph: &[Side], free: &[usize], weights: &[Side], left: &[usize]) -> Vec<Match> {
    let mut shapes: HashMap<&[usize], (Vec<usize>, Vec<usize>)> = HashMap::new();
    for &place in free {
        shapes.entry(&graph[place].shape).or_default().0.push(place);
    }
    for &place in left {
        shapes
            .entry(&weights[place].shape)
            .or_default()
            .1
            .push(place);
    }
    let none = (Vec::new(), Vec::new());
    let mut found = Vec::new();
    for &place in free {
        let shape = &graph[place].shape;
        let square = matches!(shape[..], [rows, columns] if rows == columns);
        if square || shape.iter().product::<usize>() < 2 {
            continue;
        }
        let turned: Option<Vec<usize>> = match shape[..] {
            [rows, columns] => Some(vec![columns, rows]),
            _ => None,
        };
        let (in_graph, in_weights) = &shapes[shape.as_slice()];
        let (turned_graph, turned_weights) = turned
            .as_ref()
            .and_then(|turned| shapes.get(turned.as_slice()))
            .unwrap_or(&none);
        let candidates = [in_graph.len(), turned_graph.len()];
        match (candidates, in_weights.as_slice(), turned_weights.as_slice()) {
            ([1, 0], &[weight], []) => found.push((place, weight, How::Shape)),
            ([1, 0], [], &[weight]) => found.push((place, weight, How::Transposed)),
            _ => {}
        }
    }
    let into_match = |(graph, weight, how)| Match { graph, weight, how };
    found.into_iter().map(into_match).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, dtype: DType, shape: &[usize]) -> Side {
        Side {
            name: name.to_owned(),
            dtype: Some(dtype),
            shape: shape.to_vec(),
        }
    }

    fn f32s(sides: &[(&str, &[usize])]) -> Vec<Side> {
        let one = |(name, shape): &(&str, &[usize])| side(name, DType::F32, shape);
        sides.iter().map(one).collect()
    }

    /// Pairs as "graph weight how".
    fn pairs(graph: &[Side], weights: &[Side], matches: &Matches) -> Vec<String> {
        let text = |pair: &Match| {
            let (graph, weight) = (&graph[pair.graph].name, &weights[pair.weight].name);
            format!("{graph} {weight} {:?}", pair.how)
        };
        matches.pairs.iter().map(text).collect()
    }

    #[test]
    fn names_come_first_then_shapes_that_leave_no_choice() {
        let graph = f32s(&[
            ("a.weight", &[4, 3, 3, 3]),
            ("onnx::MatMul_7", &[3, 5]),
            ("onnx::Conv_9", &[6, 4, 1, 1]),
            ("p", &[8]),
            ("q", &[8]),
            ("scale", &[1]),
        ]);
        let weights = f32s(&[
            ("fc.weight", &[5, 3]),
            ("c.weight", &[6, 4, 1, 1]),
            ("a.weight", &[4, 3, 3, 3]),
            ("x", &[8]),
            ("one", &[1]),
            ("bn.num_batches_tracked", &[]),
        ]);
        let found = find(&graph, &weights, None).unwrap();
        assert_eq!(
            pairs(&graph, &weights, &found),
            [
                "a.weight a.weight Name",
                "onnx::MatMul_7 fc.weight Transposed",
                "onnx::Conv_9 c.weight Shape"
            ]
        );
        assert_eq!((found.kept, found.unused), (vec![3, 4, 5], vec![3, 4]));
        assert_eq!(found.counters, [5]);
    }

    #[test]
    fn what_could_be_two_things_is_neither() {
        for (graph, weights) in [
            // A square matrix may be transposed.
            (vec![("g", &[4, 4][..])], vec![("w", &[4, 4][..])]),
            // Either of two in the checkpoint, in the graph.
            (vec![("g", &[4, 3])], vec![("w", &[4, 3]), ("v", &[4, 3])]),
            (vec![("g", &[4, 3]), ("h", &[4, 3])], vec![("w", &[4, 3])]),
            // As it is, or transposed.
            (vec![("g", &[4, 3])], vec![("w", &[4, 3]), ("v", &[3, 4])]),
            (vec![("g", &[4, 3]), ("h", &[3, 4])], vec![("w", &[4, 3])]),
        ] {
            let (mut graph, mut weights) = (f32s(&graph), f32s(&weights));
            graph.push(side("same", DType::F32, &[2]));
            weights.push(side("same", DType::F32, &[2]));
            let found = find(&graph, &weights, None).unwrap();
            assert_eq!(pairs(&graph, &weights, &found), ["same same Name"]);
        }
    }

    #[test]
    fn one_name_with_two_shapes_or_types_is_an_error() {
        let error = find(&f32s(&[("w", &[4])]), &f32s(&[("w", &[4, 1])]), None).unwrap_err();
        assert_eq!(
            error,
            "tensor \"w\" has shape [4] in the graph and [4, 1] in the checkpoint"
        );
        let of = |dtype| vec![side("w", dtype, &[4])];
        let result = |graph, weight, allowed| find(&of(graph), &of(weight), allowed);
        assert!(result(DType::F32, DType::BF16, None).is_ok());
        assert!(result(DType::F64, DType::F32, None).is_ok());
        let error = result(DType::F16, DType::F32, None).unwrap_err();
        assert!(
            error.contains("float16 in the graph and float32"),
            "{error}"
        );
        assert!(error.contains("--dtype"), "{error}");
        assert!(result(DType::F16, DType::F32, Some(DType::F16)).is_ok());
        assert!(result(DType::F16, DType::BF16, None).is_err());
        assert!(result(DType::F16, DType::F32, Some(DType::BF16)).is_err());
        assert!(result(DType::I64, DType::I32, None).is_err());
        assert!(result(DType::I64, DType::F32, Some(DType::F32)).is_err());
    }

    #[test]
    fn weights_of_a_net_with_batch_norms_do_not_fit_a_folded_graph() {
        let graph = f32s(&[("fc.weight", &[5, 3]), ("onnx::Conv_9", &[6, 4, 1, 1])]);
        let weights = f32s(&[
            ("conv.weight", &[6, 4, 1, 1]),
            ("bn.weight", &[6]),
            ("bn.running_mean", &[6]),
            ("fc.weight", &[5, 3]),
        ]);
        let error = find(&graph, &weights, None).unwrap_err();
        assert!(error.contains("bn.running_mean"), "{error}");
    }

    #[test]
    fn nothing_in_common_is_an_error() {
        let error = find(&f32s(&[("a", &[4])]), &f32s(&[("b", &[5])]), None).unwrap_err();
        assert!(error.starts_with("no tensor of the checkpoint"), "{error}");
    }
}
