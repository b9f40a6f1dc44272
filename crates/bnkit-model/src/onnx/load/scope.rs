//! Reading graphs and functions: their inputs, initializers and outputs, and which field of the message is what.

use std::sync::Arc;

use prost::Message;

use super::tensor::{tensor, tensor_name};
use super::{Loader, Opsets, decode, is_bytes};
use crate::onnx::model::*;
use crate::onnx::resolve;
use crate::onnx::uses::Use;
use crate::source::Window;
use crate::wire::{Field, Fields, malformed};
use crate::{DType, Error, Limits, Result, proto};

impl Loader<'_> {
    pub(super) fn graph(
        &mut self,
        window: &mut Window<'_>,
        span: Span,
        parent: Option<ScopeId>,
        kind: ScopeKind,
        opsets: &Opsets,
        depth: usize,
    ) -> Result<ScopeId> {
        let deepest = Limits::get().graph_depth;
        if depth as u64 > deepest {
            return Err(Error::invalid(format!(
                "graphs are nested more than {deepest} deep"
            )));
        }
        let scope = self.new_scope(kind, parent, opsets);
        let mut nodes = Vec::new();
        let mut tensors = Vec::new();
        let (mut inputs, mut outputs, mut infos) = (Vec::new(), Vec::new(), Vec::new());
        let (mut sparse, mut annotations) = (Vec::new(), Vec::new());
        let mut items = Vec::new();
        let mut fields = Fields::new(window, span);
        while let Some(field) = fields.next()? {
            let list = match field.number {
                1 => &mut nodes,
                5 => &mut tensors,
                11 => &mut inputs,
                12 => &mut outputs,
                13 => &mut infos,
                14 => &mut annotations,
                15 => &mut sparse,
                number => {
                    items.push(Item {
                        kind: ItemKind::Other(number),
                        span: Some(field.whole),
                    });
                    continue;
                }
            };
            is_bytes(&field)?;
            list.push((items.len(), field.payload.clone()));
            items.push(Item {
                kind: ItemKind::Other(field.number),
                span: Some(field.whole),
            });
        }
        for (item, span) in inputs {
            let (name, declared) = value_info(window, span)?;
            let id = self
                .define(scope, &name, Origin::Input)
                .map_err(|error| error.at(format!("input \"{name}\"")))?;
            self.declare_type(id, declared);
            self.model.scopes[scope.index()].inputs.push(id);
            items[item].kind = ItemKind::Input(id);
        }
        for (item, span) in tensors {
            let (name, tensor) = tensor(window, span)?;
            let existing = self.model.meaning(scope, &name);
            let id = match existing {
                Some(id)
                    if self.model.values[id.index()].origin == Origin::Input
                        && self.model.values[id.index()].tensor.is_none() =>
                {
                    id
                }
                Some(_) => {
                    return Err(Error::invalid(format!(
                        "the tensor \"{name}\" is defined twice"
                    )));
                }
                None => self.define(scope, &name, Origin::Initializer)?,
            };
            self.model.values[id.index()].tensor = Some(self.share(tensor));
            self.model.scopes[scope.index()].initializers.push(id);
            items[item].kind = ItemKind::Initializer(id);
        }
        for (_, span) in sparse {
            let name = self.sparse_name(window, span)?;
            let is_input = |id: ValueId| self.model.values[id.index()].origin == Origin::Input;
            if !self.model.meaning(scope, &name).is_some_and(is_input) {
                self.define(scope, &name, Origin::Initializer)?;
            }
        }
        self.nodes(window, scope, nodes, &mut items, opsets, depth)?;
        for (_, span) in annotations {
            self.pin_annotated(window, scope, span)?;
        }
        for (item, span) in infos {
            let (name, declared) = value_info(window, span)?;
            let id = self.model.meaning(scope, &name);
            if let Some(id) = id {
                self.declare_type(id, declared);
            }
            items[item].kind = ItemKind::ValueInfo(id);
        }
        for (item, span) in outputs {
            let (name, declared) = value_info(window, span)?;
            let id = self.output(scope, &name)?;
            self.declare_type(id, declared);
            items[item].kind = ItemKind::Output(id);
        }
        items.shrink_to_fit();
        self.model.scopes[scope.index()].items = items.into();
        Ok(scope)
    }

    pub(super) fn function(
        &mut self,
        window: &mut Window<'_>,
        field: &Field,
        model_opsets: &Opsets,
    ) -> Result<ScopeId> {
        let mut items = Vec::new();
        let mut nodes = Vec::new();
        let (mut inputs, mut outputs, mut opsets) = (Vec::new(), Vec::new(), Vec::new());
        let mut infos = Vec::new();
        let (mut name, mut domain) = (String::new(), String::new());
        let mut fields = Fields::new(window, field.payload.clone());
        while let Some(field) = fields.next()? {
            let mut text = || -> Result<String> {
                is_bytes(&field)?;
                fields.window().text(field.payload.clone())
            };
            match field.number {
                1 => name = text()?,
                4 => inputs.push(text()?),
                5 => outputs.push(text()?),
                7 => {
                    is_bytes(&field)?;
                    nodes.push((items.len(), field.payload.clone()));
                }
                9 => {
                    let opset: proto::OperatorSetIdProto =
                        decode(fields.window(), &field, "opset_import")?;
                    opsets.push((opset.domain.unwrap_or_default(), opset.version.unwrap_or(0)));
                }
                10 => domain = text()?,
                12 => {
                    is_bytes(&field)?;
                    let (name, _) = value_info(fields.window(), field.payload.clone())?;
                    infos.push((items.len(), name));
                }
                _ => {}
            }
            items.push(Item {
                kind: ItemKind::Other(field.number),
                span: Some(field.whole),
            });
        }
        let opsets = if opsets.is_empty() {
            model_opsets.clone()
        } else {
            Arc::new(opsets)
        };
        let place = format!("function \"{name}\"");
        let kind = ScopeKind::Function {
            domain: domain.into(),
            name: name.into(),
        };
        let scope = self.new_scope(kind, None, &opsets);
        for name in inputs {
            let id = self
                .define(scope, &name, Origin::Input)
                .map_err(|error| error.at(&place))?;
            self.model.scopes[scope.index()].inputs.push(id);
        }
        self.nodes(window, scope, nodes, &mut items, &opsets, 0)
            .map_err(|error| error.at(&place))?;
        for name in outputs {
            self.output(scope, &name)
                .map_err(|error| error.at(&place))?;
        }
        for (item, name) in infos {
            items[item].kind = ItemKind::ValueInfo(self.model.meaning(scope, &name));
        }
        self.model.scopes[scope.index()].items = items.into();
        Ok(scope)
    }

    /// The name under which a sparse initializer is read: that of its `values`. The tensor itself is carried.
    fn sparse_name(&mut self, window: &mut Window<'_>, span: Span) -> Result<String> {
        let mut name = String::new();
        let mut fields = Fields::new(window, span);
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                is_bytes(&field)?;
                name = tensor_name(fields.window(), field.payload)?;
            }
        }
        Ok(name)
    }

    /// Marks what a quantization annotation names as read, so that it is neither changed nor dropped.
    fn pin_annotated(&mut self, window: &mut Window<'_>, scope: ScopeId, span: Span) -> Result<()> {
        let bytes = window.bytes(span.clone())?;
        let annotation = proto::TensorAnnotation::decode(bytes.as_slice())
            .map_err(|error| malformed(span.start, &format!("quantization_annotation: {error}")))?;
        let parameters = annotation
            .quant_parameter_tensor_names
            .into_iter()
            .filter_map(|entry| entry.value);
        for name in annotation.tensor_name.into_iter().chain(parameters) {
            if let Some(value) = resolve::lookup(self.model, scope, &name) {
                let value = &mut self.model.values[value.index()];
                value.uses.push(Use::Annotation(scope));
                value.annotated = true;
            }
        }
        Ok(())
    }

    /// Notes the type that the file declares for a value: the first one that says it holds.
    fn declare_type(&mut self, id: ValueId, declared: Option<TensorType>) {
        let value = &mut self.model.values[id.index()];
        value.declared = value.declared.take().or(declared.map(Arc::new));
    }

    /// Registers an output of `scope`: it may name any value that is visible there.
    fn output(&mut self, scope: ScopeId, name: &str) -> Result<ValueId> {
        let id = resolve::lookup_from(self.model, scope, None, name).ok_or_else(|| {
            Error::invalid(format!("the output \"{name}\" is computed by no node"))
        })?;
        let outputs = &mut self.model.scopes[scope.index()].outputs;
        let slot = outputs.len();
        outputs.push(id);
        self.model.values[id.index()]
            .uses
            .push(Use::Output(scope, slot));
        Ok(id)
    }
}

fn value_info(window: &mut Window<'_>, span: Span) -> Result<(String, Option<TensorType>)> {
    let start = span.start;
    let bytes = window.bytes(span)?;
    let info = proto::ValueInfoProto::decode(bytes.as_slice())
        .map_err(|error| malformed(start, &format!("a value's type: {error}")))?;
    let declared = info.r#type.and_then(|kind| match kind.value {
        Some(proto::type_proto::Value::TensorType(tensor)) => Some(TensorType {
            dtype: DType::from_onnx(tensor.elem_type.unwrap_or(0)),
            dims: tensor
                .shape
                .map(|shape| shape.dim.into_iter().map(dim).collect()),
        }),
        _ => None,
    });
    Ok((info.name.unwrap_or_default(), declared))
}

fn dim(dim: proto::tensor_shape_proto::Dimension) -> Dim {
    use proto::tensor_shape_proto::dimension::Value;
    match dim.value {
        Some(Value::DimValue(size)) => u64::try_from(size).map_or(Dim::Unknown, Dim::Known),
        Some(Value::DimParam(name)) if !name.is_empty() => Dim::Symbol(name.into()),
        _ => Dim::Unknown,
    }
}
