//! Reductions over axes and over all spatial axes: one row each.
//!
//! *Shapes*: `[..] -> [..]` with the reduced axes of length 1, or without them where `keepdims` is 0.
//! Global pools: `[n, c, spatial..] -> [n, c, 1..]`.
//!
//! Float sums are taken in f64 on the CPU; integers wrap. An empty row gives the identity of its reduction.

use super::integer::device::FinishParams;
use super::integer::means::Means;
use super::rows::{RowParams, Rows, sum};
use crate::graph::codes::codes_of;
use crate::graph::lower::{Io, Kernel, Layout, Layouts, Lowering, Operand, View, u32};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{
    Attrs, CodeParams, Op, OpDef, OpError, Place, QuantRule, Reader, Scratch, attrs::normalize_axis,
};
use crate::tensor::{DType, Data, Dim, Tensor, TensorType};
use rayon::prelude::*;
use std::sync::Arc;

crate::params! {
    /// `Params` of `reduce.wgsl`.
    struct Params { rows: RowParams, identity: u32 }
}

crate::params! {
    /// `Params` of `mean_codes.wgsl`.
    struct MeanParams { finish: FinishParams, rows: RowParams, c: u32, c4: u32 }
}

pub(super) static MEAN_OF_CODES: Kernel = crate::kernel!(
    "mean_codes",
    MeanParams,
    [
        "shared/rows.wgsl",
        "shared/codes.wgsl",
        "shared/wide.wgsl",
        "shared/requantize.wgsl",
        "shared/finish.wgsl",
        "shared/sums_i64.wgsl",
        "mean_codes.wgsl"
    ]
);

/// A reduction of integers.
#[derive(Debug)]
struct IntForm {
    f: fn(&[i32]) -> i32,
    identity: i32,
    /// Whether it is defined on `i8`, `u8` and `bool`, too.
    narrow: bool,
}

/// What tells one reduction from another.
#[derive(Debug)]
struct Row {
    def: &'static OpDef,
    /// A global pool: no attributes, axes 2 and on.
    spatial: bool,
    f: fn(&[f32]) -> f32,
    identity: f32,
    int: Option<IntForm>,
    /// Sample domain, and the error of device functions over it.
    domain: (f32, f32),
    extra: f32,
}

/// `module, "Name", spatial, "shader name", f32 kernel sources, f, identity, int form, kernels, domain, extra`.
macro_rules! reduce {
    ($id:ident, $name:literal, $spatial:literal, [$($file:literal),+], [$($int_file:literal),*],
     $f:expr, $identity:expr, $int:expr, $domain:expr, $extra:expr) => {
        pub(super) mod $id {
            use super::*;
            static FLOAT: Kernel = crate::kernel!($name, Params, ["shared/rows.wgsl", $($file),+]);
            static KERNELS: &[&Kernel] = &[&FLOAT, $({
                static INT: Kernel = crate::kernel!(
                    $int_file, Params, ["shared/rows.wgsl", "reduce/i32.wgsl", $int_file, "reduce.wgsl"]
                );
                &INT
            }),*];
            static ROW: Row = Row {
                def: &DEF, spatial: $spatial, f: $f, identity: $identity, int: $int, domain: $domain, extra: $extra,
            };
            pub(in crate::ops) static DEF: OpDef = OpDef {
                name: $name,
                onnx: &[$name],
                read: |r| read(&ROW, r),
                kernels: KERNELS,
                samples: |rng| samples(&ROW, rng),
            };
        }
    };
}

const fn ints(f: fn(&[i32]) -> i32, identity: i32) -> Option<IntForm> {
    Some(IntForm { f, identity, narrow: false })
}

#[allow(clippy::cast_possible_truncation, reason = "f64 sums are rounded to f32 once")]
#[allow(clippy::cast_precision_loss, reason = "lengths are below 2^31")]
mod float {
    use super::sum;

    pub(super) fn total(v: &[f32]) -> f32 {
        sum(v, |x| x) as f32
    }

    pub(super) fn mean(v: &[f32]) -> f32 {
        (sum(v, |x| x) / v.len() as f64) as f32
    }

    pub(super) fn l1(v: &[f32]) -> f32 {
        sum(v, f64::abs) as f32
    }

    pub(super) fn l2(v: &[f32]) -> f32 {
        sum(v, |x| x * x).sqrt() as f32
    }

    pub(super) fn sum_square(v: &[f32]) -> f32 {
        sum(v, |x| x * x) as f32
    }

    pub(super) fn log_sum(v: &[f32]) -> f32 {
        sum(v, |x| x).ln() as f32
    }

    pub(super) fn log_sum_exp(v: &[f32]) -> f32 {
        let m = max(v);
        if m.is_infinite() {
            return m;
        }
        let m = f64::from(m);
        (m + sum(v, |x| (x - m).exp()).ln()) as f32
    }

    pub(super) fn max(v: &[f32]) -> f32 {
        v.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }

    pub(super) fn min(v: &[f32]) -> f32 {
        v.iter().copied().fold(f32::INFINITY, f32::min)
    }
}

fn int_sum(v: &[i32]) -> i32 {
    v.iter().fold(0, |a, x| a.wrapping_add(*x))
}

fn int_mean(v: &[i32]) -> i32 {
    i32::try_from(v.len()).ok().and_then(|n| int_sum(v).checked_div(n)).unwrap_or(0)
}

fn int_max(v: &[i32]) -> i32 {
    v.iter().copied().max().unwrap_or(i32::MIN)
}

fn int_min(v: &[i32]) -> i32 {
    v.iter().copied().min().unwrap_or(i32::MAX)
}

const INT_MAX: Option<IntForm> = Some(IntForm { f: int_max, identity: i32::MIN, narrow: true });
const INT_MIN: Option<IntForm> = Some(IntForm { f: int_min, identity: i32::MAX, narrow: true });
const WIDE: (f32, f32) = (-2.0, 2.0);

reduce!(
    global_average_pool,
    "GlobalAveragePool",
    true,
    ["reduce/f32.wgsl", "reduce/mean.wgsl", "reduce.wgsl"],
    [],
    float::mean,
    0.0,
    None,
    WIDE,
    0.0
);
reduce!(
    global_max_pool,
    "GlobalMaxPool",
    true,
    ["reduce/f32.wgsl", "reduce/max.wgsl", "reduce.wgsl"],
    ["reduce/max.wgsl"],
    float::max,
    f32::NEG_INFINITY,
    INT_MAX,
    WIDE,
    0.0
);
reduce!(
    l1,
    "ReduceL1",
    false,
    ["reduce/f32.wgsl", "reduce/l1.wgsl", "reduce.wgsl"],
    ["reduce/l1.wgsl"],
    float::l1,
    0.0,
    ints(|v| v.iter().fold(0, |a, x| a.wrapping_add(x.wrapping_abs())), 0),
    WIDE,
    0.0
);
reduce!(
    l2,
    "ReduceL2",
    false,
    ["reduce/f32.wgsl", "reduce/l2.wgsl", "reduce.wgsl"],
    [],
    float::l2,
    0.0,
    None,
    WIDE,
    0.0
);
// log of a driver: 3 ulp, 2^-21 absolute between 0.5 and 2 (Vulkan specification, precision of core operations).
reduce!(
    log_sum,
    "ReduceLogSum",
    false,
    ["reduce/f32.wgsl", "reduce/log_sum.wgsl", "reduce.wgsl"],
    [],
    float::log_sum,
    0.0,
    None,
    (0.1, 2.0),
    2e-6
);
reduce!(
    log_sum_exp,
    "ReduceLogSumExp",
    false,
    ["shared/row_sum.wgsl", "reduce_log_sum_exp.wgsl"],
    [],
    float::log_sum_exp,
    f32::NEG_INFINITY,
    None,
    WIDE,
    2e-6
);
reduce!(
    max,
    "ReduceMax",
    false,
    ["reduce/f32.wgsl", "reduce/max.wgsl", "reduce.wgsl"],
    ["reduce/max.wgsl"],
    float::max,
    f32::NEG_INFINITY,
    INT_MAX,
    WIDE,
    0.0
);
reduce!(
    mean,
    "ReduceMean",
    false,
    ["reduce/f32.wgsl", "reduce/mean.wgsl", "reduce.wgsl"],
    ["reduce/mean.wgsl"],
    float::mean,
    0.0,
    ints(int_mean, 0),
    WIDE,
    0.0
);
reduce!(
    min,
    "ReduceMin",
    false,
    ["reduce/f32.wgsl", "reduce/min.wgsl", "reduce.wgsl"],
    ["reduce/min.wgsl"],
    float::min,
    f32::INFINITY,
    INT_MIN,
    WIDE,
    0.0
);
reduce!(
    prod,
    "ReduceProd",
    false,
    ["reduce/f32.wgsl", "reduce/prod.wgsl", "reduce.wgsl"],
    ["reduce/prod.wgsl"],
    |v| v.iter().product(),
    1.0,
    ints(|v| v.iter().fold(1, |a, x| a.wrapping_mul(*x)), 1),
    (0.9, 1.1),
    0.0
);
reduce!(
    sum_all,
    "ReduceSum",
    false,
    ["reduce/f32.wgsl", "reduce/sum.wgsl", "reduce.wgsl"],
    ["reduce/sum.wgsl"],
    float::total,
    0.0,
    ints(int_sum, 0),
    WIDE,
    0.0
);
reduce!(
    sum_square,
    "ReduceSumSquare",
    false,
    ["reduce/f32.wgsl", "reduce/sum_square.wgsl", "reduce.wgsl"],
    ["reduce/sum_square.wgsl"],
    float::sum_square,
    0.0,
    ints(|v| v.iter().fold(0, |a, x| a.wrapping_add(x.wrapping_mul(*x))), 0),
    WIDE,
    0.0
);

#[derive(Debug)]
struct Reduce {
    row: &'static Row,
    /// `None`: every axis, as ONNX says by leaving them out.
    axes: Option<Vec<i64>>,
    keepdims: bool,
}

fn read(row: &'static Row, r: &mut Reader) -> Result<Arc<dyn Op>, OpError> {
    if row.spatial {
        return Ok(Arc::new(Reduce { row, axes: None, keepdims: true }));
    }
    let keepdims = r.flag("keepdims", true)?;
    let noop = r.flag("noop_with_empty_axes", false)?;
    let mut axes = r.ints_or_input("axes", 1)?;
    // In a graph an empty list means no axes; in ONNX it takes an attribute to mean that.
    if r.opset() != i64::MAX && axes.as_ref().is_none_or(Vec::is_empty) {
        axes = noop.then(Vec::new);
    }
    Ok(Arc::new(Reduce { row, axes, keepdims }))
}

impl Reduce {
    /// The reduced axes, ascending.
    fn axes(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        if self.row.spatial {
            return Ok((2..rank).collect());
        }
        let Some(axes) = &self.axes else { return Ok((0..rank).collect()) };
        let mut out = Vec::new();
        for &axis in axes {
            let a = normalize_axis(axis, rank).ok_or(OpError::Axis { axis, rank })?;
            if out.contains(&a) {
                let value = format!("{axes:?}");
                return Err(OpError::Attribute { name: "axes".into(), value, supported: "each once".into() });
            }
            out.push(a);
        }
        out.sort_unstable();
        Ok(out)
    }

    /// Whether it reduces exactly the axes behind `[n, c]` of what is likely to lie channels-last.
    fn is_spatial(&self, ty: &TensorType) -> bool {
        let rank = ty.rank();
        let pool = self.row.spatial && rank > 2;
        let same = rank > 3 && self.axes(rank).is_ok_and(|a| a.iter().copied().eq(2..rank));
        // Rows without elements would leave their identity in the padding lanes.
        let empty = ty.shape.iter().skip(2).any(|d| *d == Dim::Fixed(0));
        ty.dtype == DType::F32 && (pool || same) && !empty
    }

    /// The rows of `x` that give `y`; and how many channels there are, where there are rows of padding lanes, too.
    fn device_rows(&self, x: &View, y: &View) -> Result<(Rows, usize), OpError> {
        let mut shape = x.shape.clone();
        let mut channels = 0;
        if y.layout == Layout::ChannelsLast {
            channels = shape[1];
            shape[1] = shape[1].next_multiple_of(4);
        }
        Ok((Rows::new(&shape, &x.place().strides, &self.axes(shape.len())?), channels))
    }

    /// What sums of codes are divided by: the length of a row for its mean.
    fn divisor(&self, rows: &Rows) -> std::iter::Once<usize> {
        std::iter::once(if self.row.def.name == "ReduceSum" { 1 } else { rows.len() })
    }

    fn eval_ints(&self, rows: &Rows, x: &[i32], form: &IntForm) -> Vec<i32> {
        let len = rows.len();
        if len == 0 {
            return vec![(form.f)(&[]); rows.count()];
        }
        rows.gather(x).par_chunks(len).with_min_len(4096usize.div_ceil(len)).map(form.f).collect()
    }
}

impl Op for Reduce {
    fn def(&self) -> &'static OpDef {
        self.row.def
    }

    fn attrs(&self) -> Attrs {
        if self.row.spatial {
            return Attrs::new();
        }
        let attrs = match &self.axes {
            // ONNX means every axis by an empty list, unless it is told.
            Some(axes) if axes.is_empty() => {
                Attrs::new().ints("axes", []).at_place(Place::Input(1)).int("noop_with_empty_axes", 1)
            }
            Some(axes) => Attrs::new().ints("axes", axes.iter().copied()).at_place(Place::Input(1)),
            None => Attrs::new(),
        };
        attrs.int("keepdims", i64::from(self.keepdims))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1 (the axes are an attribute)")?;
        let x = &inputs[0];
        let (ok, expected) = match (&self.row.int, x.dtype) {
            (_, DType::F32) => (true, ""),
            (None, _) => (false, "f32"),
            (Some(form), dtype) if form.narrow => (dtype != DType::F32, ""),
            (Some(_), dtype) => (dtype == DType::I32, "f32 or i32"),
        };
        if !ok {
            return Err(OpError::DType { input: 0, expected, got: x.dtype });
        }
        if self.row.spatial && x.rank() < 3 {
            return Err(OpError::Rank { input: 0, expected: "at least 3", got: x.rank() });
        }
        let axes = self.axes(x.rank())?;
        let dims = x.shape.iter().enumerate();
        let shape: Vec<Dim> = dims
            .filter(|(i, _)| self.keepdims || !axes.contains(i))
            .map(|(i, d)| if axes.contains(&i) { Dim::Fixed(1) } else { *d })
            .collect();
        let out = TensorType { dtype: x.dtype, shape };
        // Beside an axis of length 0 the others may be of any length.
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let x = &inputs[0];
        let shape = self.infer(&[x.ty()])?.remove(0).dims().expect("concrete inputs give concrete outputs");
        let rows = Rows::linear(x.shape(), &self.axes(x.rank())?);
        if let Some(v) = x.as_f32() {
            let len = rows.len();
            let mut y = cx.take(rows.count());
            if len == 0 {
                y.fill((self.row.f)(&[]));
            } else {
                let source = rows.gather(v);
                let each = y.par_iter_mut().with_min_len(4096usize.div_ceil(len));
                each.zip(source.par_chunks(len)).for_each(|(y, row)| *y = (self.row.f)(row));
            }
            return Ok(vec![Tensor::from_f32(shape, y)]);
        }
        let form = self.row.int.as_ref().expect("the type was checked");
        Ok(vec![match x.data() {
            Data::I32(v) => Tensor::from_i32(shape, self.eval_ints(&rows, v, form)),
            _ => narrowed(x, shape, |v| self.eval_ints(&rows, &v, form)),
        }])
    }

    fn has_integer_form(&self) -> bool {
        matches!(self.quant_rule(), QuantRule::Mean)
    }

    fn integer(
        &self,
        _cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
    ) -> Result<Option<Tensor>, OpError> {
        if !self.has_integer_form() {
            return Ok(None);
        }
        let ty = TensorType::new(DType::F32, inputs[0].shape().to_vec());
        let shape = self.infer(&[ty])?.remove(0).dims().expect("concrete inputs give concrete outputs");
        let rows = Rows::linear(inputs[0].shape(), &self.axes(inputs[0].rank())?);
        let x = params.input(0)?;
        let means = Means::new(params, self.divisor(&rows))?;
        let codes = codes_of(inputs, 0)?;
        let source = rows.gather(&codes);
        let row = |i: usize| &source[i * rows.len()..(i + 1) * rows.len()];
        Ok(Some(means.output(params, &shape, |i| (row(i).iter().map(|q| x.steps(*q)).sum(), 0))))
    }

    fn integer_layouts(&self, _params: &CodeParams, inputs: &[TensorType]) -> Layouts {
        let mut layouts = self.layouts(&[TensorType { dtype: DType::F32, shape: inputs[0].shape.clone() }]);
        // An element is read as it lies; what is written has a word each.
        if let Layouts::Exact { inputs: taken, .. } = &mut layouts {
            taken[0] = Layout::channels_last(inputs[0].dtype);
        }
        layouts
    }

    fn lower_integer(&self, params: &CodeParams, io: &Io) -> Result<Option<Lowering>, OpError> {
        if !self.has_integer_form() {
            return Ok(None);
        }
        let (rows, c) = self.device_rows(&io.inputs[0], &io.outputs[0])?;
        let finisher = Means::new(params, self.divisor(&rows))?.finisher(params)?;
        let of =
            MeanParams { finish: finisher.params, rows: rows.params(), c: u32(c), c4: u32(c.div_ceil(4)) };
        let bind = [Operand::Input(0), Operand::Table(0), Operand::Output(0)];
        let dispatch = rows.dispatch(&MEAN_OF_CODES, &of, bind).with("X_FORM", io.inputs[0].form());
        Ok(Some(finisher.run(dispatch)))
    }

    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        if !self.is_spatial(&inputs[0]) {
            return Layouts::Linear;
        }
        let out = if self.keepdims { Layout::ChannelsLast } else { Layout::Linear };
        Layouts::Exact { inputs: vec![Layout::ChannelsLast], outputs: vec![out] }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let (x, y) = (&io.inputs[0], &io.outputs[0]);
        if y.is_empty() {
            return Ok(Lowering::run([]));
        }
        // Padding lanes hold zeros, and every function of the rows here gives zero for a row of zeros.
        let (rows, _) = self.device_rows(x, y)?;
        let (kernel, identity) = match (x.dtype, &self.row.int) {
            (DType::F32, _) | (_, None) => (self.row.def.kernels[0], self.row.identity.to_bits()),
            (dtype, Some(form)) => (self.row.def.kernels[1], narrowest(dtype, form.identity).cast_unsigned()),
        };
        let params = Params { rows: rows.params(), identity };
        let bind = [Operand::Input(0), Operand::Output(0)];
        Ok(Lowering::run([rows.dispatch(kernel, &params, bind)]))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        match self.row.def.name {
            "ReduceMax" | "ReduceMin" | "GlobalMaxPool" => QuantRule::Codes,
            "ReduceMean" | "GlobalAveragePool" | "ReduceSum" => QuantRule::Mean,
            _ => QuantRule::Float,
        }
    }
}

/// `v` saturated to the range of a type.
fn narrowest(dtype: DType, v: i32) -> i32 {
    match dtype {
        DType::Bool => v.clamp(0, 1),
        _ => dtype.limits().map_or(v, |(low, high)| v.clamp(low, high)),
    }
}

/// Widens narrow elements, applies `f`, and narrows what it gives.
fn narrowed(x: &Tensor, shape: Vec<usize>, f: impl Fn(Vec<i32>) -> Vec<i32>) -> Tensor {
    let dtype = x.dtype();
    if let Some(v) = x.as_bool() {
        let y = f(v.iter().map(|x| i32::from(*x)).collect());
        return Tensor::from_bool(shape, y.into_iter().map(|v| u8::from(v != 0)).collect());
    }
    let y = f(x.codes().expect("integers"));
    let y: Vec<i32> = y.into_iter().map(|v| narrowest(dtype, v)).collect();
    Tensor::from_codes(dtype, &shape, &y).expect("they were saturated")
}

fn samples(row: &'static Row, rng: &mut Rng) -> Vec<Sample> {
    let (c, h, w) = (rng.int(1, 9), rng.int(1, 12), rng.int(1, 40));
    let x = |shape: &[usize]| SampleInput::of(shape, Fill::Range(row.domain.0, row.domain.1));
    if row.spatial {
        let shapes =
            [vec![1, c, h, w], vec![7, c, 5, 3], vec![2, c, 700], vec![2, 8, 3, 4, h], vec![0, 3, 2, 2]];
        return shapes
            .map(|s| {
                let n = s[2..].iter().product();
                Sample::new(Attrs::new(), [x(&s)]).reduction(n).extra(row.extra)
            })
            .into();
    }
    let attrs =
        |axes: &[i64], keep: i64| Attrs::new().ints("axes", axes.iter().copied()).int("keepdims", keep);
    let case = |axes: &[i64], keep: i64, shape: &[usize]| {
        let n = axes.iter().map(|a| shape[normalize_axis(*a, shape.len()).expect("in range")]).product();
        Sample::new(attrs(axes, keep), [x(shape)]).reduction(n).extra(row.extra)
    };
    let mut out = vec![
        case(&[2, 3], 1, &[7, c, h, w]),
        case(&[2, 3], 0, &[1, c, h, 33]),
        case(&[-1], 0, &[7, 3, w]),
        case(&[1], 1, &[2, w, 5]),
        case(&[0, 2], 1, &[3, c, 5, w]),
        case(&[1, 3, 5], 0, &[2, 3, 2, h, 3, 4]),
        case(&[], 1, &[2, w]),
        case(&[1], 1, &[2, 700, 3]),
        case(&[1], 1, &[3, 40, 5]),
        case(&[-1], 1, &[3, 1500]),
        Sample::new(Attrs::new().int("keepdims", 0), [x(&[2, c, w])]).reduction(2 * c * w).extra(row.extra),
        Sample::new(Attrs::new().int("keepdims", 1), [x(&[])]).extra(row.extra),
        Sample::new(attrs(&[0], 1), [x(&[3, 0, 2])]).extra(row.extra),
    ];
    if let Some(form) = &row.int {
        let int = |shape: &[usize]| SampleInput::of(shape, Fill::Ints(-1000, 1000));
        out.push(Sample::new(attrs(&[1], 0), [int(&[2, w, 3])]));
        out.push(Sample::new(attrs(&[-1], 1), [int(&[5, 600])]));
        if form.narrow {
            out.push(Sample::new(attrs(&[1], 0), [SampleInput::of([2, 3, w], Fill::Bools)]));
            let v = (0..3 * w).map(|_| u8::try_from(rng.int(0, 255)).expect("in range")).collect();
            let exact = Fill::Exact(Tensor::from_u8([3, w], v));
            out.push(Sample::new(attrs(&[1], 0), [SampleInput::of([3, w], exact)]));
            let v =
                (0..3 * w).map(|_| i8::try_from(rng.int(0, 255) as i64 - 128).expect("in range")).collect();
            let exact = Fill::Exact(Tensor::from_i8([3, w], v));
            out.push(Sample::new(attrs(&[0], 0), [SampleInput::of([3, w], exact)]));
        }
    }
    out
}
