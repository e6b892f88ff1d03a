//! Clamps and quantizers that run as the epilogue of the node before them give the bits that they give on their own.

mod support;

use libtest_mimic::Arguments;
use samebit::exec::{CpuExecutor, GpuExecutor, Trace};
use samebit::graph::attrs::Input;
use samebit::graph::sample::{Fill, Rng, SampleInput};
use samebit::graph::{Attrs, Graph, Op, Reader, Source, Stage, ValueId};
use samebit::ops::{by_name, fake_quant};
use samebit::quant::{Division, Origin, QParams, Quantizer, Role, Rounding, Spec, State};
use samebit::tensor::{DType, Tensor, TensorType};
use std::sync::Arc;
use support::{gpu, trial};

const DTYPES: [DType; 6] = [DType::I4, DType::U4, DType::I8, DType::U8, DType::I16, DType::U16];

fn main() {
    let absent = gpu().is_none();
    let trials = vec![
        trial("an_epilogue_changes_no_bit_on_the_cpu", false, on_the_cpu),
        trial("an_epilogue_changes_no_bit_on_the_gpu", absent, on_the_gpu),
        trial("every_kernel_with_an_epilogue_applies_each_quantizer", absent, every_kernel),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

struct Builder {
    rng: Rng,
    graph: Graph,
}

impl Builder {
    fn new(seed: u64) -> Builder {
        let mut graph = Graph::new("random");
        graph.stage = Stage::FakeQuant;
        Builder { rng: Rng::new(seed), graph }
    }

    fn shape(&self, v: ValueId) -> Vec<usize> {
        self.graph.value(v).ty.dims().expect("concrete")
    }

    fn push(&mut self, op: Arc<dyn Op>, inputs: &[ValueId]) -> ValueId {
        let name = format!("node{}", self.graph.nodes().len());
        self.graph.add_node(name.clone(), None, op, inputs, &[format!("{name}.out")]).expect("fits")[0]
    }

    fn add(&mut self, name: &str, attrs: Attrs, inputs: &[ValueId]) -> ValueId {
        let typed = inputs.iter().map(|v| Some(Input { ty: self.graph.value(*v).ty.clone(), known: None }));
        let mut r = Reader::new(Source::Graph, name, attrs, typed.collect(), 1);
        let op = (by_name(name).expect("an operator of ours").read)(&mut r).expect("reads");
        self.push(op, inputs)
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let t = SampleInput::of(shape, Fill::Range(-1.0, 1.0)).draw(&mut self.rng);
        self.graph.add_constant(format!("constant{}", self.graph.values().len()), t)
    }

    fn conv(&mut self, op: &str, x: ValueId, groups: usize) -> ValueId {
        let (c, k) = (self.shape(x)[1], [1, 3][self.rng.int(0, 1)]);
        let (w, b) = (self.constant(&[c, c / groups, k, k]), self.constant(&[c]));
        let attrs = Attrs::new().sizes("pads", &[k / 2; 4]);
        self.add(op, attrs.int("group", i64::try_from(groups).expect("few")), &[x, w, b])
    }

    /// One of the operators that can have an epilogue, and of one that cannot. The elements of the result are as many as those of `x`.
    fn producer(&mut self, kind: usize, x: ValueId, other: ValueId) -> ValueId {
        let shape = self.shape(x);
        let none = Attrs::new();
        match kind {
            0 => self.conv("Conv", x, 1),
            1 => self.conv("Conv", x, if shape[1].is_multiple_of(3) { 3 } else { 1 }),
            2 => self.conv("Conv", x, shape[1]),
            3 => self.conv("ConvTranspose", x, 1),
            4 => self.conv("ConvTranspose", x, shape[1]),
            5 => {
                let w = self.constant(&[shape[3], shape[3]]);
                self.add("MatMul", none, &[x, w])
            }
            6 => {
                let all: usize = shape[1..].iter().product();
                let rows = self.add("Reshape", Attrs::new().sizes("shape", &[shape[0], all]), &[x]);
                let (w, c) = (self.constant(&[all, all]), self.constant(&[all]));
                let attrs = Attrs::new().float("alpha", 0.7).float("beta", 1.3);
                self.add("Gemm", attrs, &[rows, w, c])
            }
            7 => self.add("Add", none, &[x, other]),
            8 => {
                let c = self.constant(&[1, shape[1], 1, 1]);
                self.add("Mul", none, &[x, c])
            }
            9 => self.add("Sum", none, &[x, other, x]),
            10 => self.add("Sigmoid", none, &[x]),
            11 => self.add("Max", none, &[x, other]),
            _ => self.add("Softmax", none.int("axis", -1), &[x]),
        }
    }

    fn quantizer(&mut self, x: ValueId, how: (DType, Rounding, Division), axis: Option<usize>) -> ValueId {
        let (dtype, rounding, division) = how;
        let (low, high) = dtype.limits().expect("codes");
        let channels = axis.map_or(1, |a| self.shape(x)[a]);
        let zero = |rng: &mut Rng| if low < 0 { 0 } else { rng.code(low, high) };
        #[allow(clippy::cast_precision_loss, reason = "codes of 16 bits")]
        let scales = (0..channels).map(|_| self.rng.float(0.5, 8.0) / high as f32).collect();
        let zeros = (0..channels).map(|_| zero(&mut self.rng)).collect();
        let params = QParams::new(dtype, false, scales, zeros, axis).expect("legal");
        let mut spec = Spec::new(dtype, Role::Activation, "fixed");
        (spec.rounding, spec.division) = (rounding, division);
        let mut q = Quantizer::with_params(spec, params, Origin::Fixed);
        if self.rng.int(0, 5) == 0 {
            q.state = State::Calibration;
        }
        self.push(fake_quant(q), &[x])
    }

    fn any_quantizer(&mut self, x: ValueId) -> ValueId {
        let axis = (self.rng.int(0, 3) == 0).then(|| self.rng.int(0, self.shape(x).len() - 1));
        // Drivers take long over each kind of kernel; `every_kernel` has the others.
        let kinds = [(Rounding::HalfEven, Division::Multiply), (Rounding::HalfUp, Division::Divide)];
        let (rounding, division) = self.rng.pick(&kinds);
        let how = (self.rng.pick(&DTYPES), rounding, division);
        self.quantizer(x, how, axis)
    }

    fn clamp(&mut self, x: ValueId) -> ValueId {
        let attrs = match self.rng.int(0, 4) {
            0 => Attrs::new().float("min", 0.0).float("max", 6.0),
            1 => Attrs::new().float("min", 0.5).float("max", -0.5),
            2 => Attrs::new().float("max", -0.0),
            _ => return self.add("Relu", Attrs::new(), &[x]),
        };
        self.add("Clip", attrs, &[x])
    }
}

const PRODUCERS: usize = 13;

/// Numbers among which are NaN, infinities, both zeros and a tiny one.
fn input(rng: &mut Rng, shape: &[usize]) -> Tensor {
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-30, f32::MAX];
    let few = rng.int(0, 1) == 0;
    let mut draw = || match rng.int(0, 40) {
        0 if few => rng.pick(&special),
        _ => rng.float(-3.0, 3.0),
    };
    let n: usize = shape.iter().product();
    Tensor::from_f32(shape, (0..n).map(|_| draw()).collect())
}

/// Operators, clamps and quantizers in chains and forks, with outputs and taps anywhere.
fn random(seed: u64) -> (Graph, Vec<Tensor>, Vec<ValueId>) {
    let mut b = Builder::new(seed);
    let (c, w) = (b.rng.pick(&[1, 3, 5, 6, 8, 18]), b.rng.int(1, 7));
    let shape = [2, c, 3, w];
    let x = b.graph.add_input("x", TensorType::new(DType::F32, shape));
    let mut values = vec![x];
    for _ in 0..b.rng.int(2, 7) {
        // Mostly the newest, so that chains are long; sometimes an older one, which then has two users.
        let newest = values[values.len() - 1];
        let from = if b.rng.int(0, 5) == 0 { b.rng.pick(&values) } else { newest };
        let (kind, other) = (b.rng.int(0, PRODUCERS - 1), b.rng.pick(&values));
        let mut v = b.producer(kind, from, other);
        if b.shape(v) != shape {
            v = b.add("Reshape", Attrs::new().sizes("shape", &shape), &[v]);
        }
        values.push(v);
        for _ in 0..b.rng.int(0, 3) {
            v = if b.rng.int(0, 1) == 0 { b.clamp(v) } else { b.any_quantizer(v) };
            values.push(v);
        }
    }
    b.graph.outputs = vec![values[values.len() - 1]];
    let (output, tap) = (b.rng.pick(&values), b.rng.pick(&values));
    if b.rng.int(0, 2) == 0 && !b.graph.outputs.contains(&output) {
        b.graph.outputs.push(output);
    }
    b.graph.verify().expect("a legal graph");
    let input = input(&mut b.rng, &shape);
    let taps = if b.rng.int(0, 2) == 0 { vec![tap] } else { Vec::new() };
    (b.graph, vec![input], taps)
}

/// Fails where a value of `some`, which was run with as few taps as wanted, is not that of `all`, in which nothing could
/// be fused because every value was tapped. The driver chooses which NaN a sum of NaNs is.
fn same(what: &str, graph: &Graph, some: &Trace, all: &Trace, any_nan: bool) {
    for (v, got) in &some.values {
        let same = |a: &f32, b: &f32| a.to_bits() == b.to_bits() || (any_nan && a.is_nan() && b.is_nan());
        let (got, want) = (got.f32s(), all.values[v].f32s());
        let wrong = (0..want.len()).find(|i| !same(&got[*i], &want[*i]));
        if let Some(i) = wrong {
            let nodes: Vec<String> = graph.nodes().iter().map(|n| n.label()).collect();
            panic!("{what}: {v:?} at {i}: {:?}, alone {:?} in {nodes:#?}", got[i], want[i]);
        }
    }
}

fn every_value(graph: &Graph) -> Vec<ValueId> {
    graph.nodes().iter().flat_map(|n| n.outputs.clone()).chain(graph.inputs.clone()).collect()
}

fn on_the_cpu() {
    for seed in 0..300 {
        let (graph, inputs, taps) = random(seed);
        let executor = CpuExecutor::new(graph.clone());
        let some = executor.run(&inputs, &taps).expect("runs");
        let all = executor.run(&inputs, &every_value(&graph)).expect("runs");
        same(&format!("seed {seed}"), &graph, &some, &all, false);
    }
}

fn on_the_gpu() {
    let (mut fused, mut alone) = (0, 0);
    for seed in 0..40 {
        let (graph, inputs, taps) = random(seed);
        let executor = GpuExecutor::new(gpu().expect("checked"), &graph).poison();
        let some = executor.run(&inputs, &taps).expect("runs");
        let all = executor.run(&inputs, &every_value(&graph)).expect("runs");
        same(&format!("seed {seed}"), &graph, &some, &all, true);
        fused += some.dispatches;
        alone += all.dispatches;
    }
    assert!(4 * fused < 3 * alone, "{fused} dispatches, {alone} where nothing can be fused");
}

/// Each operator that can have an epilogue, with each rounding and each division behind a clamp.
fn every_kernel() {
    for kind in 0..PRODUCERS - 1 {
        for (i, rounding) in Rounding::ALL.into_iter().enumerate() {
            let division = Division::ALL[(i + kind) % 3];
            let mut b = Builder::new((10 * kind + i) as u64);
            let shape = [2, 6, 3, 5];
            let x = b.graph.add_input("x", TensorType::new(DType::F32, shape));
            let z = b.graph.add_input("z", TensorType::new(DType::F32, shape));
            let y = b.producer(kind, x, z);
            let y = b.clamp(y);
            let y = b.quantizer(y, (DType::I8, rounding, division), None);
            b.graph.outputs = vec![y];
            let inputs = [input(&mut b.rng, &shape), input(&mut b.rng, &shape)];
            let executor = GpuExecutor::new(gpu().expect("checked"), &b.graph).poison();
            let some = executor.run(&inputs, &[]).expect("runs");
            let all = executor.run(&inputs, &every_value(&b.graph)).expect("runs");
            same(&format!("{kind} {rounding} {division}"), &b.graph, &some, &all, true);
            assert!(some.dispatches < all.dispatches, "{kind}: {} dispatches", some.dispatches);
        }
    }
}
