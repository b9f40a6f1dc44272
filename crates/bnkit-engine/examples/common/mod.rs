//! Random images, and what a process holds: what the examples share.

use bnkit_model::Tensor;

/// Random images of 1 × 3 × size × size, the same ones in each run.
pub(crate) struct Images {
    state: u32,
    pub(crate) dims: Vec<usize>,
}

impl Images {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            state: 1,
            dims: vec![1, 3, size, size],
        }
    }

    /// The next one: uniform in -1 … 1.
    pub(crate) fn next(&mut self) -> Result<Tensor, bnkit_model::Error> {
        let count = self.dims.iter().product();
        let mut uniform = || {
            self.state = self
                .state
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223);
            (self.state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let pixels: Vec<f32> = (0..count).map(|_| uniform()).collect();
        Tensor::from_f32(self.dims.clone(), &pixels)
    }
}

/// The most memory that the process ever held.
pub(crate) fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.unwrap_or_default().replace('\t', " ")
}
