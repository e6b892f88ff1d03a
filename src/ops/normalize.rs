//! Normalization of rows to mean 0 and variance 1: over the last axes, the spatial axes, groups of channels, or given axes.
//!
//! *Shapes*: `[..] -> [..]`; instance and group: `[n, c, spatial..]` with scale and bias `[c]`.
//! `y = (x - mean) * inv * scale + bias`, `inv = 1 / sqrt(variance + epsilon)`; the variance is taken around the mean.

use super::rows::{RowParams, Rows, map, sum};
use crate::graph::attrs::normalize_axis;
use crate::graph::codes::codes_of;
use crate::graph::lower::{Io, Kernel, Layout, Layouts, Lowering, Operand, View, u32};
use crate::graph::op::check;
use crate::graph::sample::{Rng, Sample, SampleInput};
use crate::graph::{
    Attrs, CodeParams, Internals, Op, OpDef, OpError, Part, Place, QuantRule, Reader, Scratch, Tap,
};
use crate::quant::{Mantissa, Multiplier, Multipliers, Step};
use crate::tensor::{DType, Dim, Tensor, TensorType, strides};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `normalize.wgsl`.
    struct Params { rows: RowParams, epsilon: f32, floor: f32, period: u32, per_row: u32, run: u32 }
}

crate::params! {
    /// `Params` of `row_statistics.wgsl`.
    struct StatisticsParams { rows: RowParams, epsilon: f32 }
}

macro_rules! kernel {
    ($file:literal) => {
        crate::kernel!($file, Params, ["shared/rows.wgsl", "shared/row_sum.wgsl", $file, "normalize.wgsl"])
    };
}

static PLAIN: Kernel = kernel!("normalize/plain.wgsl");
static SCALE: Kernel = kernel!("normalize/scale.wgsl");
static SCALE_BIAS: Kernel = kernel!("normalize/scale_bias.wgsl");
static STATISTICS: Kernel = crate::kernel!(
    "row_statistics",
    StatisticsParams,
    ["shared/rows.wgsl", "shared/row_sum.wgsl", "row_statistics.wgsl"]
);

macro_rules! definition {
    ($id:ident, $name:literal, $read:ident, $samples:ident, [$($kernel:ident),+]) => {
        pub(super) mod $id {
            use super::*;
            pub(in crate::ops) static DEF: OpDef = OpDef {
                name: $name, onnx: &[$name], read: $read, kernels: &[$(&$kernel),+], samples: $samples,
            };
        }
    };
}

definition!(layer, "LayerNormalization", read_layer, samples_layer, [SCALE, SCALE_BIAS, STATISTICS]);
definition!(instance, "InstanceNormalization", read_instance, samples_instance, [SCALE_BIAS]);
definition!(group, "GroupNormalization", read_group, samples_group, [SCALE_BIAS]);
definition!(mean_variance, "MeanVarianceNormalization", read_mean_variance, samples_mean_variance, [PLAIN]);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// Over `axis` and what is behind it. `statistics`: mean and inverse deviation are outputs, too.
    Layer { axis: i64, statistics: bool },
    /// Over the spatial axes.
    Instance,
    /// Over the channels of a group and the spatial axes. `per_group`: scale and bias are `[groups]` (ONNX before 21).
    Group { groups: usize, per_group: bool },
    /// Over `axes`, without scale and bias.
    MeanVariance { axes: Vec<i64> },
}

#[derive(Debug)]
struct Normalize {
    kind: Kind,
    epsilon: f32,
}

const EPSILON: f32 = 1e-5;

fn read_layer(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let stash = r.int("stash_type", 1)?;
    if stash != 1 {
        return Err(r.unsupported("stash_type", stash, "1 (f32)"));
    }
    let statistics = r.own_int("statistics", i64::from(r.outputs() > 1))? != 0;
    let kind = Kind::Layer { axis: r.int("axis", -1)?, statistics };
    Ok(Arc::new(Normalize { kind, epsilon: r.float("epsilon", EPSILON)? }))
}

fn read_instance(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    Ok(Arc::new(Normalize { kind: Kind::Instance, epsilon: r.float("epsilon", EPSILON)? }))
}

fn read_group(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let stash = r.int("stash_type", 1)?;
    if stash != 1 {
        return Err(r.unsupported("stash_type", stash, "1 (f32)"));
    }
    let epsilon = r.float("epsilon", EPSILON)?;
    let per_group = r.own_int("per_group", i64::from(r.opset() < 21))? != 0;
    let groups = r.int("num_groups", 0)?;
    let positive = usize::try_from(groups).ok().filter(|g| *g > 0);
    let groups = positive.ok_or_else(|| r.unsupported("num_groups", groups, "at least 1"))?;
    let kind = Kind::Group { groups, per_group };
    Ok(Arc::new(Normalize { kind, epsilon }))
}

fn read_mean_variance(r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    let axes = r.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    Ok(Arc::new(Normalize { kind: Kind::MeanVariance { axes }, epsilon: 0.0 }))
}

/// How rows are cut, and which parameter belongs to an element: `row % period * per_row + j / run`.
struct Plan {
    rows: Rows,
    period: usize,
    per_row: usize,
    run: usize,
}

impl Normalize {
    fn axes(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        let one = |axis: i64| normalize_axis(axis, rank).ok_or(OpError::Axis { axis, rank });
        match &self.kind {
            Kind::Layer { axis, .. } => Ok((one(*axis)?..rank).collect()),
            Kind::Instance | Kind::Group { .. } => Ok((2..rank).collect()),
            Kind::MeanVariance { axes } => axes.iter().map(|a| one(*a)).collect(),
        }
    }

    fn plan(&self, shape: &[usize], steps: &[usize]) -> Result<Plan, OpError> {
        let axes = self.axes(shape.len())?;
        let plain = || Rows::new(shape, steps, &axes);
        let spatial = || shape[2..].iter().product::<usize>().max(1);
        Ok(match self.kind {
            Kind::Layer { .. } | Kind::MeanVariance { .. } => {
                Plan { rows: plain(), period: 1, per_row: 0, run: 1 }
            }
            Kind::Instance => Plan { rows: plain(), period: shape[1], per_row: 1, run: spatial() },
            Kind::Group { groups, per_group } => {
                let width = shape[1] / groups;
                let dims: Vec<usize> = [shape[0], groups, width].iter().chain(&shape[2..]).copied().collect();
                let at: Vec<usize> =
                    [steps[0], width * steps[1], steps[1]].iter().chain(&steps[2..]).copied().collect();
                let rows = Rows::new(&dims, &at, &(2..dims.len()).collect::<Vec<_>>());
                let (per_row, run) = if per_group { (1, width * spatial()) } else { (width, spatial()) };
                Plan { rows, period: groups, per_row, run: run.max(1) }
            }
        })
    }

    /// What is added to the variance before, and to its root after the square root.
    fn guards(&self) -> (f32, f32) {
        match self.kind {
            Kind::MeanVariance { .. } => (0.0, 1e-9),
            _ => (self.epsilon, 0.0),
        }
    }

    /// Mean and inverse deviation of a row.
    #[allow(clippy::cast_possible_truncation, reason = "taken in f64, rounded to f32 once")]
    #[allow(clippy::cast_precision_loss, reason = "lengths are below 2^31")]
    fn statistics(&self, row: &[f32]) -> (f32, f32) {
        let n = row.len() as f64;
        let mean = sum(row, |x| x) / n;
        let variance = sum(row, |x| (x - mean) * (x - mean)) / n;
        let (epsilon, floor) = self.guards();
        (mean as f32, (1.0 / ((variance + f64::from(epsilon)).sqrt() + f64::from(floor))) as f32)
    }

    fn check_parameters(&self, inputs: &[TensorType]) -> Result<(), OpError> {
        let x = &inputs[0];
        let want: Vec<Dim> = match self.kind {
            Kind::Layer { .. } => x.shape[self.axes(x.rank())?[0]..].to_vec(),
            Kind::Group { groups, per_group: true } => vec![Dim::Fixed(groups)],
            Kind::Instance | Kind::Group { .. } => vec![x.shape[1]],
            Kind::MeanVariance { .. } => return Ok(()),
        };
        for (i, p) in inputs.iter().enumerate().skip(1) {
            check::f32(inputs, i)?;
            // Leading axes of length 1 change nothing.
            let own = p.shape.len().saturating_sub(want.len());
            let ones = p.shape[..own].iter().all(|d| *d == Dim::Fixed(1));
            if !ones || p.shape[own..] != want {
                let expected = TensorType { dtype: p.dtype, shape: want };
                return Err(OpError::shape(i, expected.to_string(), p));
            }
        }
        Ok(())
    }
}

impl Op for Normalize {
    fn def(&self) -> &'static OpDef {
        match self.kind {
            Kind::Layer { .. } => &layer::DEF,
            Kind::Instance => &instance::DEF,
            Kind::Group { .. } => &group::DEF,
            Kind::MeanVariance { .. } => &mean_variance::DEF,
        }
    }

    fn attrs(&self) -> Attrs {
        match &self.kind {
            Kind::Layer { axis, statistics } => Attrs::new()
                .int("axis", *axis)
                .float("epsilon", self.epsilon)
                .int("statistics", i64::from(*statistics))
                .at_place(Place::Implied),
            Kind::Instance => Attrs::new().float("epsilon", self.epsilon),
            Kind::Group { groups, per_group } => Attrs::new()
                .int("num_groups", i64::try_from(*groups).unwrap_or(i64::MAX))
                .float("epsilon", self.epsilon)
                .int("per_group", i64::from(*per_group))
                .at_place(if *per_group { Place::Unsaid } else { Place::Implied }),
            Kind::MeanVariance { axes } => Attrs::new().ints("axes", axes.iter().copied()),
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        match self.kind {
            Kind::Layer { .. } => check::arity(inputs, 2, 3, "2 or 3")?,
            Kind::MeanVariance { .. } => check::arity(inputs, 1, 1, "1")?,
            Kind::Instance | Kind::Group { .. } => check::arity(inputs, 3, 3, "3")?,
        }
        check::f32(inputs, 0)?;
        let x = &inputs[0];
        let axes = self.axes(x.rank())?;
        check::frames_apart(inputs, 0, axes.iter().copied())?;
        match self.kind {
            Kind::Instance | Kind::Group { .. } if x.rank() < 3 => {
                return Err(OpError::Rank { input: 0, expected: "at least 3", got: x.rank() });
            }
            Kind::Group { groups, .. } => {
                let c = check::fixed(inputs, 0, 1)?;
                if !c.is_multiple_of(groups) {
                    return Err(OpError::shape(0, format!("channels in {groups} equal groups"), x));
                }
            }
            Kind::Instance => {
                check::fixed(inputs, 0, 1)?;
            }
            Kind::Layer { .. } | Kind::MeanVariance { .. } => {
                // Over the batch a frame's result would depend on the other frames.
                for a in &axes {
                    check::fixed(inputs, 0, *a)?;
                }
            }
        }
        self.check_parameters(inputs)?;
        let mut out = vec![x.clone()];
        if let Kind::Layer { statistics: true, .. } = self.kind {
            let one =
                x.shape.iter().enumerate().map(|(i, d)| if axes.contains(&i) { Dim::Fixed(1) } else { *d });
            let of_rows = TensorType { dtype: x.dtype, shape: one.collect() };
            check::size(&of_rows)?;
            out.extend([of_rows.clone(), of_rows]);
        }
        Ok(out)
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let plan = self.plan(x.shape(), &strides(x.shape()))?;
        let (scale, bias) = (inputs.get(1).map(Tensor::f32s), inputs.get(2).map(Tensor::f32s));
        let y = map(&plan.rows, x.f32s(), cx.take(x.len()), |row, x, y| {
            let (mean, inv) = self.statistics(x);
            let Some(scale) = scale else {
                y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean) * inv);
                return;
            };
            let first = row % plan.period * plan.per_row;
            if plan.run == 1 {
                // As below, without loops of one number.
                let all = y.iter_mut().zip(x).zip(&scale[first..]);
                match bias {
                    Some(bias) => {
                        all.zip(&bias[first..]).for_each(|(((y, x), s), b)| *y = (x - mean) * inv * s + b);
                    }
                    None => all.for_each(|((y, x), s)| *y = (x - mean) * inv * s + 0.0),
                }
                return;
            }
            for (k, (y, x)) in y.chunks_mut(plan.run).zip(x.chunks(plan.run)).enumerate() {
                let (s, b) = (scale[first + k], bias.map_or(0.0, |b| b[first + k]));
                y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean) * inv * s + b);
            }
        });
        let mut out = vec![Tensor::from_f32(x.shape(), y)];
        if let Kind::Layer { statistics: true, .. } = self.kind {
            let shape = self.infer(&inputs.iter().map(Tensor::ty).collect::<Vec<_>>())?.remove(1).dims();
            let shape = shape.expect("concrete inputs give concrete outputs");
            // Without elements there may still be rows; their mean is NaN.
            let of = |i: usize| self.statistics(&x.f32s()[i * plan.rows.len()..(i + 1) * plan.rows.len()]);
            let (mean, inv) = (0..plan.rows.count()).into_par_iter().map(of).unzip();
            out.extend([Tensor::from_f32(shape.clone(), mean), Tensor::from_f32(shape, inv)]);
        }
        Ok(out)
    }

    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        let x = &inputs[0];
        let full = x.rank() > 3 && x.shape[1].fixed().is_some_and(|c| c.is_multiple_of(4));
        match self.kind {
            // Padding lanes would have to be skipped, so only where there are none.
            Kind::Instance | Kind::Group { .. } if full => Layouts::Exact {
                inputs: vec![Layout::ChannelsLast, Layout::Linear, Layout::Linear],
                outputs: vec![Layout::ChannelsLast],
            },
            _ => Layouts::Linear,
        }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let x = &io.inputs[0];
        if io.outputs.iter().all(View::is_empty) {
            return Ok(Lowering::run([]));
        }
        let plan = self.plan(&x.shape, &x.place().strides)?;
        let (epsilon, floor) = self.guards();
        let rows = plan.rows.params();
        let (period, per_row, run) = (u32(plan.period), u32(plan.per_row), u32(plan.run));
        let params = Params { rows, epsilon, floor, period, per_row, run };
        let kernel = [&PLAIN, &SCALE, &SCALE_BIAS][io.inputs.len() - 1];
        let mut bind = vec![Operand::Input(0), Operand::Output(0)];
        bind.extend((1..io.inputs.len()).map(Operand::Input));
        let mut dispatches = vec![plan.rows.dispatch(kernel, &params, bind)];
        if let Kind::Layer { statistics: true, .. } = self.kind {
            let bind = [Operand::Input(0), Operand::Output(1), Operand::Output(2)];
            let params = StatisticsParams { rows, epsilon };
            dispatches.push(plan.rows.dispatch(&STATISTICS, &params, bind));
        }
        Ok(Lowering::run(dispatches))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Compute
    }
    fn has_integer_form(&self) -> bool {
        matches!(self.kind, Kind::Layer { statistics: false, .. })
    }

    /// Of layer normalisation, with c = n * x - sum(x) and V = n * sum(x^2) - sum(x)^2 + eps * n^2 / scale^2, all exact:
    /// c / sqrt(V) by the 16-bit mantissa of 1 / sqrt(V), requantized to the first tap, then times gamma plus beta,
    /// requantized once.
    fn integer(
        &self,
        _cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
    ) -> Result<Option<Tensor>, OpError> {
        let Kind::Layer { statistics: false, .. } = self.kind else { return Ok(None) };
        let (x, y, normal) = (params.input(0)?, params.output()?, params.internal(0)?);
        let gamma = params.input(1)?;
        let beta = inputs.get(2).map(|_| params.input(2)).transpose()?;
        let shape = inputs[0].shape();
        let plan = self.plan(shape, &strides(shape))?;
        let n = plan.rows.len();
        let real = |s: &Step| f64::from(s.scale());
        let epsilon = f64::from(self.epsilon) * (n as f64 / real(&x)).powi(2);
        // Beyond 2^90 nothing else counts.
        let epsilon = epsilon.round_ties_even().min(libm::ldexp(1.0, 90)) as i128;
        let to_normal = Multiplier::new(1.0 / real(&normal));
        let to_y = [real(&normal) * real(&gamma) / real(&y), beta.map_or(0.0, |b| real(&b) / real(&y))];
        let farthest = |s: &Step| {
            u64::from(s.codes().0.abs_diff(s.zero_point()).max(s.codes().1.abs_diff(s.zero_point())))
        };
        let most = [farthest(&normal) * farthest(&gamma), beta.as_ref().map_or(0, farthest)];
        let to_y = Multipliers::new(to_y, most);
        let (g, b) = (codes_of(inputs, 1)?, inputs.get(2).map(|_| codes_of(inputs, 2)).transpose()?);
        let codes = codes_of(inputs, 0)?;
        let out = map(&plan.rows, &codes, vec![0; codes.len()], |_, row: &[i32], out| {
            let sum: i64 = row.iter().map(|q| x.steps(*q)).sum();
            let squares: i128 = row.iter().map(|q| i128::from(x.steps(*q)).pow(2)).sum();
            let variance = n as i128 * squares - i128::from(sum).pow(2) + epsilon;
            let root = Mantissa::reciprocal_root(variance.unsigned_abs().max(1));
            for (j, (o, q)) in out.iter_mut().zip(row).enumerate() {
                let centred = n as i128 * i128::from(x.steps(*q)) - i128::from(sum);
                let unit =
                    to_normal.apply(centred * i128::from(root.code), 14 + root.shift, normal.rounding());
                let unit = normal.steps(normal.place(unit));
                let shift = b.as_ref().zip(beta.as_ref()).map_or(0, |(b, s)| s.steps(b[j]));
                *o = y.place(to_y.apply(unit * gamma.steps(g[j]), shift, y.rounding()));
            }
        });
        Ok(Some(params.store(shape, &out)))
    }

    /// Of layer normalisation: the rows at mean 0 and variance 1, the mantissa of the inverse deviation, and both
    /// parameters.
    fn internals(&self, inputs: &[TensorType]) -> Result<Internals, OpError> {
        let Kind::Layer { axis, .. } = &self.kind else { return Ok(Internals::default()) };
        let x = &inputs[0];
        let width: Option<Vec<usize>> =
            x.shape[self.axes(x.rank())?[0]..].iter().map(|d| d.fixed()).collect();
        let Some(width) = width else { return Ok(Internals::default()) };
        let ones = Tensor::from_f32(width.clone(), vec![1.0; width.iter().product()]);
        let attrs = Attrs::new().int("axis", *axis).float("epsilon", self.epsilon).int("statistics", 1);
        let types = [x.clone(), ones.ty()];
        let plain = super::build("LayerNormalization", attrs, &types)?;
        let row = plain.infer(&types)?.remove(2);
        let steps = vec![
            (plain, vec![Part::Input(0), Part::Constant(ones)]),
            (super::build("Mantissa", Attrs::new(), &[row])?, vec![Part::Step(0, 2)]),
        ];
        let tap = |name, of, bound| Tap { name, of, dtype: DType::I16, bound };
        let parameters = [("gamma", 1), ("beta", 2)].into_iter().filter(|(_, i)| *i < inputs.len());
        let taps = [("normalized", Part::Step(0, 0), None), ("reciprocal", Part::Step(1, 0), Some(2.0))];
        let taps = taps.into_iter().chain(parameters.map(|(name, i)| (name, Part::Input(i), None)));
        Ok(Internals { steps, taps: taps.map(|(name, of, bound)| tap(name, of, bound)).collect() })
    }
}

/// A driver's division and square root are good to 2.5 and 3 ulp, beside the sums themselves.
const ROOT: usize = 16;

fn samples_layer(rng: &mut Rng) -> Vec<Sample> {
    let (h, w) = (rng.int(1, 9), rng.int(2, 40));
    let case = |axis: i64, shape: &[usize], inputs: usize| {
        let axis_at = normalize_axis(axis, shape.len()).expect("in range");
        let tail = &shape[axis_at..];
        let parameter = || SampleInput::f32(tail).constant();
        let inputs: Vec<_> =
            [SampleInput::f32(shape), parameter(), parameter()].into_iter().take(inputs).collect();
        let attrs = Attrs::new().int("axis", axis).float("epsilon", 1e-3).int("statistics", 0);
        Sample::new(attrs, inputs).reduction(ROOT + tail.iter().product::<usize>())
    };
    let mut all = vec![
        case(-1, &[7, 3, w], 3),
        case(-1, &[1, 5, 768], 3),
        case(1, &[2, h, w], 3),
        case(-2, &[3, 2, h, 70], 2),
        case(0, &[w], 2),
        case(-1, &[0, 4], 3),
    ];
    let mut with_outputs = case(1, &[2, h, w], 3);
    with_outputs.attrs = Attrs::new().int("axis", 1).float("epsilon", 1e-5).int("statistics", 1);
    let mut runtime = case(-1, &[3, w], 3);
    runtime.inputs.iter_mut().for_each(|i| i.constant = false);
    all.extend([with_outputs, runtime]);
    all
}

fn image_shapes(rng: &mut Rng, c: usize) -> [Vec<usize>; 6] {
    let (h, w) = (rng.int(2, 12), rng.int(2, 40));
    [
        vec![1, c, h, w],
        vec![7, c, 3, 3],
        vec![2, c, 30],
        vec![2, 2 * c, 26, 25],
        vec![1, 2 * c, 2, 3, w],
        vec![2, 2 * c, 3, 3],
    ]
}

fn samples_instance(rng: &mut Rng) -> Vec<Sample> {
    image_shapes(rng, 6)
        .into_iter()
        .map(|shape| {
            let parameter = || SampleInput::f32([shape[1]]).constant();
            let n: usize = shape[2..].iter().product();
            let inputs = [SampleInput::f32(shape.clone()), parameter(), parameter()];
            Sample::new(Attrs::new().float("epsilon", 1e-2), inputs).reduction(ROOT + n)
        })
        .collect()
}

fn samples_group(rng: &mut Rng) -> Vec<Sample> {
    let shapes = image_shapes(rng, 6);
    let case = |(i, shape): (usize, Vec<usize>)| {
        let (groups, per_group) = ([1, 2, 3, 6][i % 4], i % 2);
        let parameter = || SampleInput::f32([if per_group == 1 { groups } else { shape[1] }]).constant();
        let n: usize = shape[1..].iter().product::<usize>() / groups;
        let attrs = Attrs::new()
            .int("num_groups", i64::try_from(groups).expect("small"))
            .float("epsilon", 1e-5)
            .int("per_group", i64::from(per_group == 1));
        Sample::new(attrs, [SampleInput::f32(shape.clone()), parameter(), parameter()]).reduction(ROOT + n)
    };
    shapes.into_iter().enumerate().map(case).collect()
}

fn samples_mean_variance(rng: &mut Rng) -> Vec<Sample> {
    let w = rng.int(3, 40);
    let case = |axes: &[i64], shape: &[usize]| {
        let n: usize =
            axes.iter().map(|a| shape[normalize_axis(*a, shape.len()).expect("in range")]).product();
        let attrs = Attrs::new().ints("axes", axes.iter().copied());
        Sample::new(attrs, [SampleInput::f32(shape)]).reduction(ROOT + n)
    };
    vec![case(&[0, 2, 3], &[3, 3, 4, w]), case(&[1], &[2, w, 3]), case(&[-1, -2], &[7, 2, 5, w])]
}
