//! Batches of matrix products with strides: what `MatMul` and `Gemm` compute.

use super::gemm_cpu::{Mat, Tiling, par_blocks};
use super::integer::device::{self, FinishParams, Finisher, Packed, dots, fits_32, folded, products};
use super::integer::sums::{Finish, Sum, floats, integers, is_exact_in_f32, is_narrow, steps_of};
use super::integer::{bytes, dense, pairs};
use crate::graph::epilogue::EpilogueParams;
use crate::graph::lower::{
    Dispatch, Io, Kernel, Layout, Layouts, Lowering, Operand, flat_grid, summable, u32,
};
use crate::graph::{CodeParams, OpError, Scratch};
use crate::tensor::{Tensor, TensorType};
use rayon::prelude::*;

crate::params! {
    /// `Params` of `shared/product.wgsl`.
    struct Params {
        epilogue: EpilogueParams,
        batch: [u32; 4],
        a_batch: [u32; 4],
        b_batch: [u32; 4],
        m: u32,
        k: u32,
        n: u32,
        batches: u32,
        a_row: u32,
        a_col: u32,
        b_row: u32,
        b_col: u32,
        c_row: u32,
        c_col: u32,
        has_c: u32,
        alpha: f32,
        beta: f32,
    }
}

crate::params! {
    /// `Params` of `shared/product_codes.wgsl`.
    struct CodeProduct {
        finish: FinishParams,
        batch: [u32; 4],
        a_batch: [u32; 4],
        b_batch: [u32; 4],
        m: u32,
        k: u32,
        n: u32,
        batches: u32,
        a_row: u32,
        a_col: u32,
        b_row: u32,
        b_col: u32,
        c_row: u32,
        c_col: u32,
        has_c: u32,
    }
}

/// Rows and columns of one invocation of `matmul.wgsl`, columns of one of `matmul_row.wgsl`.
const TILE: (usize, usize) = (8, 16);
const ROW_COLUMNS: usize = 4;

/// Most rows for which one row at a time is faster than tiles.
const FEW_ROWS: usize = 3;

/// Columns of one product on the CPU: the width of a panel.
const COLUMNS: usize = 1024;

macro_rules! kernel {
    ($name:literal, $main:literal) => {
        crate::kernel!(
            $name,
            Params,
            [
                "shared/grid.wgsl",
                "shared/bits.wgsl",
                "shared/quantize.wgsl",
                "shared/nan_count.wgsl",
                "shared/epilogue.wgsl",
                "shared/sums_f32.wgsl",
                "shared/product.wgsl",
                "shared/product_f32.wgsl",
                $main
            ]
        )
    };
}

macro_rules! code_kernel {
    ($name:literal, $($sums:literal),+; $($main:literal),+) => {
        crate::kernel!(
            $name,
            CodeProduct,
            [
                "shared/grid.wgsl",
                "shared/codes.wgsl",
                "shared/wide.wgsl",
                "shared/requantize.wgsl",
                "shared/finish.wgsl",
                $($sums,)+
                "shared/product.wgsl",
                "shared/product_finish.wgsl",
                $($main),+
            ]
        )
    };
}

static TILED: Kernel = kernel!("matmul", "matmul.wgsl");
static BY_ROW: Kernel = kernel!("matmul_row", "matmul_row.wgsl");
/// Packed codes, four products at a time.
pub(super) static DOTS_TILED: Kernel =
    code_kernel!("matmul_packed", "shared/sums_i32.wgsl"; "shared/product_packed.wgsl", "matmul.wgsl");
pub(super) static DOTS_BY_ROW: Kernel = code_kernel!("matmul_packed_row", "shared/sums_i32.wgsl"; "shared/product_packed.wgsl", "matmul_row.wgsl");
pub(super) static CODES_TILED: Kernel =
    code_kernel!("matmul_codes", "shared/sums_i32.wgsl"; "shared/product_codes.wgsl", "matmul.wgsl");
pub(super) static CODES_BY_ROW: Kernel =
    code_kernel!("matmul_codes_row", "shared/sums_i32.wgsl"; "shared/product_codes.wgsl", "matmul_row.wgsl");
pub(super) static CODES_WIDE: Kernel =
    code_kernel!("matmul_codes_wide", "shared/sums_i64.wgsl"; "shared/product_codes.wgsl", "matmul_row.wgsl");
/// Where pairs of products saturate.
pub(super) static CODES_PAIRS: Kernel = code_kernel!("matmul_codes_pairs", "shared/sums_i64.wgsl", "shared/pairs.wgsl"; "shared/product_codes.wgsl", "matmul_pairs.wgsl");

/// Elements of a right operand below which copies to packed layouts cost more than they gain.
const SMALL: usize = 1024;

/// The layouts of operands on codes, which are `packed` where products are formed of packed codes.
pub(super) fn code_layouts(params: &CodeParams, inputs: &[TensorType], packed: [Layout; 2]) -> Layouts {
    let b: Vec<usize> = inputs[1].shape.iter().filter_map(|d| d.fixed()).collect();
    // A bias that takes a zero point off is that of one matrix.
    let one = b.len() == inputs[1].rank() && b.iter().rev().skip(2).all(|d| *d == 1);
    let folds = device::offset(params) != Ok(0);
    if !dots(params) || b.iter().product::<usize>() < SMALL || (folds && !one) {
        return Layouts::Linear;
    }
    Layouts::Exact { inputs: packed.to_vec(), outputs: vec![Layout::Linear] }
}

/// What [`Product::lower`] may name.
pub(super) static KERNELS: &[&Kernel] = &[&TILED, &BY_ROW];

/// `y[batch, i, j] = alpha * sum of a[batch, i, k] * b[batch, k, j] + beta * c[i, j]`, every step in elements.
#[derive(Clone, Debug)]
pub(super) struct Product {
    /// Axes of the batch, missing ones 1 in front.
    pub batch: [usize; 4],
    pub a_batch: [usize; 4],
    pub b_batch: [usize; 4],
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// Steps of a row and of a column of `a`, and of `b`.
    pub a: (usize, usize),
    pub b: (usize, usize),
    pub alpha: f32,
    /// Factor and steps of `c`.
    pub c: Option<(f32, usize, usize)>,
}

impl Product {
    fn batches(&self) -> usize {
        self.batch.iter().product()
    }

    /// First elements of `a` and `b` in product `z`.
    fn start(&self, mut z: usize) -> (usize, usize) {
        let (mut a, mut b) = (0, 0);
        for i in (0..4).rev() {
            let at = z % self.batch[i];
            z /= self.batch[i];
            a += at * self.a_batch[i];
            b += at * self.b_batch[i];
        }
        (a, b)
    }

    /// The result, row-major.
    pub fn eval(&self, cx: &Scratch, a: &[f32], b: &[f32], c: Option<&[f32]>) -> Vec<f32> {
        let mut y = cx.take(self.batches() * self.m * self.n);
        if y.is_empty() {
            return y;
        }
        let tiling = Tiling::new(self.batches(), self.m, self.n, COLUMNS);
        par_blocks(&mut y, tiling, |z, i0, j0, block| {
            let start = self.start(z);
            let a = Mat { data: &a[start.0..], rs: self.a.0, cs: self.a.1 };
            let b = Mat { data: &b[start.1..], rs: self.b.0, cs: self.b.1 };
            block.product(self.k, a.at(i0, 0), b.at(0, j0));
            if self.alpha.to_bits() == 1f32.to_bits() && self.c.is_none() {
                return;
            }
            for i in 0..block.rows() {
                let row = block.row(i);
                row.iter_mut().for_each(|v| *v *= self.alpha);
                if let (Some(c), Some((beta, rs, cs))) = (c, self.c) {
                    for (j, v) in row.iter_mut().enumerate() {
                        *v += beta * c[(i0 + i) * rs + (j0 + j) * cs];
                    }
                }
            }
        });
        y
    }

    /// Exact sums of products of operands, row-major; alpha and `c` have no part in them.
    pub fn sums<S: Sum>(&self, a: &[i32], b: &[i32]) -> Vec<S> {
        let mut y = vec![S::default(); self.batches() * self.m * self.n];
        if y.is_empty() {
            return y;
        }
        let mut rows = vec![S::Operand::default(); self.k * self.n];
        let mut of = None;
        for (z, y) in y.chunks_exact_mut(self.m * self.n).enumerate() {
            let (a0, b0) = self.start(z);
            if of != Some(b0) {
                for (i, row) in rows.chunks_exact_mut(self.n).enumerate() {
                    for (j, v) in row.iter_mut().enumerate() {
                        *v = S::operand(b[b0 + i * self.b.0 + j * self.b.1]);
                    }
                }
                of = Some(b0);
            }
            y.par_chunks_exact_mut(self.n).enumerate().for_each(|(i, y)| {
                for (k, row) in rows.chunks_exact(self.n).enumerate() {
                    S::add_products(y, S::operand(a[a0 + i * self.a.0 + k * self.a.1]), row);
                }
            });
        }
        y
    }

    /// Sums whose pairs of neighbours along k saturate: exact ones, and what the pairs lose.
    fn saturated(&self, params: &CodeParams, inputs: &[Tensor]) -> Result<Vec<i64>, OpError> {
        let mut y: Vec<i64> = self.sums(&steps_of(params, inputs, 0)?, &steps_of(params, inputs, 1)?);
        if y.is_empty() {
            return Ok(y);
        }
        let [a, b] = pairs::codes(params, inputs)?;
        for (z, y) in y.chunks_exact_mut(self.m * self.n).enumerate() {
            let (a0, b0) = self.start(z);
            let row = |k: usize| (0..self.n).map(move |j| b0 + k * self.b.0 + j * self.b.1);
            let rows: Vec<i16> = (0..self.k).flat_map(row).map(|at| b[at]).collect();
            y.par_chunks_exact_mut(self.n).enumerate().for_each(|(i, y)| {
                let a = |k: usize| a[a0 + i * self.a.0 + k * self.a.1];
                for (j, pair) in rows.chunks_exact(2 * self.n).enumerate() {
                    let (first, second) = pair.split_at(self.n);
                    pairs::lose(y, [a(2 * j), a(2 * j + 1)], [first, second]);
                }
            });
        }
        Ok(y)
    }

    /// The integer form of 8-bit codes where the processor has instructions for them and the right operand is one matrix.
    fn of_bytes(
        &self,
        cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
        out: &[usize],
        finish: &Finish,
    ) -> Option<Tensor> {
        let x = bytes::Input::new(params.inputs[0].as_ref(), &inputs[0])?;
        let w = bytes::symmetric(params, &inputs[1])?;
        if !bytes::suits(params) || self.batches() != 1 || self.m * self.n * self.k == 0 {
            return None;
        }
        let padded = dense::quads(self.k) * 4;
        u32::try_from(self.m * padded).ok()?;
        let mut rows = cx.take_bytes(self.m * padded);
        rows.par_chunks_mut(padded).enumerate().for_each(|(i, row)| {
            let (inputs, padding) = row.split_at_mut(self.k);
            for (k, v) in inputs.iter_mut().enumerate() {
                *v = x.bytes[i * self.a.0 + k * self.a.1] ^ x.flip;
            }
            padding.fill(x.zero);
        });
        let at = |o: usize, _: usize, i: usize| w[i * self.b.0 + o * self.b.1];
        let key = vec![self.n, self.k, self.b.0, self.b.1];
        let weights =
            cx.prepared(&inputs[1], key, || [dense::Weights::pack(self.n, 1, self.k, dense::BLOCKS, at)]);
        let offsets: Vec<u32> = (0..self.m).filter_map(|i| u32::try_from(i * padded).ok()).collect();
        let product = bytes::Bytes {
            x: &rows,
            stride: rows.len(),
            zero: x.zero,
            weights: &weights[..],
            offsets: &offsets,
            taps: 1,
            order: bytes::Order::Rows,
        };
        let y = finish.output(cx, params, out, &product);
        cx.give_bytes(rows);
        Some(y)
    }

    /// The integer form: channels lie along the last axis of an output of this shape.
    pub fn integer(
        &self,
        cx: &Scratch,
        params: &CodeParams,
        inputs: &[Tensor],
        out: &[usize],
    ) -> Result<Tensor, OpError> {
        let finish = Finish::new(params, inputs, out, out.len() - 1)?;
        if pairs::saturate(params) {
            return Ok(finish.apply(cx, params, out, &self.saturated(params, inputs)?));
        }
        if let Some(y) = self.of_bytes(cx, params, inputs, out, &finish) {
            return Ok(y);
        }
        let (a, b) = (steps_of(params, inputs, 0)?, steps_of(params, inputs, 1)?);
        if is_exact_in_f32(params) {
            let plain = Product { alpha: 1.0, c: None, ..self.clone() };
            let sums = plain.eval(cx, &floats(&a), &floats(&b), None);
            return Ok(finish.apply(cx, params, out, &integers(sums)));
        }
        Ok(if is_narrow(params) {
            finish.apply(cx, params, out, &self.sums::<i32>(&a, &b))
        } else {
            finish.apply(cx, params, out, &self.sums::<i64>(&a, &b))
        })
    }

    /// The dispatch, over inputs 0, 1 and, where there is a `c`, 2.
    pub fn lower(&self) -> Result<Lowering, OpError> {
        summable(self.k)?;
        let batches = self.batches();
        if batches * self.m * self.n == 0 {
            return Ok(Lowering::run([]));
        }
        let four = |v: [usize; 4]| v.map(u32);
        let (beta, c_row, c_col) = self.c.unwrap_or((0.0, 0, 0));
        let params = Params {
            epilogue: EpilogueParams::default(),
            batch: four(self.batch),
            a_batch: four(self.a_batch),
            b_batch: four(self.b_batch),
            m: u32(self.m),
            k: u32(self.k),
            n: u32(self.n),
            batches: u32(batches),
            a_row: u32(self.a.0),
            a_col: u32(self.a.1),
            b_row: u32(self.b.0),
            b_col: u32(self.b.1),
            c_row: u32(c_row),
            c_col: u32(c_col),
            has_c: u32::from(self.c.is_some()),
            alpha: self.alpha,
            beta,
        };
        let (kernel, invocations) = if self.m <= FEW_ROWS {
            (&BY_ROW, self.m * self.n.div_ceil(ROW_COLUMNS))
        } else {
            (&TILED, self.m.div_ceil(TILE.0) * self.n.div_ceil(TILE.1))
        };
        // Without a c its binding is not read.
        let c = Operand::Input(if self.c.is_some() { 2 } else { 1 });
        let bind = [Operand::Input(0), Operand::Input(1), c, Operand::Output(0)];
        Ok(Lowering::run([Dispatch::new(kernel, &params, bind, flat_grid(batches * invocations))]))
    }

    /// The dispatches of [`Product::integer`]. A bias has one element, or one a column. Where codes are packed, k and steps
    /// count words.
    pub fn lower_codes(&self, params: &CodeParams, io: &Io) -> Result<Lowering, OpError> {
        summable(self.k)?;
        let packed = io.inputs[0].layout.packed().is_some();
        let [by_row, tiled] =
            if packed { [&DOTS_BY_ROW, &DOTS_TILED] } else { [&CODES_BY_ROW, &CODES_TILED] };
        let (kernel, invocations) = if pairs::saturate(params) {
            (&CODES_PAIRS, self.m * self.n.div_ceil(ROW_COLUMNS))
        } else if !fits_32(params) {
            (&CODES_WIDE, self.m * self.n.div_ceil(ROW_COLUMNS))
        } else if self.m <= FEW_ROWS {
            (by_row, self.m * self.n.div_ceil(ROW_COLUMNS))
        } else {
            (tiled, self.m.div_ceil(TILE.0) * self.n.div_ceil(TILE.1))
        };
        let four = |v: [usize; 4]| v.map(u32);
        let bias = (params.inputs.len() > 2).then(|| io.inputs[2].len());
        let of = CodeProduct {
            finish: FinishParams::default(),
            batch: four(self.batch),
            a_batch: four(self.a_batch),
            b_batch: four(self.b_batch),
            m: u32(self.m),
            k: u32(self.k),
            n: u32(self.n),
            batches: u32(self.batches()),
            a_row: u32(self.a.0),
            a_col: u32(self.a.1),
            b_row: u32(self.b.0),
            b_col: u32(self.b.1),
            c_row: 0,
            c_col: u32::from(bias.is_some_and(|n| n > 1)),
            has_c: u32::from(bias.is_some()),
        };
        let finisher = Finisher::of_products(params)?;
        let grid = flat_grid(self.batches() * invocations);
        let dispatch =
            |finish, bind: &[Operand]| Dispatch::new(kernel, &CodeProduct { finish, ..of }, bind, grid);
        if packed {
            let weights = Packed { channels: self.n, count: self.k, o_step: self.b.1, step: self.b.0 };
            return folded(params, io, weights, finisher, |finish, bind, folds| {
                let of = if folds { CodeProduct { has_c: 1, c_col: 1, ..of } } else { of };
                Dispatch::new(kernel, &CodeProduct { finish, ..of }, bind, grid)
            });
        }
        if std::ptr::eq(kernel, &CODES_PAIRS) {
            return device::pairs(params, self.n, finisher, dispatch);
        }
        let wide = std::ptr::eq(kernel, &CODES_WIDE);
        Ok(products(params, &io.inputs[1], finisher, wide, dispatch))
    }
}
