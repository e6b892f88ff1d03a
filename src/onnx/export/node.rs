//! One node: attributes that ONNX has as inputs become initializers, or are computed where they depend on the batch.

use super::{Writer, tensor};
use crate::graph::attrs::{SymInt, onnx_number};
use crate::graph::{AttrValue, Attrs, Node, Place};
use crate::onnx::proto::attribute_proto::AttributeType;
use crate::onnx::proto::{AttributeProto, NodeProto};
use crate::tensor::{DType, Dim, Tensor};

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind as i32), ..AttributeProto::default() }
}

/// An integer.
pub(super) fn int(name: &str, v: i64) -> AttributeProto {
    AttributeProto { i: Some(v), ..attribute(name, AttributeType::Int) }
}

/// An attribute as it is; `None` where it depends on the batch.
fn plain(name: &str, v: &AttrValue) -> Option<AttributeProto> {
    Some(match v {
        AttrValue::Int(v) => int(name, *v),
        AttrValue::Ints(v) => {
            let ints = v.iter().map(|s| s.int()).collect::<Option<Vec<i64>>>()?;
            AttributeProto { ints, ..attribute(name, AttributeType::Ints) }
        }
        AttrValue::Float(v) => AttributeProto { f: Some(*v), ..attribute(name, AttributeType::Float) },
        AttrValue::Floats(v) => {
            AttributeProto { floats: v.clone(), ..attribute(name, AttributeType::Floats) }
        }
        AttrValue::Str(v) => {
            AttributeProto { s: Some(v.clone().into()), ..attribute(name, AttributeType::String) }
        }
        AttrValue::Strs(v) => {
            let strings = v.iter().map(|s| s.clone().into()).collect();
            AttributeProto { strings, ..attribute(name, AttributeType::Strings) }
        }
        AttrValue::Tensor(t) => {
            AttributeProto { t: Some(tensor::stored("", t)), ..attribute(name, AttributeType::Tensor) }
        }
    })
}

/// One number as a tensor of a type.
fn element(v: &AttrValue, dtype: DType, shape: &[usize]) -> Option<Tensor> {
    match v {
        AttrValue::Float(v) if dtype == DType::F32 => Some(Tensor::from_f32(shape, vec![*v])),
        AttrValue::Int(v) if dtype == DType::Bool => {
            Some(Tensor::from_bool(shape, vec![u8::try_from(*v).ok()?]))
        }
        AttrValue::Int(v) => Tensor::from_codes(dtype, shape, &[i32::try_from(*v).ok()?]),
        _ => None,
    }
}

/// Whether there is nothing in it to say.
fn is_empty(v: &AttrValue) -> bool {
    matches!(v, AttrValue::Ints(l) if l.is_empty()) || matches!(v, AttrValue::Floats(l) if l.is_empty())
}

impl Writer<'_> {
    /// Writes a node, or notes why it cannot be.
    pub(super) fn node(&mut self, node: &Node) {
        if let Some(q) = node.quantizer() {
            return self.quantizer(node, q);
        }
        if let Err(why) = self.operator(node) {
            self.problems.push(format!("{}: {why}", node.label()));
        }
    }

    fn operator(&mut self, node: &Node) -> Result<(), String> {
        let Some(onnx) = node.op.def().onnx.first() else { return Err("is no operator of ONNX".into()) };
        let (domain, op_type) = onnx.split_once(':').unwrap_or(("", onnx));
        if !domain.is_empty() {
            self.domains.insert(domain.to_owned());
        }
        let attrs = node.op.attrs();
        let mut given: Vec<(usize, String)> = Vec::new();
        let mut attribute = Vec::new();
        let dropped = self.redundant(node, &attrs);
        let precision = precision(&attrs);
        for (name, v) in attrs.0.iter().filter(|(n, _)| Some(n.as_str()) != dropped) {
            let place = attrs.1.places.iter().find(|(n, _)| n == name).map_or(Place::Attribute, |(_, p)| *p);
            let of = format!("{}/{name}", node.name);
            match place {
                Place::Attribute if is_empty(v) => {}
                Place::Attribute => {
                    attribute
                        .push(plain(name, v).ok_or_else(|| format!("{name} = {v} depends on the batch"))?);
                }
                Place::Input(i) | Place::List(i) => {
                    given.push((i, self.listed(node, &of, v, place)?));
                }
                Place::Element(i) => {
                    let t = element(v, self.dtype(node), &[])
                        .ok_or_else(|| format!("{name} = {v} is no element"))?;
                    let of = self.fresh(&of);
                    self.initializers.push(tensor::stored(&of, &t));
                    given.push((i, of));
                }
                Place::Tensor => {
                    let t = element(v, self.dtype(node), &[1])
                        .ok_or_else(|| format!("{name} = {v} is no element"))?;
                    attribute.extend(plain(name, &AttrValue::Tensor(t)));
                }
                Place::Type => {
                    let AttrValue::Str(dtype) = v else { return Err(format!("{name} = {v} is no type")) };
                    let dtype = DType::from_name(dtype).ok_or_else(|| format!("{name} = {v} is no type"))?;
                    attribute.push(int(name, precision.unwrap_or(onnx_number(dtype))));
                }
                Place::Implied => {}
                Place::Unsaid if name == "precision" => {}
                Place::Unsaid => return Err(format!("cannot say {name} = {v}")),
            }
        }
        let input = self.arguments(node, &attrs, &given);
        let mut output: Vec<String> = node.outputs.iter().map(|v| self.name(*v)).collect();
        // What a following cast makes of what ONNX gives instead.
        let mut casts = Vec::new();
        for (i, out) in output.iter_mut().enumerate() {
            let to = if attrs.1.wide_outputs.contains(&i) {
                onnx_number(DType::I32)
            } else {
                onnx_number(DType::F32)
            };
            if attrs.1.wide_outputs.contains(&i) || precision.is_some() {
                let raw = self.fresh(&format!("{out}/raw"));
                casts.push((raw.clone(), std::mem::replace(out, raw), to));
            }
        }
        self.nodes.push(NodeProto {
            input,
            output,
            name: Some(node.name.clone()),
            op_type: Some(op_type.to_owned()),
            domain: Some(domain.to_owned()),
            attribute,
            ..NodeProto::default()
        });
        for (from, to, number) in casts {
            self.helper("Cast", &[&from], &to, &[("to", number)]);
        }
        Ok(())
    }

    fn dtype(&self, node: &Node) -> DType {
        self.graph.value(node.outputs[0]).ty.dtype
    }

    /// The inputs: those that attributes became at their places, the node's own in what is left, without holes behind.
    fn arguments(&mut self, node: &Node, attrs: &Attrs, given: &[(usize, String)]) -> Vec<String> {
        let mut own = Vec::new();
        for (i, v) in node.inputs.iter().enumerate() {
            let name = self.name(*v);
            own.push(if attrs.1.wide_inputs.contains(&i) {
                let wide = self.fresh(&format!("{name}/int64"));
                self.helper("Cast", &[&name], &wide, &[("to", 7)]);
                wide
            } else {
                name
            });
        }
        let mut own = own.into_iter();
        let last = given.iter().map(|(i, _)| i + 1).max().unwrap_or(0);
        let mut out = Vec::new();
        for i in 0..last {
            let name = given.iter().find(|(at, _)| *at == i).map(|(_, name)| name.clone());
            out.push(name.or_else(|| own.next()).unwrap_or_default());
        }
        out.extend(own);
        out
    }

    /// Numbers as an input.
    fn listed(&mut self, node: &Node, name: &str, v: &AttrValue, place: Place) -> Result<String, String> {
        let shape: &[usize] = if matches!(place, Place::List(_)) { &[1] } else { &[] };
        if let AttrValue::Ints(list) = v
            && list.iter().any(|s| s.int().is_none())
        {
            return self.computed(node, name, list);
        }
        let name = self.fresh(name);
        self.initializers.push(match v {
            AttrValue::Int(v) => tensor::int64s(&name, shape, &[*v]),
            AttrValue::Ints(list) => {
                let ints: Vec<i64> = list.iter().filter_map(|s| s.int()).collect();
                tensor::int64s(&name, &[ints.len()], &ints)
            }
            AttrValue::Float(v) => tensor::stored(&name, &Tensor::from_f32(shape, vec![*v])),
            AttrValue::Floats(list) => tensor::stored(&name, &Tensor::from_f32([list.len()], list.clone())),
            v => return Err(format!("{v} cannot be an input")),
        });
        Ok(name)
    }

    /// Integers of which some depend on the batch.
    fn computed(&mut self, node: &Node, name: &str, list: &[SymInt]) -> Result<String, String> {
        let open = list.iter().filter(|s| s.int().is_none()).count();
        if node.op.def().name == "Reshape" && open == 1 && !list.contains(&SymInt::Int(0)) {
            let rest: Vec<i64> = list.iter().map(|s| s.int().unwrap_or(-1)).collect();
            let name = self.fresh(name);
            self.initializers.push(tensor::int64s(&name, &[rest.len()], &rest));
            return Ok(name);
        }
        let mut parts = Vec::new();
        for s in list {
            parts.push(match *s {
                SymInt::Int(v) => self.int64(name, v),
                SymInt::Batch(k) => {
                    let n = self.batch()?;
                    if k == 1 { n } else { self.scaled("Mul", &n, k) }
                }
            });
        }
        let out = self.fresh(name);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.helper("Concat", &parts, &out, &[("axis", 0)]);
        Ok(out)
    }

    /// A list of one integer.
    fn int64(&mut self, name: &str, v: i64) -> String {
        let name = self.fresh(&format!("{name}/{v}"));
        self.initializers.push(tensor::int64s(&name, &[1], &[v]));
        name
    }

    fn scaled(&mut self, op: &str, x: &str, by: i64) -> String {
        let factor = self.int64(x, by);
        let out = self.fresh(&format!("{x}/{op}"));
        self.helper(op, &[x, &factor], &out, &[]);
        out
    }

    /// The list of one that is N, from the shape of an input.
    fn batch(&mut self) -> Result<String, String> {
        if let Some(name) = &self.batch {
            return Ok(name.clone());
        }
        let found = self.graph.inputs.iter().find_map(|v| {
            let shape = &self.graph.value(*v).ty.shape;
            let axis = shape.iter().position(|d| matches!(d, Dim::Batch(_)))?;
            let Dim::Batch(k) = shape[axis] else { return None };
            Some((*v, i64::try_from(axis).ok()?, i64::try_from(k).ok()?))
        });
        let (v, axis, k) = found.ok_or("depends on a batch that no input has")?;
        let mut name = self.fresh("batch");
        let input = self.name(v);
        self.helper("Shape", &[&input], &name, &[("start", axis), ("end", axis + 1)]);
        if k > 1 {
            name = self.scaled("Div", &name, k);
        }
        self.batch = Some(name.clone());
        Ok(name)
    }

    /// Of scales and sizes of a resize ONNX wants one: the scales, where the sizes follow from them.
    fn redundant(&self, node: &Node, attrs: &Attrs) -> Option<&'static str> {
        let get = |name: &str| attrs.0.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        let (Some(AttrValue::Floats(scales)), Some(AttrValue::Ints(sizes))) = (get("scales"), get("sizes"))
        else {
            return None;
        };
        let shape = &self.graph.value(node.inputs[0]).ty.shape;
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "as ONNX computes a length"
        )]
        let follows = shape.iter().zip(scales).zip(sizes).all(|((d, scale), size)| match (d, size) {
            (Dim::Fixed(d), SymInt::Int(size)) => (*d as f32 * scale).floor() as i64 == *size,
            _ => *scale == 1.0,
        });
        Some(if follows { "sizes" } else { "scales" })
    }
}

/// The ONNX type to which a cast of ours rounds although what it gives is f32.
fn precision(attrs: &Attrs) -> Option<i64> {
    attrs.0.iter().find_map(|(name, v)| match v {
        AttrValue::Str(v) if name == "precision" && v == "f16" => Some(10),
        AttrValue::Str(v) if name == "precision" && v == "bf16" => Some(16),
        _ => None,
    })
}
