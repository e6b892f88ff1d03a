//! `FakeQuant`: a quantizer of a graph. Quantizes and dequantizes in state `qat` and `validation`, else lets numbers pass.
//!
//! *Shapes*: `[..] -> [..]`. What it computes is defined by [`crate::quant`].

use super::pointwise;
use super::unary::CHUNK;
use crate::graph::epilogue::numbers;
use crate::graph::lower::{Dispatch, Io, Kernel, Layout, Layouts, Lowering, Operand, flat_grid, u32};
use crate::graph::op::{QuantRule, check};
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Epilogue, Op, OpDef, OpError, Reader, Scratch};
use crate::quant::{Division, Origin, QParams, Quantizer, Role, Rounding, Scheme, Spec, State, Step};
use crate::tensor::{DType, Dim, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `fake_quant.wgsl`.
    struct Params {
        n4: u32, c: u32, c4: u32, channels: u32, inner: u32, by_lane: u32, low: i32, high: i32, slot: u32
    }
}

static KERNEL: Kernel = crate::kernel!(
    "fake_quant",
    Params,
    [
        "shared/grid.wgsl",
        "shared/lanes.wgsl",
        "shared/bits.wgsl",
        "shared/quantize.wgsl",
        "shared/nan_count.wgsl",
        "fake_quant.wgsl"
    ]
);

pub(super) static DEF: OpDef =
    OpDef { name: "FakeQuant", onnx: &[], read, kernels: &[&pointwise::KERNEL, &KERNEL], samples };

#[derive(Debug)]
struct FakeQuant(Quantizer);

/// The operator of a quantizer.
pub fn fake_quant(quantizer: Quantizer) -> Arc<dyn Op> {
    Arc::new(FakeQuant(quantizer))
}

fn read(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let axis = r.opt_int("axis")?;
    let axis =
        axis.map(|a| usize::try_from(a).map_err(|_| r.unsupported("axis", a, "0 or more"))).transpose()?;
    let owner = r.opt_int("owner")?;
    let owner = owner
        .map(|a| u32::try_from(a).map_err(|_| r.unsupported("owner", a, "the id of a node")))
        .transpose()?;
    let spec = Spec {
        dtype: r.dtype("dtype", DType::I8)?,
        axis,
        scheme: r.named("scheme", &Scheme::ALL, Scheme::name)?,
        power_of_two: r.flag("power_of_two", false)?,
        rounding: r.named("rounding", &Rounding::ALL, Rounding::name)?,
        division: r.named("division", &Division::ALL, Division::name)?,
        role: r.named("role", Role::ALL, Role::name)?,
        observer: r.opt_str("observer")?.unwrap_or_default(),
        owner,
    };
    let state = r.named("state", State::ALL, State::name)?;
    let origin = r.named("origin", Origin::ALL, Origin::name)?;
    let narrow = r.flag("narrow", false)?;
    let scales = r.floats("scale")?;
    let zero_points = r.ints("zero_point")?.unwrap_or_default();
    let params = match scales {
        None => None,
        Some(scales) => {
            let zeros: Option<Vec<i32>> = zero_points.iter().map(|z| i32::try_from(*z).ok()).collect();
            let zeros =
                zeros.ok_or_else(|| r.unsupported("zero_point", format!("{zero_points:?}"), "codes"))?;
            let params = QParams::new(spec.dtype, narrow, scales, zeros, spec.axis);
            let params = params.map_err(|e| r.unsupported("scale", e, "parameters of a quantizer"))?;
            Some(params.rounded(spec.rounding).divided(spec.division))
        }
    };
    Ok(fake_quant(Quantizer { spec, state, origin, params }))
}

fn samples(rng: &mut Rng) -> Vec<Sample> {
    let mut out = Vec::new();
    let (c, w) = (rng.int(1, 9), rng.int(1, 30));
    for dtype in [DType::I4, DType::U4, DType::I8, DType::U8, DType::I16, DType::U16] {
        for (shape, axis) in [
            (vec![7, c, 3, w], None),
            (vec![7, c, 3, w], Some(1)),
            (vec![2, c, w], Some(2)),
            (vec![c, 5], Some(0)),
            (vec![], None),
            (vec![0, 3], Some(1)),
        ] {
            let channels: usize = axis.map_or(1, |a: usize| shape[a]);
            let (low, high) = dtype.limits().expect("codes");
            let (mut scales, mut zeros) = (Vec::new(), Vec::new());
            for _ in 0..channels {
                scales.push(rng.float(0.5, 8.0) / high as f32);
                zeros.push(if low < 0 { 0 } else { rng.code(low, high) });
            }
            let params = QParams::new(dtype, false, scales, zeros, axis).expect("legal");
            let mut spec = Spec::new(dtype, Role::Activation, "minmax");
            spec.rounding = rng.pick(&Rounding::ALL);
            spec.division = rng.pick(&Division::ALL);
            let op = FakeQuant(Quantizer::with_params(spec, params, Origin::Observed));
            let x = SampleInput::of(shape, Fill::Range(-9.0, 9.0));
            out.push(Sample::new(op.attrs(), [x]));
        }
    }
    out
}

/// A tensor quantized and dequantized, and how many NaN it had.
pub fn fake_quantize(params: &QParams, cx: &Scratch, x: &Tensor) -> (Tensor, u64) {
    let mut y = cx.take(x.len());
    let steps: Vec<Step> = (0..params.scales().len()).map(|i| params.step(i)).collect();
    // Elements that share a step, one behind the other.
    let run = params.axis().map_or(CHUNK, |a| x.shape()[a + 1..].iter().product::<usize>().max(1));
    let runs = y.par_chunks_mut(run).zip(x.f32s().par_chunks(run)).enumerate();
    let nans = runs.with_min_len(CHUNK.div_ceil(run)).map(|(i, (y, x))| {
        y.copy_from_slice(x);
        steps[i % steps.len()].fake_quantize_all(y)
    });
    let nans = nans.sum();
    (Tensor::from_f32(x.shape(), y), nans)
}

impl Op for FakeQuant {
    fn def(&self) -> &'static OpDef {
        &DEF
    }

    fn attrs(&self) -> Attrs {
        let Quantizer { spec, state, origin, params } = &self.0;
        let mut attrs = Attrs::new().str("dtype", spec.dtype.name()).str("state", state.name());
        if let Some(axis) = spec.axis {
            attrs = attrs.int("axis", i64::try_from(axis).unwrap_or(i64::MAX));
        }
        if let Some(p) = params {
            attrs = attrs.floats("scale", p.scales());
            attrs = attrs.ints("zero_point", p.zero_points().iter().map(|z| i64::from(*z)));
            if p.narrow() {
                attrs = attrs.int("narrow", 1);
            }
        }
        attrs = attrs.str("rounding", spec.rounding.name()).str("division", spec.division.name());
        attrs = attrs.str("scheme", spec.scheme.name());
        if spec.power_of_two {
            attrs = attrs.int("power_of_two", 1);
        }
        if let Some(owner) = spec.owner {
            attrs = attrs.int("owner", i64::from(owner));
        }
        attrs.str("role", spec.role.name()).str("observer", &spec.observer).str("origin", origin.name())
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        check::f32(inputs, 0)?;
        if let Some(axis) = self.0.spec.axis {
            let x = &inputs[0];
            let Some(dim) = x.shape.get(axis) else {
                return Err(OpError::Axis { axis: i64::try_from(axis).unwrap_or(i64::MAX), rank: x.rank() });
            };
            if let Some(p) = &self.0.params
                && *dim != Dim::Fixed(p.scales().len())
            {
                let expected = format!("with {} along axis {axis}, one for each scale", p.scales().len());
                return Err(OpError::shape(0, expected, x));
            }
        }
        Ok(inputs.to_vec())
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        Ok(vec![self.0.active().map_or_else(|| x.clone(), |params| fake_quantize(params, cx, x).0)])
    }

    fn layouts(&self, _inputs: &[TensorType]) -> Layouts {
        Layouts::Any
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        let Some(q) = self.0.active() else { return Ok(Lowering::Alias) };
        if x.is_empty() {
            return Ok(Lowering::run([]));
        }
        if let Some(epilogue) = Epilogue::of(self) {
            return Ok(pointwise::lower(x, epilogue));
        }
        let place = x.place();
        let last = x.layout == Layout::ChannelsLast;
        let [n4, c, c4] = x.groups();
        let (low, high) = q.codes();
        let params = Params {
            n4,
            c,
            c4,
            channels: u32(q.scales().len()),
            inner: u32(q.axis().map_or(1, |a| place.strides[a])),
            by_lane: u32::from(last && q.axis() == Some(1)),
            low,
            high,
            slot: 0,
        };
        let mut table = Vec::with_capacity(3 * q.scales().len());
        for i in 0..q.scales().len() {
            let step = q.step(i);
            table.extend([
                step.scale().to_bits(),
                step.inverse().to_bits(),
                step.zero_point().cast_unsigned(),
            ]);
        }
        let bind = [Operand::Input(0), Operand::Table(0), Operand::Output(0)];
        let mut dispatch = Dispatch::new(&KERNEL, &params, bind, flat_grid(n4 as usize));
        dispatch.overrides.extend(numbers(q.rounding, q.division));
        Ok(Lowering::Run { dispatches: vec![dispatch], temps: Vec::new(), tables: vec![table] })
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Quantizer(&self.0)
    }
}
