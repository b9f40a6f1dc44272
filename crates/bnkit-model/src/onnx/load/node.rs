//! Reading nodes and their attributes: names become ids, bodies become scopes.

use super::tensor::tensor;
use super::{Loader, Opsets, decode, is_bytes};
use crate::onnx::model::*;
use crate::onnx::resolve;
use crate::onnx::uses::Use;
use crate::source::Window;
use crate::wire::{Field, Fields};
use crate::{Error, Result, proto};

impl Loader<'_> {
    /// Reads the nodes of a scope: first what they define, then what they read. An inner name hides an outer one only
    /// behind the node that defines it, as in an interpreter of the sorted graph; a file that is not sorted is read too.
    pub(super) fn nodes(
        &mut self,
        window: &mut Window<'_>,
        scope: ScopeId,
        spans: Vec<(usize, Span)>,
        items: &mut [Item],
        opsets: &Opsets,
        depth: usize,
    ) -> Result<()> {
        self.model.nodes.reserve(spans.len());
        let mut declared = Vec::with_capacity(spans.len());
        for (item, span) in spans {
            let header = NodeHeader::read(window, &span)?;
            let id = self.declare(scope, header, items[item].span.clone())?;
            items[item].kind = ItemKind::Node(id);
            declared.push((id, span));
        }
        for (id, span) in declared {
            // Read once more, rather than all kept.
            let content = NodeContent::read(window, &span)?;
            self.inputs(scope, id, &content.inputs)
                .map_err(|error| error.at(self.model.describe(id)))?;
            self.attributes(window, id, &content.attributes, opsets, depth)
                .map_err(|error| error.at(self.model.describe(id)))?;
        }
        Ok(())
    }

    /// Adds a node with its outputs; what it reads follows when every name of the scope is known.
    fn declare(
        &mut self,
        scope: ScopeId,
        header: NodeHeader,
        span: Option<Span>,
    ) -> Result<NodeId> {
        let id = NodeId::new(self.model.nodes.len());
        let mut outputs = Slots::with_capacity(header.outputs.len());
        for (slot, name) in header.outputs.iter().enumerate() {
            outputs.push(match name.as_str() {
                "" => None,
                name => {
                    let value = self.define(scope, name, Origin::Node(id, slot));
                    Some(value.map_err(|error| error.at(header.place()))?)
                }
            });
        }
        drop_absent(&mut outputs);
        let domain = match header.domain.as_str() {
            "ai.onnx" => "",
            domain => domain,
        };
        let node = Node {
            scope,
            name: header.name.into(),
            op_type: self.text(&header.op_type),
            domain: self.text(domain),
            inputs: Slots::new(),
            outputs,
            attributes: Vec::new(),
            alive: true,
            calls_function: false,
            neighbours: Default::default(),
            span,
            dirty: false,
        };
        self.model.nodes.push(node);
        self.model.link_in_front(id, None);
        Ok(id)
    }

    /// Connects what a node reads.
    fn inputs(&mut self, scope: ScopeId, id: NodeId, names: &[String]) -> Result<()> {
        let mut inputs = Slots::with_capacity(names.len());
        for (slot, name) in names.iter().enumerate() {
            if name.is_empty() {
                inputs.push(None);
                continue;
            }
            let value =
                resolve::lookup_from(self.model, scope, Some(id), name).ok_or_else(|| {
                    Error::invalid(format!("reads \"{name}\", which nothing defines"))
                })?;
            self.model.values[value.index()]
                .uses
                .push(Use::Node(id, slot));
            inputs.push(Some(value));
        }
        drop_absent(&mut inputs);
        self.model.nodes[id.index()].inputs = inputs;
        Ok(())
    }

    fn attributes(
        &mut self,
        window: &mut Window<'_>,
        id: NodeId,
        fields: &[Field],
        opsets: &Opsets,
        depth: usize,
    ) -> Result<()> {
        self.model.nodes[id.index()]
            .attributes
            .reserve_exact(fields.len());
        for field in fields {
            let attribute = self.attribute(window, field, id, opsets, depth)?;
            let attributes = &mut self.model.nodes[id.index()].attributes;
            // Of two, one reader takes the first and the next one the last: nobody could say what the node computes.
            if attributes.iter().any(|other| other.name == attribute.name) {
                let message = format!("has the attribute \"{}\" twice", attribute.name);
                return Err(Error::invalid(message));
            }
            attributes.push(attribute);
        }
        Ok(())
    }

    fn attribute(
        &mut self,
        window: &mut Window<'_>,
        field: &Field,
        owner: NodeId,
        opsets: &Opsets,
        depth: usize,
    ) -> Result<Attribute> {
        let header = AttributeHeader::read(window, field)?;
        let name = self.text(&header.name);
        let place = |error: Error| error.at(format!("attribute \"{name}\""));
        let value = if !header.reference.is_empty() {
            AttributeValue::Reference(header.reference)
        } else if let Some(span) = header.tensor.filter(|_| matches!(header.kind, 0 | 4)) {
            AttributeValue::Tensor(self.share(tensor(window, span).map_err(place)?.1))
        } else if !header.graphs.is_empty() && matches!(header.kind, 0 | 5 | 10) {
            let node = &self.model.nodes[owner.index()];
            // What rules know to have no body is removed and exchanged as a whole.
            if node.domain.is_empty() && !HAVE_BODIES.contains(&node.op_type.as_str()) {
                let message = format!("a graph, which {} does not have", node.op_type);
                return Err(place(Error::invalid(message)));
            }
            let parent = node.scope;
            let mut bodies = Vec::with_capacity(header.graphs.len());
            for span in header.graphs {
                let kind = ScopeKind::Body {
                    owner,
                    attribute: name.clone(),
                };
                let body = self.graph(window, span, Some(parent), kind, opsets, depth + 1);
                bodies.push(body.map_err(place)?);
            }
            match (header.kind, bodies.as_slice()) {
                (5 | 0, &[body]) => AttributeValue::Graph(body),
                (5, _) => {
                    return Err(place(Error::invalid(
                        "holds several graphs where one belongs",
                    )));
                }
                _ => AttributeValue::Graphs(bodies),
            }
        } else if header.plain {
            plain_attribute(decode(window, field, "attribute").map_err(place)?)
        } else {
            AttributeValue::Other
        };
        Ok(Attribute {
            name,
            value,
            span: Some(field.whole.clone()),
        })
    }
}

/// ONNX's own operators with graphs inside.
const HAVE_BODIES: [&str; 4] = ["If", "Loop", "Scan", "SequenceMap"];

fn drop_absent(slots: &mut Slots) {
    while slots.last() == Some(&None) {
        slots.pop();
    }
}

/// What a node is, and what it writes.
#[derive(Default)]
struct NodeHeader {
    name: String,
    op_type: String,
    domain: String,
    outputs: Vec<String>,
}

impl NodeHeader {
    fn read(window: &mut Window<'_>, span: &Span) -> Result<Self> {
        let mut header = Self::default();
        let mut fields = Fields::new(window, span.clone());
        while let Some(field) = fields.next()? {
            if !matches!(field.number, 2..=4 | 7) {
                continue;
            }
            is_bytes(&field)?;
            let text = fields.window().text(field.payload)?;
            match field.number {
                2 => header.outputs.push(text),
                3 => header.name = text,
                4 => header.op_type = text,
                _ => header.domain = text,
            }
        }
        Ok(header)
    }

    fn place(&self) -> String {
        let first = || self.outputs.iter().find(|name| !name.is_empty());
        let name = Some(&self.name)
            .filter(|name| !name.is_empty())
            .or_else(first);
        format!(
            "node \"{}\" ({})",
            name.map_or("", String::as_str),
            self.op_type
        )
    }
}

/// What a node reads, and the places of its attributes.
#[derive(Default)]
struct NodeContent {
    inputs: Vec<String>,
    attributes: Vec<Field>,
}

impl NodeContent {
    fn read(window: &mut Window<'_>, span: &Span) -> Result<Self> {
        let mut content = Self::default();
        let mut fields = Fields::new(window, span.clone());
        while let Some(field) = fields.next()? {
            match field.number {
                1 => {
                    is_bytes(&field)?;
                    content.inputs.push(fields.window().text(field.payload)?);
                }
                5 => {
                    is_bytes(&field)?;
                    content.attributes.push(field);
                }
                _ => {}
            }
        }
        Ok(content)
    }
}

/// The fields of an attribute that decide how it is read.
struct AttributeHeader {
    name: String,
    reference: String,
    kind: u64,
    tensor: Option<Span>,
    graphs: Vec<Span>,
    /// Whether it holds nothing but numbers and strings.
    plain: bool,
}

impl AttributeHeader {
    fn read(window: &mut Window<'_>, field: &Field) -> Result<Self> {
        let mut header = Self {
            name: String::new(),
            reference: String::new(),
            kind: 0,
            tensor: None,
            graphs: Vec::new(),
            plain: true,
        };
        let mut fields = Fields::new(window, field.payload.clone());
        while let Some(part) = fields.next()? {
            if matches!(part.number, 1 | 21 | 5 | 6 | 11) {
                is_bytes(&part)?;
            }
            match part.number {
                1 => header.name = fields.window().text(part.payload)?,
                21 => header.reference = fields.window().text(part.payload)?,
                20 => header.kind = part.value,
                5 => header.tensor = Some(part.payload),
                6 | 11 => header.graphs.push(part.payload),
                9 | 10 | 14 | 15 | 22 | 23 => header.plain = false,
                _ => {}
            }
        }
        Ok(header)
    }
}

fn plain_attribute(attribute: proto::AttributeProto) -> AttributeValue {
    match attribute.r#type.unwrap_or(0) {
        1 => AttributeValue::Float(attribute.f.unwrap_or(0.0)),
        2 => AttributeValue::Int(attribute.i.unwrap_or(0)),
        3 => AttributeValue::String(attribute.s.unwrap_or_default().to_vec()),
        6 => AttributeValue::Floats(attribute.floats),
        7 => AttributeValue::Ints(attribute.ints),
        // Files of IR version 1 need not say the type: it shows in the field that is set.
        0 => match attribute {
            proto::AttributeProto { f: Some(f), .. } => AttributeValue::Float(f),
            proto::AttributeProto { i: Some(i), .. } => AttributeValue::Int(i),
            proto::AttributeProto { s: Some(s), .. } => AttributeValue::String(s.to_vec()),
            proto::AttributeProto { floats, .. } if !floats.is_empty() => {
                AttributeValue::Floats(floats)
            }
            proto::AttributeProto { ints, .. } if !ints.is_empty() => AttributeValue::Ints(ints),
            _ => AttributeValue::Other,
        },
        _ => AttributeValue::Other,
    }
}
