//! The addend of a Gemm: what is refused, so that nothing is written that no engine loads, and what is not.

use bnkit_model::onnx::AttributeValue;

use crate::fold::{Options, plan};
use crate::verify::algebra;
use crate::verify::nets::{Net, attribute};

/// A BatchNorm whose shifts are `shift`, of `count` channels.
fn norm(net: Net, x: &str, y: &str, count: usize, shift: f64) -> Net {
    net.constant("gamma", &[count], &vec![2.0; count])
        .constant("shift", &[count], &vec![shift; count])
        .constant("mean", &[count], &vec![0.0; count])
        .constant("variance", &[count], &vec![3.0; count])
        .node(
            "BatchNormalization",
            &[x, "gamma", "shift", "mean", "variance"],
            y,
        )
}

/// A Gemm of \[2, 3\] and \[3, 4\] with an addend and beta, before or behind a BatchNorm.
struct Case {
    norm_first: bool,
    shift: f64,
    dims: &'static [usize],
    values: &'static [f64],
    beta: f32,
    opset: i64,
    broadcast: i64,
}

const PLAIN: Case = Case {
    norm_first: false,
    shift: 0.5,
    dims: &[4],
    values: &[1.0, 2.0, 3.0, 4.0],
    beta: 1.0,
    opset: 17,
    broadcast: 0,
};

impl Case {
    fn net(&self) -> Net {
        let net = Net::new("x", &[2, 3]).opset(self.opset);
        let net = match self.norm_first {
            true => norm(net, "x", "n", 3, self.shift),
            false => net,
        };
        let data = if self.norm_first { "n" } else { "x" };
        let mut net = net
            .constant("b", &[3, 4], &[0.5; 12])
            .constant("c", self.dims, self.values)
            .node("Gemm", &[data, "b", "c"], "g")
            .with(attribute("beta", AttributeValue::Float(self.beta)));
        if self.opset < 7 {
            let broadcast = AttributeValue::Int(self.broadcast);
            net = net.with(attribute("broadcast", broadcast));
        }
        match self.norm_first {
            true => net.output("g"),
            false => norm(net, "g", "y", 4, self.shift).output("y"),
        }
    }

    /// What the BatchNorm was refused for; if it was not, that the proof agrees.
    fn refusal(&self) -> Option<(&'static str, String)> {
        let original = self.net().model();
        let plan = plan(&original, &Options::default()).unwrap();
        if let Some(refusal) = &plan.sites[0].refusal {
            return Some((refusal.code, refusal.message.clone()));
        }
        let proof = algebra::check(&original, plan.apply(), &plan.routes).unwrap();
        assert!(proof.failures.is_empty(), "{:?}", proof.failures);
        assert_eq!(plan.summary.folded, 1);
        None
    }
}

const NAN: f64 = f64::NAN;

#[test]
fn addends_that_fit_are_folded() {
    let shapes: [(&[usize], &[f64]); 6] = [
        (&[], &[1.0]),
        (&[1], &[1.0]),
        (&[4], &[1.0, 2.0, 3.0, 4.0]),
        (&[1, 4], &[1.0, 2.0, 3.0, 4.0]),
        (&[2, 1], &[1.0, 2.0]),
        (&[2, 4], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
    ];
    for (dims, values) in shapes {
        for norm_first in [false, true] {
            for (shift, beta) in [(0.5, 1.0), (0.0, 1.0), (0.5, 0.0), (0.0, 0.0), (0.5, 0.25)] {
                let case = Case {
                    norm_first,
                    shift,
                    dims,
                    values,
                    beta,
                    ..PLAIN
                };
                assert_eq!(case.refusal(), None, "{dims:?} {norm_first} {shift} {beta}");
            }
        }
    }
}

#[test]
fn addends_that_do_not_fit_are_refused_even_where_beta_is_0() {
    let cases: [(&[usize], &[f64], &str, &str); 6] = [
        (&[3], &[1.0; 3], "shape-mismatch", "expected 4 columns"),
        (&[3, 1], &[1.0; 3], "shape-mismatch", "expected 2 rows"),
        (&[2, 3], &[1.0; 6], "shape-mismatch", "expected 4 columns"),
        (&[1, 2, 4], &[1.0; 8], "broadcast", "C has shape [1, 2, 4]"),
        (&[0, 4], &[], "broadcast", "C has shape [0, 4]"),
        (&[0], &[], "broadcast", "C has shape [0]"),
    ];
    for (dims, values, code, part) in cases {
        for norm_first in [false, true] {
            for (shift, beta) in [(0.5, 1.0), (0.0, 1.0), (0.5, 0.0), (0.0, 0.0), (0.5, -0.0)] {
                let case = Case {
                    norm_first,
                    shift,
                    dims,
                    values,
                    beta,
                    ..PLAIN
                };
                let (found, message) = case.refusal().expect("it is refused");
                assert_eq!(found, code, "{dims:?} {norm_first} {shift} {beta}");
                assert!(message.contains(part), "{message}");
            }
        }
    }
}

#[test]
fn addends_without_a_number_are_refused_unless_nobody_reads_them() {
    let refused = |norm_first, shift, value: &'static [f64], beta| {
        let case = Case {
            norm_first,
            shift,
            values: value,
            beta,
            ..PLAIN
        };
        case.refusal().map(|(code, message)| {
            let whole = match beta.is_finite() {
                true => "C has NaN or infinite elements".to_owned(),
                false => format!("node \"g\" (Gemm) has beta {beta}"),
            };
            assert_eq!(message, whole);
            code
        })
    };
    for norm_first in [false, true] {
        for shift in [0.5, 0.0] {
            for values in [
                &[NAN, 1.0, 1.0, 1.0],
                &[1.0, 1.0, 1.0, f64::INFINITY],
                &[f64::NEG_INFINITY; 4],
            ] {
                assert_eq!(refused(norm_first, shift, values, 1.0), Some("range"));
            }
            let plain = PLAIN.values;
            assert_eq!(refused(norm_first, shift, plain, f32::NAN), Some("range"));
        }
    }
    // Behind the Gemm a new addend stands in its place; before it, it stays, and is not looked at so closely.
    assert_eq!(refused(false, 0.5, &[NAN; 4], 0.0), None);
    assert_eq!(refused(true, 0.0, &[NAN; 4], 0.0), Some("range"));
}

#[test]
fn before_opset_7_an_addend_is_broadcast_on_request() {
    let refused = |dims: &'static [usize], values, broadcast| {
        let case = Case {
            dims,
            values,
            broadcast,
            opset: 6,
            ..PLAIN
        };
        case.refusal()
    };
    assert_eq!(refused(&[2, 4], &[1.0; 8], 0), None);
    assert_eq!(refused(&[4], &[1.0; 4], 1), None);
    let (code, message) = refused(&[4], &[1.0; 4], 0).expect("it is refused");
    assert_eq!(code, "broadcast");
    assert_eq!(message, "node \"g\" (Gemm) does not broadcast its C");
}

#[test]
fn an_addend_that_is_computed_stays_where_nothing_is_shifted() {
    let net = |shift, beta| {
        let net = norm(Net::new("x", &[2, 3]), "x", "n", 3, shift);
        net.input("z", Some(&[2, 4]))
            .constant("b", &[3, 4], &[0.5; 12])
            .node("Gemm", &["n", "b", "z"], "g")
            .with(attribute("beta", AttributeValue::Float(beta)))
            .output("g")
            .model()
    };
    for beta in [0.0, 1.0] {
        let original = net(0.0, beta);
        let folded = plan(&original, &Options::default()).unwrap();
        assert_eq!(folded.summary.folded, 1, "{:?}", folded.sites);
        let proof = algebra::check(&original, folded.apply(), &folded.routes).unwrap();
        assert!(proof.failures.is_empty(), "{:?}", proof.failures);
        let kept = plan(&net(0.5, beta), &Options::default()).unwrap();
        let refusal = kept.sites[0].refusal.as_ref().unwrap();
        assert_eq!(refusal.code, "weight-not-constant", "{refusal:?}");
    }
}

#[test]
fn an_addend_that_stays_is_a_number_in_its_type() {
    // The reciprocal of a subnormal number is finite in f64 alone; and a default may be overridden, but is looked at.
    for (node, value, folded) in [
        ("Reciprocal", 2.0, true),
        ("Reciprocal", 1e-45, false),
        ("", 2.0, true),
        ("", f64::INFINITY, false),
    ] {
        let net = norm(Net::new("x", &[2, 3]), "x", "n", 3, 0.0)
            .constant("b", &[3, 4], &[0.5; 12])
            .constant("c", &[4], &[1.0, value, 1.0, 1.0]);
        let (net, addend) = match node {
            "" => (net.input("c", Some(&[4])), "c"),
            node => (net.node(node, &["c"], "r"), "r"),
        };
        let original = net.node("Gemm", &["n", "b", addend], "g").output("g");
        let original = original.model();
        let plan = plan(&original, &Options::default()).unwrap();
        let proof = algebra::check(&original, plan.apply(), &plan.routes).unwrap();
        assert!(proof.failures.is_empty(), "{:?}", proof.failures);
        let refusal = plan.sites[0].refusal.as_ref();
        let code = refusal.map(|refusal| refusal.code);
        assert_eq!(code, (!folded).then_some("range"), "{node} {value}");
    }
}
