//! Sample problems that operators state for the parity walk, the registry tests and the benches.

use super::attrs::Attrs;
use crate::tensor::{DType, Tensor, element_count};

/// A small deterministic generator (SplitMix64, Steele et al. 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `low..high`.
    pub fn float(&mut self, low: f32, high: f32) -> f32 {
        #[allow(clippy::cast_precision_loss, reason = "24 bits fit a f32")]
        let unit = (self.bits() >> 40) as f32 / 16_777_216.0;
        low + unit * (high - low)
    }

    /// Uniform in `low..=high`.
    pub fn int(&mut self, low: usize, high: usize) -> usize {
        low + usize::try_from(self.bits() % (high - low + 1) as u64).expect("fits")
    }

    /// Uniform in `low..=high`.
    pub fn code(&mut self, low: i32, high: i32) -> i32 {
        let span = u64::from(high.abs_diff(low)) + 1;
        let d = i64::try_from(self.bits() % span).expect("fits");
        i32::try_from(i64::from(low) + d).expect("within the range")
    }

    /// One of `items`.
    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.int(0, items.len() - 1)].clone()
    }
}

/// Values of one sample input.
#[derive(Clone, Debug)]
pub enum Fill {
    /// f32 uniform in a range.
    Range(f32, f32),
    /// i32 uniform in a range, both ends included.
    Ints(i32, i32),
    /// Truth values.
    Bools,
    /// Exactly this tensor.
    Exact(Tensor),
}

/// One sample input.
#[derive(Clone, Debug)]
pub struct SampleInput {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub fill: Fill,
    /// Whether it is a constant of the graph, as weights are.
    pub constant: bool,
}

impl SampleInput {
    /// A runtime input, f32 in -2..2.
    pub fn f32(shape: impl Into<Vec<usize>>) -> Self {
        SampleInput { shape: shape.into(), fill: Fill::Range(-2.0, 2.0), constant: false }
    }

    /// A runtime input with given values.
    pub fn of(shape: impl Into<Vec<usize>>, fill: Fill) -> Self {
        SampleInput { shape: shape.into(), fill, constant: false }
    }

    /// The same as a constant.
    pub fn constant(mut self) -> Self {
        self.constant = true;
        self
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        match &self.fill {
            Fill::Range(..) => DType::F32,
            Fill::Ints(..) => DType::I32,
            Fill::Bools => DType::Bool,
            Fill::Exact(t) => t.dtype(),
        }
    }

    /// Draws its values.
    pub fn draw(&self, rng: &mut Rng) -> Tensor {
        let n = element_count(&self.shape).expect("sample shapes are small");
        match &self.fill {
            Fill::Range(a, b) => {
                Tensor::from_f32(self.shape.clone(), (0..n).map(|_| rng.float(*a, *b)).collect())
            }
            Fill::Ints(a, b) => {
                Tensor::from_i32(self.shape.clone(), (0..n).map(|_| rng.code(*a, *b)).collect())
            }
            Fill::Bools => {
                Tensor::from_bool(self.shape.clone(), (0..n).map(|_| u8::from(rng.bits() & 1 == 1)).collect())
            }
            Fill::Exact(t) => t.clone(),
        }
    }
}

/// A problem for one operator. Float outputs of two executors may differ by
/// `(4 + reduction) * 2^-24 * max|output| + extra`; integer outputs not at all.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Attributes as a graph file has them.
    pub attrs: Attrs,
    /// Inputs.
    pub inputs: Vec<SampleInput>,
    /// Length of the float reduction behind one output element.
    pub reduction: usize,
    /// Absolute difference allowed beyond that: what transcendental functions of drivers cost, with the reason beside it.
    pub extra: f32,
}

impl Sample {
    /// A problem without reduction.
    pub fn new(attrs: Attrs, inputs: impl Into<Vec<SampleInput>>) -> Self {
        Sample { attrs, inputs: inputs.into(), reduction: 1, extra: 0.0 }
    }

    /// Sets the reduction length.
    pub fn reduction(mut self, n: usize) -> Self {
        self.reduction = n;
        self
    }

    /// Sets the extra tolerance.
    pub fn extra(mut self, x: f32) -> Self {
        self.extra = x;
        self
    }
}
