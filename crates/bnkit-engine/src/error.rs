//! Why a model could not be loaded or run. `Unsupported` is the one that callers act on: it means "no verdict", not "wrong".

/// The result of this crate's functions.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// Why a model could not be loaded or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The model may be fine, but the engine cannot compute it faithfully.
    #[error("node {node:?} ({operator}): {reason}")]
    Unsupported {
        /// The operator type, with its domain if it is not ONNX's own; empty if the whole model is meant.
        operator: String,
        /// The node's name, or its first output if it has none.
        node: String,
        /// What stands in the way.
        reason: String,
    },
    /// Every operator is known, but the shapes or types of the values do not fit one another, or the engine sees them so.
    #[error("node {node:?} ({operator}): {reason}")]
    Misfit {
        /// As in `Unsupported`.
        operator: String,
        /// As in `Unsupported`.
        node: String,
        /// What does not fit.
        reason: String,
    },
    /// Loaded, but the run failed.
    #[error("the model does not run: {reason}")]
    Run {
        /// What went wrong.
        reason: String,
    },
    /// The model, or what was given for its inputs, is wrong.
    #[error("{0}")]
    Model(String),
}

impl EngineError {
    /// A fault of the model or of the caller.
    pub(crate) fn model(message: impl Into<String>) -> Self {
        Self::Model(message.into())
    }

    /// A run that failed.
    pub(crate) fn run(reason: impl Into<String>) -> Self {
        Self::Run {
            reason: reason.into(),
        }
    }

    /// A node that cannot be computed faithfully.
    pub(crate) fn unsupported(node: &tract_onnx::pb::NodeProto, reason: impl Into<String>) -> Self {
        Self::Unsupported {
            operator: operator_name(node),
            node: node_name(node).to_owned(),
            reason: reason.into(),
        }
    }

    /// The same about shapes and types.
    pub(crate) fn into_misfit(self) -> Self {
        match self {
            Self::Unsupported {
                operator,
                node,
                reason,
            } => Self::Misfit {
                operator,
                node,
                reason,
            },
            other => other,
        }
    }

    /// The whole model cannot be computed faithfully.
    pub(crate) fn unsupported_model(reason: impl Into<String>) -> Self {
        Self::Unsupported {
            operator: String::new(),
            node: String::new(),
            reason: reason.into(),
        }
    }
}

/// `Conv`, or `com.acme::Conv` in a foreign domain.
pub(crate) fn operator_name(node: &tract_onnx::pb::NodeProto) -> String {
    if node.domain.is_empty() || node.domain == "ai.onnx" {
        node.op_type.clone()
    } else {
        format!("{}::{}", node.domain, node.op_type)
    }
}

/// A node's name, or its first output where it has none (as tract does).
pub(crate) fn node_name(node: &tract_onnx::pb::NodeProto) -> &str {
    if node.name.is_empty() {
        node.output.first().map_or("", String::as_str)
    } else {
        &node.name
    }
}
