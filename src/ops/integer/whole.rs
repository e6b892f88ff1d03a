//! Codes and sums as f32 where that holds them exactly.

use super::sums::{Element, Fill, Finish, chunk, elements};
use crate::graph::Scratch;
use crate::quant::QParams;
use crate::tensor::{Data, Tensor};
use rayon::prelude::*;

/// Codes with one zero point, less it; `None` for other types.
#[allow(clippy::cast_precision_loss, reason = "17 bits at most")]
pub(in crate::ops) fn float_steps(cx: &Scratch, params: &QParams, x: &Tensor) -> Option<Vec<f32>> {
    const CHUNK: usize = 16 * 1024;
    let [zero] = params.zero_points() else { return None };
    let mut out = cx.take(x.len());
    macro_rules! convert {
        ($v:expr) => {
            out.par_chunks_mut(CHUNK).zip($v.par_chunks(CHUNK)).for_each(|(out, codes)| {
                out.iter_mut().zip(codes).for_each(|(o, q)| *o = (i32::from(*q) - zero) as f32);
            })
        };
    }
    match x.data() {
        Data::I8(v) | Data::I4(v) => convert!(v),
        Data::U8(v) | Data::U4(v) => convert!(v),
        Data::I16(v) => convert!(v),
        Data::U16(v) => convert!(v),
        Data::I32(_) | Data::F32(_) | Data::Bool(_) => {
            cx.give(out);
            return None;
        }
    }
    Some(out)
}

/// Whole numbers below 2^24 in the order of the output.
pub(in crate::ops) struct WholeNumbers<'a>(pub &'a [f32]);

impl Fill for WholeNumbers<'_> {
    fn run<T: Element>(&self, cx: &Scratch, finish: &Finish) -> Vec<T> {
        let mut out = T::take(cx, self.0.len());
        let chunk = chunk(finish);
        let chunks = out.par_chunks_mut(chunk).zip(self.0.par_chunks(chunk)).enumerate();
        chunks.for_each(|(c, (out, numbers))| {
            #[allow(clippy::cast_possible_truncation, reason = "they are whole, and below 2^24")]
            let sums: Vec<i32> = numbers.iter().map(|v| *v as i32).collect();
            elements(finish, c * chunk, &sums, out);
        });
        out
    }
}
