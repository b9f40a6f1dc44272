//! What the names of a state dict's tensors say of them: the last part of a name, as PyTorch, Keras and flax write it.

/// Endings of running statistics.
const STATISTICS: [&str; 5] = [
    "running_mean",
    "running_var",
    "moving_mean",
    "moving_variance",
    "moving_var",
];

/// The last part of a name.
pub(super) fn last(name: &str) -> &str {
    name.rsplit(['.', '/']).next().unwrap_or(name)
}

/// Whether this is a running mean or variance.
pub(super) fn is_statistic(name: &str) -> bool {
    // TensorFlow writes "moving_mean:0".
    let last = last(name);
    let last = last.strip_suffix(":0").unwrap_or(last);
    STATISTICS.contains(&last)
}

/// Whether this counts batches: no graph has a place for it.
pub(super) fn is_counter(name: &str) -> bool {
    last(name) == "num_batches_tracked"
}

/// The name that a state dict gives to `statistic` ("running_mean" …) of the BatchNorm whose scale is called `scale`, if that follows
/// PyTorch's names.
pub(super) fn beside(scale: &str, statistic: &str) -> Option<String> {
    let module = scale.strip_suffix("weight")?;
    let whole = module.is_empty() || module.ends_with('.');
    whole.then(|| format!("{module}{statistic}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_in_the_last_part() {
        assert!(is_statistic("layer1.0.bn1.running_var"));
        assert!(is_statistic("running_mean"));
        assert!(is_statistic("net/bn/moving_variance:0"));
        assert!(!is_statistic("running_mean.weight"));
        assert!(is_counter("bn1.num_batches_tracked"));
        assert!(!is_counter("num_batches_tracked_ema"));
    }

    #[test]
    fn statistics_stand_beside_the_scale() {
        assert_eq!(
            beside("a.bn.weight", "running_var").as_deref(),
            Some("a.bn.running_var")
        );
        assert_eq!(
            beside("weight", "running_mean").as_deref(),
            Some("running_mean")
        );
        assert_eq!(beside("onnx::BatchNormalization_12", "running_mean"), None);
        assert_eq!(beside("overweight", "running_mean"), None);
    }
}
