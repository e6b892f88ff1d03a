//! Sums, differences and products of codes.

use crate::graph::codes::codes_of;
use crate::graph::lower::{Dispatch, Io, Kernel, Lowering, Operand, flat_grid};
use crate::graph::{CodeParams, OpError};
use crate::ops::broadcast::{Walk, addresses, concrete, extent};
use crate::ops::integer::device::{FinishParams, Finisher, four, mode, words};
use crate::ops::integer::sums::not_a_power;
use crate::ops::unary::CHUNK;
use crate::quant::{Addends, Addition, Factor, Requantize};
use crate::tensor::Tensor;
use rayon::prelude::*;

/// `f` of each pair of codes.
pub(super) fn pairs(
    params: &CodeParams,
    inputs: &[Tensor],
    f: impl Fn(i32, i32) -> i32 + Sync,
) -> Result<Tensor, OpError> {
    let (a, b) = (codes_of(inputs, 0)?, codes_of(inputs, 1)?);
    let shapes = [inputs[0].shape(), inputs[1].shape()];
    let shape = concrete(&shapes);
    let mut out = vec![0; shape.iter().product()];
    let walk = Walk::new(&shape, shapes);
    let [in_a, in_b] = [0, 1].map(|k| usize::from(!walk.is_splat(k)));
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(i, out)| {
        walk.rows(i * CHUNK..i * CHUNK + out.len(), |piece, [i, j]| {
            for (k, o) in out[piece].iter_mut().enumerate() {
                *o = f(a[i + k * in_a], b[j + k * in_b]);
            }
        });
    });
    Ok(params.store(&shape, &out))
}

/// The addition of operands of these shapes, and whether it takes them in the other order.
fn addition(
    params: &CodeParams,
    [a_shape, b_shape]: [&[usize]; 2],
    negative: bool,
) -> Result<(Addition, bool), OpError> {
    let (a, b, y) = (params.input(0)?, params.input(1)?, params.output()?);
    let mode = params.arithmetic.requantize;
    let walk = Walk::new(&concrete(&[a_shape, b_shape]), [a_shape, b_shape]);
    // ONNX Runtime takes an operand that stands still within rows as the second one.
    let swapped = !negative && mode == Requantize::Float && walk.is_splat(0) && !walk.is_splat(1);
    let [first, second] = if swapped { [b, a] } else { [a, b] };
    Ok((Addition::new(mode, first, second, y).ok_or_else(not_a_power)?, swapped))
}

/// The sum, or with `negative` the difference.
pub(super) fn sum(params: &CodeParams, inputs: &[Tensor], negative: bool) -> Result<Tensor, OpError> {
    let (addition, swapped) = addition(params, [inputs[0].shape(), inputs[1].shape()], negative)?;
    if swapped {
        return pairs(params, inputs, |a, b| addition.apply(b, a));
    }
    if !negative {
        return pairs(params, inputs, |a, b| addition.apply(a, b));
    }
    // -(q - z) = (2z - q) - z.
    let twice = 2 * params.input(1)?.zero_point();
    pairs(params, inputs, |a, b| addition.apply(a, twice - b))
}

/// The factor of products.
fn factor(params: &CodeParams) -> Result<Factor, OpError> {
    let (a, b, y) = (params.input(0)?, params.input(1)?, params.output()?);
    let arithmetic = params.arithmetic;
    let scales = [a.scale(), b.scale()];
    Factor::new(arithmetic.requantize, arithmetic.rounding, scales, y.scale()).ok_or_else(not_a_power)
}

/// The exact product, requantized once; in f32 the zero point is added before the rounding, as ONNX Runtime does.
pub(super) fn product(params: &CodeParams, inputs: &[Tensor]) -> Result<Tensor, OpError> {
    let (a, b, y, factor) = (params.input(0)?, params.input(1)?, params.output()?, factor(params)?);
    if let Factor::Float(m) = factor {
        #[allow(clippy::cast_precision_loss, reason = "rounds to the nearest f32, as it is defined")]
        return pairs(params, inputs, |p, q| {
            let product = (a.steps(p) * b.steps(q)) as f32;
            y.place_code(product * m + y.zero_point() as f32)
        });
    }
    pairs(params, inputs, |p, q| y.place(factor.apply(a.steps(p) * b.steps(q))))
}

crate::params! {
    /// `Params` of `binary_codes.wgsl`.
    struct Params {
        finish: FinishParams, n4: u32, n: u32, c: u32, c4: u32, dims: [u32; 8],
        a_how: [u32; 4], a_strides: [u32; 8], b_how: [u32; 4], b_strides: [u32; 8],
        a_zero: i32, b_zero: i32, sign: i32,
    }
}

macro_rules! kernel {
    ($name:literal, $file:literal) => {
        crate::kernel!(
            $name,
            Params,
            [
                "shared/grid.wgsl",
                "shared/lanes.wgsl",
                "shared/codes.wgsl",
                "shared/store_codes.wgsl",
                "shared/broadcast.wgsl",
                "shared/wide.wgsl",
                "shared/requantize.wgsl",
                "shared/finish.wgsl",
                "shared/float.wgsl",
                $file,
                "binary_codes.wgsl"
            ]
        )
    };
}

pub(in crate::ops) static ADD: Kernel = kernel!("add_codes", "codes/add.wgsl");
pub(in crate::ops) static MUL: Kernel = kernel!("mul_codes", "codes/mul.wgsl");

/// Two operands as a kernel takes them, in order: which input it is, what is taken from its codes, and their sign.
type Taken = [(usize, i32, i32); 2];

fn lower(io: &Io, kernel: &'static Kernel, finisher: Finisher, taken: Taken) -> Lowering {
    let out = &io.outputs[0];
    let [n4, n, c, c4] = extent(out);
    let [(first, a_zero, _), (second, b_zero, sign)] = taken;
    let (dims, [a, b]) = addresses(out, [&io.inputs[first], &io.inputs[second]]);
    let of = Params {
        finish: finisher.params,
        n4,
        n,
        c,
        c4,
        dims,
        a_how: a.how,
        a_strides: a.strides,
        b_how: b.how,
        b_strides: b.strides,
        a_zero,
        b_zero,
        sign,
    };
    let bind = [Operand::Input(first), Operand::Input(second), Operand::Table(0), Operand::Output(0)];
    let dispatch = Dispatch::new(kernel, &of, bind, flat_grid(n4 as usize))
        .with("A_FORM", io.inputs[first].form())
        .with("B_FORM", io.inputs[second].form())
        .with("Y_FORM", out.form());
    finisher.run(dispatch)
}

/// The dispatch of [`product`].
pub(super) fn lower_product(params: &CodeParams, io: &Io) -> Result<Lowering, OpError> {
    let [a, b] = [params.input(0)?.zero_point(), params.input(1)?.zero_point()];
    let finisher = Finisher::of_factors(params, &[factor(params)?])?.of_32_bits();
    Ok(lower(io, &MUL, finisher, [(0, a, 1), (1, b, 1)]))
}

/// The dispatch of [`sum`].
pub(super) fn lower_sum(params: &CodeParams, io: &Io, negative: bool) -> Result<Lowering, OpError> {
    let (addition, swapped) = addition(params, [&io.inputs[0].shape, &io.inputs[1].shape], negative)?;
    let [a, b] = [params.input(0)?.zero_point(), params.input(1)?.zero_point()];
    let sign = if negative { -1 } else { 1 };
    let of = |f: Factor| four(words(f).1).collect::<Vec<u32>>();
    let mut taken = [(0, a, 1), (1, b, sign)];
    let (number, table) = match addition.factors() {
        Addends::Exact { by: [m, n], shift } => {
            #[allow(clippy::cast_possible_truncation, reason = "the lowest word of what is left")]
            let words = |v: u128| (0..4).map(move |i| (v >> (32 * i)) as u32);
            let multiplier = |v: u128| words(v).chain([0; 8]);
            let shift = four([0, shift.cast_unsigned(), 0]);
            (mode(Requantize::Fixed), multiplier(m).chain(multiplier(n)).chain(shift).collect())
        }
        Addends::Doubling([m, n], to_y) => (words(to_y).0, [of(m), of(n), of(to_y)].concat()),
        Addends::Float([m, n], fixed) => {
            // Codes as they are, of which `fixed` knows the zero points; a negated one is 2 z - q.
            taken = [(0, 0, 1), (1, if negative { 2 * b } else { 0 }, sign)];
            (mode(Requantize::Float), [m, n, fixed].map(|f| of(Factor::Float(f))).concat())
        }
    };
    if swapped {
        taken.swap(0, 1);
    }
    Ok(lower(io, &ADD, Finisher::of_words(params, number, table)?, taken))
}
