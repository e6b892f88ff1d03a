//! From ONNX's quantized form, where `QuantizeLinear` and `DequantizeLinear` surround float operators, to quantizers of
//! ours: a graph in stage `fake-quant` with the scales and zero points of the file, bit for bit.
//!
//! *x -> Quantize -> Dequantize* with equal constant parameters is a quantizer of x; operators between the two that pass
//! codes through come to lie behind it. *Codes -> Dequantize* of a constant is a quantizer of the numbers that the codes
//! stand for, which gives the codes back. A constant of i32 is the numbers alone: a bias belongs to the accumulator.
//! Whatever has no such partner stays the operator that it is.

use super::PassError;
use crate::graph::attrs::normalize_axis;
use crate::graph::{AttrValue, Grain, Graph, Node, Op, QuantRule, Scratch, Stage, ValueId};
use crate::ops::fake_quant;
use crate::quant::{Division, Origin, QParams, Quantizer, Role, Scheme, Spec};
use crate::tensor::{DType, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// Makes quantizers of what ONNX has for them. A graph without, or one that has quantizers, comes back as it is.
///
/// # Errors
/// A graph that does not verify afterwards.
pub fn from_qdq(graph: Graph) -> Result<Graph, PassError> {
    let dequantizers: Vec<usize> = (0..graph.nodes().len()).filter(|i| grain(&graph, *i).is_some()).collect();
    if graph.stage != Stage::Float || dequantizers.is_empty() {
        return Ok(graph);
    }
    let mut c = Conversion::new(graph);
    for i in dequantizers {
        c.convert(i)?;
    }
    let mut graph = c.graph;
    if graph.nodes().iter().any(|n| n.quantizer().is_some()) {
        graph.stage = Stage::FakeQuant;
    }
    graph.reorder();
    Ok(graph.tidied()?)
}

/// What a node says of its scales where it dequantizes.
fn grain(graph: &Graph, i: usize) -> Option<Grain> {
    match graph.nodes()[i].op.quant_rule() {
        QuantRule::Dequantize(grain) => Some(grain),
        _ => None,
    }
}

/// The parameters of a node that quantizes or dequantizes, where they are constant and a quantizer can have them.
pub(super) fn constant_params(graph: &Graph, i: usize) -> Option<QParams> {
    let node = &graph.nodes()[i];
    let (grain, codes) = match node.op.quant_rule() {
        QuantRule::Quantize(grain) => (grain, node.outputs[0]),
        QuantRule::Dequantize(grain) => (grain, node.inputs[0]),
        _ => return None,
    };
    let constant = |v: &ValueId| graph.value(*v).constant.as_ref();
    let scale = constant(&node.inputs[1])?;
    let scales = scale.as_f32()?.to_vec();
    let zero_points = match node.inputs.get(2) {
        Some(v) => constant(v)?.codes()?,
        None => vec![0; scales.len()],
    };
    let ty = &graph.value(codes).ty;
    let axis = match (grain.block, scale.shape()) {
        (0, [] | [1]) => None,
        (0, [_]) => Some(normalize_axis(grain.axis, ty.rank())?),
        _ => return None,
    };
    let params = QParams::new(ty.dtype, false, scales, zero_points, axis).ok()?;
    Some(params.divided(Division::Divide))
}

struct Conversion {
    graph: Graph,
    /// Of the graph as it came. Nodes are only added behind the others, so that indices hold.
    producers: HashMap<ValueId, usize>,
    users: HashMap<ValueId, Vec<usize>>,
    /// The quantizers of each tensor: parameters, and what the quantizer produces.
    made: HashMap<ValueId, Vec<(QParams, ValueId)>>,
    /// The numbers that constant codes stand for.
    numbers: HashMap<ValueId, Vec<(QParams, ValueId)>>,
    scratch: Scratch,
}

impl Conversion {
    fn new(graph: Graph) -> Conversion {
        let (producers, users) = (graph.producers(), graph.users());
        let (made, numbers) = (HashMap::new(), HashMap::new());
        Conversion { graph, producers, users, made, numbers, scratch: Scratch::new() }
    }

    /// Replaces a node that dequantizes, where its codes have a meaning.
    fn convert(&mut self, i: usize) -> Result<(), PassError> {
        let codes = self.graph.nodes()[i].inputs[0];
        let constant = self.graph.value(codes).constant.is_some();
        if constant && self.graph.value(codes).ty.dtype == DType::I32 {
            return self.plain(i);
        }
        let Some(params) = self.params(i) else { return Ok(()) };
        if constant {
            let x = self.number(i, codes, &params)?;
            return self.quantize(i, x, params);
        }
        let Some(p) = self.producers.get(&codes).copied() else { return Ok(()) };
        if self.quantizes_alike(p, &params) {
            let x = self.graph.nodes()[p].inputs[0];
            self.quantize(i, x, params)
        } else if self.passes(p, &params) {
            let (op, inputs) = self.in_numbers(p, &params)?;
            self.graph.set_op(i, op);
            self.graph.set_inputs(i, inputs);
            Ok(())
        } else {
            Ok(())
        }
    }

    fn params(&self, i: usize) -> Option<QParams> {
        constant_params(&self.graph, i)
    }

    fn quantizes_alike(&self, i: usize, params: &QParams) -> bool {
        let rule = self.graph.nodes()[i].op.quant_rule();
        matches!(rule, QuantRule::Quantize(_)) && self.params(i).as_ref() == Some(params)
    }

    /// Whether a node hands on codes that mean numbers under these parameters, and can do so with the numbers.
    fn passes(&self, i: usize, params: &QParams) -> bool {
        let node = &self.graph.nodes()[i];
        if !matches!(node.op.quant_rule(), QuantRule::Codes)
            || params.axis().is_some()
            || node.outputs.len() != 1
        {
            return false;
        }
        // What it puts outside of its input would be a code.
        if node.op.attrs().0.iter().any(|(n, v)| n == "coordinate_transformation_mode" && is_crop(v)) {
            return false;
        }
        let mut types: Vec<_> = node.inputs.iter().map(|v| self.graph.value(*v).ty.clone()).collect();
        types[0].dtype = DType::F32;
        let before = self.producers.get(&node.inputs[0]).copied();
        node.op.infer(&types).is_ok_and(|out| out[0].dtype == DType::F32)
            && before.is_some_and(|b| self.quantizes_alike(b, params) || self.passes(b, params))
    }

    /// A node that passes codes through as one on the numbers: its operator and inputs.
    fn in_numbers(&mut self, i: usize, params: &QParams) -> Result<(Arc<dyn Op>, Vec<ValueId>), PassError> {
        let node = self.graph.nodes()[i].clone();
        let before = self.producers[&node.inputs[0]];
        let x = if self.quantizes_alike(before, params) {
            self.quantized(self.graph.nodes()[before].inputs[0], params)?
        } else {
            let (op, inputs) = self.in_numbers(before, params)?;
            let codes = self.graph.nodes()[before].outputs[0];
            let name = self.graph.value(codes).name.clone();
            self.add(op, &inputs, &name, "numbers")?
        };
        let mut inputs = node.inputs.clone();
        inputs[0] = x;
        Ok((node.op, inputs))
    }

    /// Adds a node behind all others; `reorder` puts it where it belongs.
    fn add(
        &mut self,
        op: Arc<dyn Op>,
        inputs: &[ValueId],
        of: &str,
        what: &str,
    ) -> Result<ValueId, PassError> {
        let node = self.graph.fresh_node(&format!("{of}/{what}"));
        let value = self.graph.fresh_value(&format!("{of}/{what}"));
        let made = self.graph.add_node(node.clone(), None, op, inputs, &[value]);
        Ok(made.map_err(|error| PassError::Op { node, error })?[0])
    }

    /// What a quantizer of x produces; a new one where there is none.
    fn quantized(&mut self, x: ValueId, params: &QParams) -> Result<ValueId, PassError> {
        if let Some(v) = find(&self.made, x, params) {
            return Ok(v);
        }
        let op = fake_quant(quantizer(params.clone(), self.role(x, x)));
        let name = self.graph.value(x).name.clone();
        let v = self.add(op, &[x], &name, "quantizer")?;
        self.made.entry(x).or_default().push((params.clone(), v));
        Ok(v)
    }

    /// Makes node `i` a quantizer of x, or takes an equal one that there is.
    fn quantize(&mut self, i: usize, x: ValueId, params: QParams) -> Result<(), PassError> {
        let out = self.graph.nodes()[i].outputs[0];
        let is_output = self.graph.outputs.contains(&out);
        if let Some(v) = find(&self.made, x, &params).filter(|_| !is_output) {
            for user in self.users.get(&out).cloned().unwrap_or_default() {
                self.graph.replace_input(user, out, v);
            }
            return Ok(());
        }
        self.graph.set_op(i, fake_quant(quantizer(params.clone(), self.role(x, out))));
        self.graph.set_inputs(i, vec![x]);
        self.made.entry(x).or_default().push((params, out));
        Ok(())
    }

    /// What a node computes of constants.
    fn evaluated(&self, i: usize) -> Result<Tensor, PassError> {
        let node = &self.graph.nodes()[i];
        let inputs: Option<Vec<Tensor>> =
            node.inputs.iter().map(|v| self.graph.value(*v).constant.clone()).collect();
        let inputs = inputs.expect("the caller saw that they are constant");
        let outputs = node.op.eval(&self.scratch, &inputs);
        let mut outputs = outputs.map_err(|error| PassError::Op { node: node.label(), error })?;
        Ok(outputs.remove(0))
    }

    /// The numbers that constant codes stand for, one constant for all nodes with equal parameters.
    fn number(&mut self, i: usize, codes: ValueId, params: &QParams) -> Result<ValueId, PassError> {
        if let Some(v) = find(&self.numbers, codes, params) {
            return Ok(v);
        }
        let tensor = self.evaluated(i)?;
        let name = format!("{}/numbers", self.graph.value(codes).name);
        let v = self.graph.new_constant(&name, tensor);
        self.numbers.entry(codes).or_default().push((params.clone(), v));
        Ok(v)
    }

    /// Puts the numbers in place of a node over a constant of i32.
    fn plain(&mut self, i: usize) -> Result<(), PassError> {
        let node = &self.graph.nodes()[i];
        let scale_known = node.inputs.iter().all(|v| self.graph.value(*v).constant.is_some());
        let out = node.outputs[0];
        // An output of the graph keeps its producer, and with it its name.
        if !scale_known || self.graph.outputs.contains(&out) {
            return Ok(());
        }
        let tensor = self.evaluated(i)?;
        let name = format!("{}/numbers", self.graph.value(self.graph.nodes()[i].inputs[0]).name);
        let v = self.graph.new_constant(&name, tensor);
        for user in self.users.get(&out).cloned().unwrap_or_default() {
            self.graph.replace_input(user, out, v);
        }
        Ok(())
    }

    /// What a quantizer of x is to the graph, whose users take `out`.
    fn role(&self, x: ValueId, out: ValueId) -> Role {
        let takes = |wanted: &dyn Fn(&Node, usize) -> bool| self.reaches(out, wanted);
        if self.graph.value(x).constant.is_some() {
            let weighs = takes(&|n, input| input == 1 && matches!(n.op.quant_rule(), QuantRule::Gemm { .. }));
            return if weighs { Role::Weight } else { Role::Constant };
        }
        if self.graph.outputs.contains(&out) {
            Role::Output
        } else if takes(&|n, input| input == 1 && n.op.def().name == "GridSample") {
            Role::Grid
        } else if self.graph.inputs.contains(&x) {
            Role::Input
        } else {
            Role::Activation
        }
    }

    /// Whether a node that takes a value, perhaps through others that pass codes on, is wanted for that input.
    fn reaches(&self, v: ValueId, wanted: &dyn Fn(&Node, usize) -> bool) -> bool {
        let users = self.users.get(&v).into_iter().flatten().map(|i| &self.graph.nodes()[*i]);
        users.into_iter().any(|n| {
            let at = n.inputs.iter().position(|i| *i == v);
            let on = at == Some(0) && matches!(n.op.quant_rule(), QuantRule::Codes);
            at.is_some_and(|at| wanted(n, at)) || (on && n.outputs.iter().any(|o| self.reaches(*o, wanted)))
        })
    }
}

fn is_crop(v: &AttrValue) -> bool {
    *v == AttrValue::Str("tf_crop_and_resize".to_owned())
}

fn find(all: &HashMap<ValueId, Vec<(QParams, ValueId)>>, of: ValueId, params: &QParams) -> Option<ValueId> {
    all.get(&of)?.iter().find(|(p, _)| p == params).map(|(_, v)| *v)
}

/// A quantizer as the file had it.
fn quantizer(params: QParams, role: Role) -> Quantizer {
    let mut spec = Spec::new(params.dtype(), role, "fixed");
    let middle = |low: i32, high: i32| (i64::from(low) + i64::from(high) + 1) / 2;
    let (low, high) = params.codes();
    let symmetric = params.zero_points().iter().all(|z| i64::from(*z) == middle(low, high));
    spec.scheme = if symmetric { Scheme::Symmetric } else { Scheme::Asymmetric };
    spec.division = Division::Divide;
    Quantizer::with_params(spec, params, Origin::Imported)
}
