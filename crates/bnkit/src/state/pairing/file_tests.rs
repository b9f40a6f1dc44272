//! What a pairing file may say, and what each mistake is called.

use super::*;
use crate::state::pairing::Layout;

fn entry(name: &str, shape: &[usize]) -> Entry {
    Entry {
        name: name.to_owned(),
        shape: shape.to_vec(),
        is_float: true,
    }
}

/// Two blocks of two convolutions, a linear layer and a transposed one with two groups.
fn net() -> Vec<Entry> {
    let mut entries = Vec::new();
    let bn = |entries: &mut Vec<Entry>, module: &str, channels: usize| {
        for leaf in ["weight", "bias", "running_mean", "running_var"] {
            entries.push(entry(&format!("{module}.{leaf}"), &[channels]));
        }
    };
    for block in 0..2 {
        for n in 1..3 {
            entries.push(entry(&format!("s.{block}.conv{n}.weight"), &[8, 4, 3, 3]));
            bn(&mut entries, &format!("s.{block}.bn{n}"), 8);
        }
    }
    entries.push(entry("fc.weight", &[8, 5]));
    entries.push(entry("fc.bias", &[8]));
    bn(&mut entries, "fcbn", 8);
    entries.push(entry("up.weight", &[6, 4, 2, 2]));
    bn(&mut entries, "upbn", 8);
    entries
}

fn read(text: &str) -> Result<Pairing> {
    from_file(text, Path::new("pairs.yaml"), &net())
}

fn pairs(text: &str) -> Vec<(String, String, Option<f64>)> {
    let row = |pair: &Pair| {
        (
            pair.layer.module.clone(),
            pair.batch_norm.module.clone(),
            pair.epsilon,
        )
    };
    read(text).unwrap().pairs.iter().map(row).collect()
}

#[test]
fn a_template_a_glob_and_names_make_pairs() {
    let by_template = pairs("pairs:\n  - conv: '{p}.conv{n}'\n    bn: '{p}.bn{n}'\n");
    assert_eq!(by_template.len(), 4);
    assert_eq!(
        by_template[3],
        ("s.1.conv2".to_owned(), "s.1.bn2".to_owned(), None)
    );
    let by_glob = pairs(
        "eps: 1e-3\npairs:\n- {conv: s.*.conv1, bn: s.*.bn1}\n- {linear: fc, bn: fcbn, eps: 0.5}",
    );
    assert_eq!(
        by_glob,
        [
            ("s.0.conv1".to_owned(), "s.0.bn1".to_owned(), Some(1e-3)),
            ("s.1.conv1".to_owned(), "s.1.bn1".to_owned(), Some(1e-3)),
            ("fc".to_owned(), "fcbn".to_owned(), Some(0.5)),
        ]
    );
    let text = "pairs:\n- {conv: up, bn: upbn, transposed: true, groups: 2}";
    let pairing = read(text).unwrap();
    let up = &pairing.pairs[0].layer;
    assert_eq!((up.layout, up.groups), (Layout::Transposed, 2));
    assert_eq!(
        (up.bias.as_deref(), up.new_bias.as_str()),
        (None, "up.bias")
    );
    assert_eq!(pairing.left.len(), 5);
}

#[test]
fn every_mistake_names_the_file_the_pair_and_what_is_wrong() {
    let cases = [
        ("pairs: 3", "pairs"),
        ("pears: []", "pears"),
        ("pairs:\n- {conv: a, bn: b, esp: 1}", "esp"),
        ("pairs:\n- {conv: a}", "bn"),
        ("eps: -1\npairs: []", "no epsilon"),
        ("eps: .nan\npairs: []", "no epsilon"),
        ("pairs:\n- {bn: s.0.bn1}", "expected one of"),
        (
            "pairs:\n- {conv: a, linear: a, bn: s.0.bn1}",
            "expected one of",
        ),
        (
            "pairs:\n- {conv: s.0.conv9, bn: s.0.bn1}",
            "pair 1 (line 2): there is no layer \"s.0.conv9\"",
        ),
        (
            "pairs:\n- {conv: s.0.conv1, bn: s.0.bn9}",
            "no batch norm \"s.0.bn9\"",
        ),
        (
            "pairs:\n- {conv: '{p}.konv', bn: '{p}.bn'}",
            "matches nothing",
        ),
        (
            "pairs:\n- {conv: '{p}.conv1', bn: '{q}.bn1'}",
            "same variables",
        ),
        (
            "pairs:\n- {conv: 's.*.conv1', bn: 's.0.bn1'}",
            "same variables",
        ),
        ("pairs:\n- {conv: '{p', bn: b}", "not closed"),
        (
            "pairs:\n- {conv: s.0.conv1, bn: s.0.bn1, groups: 0}",
            "0 groups",
        ),
        (
            "pairs:\n- {conv: s.0.conv1, bn: s.0.bn1, transposed: true}",
            "\"s.0.conv1.weight\" of shape [8, 4, 3, 3] has 4",
        ),
        ("pairs:\n- {conv: up, bn: upbn}", "has 6 output channels"),
        (
            "pairs:\n- {conv: up, bn: upbn, transposed: true, groups: 4}",
            "do not divide",
        ),
        ("pairs:\n- {conv: fc, bn: fcbn}", "write \"linear\""),
        (
            "pairs:\n- {linear: s.0.conv1, bn: s.0.bn1}",
            "write \"conv\"",
        ),
        (
            "pairs:\n- {linear: fc, bn: fcbn, transposed: true}",
            "not transposed",
        ),
        (
            "pairs:\n- {conv: s.0.conv1, bn: s.0.bn1}\n- {conv: s.0.conv2, bn: s.0.bn1}",
            "pair 2 (line 3): batch norm \"s.0.bn1\" is already in pair 1 (line 2)",
        ),
        (
            "pairs:\n- {conv: s.0.conv1, bn: s.0.bn1}\n- {conv: s.0.conv1, bn: s.0.bn2}",
            "layer \"s.0.conv1\" (tensor \"s.0.conv1.weight\") is already in pair 1",
        ),
    ];
    for (text, message) in cases {
        let error = read(text).expect_err(text).to_string();
        assert!(error.starts_with("pairs.yaml: "), "{error}");
        assert!(error.contains(message), "{text}\n{error}");
    }
}

#[test]
fn a_template_with_two_meanings_is_refused() {
    let mut entries = net();
    entries.push(entry("s.0.bn1.bn.weight", &[8, 4, 3, 3]));
    let mut bn = |module: &str| {
        for leaf in ["running_mean", "running_var"] {
            entries.push(entry(&format!("{module}.{leaf}"), &[8]));
        }
    };
    bn("x.a.y.a.z");
    entries.push(entry("x.b.y.a.z.weight", &[8, 4, 3, 3]));
    entries.push(entry("x.a.y.b.z.weight", &[8, 4, 3, 3]));
    let text = "pairs:\n- {conv: '{p}.b.{q}', bn: '{p}.a.{q}'}";
    let error = from_file(text, Path::new("p.yaml"), &entries).expect_err("two layers");
    assert!(error.to_string().contains("name more of it"), "{error}");
}
