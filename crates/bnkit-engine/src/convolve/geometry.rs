//! The shapes and steps of a convolution of images.

/// Shapes and steps; rows before columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub(super) groups: usize,
    /// Input channels of a group.
    pub(super) channels: usize,
    /// Output channels of a group.
    pub(super) kernels: usize,
    pub(super) image: [usize; 2],
    pub(super) taps: [usize; 2],
    pub(super) strides: [usize; 2],
    pub(super) dilations: [usize; 2],
    /// Rows above, columns to the left.
    pub(super) padding: [usize; 2],
    pub(super) output: [usize; 2],
}
