//! What names of tensors tell: the module a tensor belongs to, its role in it, and what a new bias is called.

/// The part of a name in front of its last component: `layer1.0.conv1` of `layer1.0.conv1.weight`.
pub(crate) fn module(name: &str) -> &str {
    match name.rfind(['.', '/']) {
        Some(end) => &name[..end],
        None => "",
    }
}

/// What a bias beside the weight `name` is called: `weight` or `kernel` at the end becomes `bias` (`fc_weight`, `w:0` …
/// keep what stands around it). `None` if the name says nothing of the kind.
pub(crate) fn bias(name: &str) -> Option<String> {
    let (name, suffix) = match name.strip_suffix(":0") {
        Some(name) => (name, ":0"),
        None => (name, ""),
    };
    let at = module(name).len();
    let (front, last) = name.split_at(at);
    let ending = ["depthwise_kernel", "kernel", "weight"]
        .iter()
        .find_map(|ending| last.strip_suffix(ending))?;
    Some(format!("{front}{ending}bias{suffix}"))
}

/// Whether a name fits an input of an operator, for telling tensors of one module and one content apart.
pub(crate) fn role(op_type: &str, slot: usize) -> Option<fn(&str) -> bool> {
    Some(match (op_type, slot) {
        ("BatchNormalization", 1) => |name| ends(name, &["weight", "gamma", "scale"]),
        ("BatchNormalization", 2) => |name| ends(name, &["bias", "beta"]),
        ("BatchNormalization", 3) => |name| ends(name, &["mean"]),
        ("BatchNormalization", 4) => |name| ends(name, &["var", "variance"]),
        ("Conv" | "ConvTranspose" | "Gemm", 2) => |name| ends(name, &["bias"]),
        ("Conv" | "ConvTranspose" | "Gemm", 1) => |name| ends(name, &["weight", "kernel"]),
        _ => return None,
    })
}

fn ends(name: &str, words: &[&str]) -> bool {
    let name = name.strip_suffix(":0").unwrap_or(name);
    words.iter().any(|word| name.ends_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_bias_stands_beside_its_weight() {
        assert_eq!(
            bias("layer1.0.conv1.weight").unwrap(),
            "layer1.0.conv1.bias"
        );
        assert_eq!(bias("weight").unwrap(), "bias");
        assert_eq!(bias("block/conv/kernel:0").unwrap(), "block/conv/bias:0");
        assert_eq!(bias("attn.in_proj_weight").unwrap(), "attn.in_proj_bias");
        assert_eq!(bias("embedding.table"), None);
    }

    #[test]
    fn a_module_is_what_stands_in_front() {
        assert_eq!(module("a.b.weight"), "a.b");
        assert_eq!(module("a/b/kernel"), "a/b");
        assert_eq!(module("weight"), "");
    }

    #[test]
    fn roles_tell_tensors_of_one_content_apart() {
        let beta = role("BatchNormalization", 2).unwrap();
        assert!(beta("bn.bias") && !beta("bn.running_mean"));
    }
}
