//! Reading the structure of a model: one walk over the fields, payloads stay where they are.
//!
//! This file reads the model message, `scope` graphs and functions, `node` nodes and attributes, `tensor` the headers of
//! tensors. Whatever has no part in the graph (documentation, device configurations, fields of a later ONNX) is only
//! noted by its place, for the writer.

mod node;
mod scope;
mod tensor;

pub(super) use tensor::tensor;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use prost::Message;

use super::meanings::{Bearers, Meanings};
use super::model::*;
use super::name::Name;
use super::resolve;
use super::uses::Use;
use crate::format::Format;
use crate::source::{Source, Window};
use crate::wire::{Field, Fields, WireType, malformed};
use crate::{Error, Result, proto};

/// Domains and versions of the operators that are in force.
type Opsets = Arc<Vec<(String, i64)>>;

impl Model {
    /// Reads the structure of an ONNX file.
    ///
    /// # Errors
    /// If the file cannot be read, is no ONNX model, or its names do not fit together.
    pub fn open(path: &Path) -> Result<Self> {
        let dir = path.parent().map(Path::to_owned).unwrap_or_default();
        let source = Source::open(path)?;
        Self::load(source, Some(dir)).map_err(|error| error.in_file(path))
    }

    /// Reads the structure of an ONNX model in memory; it cannot have external data.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(bytes: impl Into<bytes::Bytes>) -> Result<Self> {
        Self::load(Source::memory(bytes), None)
    }

    fn load(source: Source, dir: Option<std::path::PathBuf>) -> Result<Self> {
        let source = Arc::new(source);
        let mut model = Self {
            source: source.clone(),
            dir,
            externals: Arc::default(),
            ir_version: 0,
            producer: String::new(),
            scopes: Vec::new(),
            nodes: Vec::new(),
            values: Vec::new(),
            items: Vec::new(),
            metadata: Vec::new(),
            metadata_dirty: false,
            inner_names: Bearers::default(),
            node_names: OnceLock::new(),
        };
        if source.is_empty() {
            return Err(Error::invalid("the file is empty"));
        }
        let mut window = Window::new(&source);
        let mut loader = Loader {
            model: &mut model,
            texts: HashSet::new(),
            shapes: HashSet::new(),
        };
        loader
            .model(&mut window)
            .and_then(|()| resolve::check_order(&model))
            .map_err(|error| Format::instead_of_onnx(&source, error))?;
        model.keep_locations();
        model.values.shrink_to_fit();
        model.nodes.shrink_to_fit();
        Ok(model)
    }
}

/// The main graph's id is 0, so it is reserved before anything else is read.
struct Loader<'m> {
    model: &'m mut Model,
    /// Operators, domains and names of attributes: few, however many nodes there are.
    texts: HashSet<Name>,
    /// The shapes of tensors: few, too.
    shapes: HashSet<Arc<[usize]>>,
}

fn is_bytes(field: &Field) -> Result<()> {
    match field.wire {
        WireType::Bytes => Ok(()),
        _ => Err(malformed(
            field.whole.start,
            &format!("field {} has the wrong wire type", field.number),
        )),
    }
}

fn decode<M: Message + Default>(window: &mut Window<'_>, field: &Field, what: &str) -> Result<M> {
    is_bytes(field)?;
    let bytes = window.bytes(field.payload.clone())?;
    M::decode(bytes.as_slice())
        .map_err(|error| malformed(field.whole.start, &format!("{what}: {error}")))
}

impl Loader<'_> {
    fn model(&mut self, window: &mut Window<'_>) -> Result<()> {
        // The wrong kind of file shows itself here; say so in words.
        let not_onnx = |error: Error| match error {
            Error::Invalid(message) => {
                Error::Invalid(format!("not a readable ONNX model: {message}"))
            }
            other => other,
        };
        let len = window.source().len();
        let mut opsets = Vec::new();
        let mut graph = None;
        let mut functions = Vec::new();
        let mut training = false;
        let mut fields = Fields::new(window, 0..len);
        while let Some(field) = fields.next().map_err(not_onnx)? {
            let kind = match field.number {
                1 => {
                    self.model.ir_version = field.value as i64;
                    ItemKind::Other(1)
                }
                2 | 3 => {
                    is_bytes(&field).map_err(not_onnx)?;
                    let text = fields
                        .window()
                        .text(field.payload.clone())
                        .map_err(not_onnx)?;
                    if !self.model.producer.is_empty() && !text.is_empty() {
                        self.model.producer.push(' ');
                    }
                    self.model.producer.push_str(&text);
                    ItemKind::Other(field.number)
                }
                7 => {
                    is_bytes(&field).map_err(not_onnx)?;
                    if graph.replace(field.clone()).is_some() {
                        return Err(Error::invalid("the model has two graphs"));
                    }
                    ItemKind::Scope(ScopeId::new(0))
                }
                8 => {
                    let opset: proto::OperatorSetIdProto =
                        decode(fields.window(), &field, "opset_import").map_err(not_onnx)?;
                    opsets.push((opset.domain.unwrap_or_default(), opset.version.unwrap_or(0)));
                    ItemKind::Other(8)
                }
                14 => {
                    let entry: proto::StringStringEntryProto =
                        decode(fields.window(), &field, "metadata_props").map_err(not_onnx)?;
                    let entry = (
                        entry.key.unwrap_or_default(),
                        entry.value.unwrap_or_default(),
                    );
                    self.model.metadata.push(entry);
                    ItemKind::Metadata
                }
                20 => {
                    training = true;
                    ItemKind::Other(20)
                }
                25 => {
                    is_bytes(&field)?;
                    functions.push((self.model.items.len(), field.clone()));
                    ItemKind::Other(25)
                }
                number => ItemKind::Other(number),
            };
            self.model.items.push(Item {
                kind,
                span: Some(field.whole.clone()),
            });
        }
        let graph = graph
            .ok_or_else(|| Error::invalid("not a readable ONNX model: there is no graph in it"))?;
        consistent(&opsets)?;
        let opsets = Arc::new(opsets);
        self.graph(window, graph.payload, None, ScopeKind::Main, &opsets, 0)?;
        if training {
            // training_info reads and updates values of the main graph by name: nothing it might name is touched.
            for value in self
                .model
                .values
                .iter_mut()
                .filter(|value| value.scope == ScopeId::new(0))
            {
                value.uses.push(Use::Annotation(ScopeId::new(0)));
                value.annotated = true;
            }
        }
        for (item, field) in functions {
            let scope = self.function(window, &field, &opsets)?;
            self.model.items[item].kind = ItemKind::Scope(scope);
        }
        self.mark_calls();
        Ok(())
    }

    fn new_scope(&mut self, kind: ScopeKind, parent: Option<ScopeId>, opsets: &Opsets) -> ScopeId {
        let id = ScopeId::new(self.model.scopes.len());
        self.model.scopes.push(Scope {
            kind,
            parent,
            inputs: Vec::new(),
            outputs: Vec::new(),
            initializers: Vec::new(),
            opsets: opsets.clone(),
            names: Meanings::default(),
            ends: Default::default(),
            items: Arc::default(),
            added: Vec::new(),
            outdated: HashSet::new(),
            dirty: false,
        });
        id
    }

    /// Marks the nodes that call a local function: it hides an operator of the same name.
    fn mark_calls(&mut self) {
        let own = |domain: &Name| match domain.as_str() {
            "ai.onnx" => Name::default(),
            _ => domain.clone(),
        };
        let functions: HashSet<(Name, Name)> = self
            .model
            .scopes
            .iter()
            .filter_map(|scope| match &scope.kind {
                ScopeKind::Function { domain, name } => Some((own(domain), name.clone())),
                _ => None,
            })
            .collect();
        if functions.is_empty() {
            return;
        }
        for node in &mut self.model.nodes {
            node.calls_function = functions.contains(&(node.domain.clone(), node.op_type.clone()));
        }
    }

    /// The one copy of an operator's, a domain's or an attribute's name.
    fn text(&mut self, text: &str) -> Name {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        let name = Name::from(text);
        self.texts.insert(name.clone());
        name
    }

    /// A tensor that has the one copy of its shape.
    fn share(&mut self, mut tensor: TensorDef) -> Arc<TensorDef> {
        match self.shapes.get(&tensor.dims) {
            Some(known) => tensor.dims = known.clone(),
            None => {
                self.shapes.insert(tensor.dims.clone());
            }
        }
        tensor.into()
    }

    /// Defines `name` in `scope`; every name is defined once in its scope.
    fn define(&mut self, scope: ScopeId, name: &str, origin: Origin) -> Result<ValueId> {
        let id = ValueId::new(self.model.values.len());
        let value = Value::new(scope, name.into(), origin);
        self.model.values.push(value);
        if self.model.bind(id).is_some() {
            return Err(Error::invalid(format!(
                "the value \"{name}\" is defined twice"
            )));
        }
        Ok(id)
    }
}

/// Checks that no domain is imported in two versions: readers differ in which one they take.
fn consistent(opsets: &[(String, i64)]) -> Result<()> {
    let own = |domain: &str| {
        if domain == "ai.onnx" {
            String::new()
        } else {
            domain.to_owned()
        }
    };
    for (at, (domain, version)) in opsets.iter().enumerate() {
        let again = opsets[..at]
            .iter()
            .find(|(other, _)| own(other) == own(domain));
        if let Some((_, other)) = again.filter(|(_, other)| other != version) {
            return Err(Error::invalid(format!(
                "opset_import: the operators of \"{domain}\" are imported in versions {other} and {version}"
            )));
        }
    }
    Ok(())
}
