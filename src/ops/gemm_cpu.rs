//! f32 matrix products on the CPU, and the only unsafe code of the crate: a checked wrapper of `matrixmultiply` and
//! blocks of one output that several threads fill at once.
//!
//! An element of a product is a sum over k in order, in runs of 256 that are added up in order: it depends neither on
//! the block that it is computed in nor on the number of rows, columns or threads.
#![allow(
    unsafe_code,
    reason = "calls an unsafe product, and writes disjoint blocks of one slice from several threads"
)]

use rayon::prelude::*;
use std::marker::PhantomData;

/// A matrix in a slice: element (i, j) lies at `i * rs + j * cs`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mat<'a> {
    pub data: &'a [f32],
    pub rs: usize,
    pub cs: usize,
}

impl<'a> Mat<'a> {
    /// A row-major matrix with rows of `ld` elements.
    pub fn rows(data: &'a [f32], ld: usize) -> Self {
        Mat { data, rs: ld, cs: 1 }
    }

    /// From row `i` and column `j` on.
    pub fn at(self, i: usize, j: usize) -> Self {
        let start = (i * self.rs + j * self.cs).min(self.data.len());
        Mat { data: &self.data[start..], ..self }
    }

    fn covers(&self, rows: usize, cols: usize) -> bool {
        let last = |n: usize, step: usize| (n - 1).checked_mul(step);
        rows == 0
            || cols == 0
            || matches!(
                (last(rows, self.rs), last(cols, self.cs)),
                (Some(i), Some(j)) if i.checked_add(j).is_some_and(|x| x < self.data.len())
            )
    }
}

/// A block of a row-major output that one thread fills.
#[derive(Debug)]
pub(super) struct Block<'a> {
    first: *mut f32,
    rows: usize,
    cols: usize,
    ld: usize,
    whole: PhantomData<&'a mut [f32]>,
}

impl Block<'_> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// One row.
    pub fn row(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows);
        // SAFETY: row i is `cols` elements of the slice that the block was made from (`par_blocks`, `product`), no other
        // block contains them, and `&mut self` keeps this block from handing them out twice.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(i * self.ld), self.cols) }
    }

    /// Sets the block to a (rows x k) times b (k x columns).
    pub fn product(&mut self, k: usize, a: Mat<'_>, b: Mat<'_>) {
        assert!(a.covers(self.rows, k) && b.covers(k, self.cols));
        if self.rows == 0 || self.cols == 0 {
            return;
        }
        let s = |n: usize| isize::try_from(n).expect("strides lie inside a slice");
        // A stride that is never stepped over may be larger than an isize.
        let [ars, bcs] = [if self.rows > 1 { a.rs } else { 0 }, if self.cols > 1 { b.cs } else { 0 }];
        let [acs, brs] = [if k > 1 { a.cs } else { 0 }, if k > 1 { b.rs } else { 0 }];
        // SAFETY: `covers` has checked that the last elements of a and b lie in their slices; the output is `rows` rows
        // of `cols` elements, `ld >= cols` apart, that belong to this block alone and cannot overlap a and b, which are
        // shared borrows. With alpha 1 and beta 0 the output is not read, and every element gets the same operations
        // whether or not it lies in a partly filled tile.
        unsafe {
            matrixmultiply::sgemm(
                self.rows,
                k,
                self.cols,
                1.0,
                a.data.as_ptr(),
                s(ars),
                s(acs),
                b.data.as_ptr(),
                s(brs),
                s(bcs),
                0.0,
                self.first,
                s(self.ld),
                1,
            );
        }
    }
}

/// Sets `c`, row-major, to a (rows x k) times b (k x cols) on this thread.
pub(super) fn product(c: &mut [f32], rows: usize, cols: usize, k: usize, a: Mat<'_>, b: Mat<'_>) {
    assert_eq!(rows.checked_mul(cols), Some(c.len()));
    Block { first: c.as_mut_ptr(), rows, cols, ld: cols, whole: PhantomData }.product(k, a, b);
}

/// Several row-major matrices one after another, and the blocks in which they are computed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    pub mats: usize,
    pub rows: usize,
    pub cols: usize,
    pub row_block: usize,
    pub col_block: usize,
}

impl Tiling {
    /// Blocks of at most `max_cols` columns, small enough that every thread has some.
    pub fn new(mats: usize, rows: usize, cols: usize, max_cols: usize) -> Tiling {
        // Tiles of the product are at most 16 x 16, its panels of rows 64.
        const TILE: usize = 16;
        const PANEL: usize = 64;
        let wanted = if rayon::current_num_threads() == 1 { 1 } else { rayon::current_num_threads() * 3 };
        let split = |n: usize, parts: usize, unit: usize| n.div_ceil(parts.max(1)).next_multiple_of(unit);
        let col_parts = cols.div_ceil(max_cols.max(TILE));
        let col_block = split(cols, col_parts, TILE);
        let row_parts = wanted.div_ceil((mats * col_parts).max(1));
        let row_block = split(rows, row_parts, PANEL).max(PANEL);
        let row_parts = rows.div_ceil(row_block).max(1);
        let col_parts = wanted.div_ceil((mats * row_parts).max(1)).max(col_parts);
        let col_block = col_block.min(split(cols, col_parts, TILE).max(8 * TILE)).max(TILE);
        Tiling { mats, rows, cols, row_block, col_block }
    }
}

/// Calls `f(matrix, first row, first column, block)` for every block of `c`, in parallel.
pub(super) fn par_blocks(c: &mut [f32], t: Tiling, f: impl Fn(usize, usize, usize, &mut Block<'_>) + Sync) {
    struct Base(*mut f32);
    // SAFETY: the pointer is only used to make blocks that do not overlap.
    unsafe impl Sync for Base {}
    impl Base {
        fn get(&self) -> *mut f32 {
            self.0
        }
    }
    let one = t.rows.checked_mul(t.cols);
    assert_eq!(one.and_then(|n| n.checked_mul(t.mats)), Some(c.len()));
    assert!(t.row_block > 0 && t.col_block > 0);
    let (rb, cb) = (t.rows.div_ceil(t.row_block), t.cols.div_ceil(t.col_block));
    let base = Base(c.as_mut_ptr());
    (0..t.mats * rb * cb).into_par_iter().with_max_len(1).for_each(|i| {
        let (m, r0, c0) = (i / (rb * cb), i / cb % rb * t.row_block, i % cb * t.col_block);
        let (rows, cols) = (t.row_block.min(t.rows - r0), t.col_block.min(t.cols - c0));
        // SAFETY: row r0 and column c0 are inside matrix m, which is inside `c` by the assertion above.
        let first = unsafe { base.get().add((m * t.rows + r0) * t.cols + c0) };
        let mut block = Block { first, rows, cols, ld: t.cols, whole: PhantomData };
        f(m, r0, c0, &mut block);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::sample::Rng;

    fn draw(rng: &mut Rng, n: usize) -> Vec<f32> {
        (0..n).map(|_| rng.float(-1.0, 1.0)).collect()
    }

    fn product(t: Tiling, k: usize, a: Mat<'_>, b: Mat<'_>) -> Vec<f32> {
        let mut c = vec![f32::NAN; t.rows * t.cols];
        par_blocks(&mut c, t, |_, r0, c0, block| block.product(k, a.at(r0, 0), b.at(0, c0)));
        c
    }

    #[test]
    fn an_element_has_the_same_bits_in_every_tiling() {
        let mut rng = Rng::new(1);
        for (m, k, n) in [(1, 1, 1), (3, 255, 17), (65, 257, 33), (70, 700, 1030), (16, 513, 64)] {
            let (a, b) = (draw(&mut rng, m * k), draw(&mut rng, k * n));
            let whole = Tiling { mats: 1, rows: m, cols: n, row_block: m, col_block: n };
            let want = product(whole, k, Mat::rows(&a, k), Mat::rows(&b, n));
            for (row_block, col_block) in [(1, 1), (1, n), (5, 7), (16, 16), (64, 48), (m, 1)] {
                if m * n > 10_000 && row_block * col_block < 10 {
                    continue;
                }
                let t = Tiling { row_block, col_block, ..whole };
                let got = product(t, k, Mat::rows(&a, k), Mat::rows(&b, n));
                assert!(got.iter().zip(&want).all(|(x, y)| x.to_bits() == y.to_bits()), "{m} {k} {n} {t:?}");
            }
            let mut at = vec![0.0; m * k];
            for i in 0..m {
                for j in 0..k {
                    at[j * m + i] = a[i * k + j];
                }
            }
            let got = product(whole, k, Mat { data: &at, rs: 1, cs: m }, Mat::rows(&b, n));
            assert_eq!(got, want, "transposed {m} {k} {n}");
        }
    }

    #[test]
    fn a_product_is_near_the_exact_one() {
        let mut rng = Rng::new(2);
        let (m, k, n) = (19, 300, 21);
        let (a, b) = (draw(&mut rng, m * k), draw(&mut rng, k * n));
        let got = product(Tiling::new(1, m, n, 64), k, Mat::rows(&a, k), Mat::rows(&b, n));
        for i in 0..m {
            for j in 0..n {
                let exact: f64 = (0..k).map(|x| f64::from(a[i * k + x]) * f64::from(b[x * n + j])).sum();
                assert!((f64::from(got[i * n + j]) - exact).abs() < 1e-4, "{i} {j}");
            }
        }
    }

    #[test]
    fn an_empty_sum_is_zero() {
        let got = product(Tiling::new(1, 2, 3, 64), 0, Mat::rows(&[], 0), Mat::rows(&[], 3));
        assert_eq!(got, [0.0; 6]);
    }

    #[test]
    #[should_panic(expected = "covers")]
    fn an_operand_that_is_too_short_is_refused() {
        product(Tiling::new(1, 2, 3, 64), 2, Mat::rows(&[0.0; 3], 2), Mat::rows(&[0.0; 6], 3));
    }
}
