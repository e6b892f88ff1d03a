//! A quantizer as ONNX's operators.

use super::{Writer, tensor};
use crate::graph::Node;
use crate::onnx::proto::NodeProto;
use crate::quant::{Division, QParams, Quantizer, Rounding, State};
use crate::tensor::Tensor;

const MULTIPLIES: &str = "multiply by 1/scale where ONNX divides by the scale: a number within an ulp of the boundary between two codes may get the other one";
const EXACT: &str = "divide exactly where ONNX rounds the quotient to f32: a number within an ulp of the boundary between two codes may get the other one";
const ROUNDS: &str = "round halves otherwise than to even, as ONNX does: a number halfway between two codes may get the other one";

impl Writer<'_> {
    pub(super) fn quantizer(&mut self, node: &Node, q: &Quantizer) {
        let (x, y) = (self.name(node.inputs[0]), self.name(node.outputs[0]));
        if q.state == State::Float {
            return self.helper("Identity", &[&x], &y, &[]);
        }
        let Some(params) = q.active() else {
            self.uncalibrated.push(node.name.clone());
            return;
        };
        let constant = self.graph.value(node.inputs[0]).constant.clone();
        let (scale, zero) = self.parameters(&x, params);
        let axis = params.axis().and_then(|a| i64::try_from(a).ok());
        let codes = match &constant {
            Some(t) => {
                let name = self.fresh(x.trim_end_matches("/numbers"));
                self.initializers.push(tensor::stored(&name, &codes(t, params)));
                name
            }
            None => {
                if params.narrow() {
                    let why = format!("{}: a narrow range of codes cannot be said", node.label());
                    return self.problems.push(why);
                }
                let name = self.fresh(&format!("{y}/codes"));
                let node_name = self.fresh(&format!("{}/quantize", node.name));
                self.linear("QuantizeLinear", node_name, [&x, &scale, &zero], &name, axis);
                self.warn(params);
                name
            }
        };
        self.linear("DequantizeLinear", node.name.clone(), [&codes, &scale, &zero], &y, axis);
    }

    fn linear(&mut self, op: &str, name: String, inputs: [&str; 3], output: &str, axis: Option<i64>) {
        self.nodes.push(NodeProto {
            input: inputs.map(str::to_owned).to_vec(),
            output: vec![output.to_owned()],
            name: Some(name),
            op_type: Some(op.to_owned()),
            attribute: axis.iter().map(|a| super::node::int("axis", *a)).collect(),
            ..NodeProto::default()
        });
    }

    /// Scale and zero point as initializers.
    fn parameters(&mut self, x: &str, params: &QParams) -> (String, String) {
        let (scale, zero) = (self.fresh(&format!("{x}/scale")), self.fresh(&format!("{x}/zero_point")));
        let shape: &[usize] = if params.axis().is_some() { &[params.scales().len()] } else { &[] };
        let zeros = Tensor::from_codes(params.dtype(), shape, params.zero_points());
        let zeros = zeros.expect("zero points are codes");
        self.initializers.push(tensor::stored(&scale, &Tensor::from_f32(shape, params.scales().to_vec())));
        self.initializers.push(tensor::stored(&zero, &zeros));
        (scale, zero)
    }

    fn warn(&mut self, params: &QParams) {
        match params.division {
            Division::Multiply => *self.warnings.entry(MULTIPLIES).or_default() += 1,
            Division::Real => *self.warnings.entry(EXACT).or_default() += 1,
            Division::Divide => {}
        }
        if params.rounding != Rounding::HalfEven {
            *self.warnings.entry(ROUNDS).or_default() += 1;
        }
    }
}

/// The codes of a constant.
fn codes(x: &Tensor, params: &QParams) -> Tensor {
    let steps: Vec<_> = (0..params.scales().len()).map(|i| params.step(i)).collect();
    let inner: usize = params.axis().map_or(1, |a| x.shape()[a + 1..].iter().product::<usize>().max(1));
    let codes = x.f32s().iter().enumerate().map(|(i, x)| steps[i / inner % steps.len()].quantize(*x));
    let codes: Vec<i32> = codes.collect();
    Tensor::from_codes(params.dtype(), x.shape(), &codes).expect("clamped to the type")
}
