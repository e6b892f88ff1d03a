//! `Identity`, and `Dropout`, which does nothing in inference.
//!
//! *Shapes*: `[..] -> [..]`.

use super::broadcast::extent;
use super::integer::device::{FinishParams, Finisher};
use super::integer::filled::through;
use super::integer::sums::not_a_power;
use crate::graph::codes::codes_of;
use crate::graph::lower::{Dispatch, Io, Kernel, Layouts, Lowering, Operand, flat_grid};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Sample, SampleInput};
use crate::graph::{Attrs, CodeParams, Op, OpDef, OpError, QuantRule, Reader, Scratch};
use crate::quant::Factor;
use crate::tensor::{Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `requantize.wgsl`.
    struct Params { finish: FinishParams, n4: u32, c: u32, c4: u32 }
}

pub(super) static REQUANTIZE: Kernel = crate::kernel!(
    "requantize",
    Params,
    [
        "shared/grid.wgsl",
        "shared/lanes.wgsl",
        "shared/codes.wgsl",
        "shared/load_codes.wgsl",
        "shared/store_codes.wgsl",
        "shared/wide.wgsl",
        "shared/requantize.wgsl",
        "shared/finish.wgsl",
        "requantize.wgsl"
    ]
);

#[derive(Debug)]
struct Identity;

pub(super) static DEF: OpDef = OpDef {
    name: "Identity",
    onnx: &["Identity", "Dropout"],
    read,
    kernels: &[],
    samples: |rng| {
        let w = rng.int(1, 9);
        let inputs = [
            SampleInput::f32([]),
            SampleInput::f32([7, w, 3, 2]),
            SampleInput::of([1, w], Fill::Ints(-5, 5)),
            SampleInput::of([w, 0], Fill::Bools),
        ];
        inputs.map(|x| Sample::new(Attrs::new(), [x])).into()
    },
};

/// The operator.
pub fn new() -> Arc<dyn Op> {
    Arc::new(Identity)
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    if r.op_type() == "Dropout" {
        r.ignore("ratio");
        r.ignore("seed");
        r.consume(1);
        // The ONNX type is a bool, which `int_or_input` does not read.
        if r.has_input(2) {
            let known = r.known(2).cloned();
            let off = match known {
                Some(crate::graph::attrs::Known::Tensor(t)) => t.bytes().iter().all(|b| *b == 0),
                _ => return Err(r.no_value(2, "training_mode", "bool")),
            };
            if !off {
                return Err(r.unsupported("training_mode", "true", "false"));
            }
            r.consume(2);
        }
        if r.outputs() > 1 {
            return Err(r.unsupported("outputs", r.outputs(), "1 (without the mask)"));
        }
    }
    Ok(new())
}

/// From the scale of the input to that of the output.
fn factor(params: &CodeParams) -> Result<Factor, OpError> {
    let (x, y, a) = (params.input(0)?, params.output()?, params.arithmetic);
    Factor::new(a.requantize, a.rounding, [x.scale(), 1.0], y.scale()).ok_or_else(not_a_power)
}

impl Op for Identity {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        Ok(vec![inputs[0].clone()])
    }

    fn eval(&self, _cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![inputs[0].clone()])
    }

    fn exact(&self, x: f64) -> Option<f64> {
        Some(x)
    }

    fn has_integer_form(&self) -> bool {
        true
    }

    /// Codes of other parameters, and a clamp.
    fn integer(
        &self,
        cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
    ) -> Result<Option<Tensor>, OpError> {
        let (x, y, factor) = (params.input(0)?, params.output()?, factor(params)?);
        let of = |q: i32| y.place(factor.apply(x.steps(q)));
        let (low, high) = inputs[0].dtype().limits().unwrap_or((0, i32::MAX));
        if high.abs_diff(low) < 256 {
            // Few codes, many elements.
            let table: Vec<i32> = (low..=high).map(of).collect();
            return Ok(through(cx, &inputs[0], &table, params.output.dtype()));
        }
        let mut codes = codes_of(inputs, 0)?;
        codes.par_iter_mut().for_each(|q| *q = of(*q));
        Ok(Some(params.store(inputs[0].shape(), &codes)))
    }

    fn integer_layouts(&self, _params: &CodeParams, _inputs: &[TensorType]) -> Layouts {
        Layouts::AnyPacked
    }

    fn lower_integer(&self, params: &CodeParams, io: &Io) -> Result<Option<Lowering>, OpError> {
        let finisher = Finisher::of_factors(params, &[factor(params)?])?.of_32_bits();
        let [n4, _, c, c4] = extent(&io.outputs[0]);
        let of = Params { finish: finisher.params, n4, c, c4 };
        let bind = [Operand::Input(0), Operand::Table(0), Operand::Output(0)];
        let dispatch = Dispatch::new(&REQUANTIZE, &of, bind, flat_grid(n4 as usize));
        let dispatch = dispatch.with("X_FORM", io.inputs[0].form()).with("Y_FORM", io.outputs[0].form());
        Ok(Some(finisher.run(dispatch)))
    }

    fn layouts(&self, _inputs: &[TensorType]) -> Layouts {
        Layouts::AnyPacked
    }

    fn lower(&self, _io: &Io) -> Result<Lowering, OpError> {
        Ok(Lowering::Alias)
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Codes
    }
}
