//! `DepthToSpace` and `SpaceToDepth`: blocks of pixels as channels, and back.
//!
//! *Shapes*: `[n, c*b*b, h, w] -> [n, c, h*b, w*b]`, and back. Channel of pixel (i, j) of a block: `(i*b + j)*C + c`
//! in mode `DCR` and in `SpaceToDepth`, `(c*b + i)*b + j` in mode `CRD`.

use super::element::moved;
use super::strided::{self, StridedCopy, signed_all};
use crate::graph::lower::{Io, Layout, Layouts, Lowering, Operand, View};
use crate::graph::op::check;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};
use crate::graph::{Attrs, Op, OpDef, OpError, QuantRule, Reader, Scratch};
use crate::tensor::{Dim, Tensor, TensorType};
use std::sync::Arc;

const MODES: &[&str] = &["DCR", "CRD"];

#[derive(Debug)]
struct DepthSpace {
    to_space: bool,
    block: usize,
    /// Whether the block's pixel is the slow part of the channel.
    pixel_first: bool,
}

pub(super) static DEPTH_TO_SPACE: OpDef = OpDef {
    name: "DepthToSpace",
    onnx: &["DepthToSpace"],
    read: |r| read(r, true),
    kernels: strided::KERNELS,
    samples: |rng| samples(rng, true),
};

pub(super) static SPACE_TO_DEPTH: OpDef = OpDef {
    name: "SpaceToDepth",
    onnx: &["SpaceToDepth"],
    read: |r| read(r, false),
    kernels: strided::KERNELS,
    samples: |rng| samples(rng, false),
};

fn read(r: &mut Reader, to_space: bool) -> Result<Arc<dyn Op>, OpError> {
    let pixel_first = !to_space || r.one_of("mode", "DCR", MODES)? == "DCR";
    let given = r.int("blocksize", 0)?;
    let block = usize::try_from(given).ok().filter(|b| (1..1 << 16).contains(b));
    let block = block.ok_or_else(|| r.unsupported("blocksize", given, "1 to 65535"))?;
    Ok(Arc::new(DepthSpace { to_space, block, pixel_first }))
}

fn samples(rng: &mut Rng, to_space: bool) -> Vec<Sample> {
    let (a, w) = (rng.int(1, 5), rng.int(1, 9));
    let mut out = Vec::new();
    for mode in if to_space { MODES } else { &MODES[..1] } {
        for (n, c, h, w, b) in
            [(7, a, 3, w, 2), (1, 4, w, 2, 2), (7, 8, 2, 3, 1), (1, 3, 2, w, 3), (2, 4, 0, 3, 2)]
        {
            let shape = if to_space { [n, c * b * b, h, w] } else { [n, c, h * b, w * b] };
            let attrs = Attrs::new().int("blocksize", strided::signed(b));
            let attrs = if to_space { attrs.str("mode", mode) } else { attrs };
            out.push(Sample::new(attrs.clone(), [SampleInput::f32(shape)]));
            out.push(Sample::new(attrs, [SampleInput::of(shape, Fill::Ints(-99, 99))]));
        }
    }
    out
}

impl DepthSpace {
    /// Copies over `[n, i, j, c, h, w]`: deep is the tensor with blocks as channels, wide the other.
    fn copy(&self, x: &View, y: &View) -> StridedCopy {
        let b = self.block;
        let (deep, wide) = if self.to_space { (x, y) } else { (y, x) };
        let [n, c, h, w] = [wide.shape[0], wide.shape[1], deep.shape[2], deep.shape[3]];
        let (d, v) = (deep.place().strides, wide.place().strides);
        let (pixel, channel) = if self.pixel_first { (c, 1) } else { (1, b * b) };
        let deep = [d[0], d[1] * pixel * b, d[1] * pixel, d[1] * channel, d[2], d[3]];
        let wide = [v[0], v[2], v[3], v[1], v[2] * b, v[3] * b];
        let (x, y) = if self.to_space { (deep, wide) } else { (wide, deep) };
        StridedCopy::new(&[n, b, b, c, h, w], 0, &signed_all(&x), 0, &y)
    }
}

impl Op for DepthSpace {
    fn def(&self) -> &'static OpDef {
        if self.to_space { &DEPTH_TO_SPACE } else { &SPACE_TO_DEPTH }
    }

    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new().int("blocksize", strided::signed(self.block));
        if !self.to_space {
            return attrs;
        }
        attrs.str("mode", if self.pixel_first { "DCR" } else { "CRD" })
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check::arity(inputs, 1, 1, "1")?;
        let x = &inputs[0];
        let [n, c, h, w] = x.shape[..] else {
            return Err(OpError::Rank { input: 0, expected: "4", got: x.rank() });
        };
        let (b, bb) = (Dim::Fixed(self.block), self.block * self.block);
        let divided =
            |d: Dim, by: usize| d.fixed().filter(|d| d.is_multiple_of(by)).map(|d| Dim::Fixed(d / by));
        let shape = if self.to_space {
            [Some(n), divided(c, bb), h.times(b), w.times(b)]
        } else {
            [Some(n), c.times(Dim::Fixed(bb)), divided(h, self.block), divided(w, self.block)]
        };
        let [Some(n), Some(c), Some(h), Some(w)] = shape else {
            let (what, by) = if self.to_space { ("channels", bb) } else { ("height and width", self.block) };
            return Err(OpError::shape(0, format!("with {what} divisible by {by}"), x));
        };
        let out = TensorType::new(x.dtype, [n, c, h, w]);
        check::size(&out)?;
        Ok(vec![out])
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let out = self.infer(&[inputs[0].ty()])?.remove(0);
        let shape = out.dims().expect("concrete inputs give concrete outputs");
        let view = |shape: &[usize]| View { dtype: out.dtype, shape: shape.to_vec(), layout: Layout::Linear };
        let copy = self.copy(&view(inputs[0].shape()), &view(&shape));
        Ok(vec![moved(cx, &shape, &[&inputs[0]], &copy)?])
    }

    /// Groups of four channels stay groups where neither tensor has padding lanes.
    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        let per_group = if self.to_space { 4 * self.block * self.block } else { 4 };
        let fits = inputs[0].shape[1].fixed().is_some_and(|c| c.is_multiple_of(per_group));
        if fits { Layouts::Any } else { Layouts::Linear }
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let copy = self.copy(&io.inputs[0], &io.outputs[0]);
        let dispatches: Vec<_> = copy.dispatch(Operand::Input(0), Operand::Output(0)).into_iter().collect();
        Ok(Lowering::run(dispatches))
    }

    fn quant_rule(&self) -> QuantRule<'_> {
        QuantRule::Codes
    }
}
