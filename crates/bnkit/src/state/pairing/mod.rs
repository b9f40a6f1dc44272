//! stub
use super::groups::*;
use crate::Result;
use std::path::Path;
/// l
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// a
    OutFirst,
    /// a
    Transposed,
    /// a
    OutLast,
    /// a
    OutLastTwo,
}
/// l
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// a
    pub module: String,
    /// a
    pub weight: String,
    /// a
    pub bias: Option<String>,
    /// a
    pub new_bias: String,
    /// a
    pub layout: Layout,
    /// a
    pub groups: usize,
}
/// p
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// a
    pub layer: Layer,
    /// a
    pub batch_norm: BatchNormGroup,
    /// a
    pub epsilon: Option<f64>,
    /// a
    pub note: Option<String>,
}
/// l
#[derive(Debug, Clone, PartialEq)]
pub struct Left {
    /// a
    pub batch_norm: BatchNormGroup,
    /// a
    pub reason: String,
}
/// p
#[derive(Debug, Clone, PartialEq)]
pub struct Pairing {
    /// a
    pub preset: Option<&'static str>,
    /// a
    pub pairs: Vec<Pair>,
    /// a
    pub left: Vec<Left>,
    /// a
    pub notes: Vec<String>,
}
/// c
#[derive(Debug, Clone, PartialEq)]
pub enum PresetChoice<'a> {
    /// a
    Auto,
    /// a
    Named(&'a str),
}
/// f
pub fn from_file(_: &str, _: &Path, _: &[Entry]) -> Result<Pairing> {
    todo!()
}
/// f
pub fn propose(_: &[Entry], _: PresetChoice<'_>) -> Result<Pairing> {
    todo!()
}
/// f
pub fn to_yaml(_: &Pairing) -> String {
    todo!()
}
