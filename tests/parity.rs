//! Both executors on the samples of every operator: equal results, nothing left to the CPU, memory full of NaN before.

mod support;

use libtest_mimic::Arguments;
use samebit::exec::parity::{Tolerance, compare};
use samebit::exec::{CpuExecutor, Engine, ExecError, GpuExecutor, Trace};
use samebit::gpu::{Device, Gpu};
use samebit::graph::attrs::Input;
use samebit::graph::lower::{Io, Kernel, Layouts, Lowering};
use samebit::graph::sample::{Fill, Rng, Sample, SampleInput};
use samebit::graph::{
    AttrValue, Attrs, CodeParams, Graph, Op, OpDef, OpError, QuantRule, Reader, Scratch, Source, Stage,
    ValueId,
};
use samebit::ops::{OPS, by_name};
use samebit::tensor::{DType, Dim, Tensor, TensorType};
use std::sync::Arc;
use support::{gpu, trial};

const SEEDS: std::ops::Range<u64> = 0..4;

/// Operators whose integer form has no kernel yet.
const CODES_ON_THE_CPU: [&str; 3] = ["Softmax", "LayerNormalization", "Div"];

fn main() {
    let absent = gpu().is_none();
    // The last one is a measurement: `-- --ignored` runs it.
    let trials = vec![
        trial("both_executors_agree_on_every_operator", absent, both_executors_agree_on_every_operator),
        trial("the_batch_changes_no_bit_on_the_gpu", absent, the_batch_changes_no_bit_on_the_gpu),
        trial(
            "neither_batch_nor_threads_change_a_bit_on_the_cpu",
            false,
            neither_batch_nor_threads_change_a_bit_on_the_cpu,
        ),
        trial("sums_that_drivers_cut_off_run_on_the_cpu", absent, sums_that_drivers_cut_off_run_on_the_cpu),
        trial("codes_of_every_type_move_on_the_device", absent, codes_of_every_type_move_on_the_device),
        trial("a_changed_constant_in_a_kernel_is_found", absent, a_changed_constant_in_a_kernel_is_found),
        trial(
            "both_executors_agree_on_random_graphs_with_and_without_taps",
            absent,
            both_executors_agree_on_random_graphs_with_and_without_taps,
        ),
        trial("overhead_of_a_chain_of_fifty_relus", true, overhead_of_a_chain_of_fifty_relus),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A stage in which an operator may occur.
fn stage_of(op: &dyn Op) -> Stage {
    match op.quant_rule() {
        QuantRule::Quantizer(_) => Stage::FakeQuant,
        _ => Stage::Float,
    }
}

/// A sample as a graph of one node, and its runtime inputs.
struct Problem {
    name: String,
    graph: Graph,
    inputs: Vec<Tensor>,
    sample: Sample,
    def: &'static OpDef,
}

impl Problem {
    fn op(def: &OpDef, sample: &Sample) -> Result<Arc<dyn Op>, OpError> {
        let typed =
            |i: &samebit::graph::sample::SampleInput| TensorType::new(i.dtype(), i.shape.iter().copied());
        let inputs = sample.inputs.iter().map(|i| Some(Input { ty: typed(i), known: None })).collect();
        (def.read)(&mut Reader::new(Source::Graph, def.name, sample.attrs.clone(), inputs, 1))
    }

    fn new(
        def: &'static OpDef,
        sample: &Sample,
        seed: u64,
        wrap: &dyn Fn(Arc<dyn Op>) -> Arc<dyn Op>,
    ) -> Result<Problem, OpError> {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let mut graph = Graph::new(def.name);
        let (mut inputs, mut ids) = (Vec::new(), Vec::new());
        for (i, input) in sample.inputs.iter().enumerate() {
            let t = input.draw(&mut rng);
            if input.constant {
                ids.push(graph.add_constant(format!("constant{i}"), t));
            } else {
                ids.push(graph.add_input(format!("input{i}"), t.ty()));
                inputs.push(t);
            }
        }
        let op = wrap(Self::op(def, sample)?);
        graph.stage = stage_of(op.as_ref());
        let types: Vec<TensorType> = ids.iter().map(|v| graph.value(*v).ty.clone()).collect();
        let outputs: Vec<String> = (0..op.infer(&types)?.len()).map(|i| format!("output{i}")).collect();
        graph.outputs = graph.add_node("node", None, op, &ids, &outputs)?;
        let shapes: Vec<String> = types.iter().map(ToString::to_string).collect();
        let attrs: Vec<String> = sample.attrs.0.iter().map(|(k, v)| format!("{k} = {v}")).collect();
        let name = format!("{} seed {seed} ({}) {{{}}}", def.name, shapes.join(", "), attrs.join(", "));
        Ok(Problem { name, graph, inputs, sample: sample.clone(), def })
    }

    /// The operator of the sample.
    fn op_of_sample(&self) -> &dyn Op {
        self.graph.nodes().last().expect("it was added").op.as_ref()
    }

    /// The same behind poolings of single pixels, which leave pictures channels-last, and codes packed; `None` where nothing
    /// is a picture, or the operator does not take packed codes as they lie.
    fn channels_last(&self) -> Option<Problem> {
        let node = self.graph.nodes().last()?;
        let types: Vec<TensorType> = node.inputs.iter().map(|v| self.graph.value(*v).ty.clone()).collect();
        if node.op.layouts(&types) != Layouts::AnyPacked {
            return None;
        }
        let mut graph = Graph::new(&self.graph.name);
        graph.stage = self.graph.stage;
        let mut ids = Vec::new();
        for (i, (v, ty)) in node.inputs.iter().zip(&types).enumerate() {
            if let Some(t) = &self.graph.value(*v).constant {
                ids.push(graph.add_constant(format!("constant{i}"), t.clone()));
                continue;
            }
            let x = graph.add_input(format!("input{i}"), ty.clone());
            let picture = (3..=5).contains(&ty.rank()) && ![DType::Bool, DType::I32].contains(&ty.dtype);
            let some = ty.shape.iter().all(|d| d.fixed() != Some(0));
            let kernel = vec![1; ty.rank().saturating_sub(2)];
            let mut pool = || add(&mut graph, "MaxPool", Attrs::new().sizes("kernel_shape", &kernel), &[x]);
            ids.push(if picture && some { pool() } else { x });
        }
        if graph.nodes().is_empty() {
            return None;
        }
        let outputs: Vec<String> = (0..node.outputs.len()).map(|i| format!("output{i}")).collect();
        graph.outputs = graph.add_node("node", None, Arc::clone(&node.op), &ids, &outputs).ok()?;
        let name = format!("{} channels-last", self.name);
        Some(Problem { name, graph, inputs: self.inputs.clone(), sample: self.sample.clone(), def: self.def })
    }

    /// Nothing for what is made of codes.
    fn tolerance(&self) -> Option<Tolerance> {
        let on_codes = self.op_of_sample().integer_of().is_some();
        (!on_codes).then_some(Tolerance { reduction: self.sample.reduction, extra: self.sample.extra })
    }

    fn cpu(&self) -> Result<Trace, ExecError> {
        CpuExecutor::new(self.graph.clone()).run(&self.inputs, &[])
    }

    fn gpu(&self, gpu: &Arc<Gpu>) -> Result<Trace, ExecError> {
        let executor = GpuExecutor::new(Arc::clone(gpu), &self.graph).poison();
        executor.run(&self.inputs, &[])?;
        // The second run must not depend on what the first left behind.
        executor.run(&self.inputs, &[])
    }

    /// What is wrong when both executors run it, however its inputs lie.
    fn check(&self, gpu: &Arc<Gpu>) -> Vec<String> {
        let mut wrong = self.check_as_it_is(gpu);
        if let Some(p) = self.channels_last() {
            wrong.extend(p.check_as_it_is(gpu));
        }
        wrong
    }

    fn check_as_it_is(&self, gpu: &Arc<Gpu>) -> Vec<String> {
        let fail = |e: String| vec![format!("{}: {e}", self.name)];
        let want = match self.cpu() {
            Ok(t) => t,
            Err(e) => return fail(format!("CPU: {e}")),
        };
        let got = match self.gpu(gpu) {
            Ok(t) => t,
            Err(e) => return fail(format!("GPU: {e}")),
        };
        let mut wrong: Vec<String> =
            compare(&want, &got, self.tolerance()).iter().map(|d| format!("{}: {d}", self.name)).collect();
        let empty = want.values.values().all(Tensor::is_empty);
        // A kernel is promised by the list in the definition.
        if !self.def.kernels.is_empty() && !empty {
            let on_codes = self.op_of_sample().integer_of();
            if on_codes.is_some_and(|(op, _)| CODES_ON_THE_CPU.contains(&op.def().name)) {
                return wrong;
            }
            if let Some((label, reason)) = got.cpu_ops.first() {
                wrong.push(format!("{}: {label} ran on the CPU: {reason}", self.name));
            } else if got.dispatches == 0 {
                wrong.push(format!("{}: no dispatch", self.name));
            }
        }
        wrong
    }
}

fn samples(def: &'static OpDef) -> Vec<(u64, Sample)> {
    SEEDS.flat_map(|seed| (def.samples)(&mut Rng::new(seed)).into_iter().map(move |s| (seed, s))).collect()
}

/// `SAMEBIT_OP=Conv` restricts the walk to one operator.
fn ops() -> Vec<&'static OpDef> {
    let only = std::env::var("SAMEBIT_OP").ok();
    OPS.iter().copied().filter(|d| only.as_deref().is_none_or(|o| o == d.name)).collect()
}

/// Fails with all findings at once.
fn report(findings: &[String]) {
    assert!(findings.is_empty(), "{} failures:\n{}", findings.len(), findings.join("\n"));
}

fn both_executors_agree_on_every_operator() {
    let Some(gpu) = gpu() else { return };
    let mut wrong = Vec::new();
    let mut ran = 0;
    for def in ops() {
        for (seed, sample) in samples(def) {
            match Problem::new(def, &sample, seed, &|op| op) {
                Ok(p) => wrong.extend(p.check(&gpu)),
                Err(e) => wrong.push(format!("{} seed {seed} {:?}: {e}", def.name, sample.attrs)),
            }
            ran += 1;
        }
    }
    assert!(ran > 0, "nothing was compared");
    report(&wrong);
}

/// Rows `from..from + count` along axis 0.
fn rows(t: &Tensor, from: usize, count: usize) -> Tensor {
    let mut shape = t.shape().to_vec();
    let len = t.bytes().len() / shape[0].max(1);
    shape[0] = count;
    let bytes = &t.bytes()[from * len..(from + count) * len];
    Tensor::from_bytes(t.dtype(), &shape, bytes).expect("rows are a tensor")
}

/// The problem with axis 0 of its runtime inputs as N: the graph, and the inputs with 7 frames. `None` where the
/// operator does not keep frames apart there.
fn batched(p: &Problem) -> Option<(Graph, Vec<Tensor>)> {
    const FRAMES: usize = 7;
    let node = &p.graph.nodes()[0];
    let first = p.graph.inputs.iter().map(|v| p.graph.value(*v).ty.shape.first().and_then(|d| d.fixed()));
    let lengths: Vec<usize> = first.collect::<Option<_>>()?;
    let n = *lengths.iter().max()?;
    if n == 0 || lengths.iter().any(|l| *l != n && *l != 1) {
        return None;
    }
    let mut graph = Graph::new("batched");
    graph.stage = p.graph.stage;
    let mut inputs = p.inputs.iter();
    let mut full = Vec::new();
    let ids: Vec<_> = node
        .inputs
        .iter()
        .zip(0..)
        .map(|(v, i): (_, usize)| {
            let value = p.graph.value(*v);
            if let Some(t) = &value.constant {
                return graph.add_constant(format!("constant{i}"), t.clone());
            }
            let t = inputs.next().expect("an input for each");
            let mut ty = value.ty.clone();
            if t.shape()[0] != n || (n == 1 && ty.rank() < 2) {
                full.push(t.clone());
                return graph.add_input(format!("input{i}"), ty);
            }
            ty.shape[0] = Dim::Batch(1);
            let frames: Vec<u8> = (0..FRAMES).flat_map(|f| rows(t, f % n, 1).bytes().to_vec()).collect();
            let mut shape = t.shape().to_vec();
            shape[0] = FRAMES;
            full.push(Tensor::from_bytes(t.dtype(), &shape, &frames).expect("frames are a tensor"));
            graph.add_input(format!("input{i}"), ty)
        })
        .collect();
    let types: Vec<TensorType> = ids.iter().map(|v| graph.value(*v).ty.clone()).collect();
    let out = node.op.infer(&types).ok()?;
    let keeps = |t: &TensorType| t.shape.iter().position(|d| *d == Dim::Batch(1)) == Some(0);
    if !out.iter().all(|t| keeps(t) && t.shape[1..].iter().all(|d| d.fixed().is_some())) {
        return None;
    }
    let names: Vec<String> = (0..out.len()).map(|i| format!("output{i}")).collect();
    graph.outputs = graph.add_node("node", None, Arc::clone(&node.op), &ids, &names).ok()?;
    graph.at_batch(1).and(graph.at_batch(FRAMES)).ok()?;
    Some((graph, full))
}

/// What differs between 7 frames at once and one by one on this device.
fn batch_differences(p: &Problem, device: &Device) -> Vec<String> {
    let Some((graph, inputs)) = batched(p) else { return Vec::new() };
    let fail = |e: String| vec![format!("{}: {device}: {e}", p.name)];
    let mut one_by_one = Engine::new(graph.clone(), device).with_batch(1);
    let mut at_once = Engine::new(graph, device).with_batch(7);
    let whole = match at_once.run(&inputs, &[]) {
        Ok(t) => t,
        Err(e) => return fail(e.to_string()),
    };
    match one_by_one.run(&inputs, &[]) {
        Ok(parts) => compare(&parts, &whole, Tolerance::EXACT)
            .iter()
            .flat_map(|d| fail(format!("7 frames at once are not one by one: {d}")))
            .collect(),
        Err(e) => fail(e.to_string()),
    }
}

fn the_batch_changes_no_bit_on_the_gpu() {
    let Some(gpu) = gpu() else { return };
    let device = Device::Gpu(gpu);
    let (mut wrong, mut ran) = (Vec::new(), 0);
    for def in ops() {
        for (seed, sample) in samples(def).into_iter().filter(|(seed, _)| *seed == 0) {
            let Ok(p) = Problem::new(def, &sample, seed, &|op| op) else { continue };
            ran += usize::from(batched(&p).is_some());
            wrong.extend(batch_differences(&p, &device));
        }
    }
    assert!(ran > 0, "nothing was compared");
    report(&wrong);
}

fn neither_batch_nor_threads_change_a_bit_on_the_cpu() {
    let (mut wrong, mut ran) = (Vec::new(), 0);
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("threads");
    let (one, two) = (pool(1), pool(2));
    for def in ops() {
        for (seed, sample) in samples(def) {
            let Ok(p) = Problem::new(def, &sample, seed, &|op| op) else { continue };
            ran += usize::from(batched(&p).is_some());
            wrong.extend(one.install(|| batch_differences(&p, &Device::Cpu)));
            wrong.extend(two.install(|| batch_differences(&p, &Device::Cpu)));
            if let (Ok(a), Ok(b)) = (one.install(|| p.cpu()), two.install(|| p.cpu())) {
                let differences = compare(&a, &b, Tolerance::EXACT);
                wrong.extend(differences.iter().map(|d| format!("{}: 1 and 2 threads: {d}", p.name)));
            }
        }
    }
    assert!(ran > 0, "nothing was compared");
    report(&wrong);
}

/// An operator whose kernels have a text changed, where they contain it.
#[derive(Debug)]
struct Spoiled {
    op: Arc<dyn Op>,
    from: &'static str,
    to: &'static str,
}

impl Spoiled {
    fn kernel(&self, kernel: &Kernel) -> &'static Kernel {
        let leak =
            |text: &str| -> &'static str { Box::leak(text.replace(self.from, self.to).into_boxed_str()) };
        let sources: Vec<_> = kernel.sources.iter().map(|(f, t)| (*f, leak(t))).collect();
        let sources: &'static [(&'static str, &'static str)] = Box::leak(sources.into_boxed_slice());
        Box::leak(Box::new(Kernel { name: kernel.name, sources, params: kernel.params }))
    }
}

impl Op for Spoiled {
    fn def(&self) -> &'static OpDef {
        self.op.def()
    }

    fn attrs(&self) -> Attrs {
        self.op.attrs()
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        self.op.infer(inputs)
    }

    fn eval(&self, cx: &Scratch, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        self.op.eval(cx, inputs)
    }

    fn layouts(&self, inputs: &[TensorType]) -> Layouts {
        self.op.layouts(inputs)
    }

    fn lower(&self, io: &Io) -> Result<Lowering, OpError> {
        let mut lowering = self.op.lower(io)?;
        if let Lowering::Run { dispatches, .. } = &mut lowering {
            for d in dispatches {
                if d.kernel.sources.iter().any(|(_, text)| text.contains(self.from)) {
                    d.kernel = self.kernel(d.kernel);
                }
            }
        }
        Ok(lowering)
    }

    fn integer_of(&self) -> Option<(&Arc<dyn Op>, &CodeParams)> {
        self.op.integer_of()
    }
}

/// Problems of an operator, or of its integer form, that a changed text in their kernels makes wrong, looked for until
/// there are so many.
fn found(gpu: &Arc<Gpu>, def: &'static OpDef, of: &str, (from, to): Fault, enough: usize) -> usize {
    // Faults of rare cases need more problems than the walk has; they are drawn until one tells.
    let all = (0..24 * SEEDS.end)
        .flat_map(|seed| (def.samples)(&mut Rng::new(seed)).into_iter().map(move |sample| (seed, sample)));
    let problems = all.filter(|(seed, sample)| {
        let spoil = |op| Arc::new(Spoiled { op, from, to }) as Arc<dyn Op>;
        let p = Problem::new(def, sample, *seed, &spoil).expect("a sample is valid");
        let op = p.op_of_sample();
        op.integer_of().map_or(op.def().name, |(op, _)| op.def().name) == of && !p.check(gpu).is_empty()
    });
    problems.take(enough).count()
}

/// A text, and what it is changed to.
type Fault = (&'static str, &'static str);

/// Of kernels on codes, and an operator whose problems must tell: rounding, carries, saturation, zero points, each mode.
const FAULTS: &[(&str, Fault)] = &[
    ("Conv", ("tie = (down & one) == one;", "tie = (down & one) != one;")),
    ("Conv", ("tie = !x.negative;", "tie = x.negative;")),
    ("Conv", ("let low = p.high >> n;", "let low = (p.high + 1u) >> n;")),
    ("GridSample", ("at & vec2<i32>(255)", "at & vec2<i32>(127)")),
    ("Resize", ("table[a + 1u] * table[b + 1u]", "table[a + 1u]")),
    ("Resize", ("~p.high + ones(p.low == none), negative", "~p.high, negative")),
    ("Identity", ("(x.a >> (vec4<u32>(31u) - left))) != none)", "none) != none)")),
    ("MatMul", ("q.high + ones(b < p.high)", "q.high")),
    ("Add", ("let to_c = ones(pb < to_b) | ones(b < pb);", "let to_c = p.a & vec4<u32>(0u);")),
    ("Conv", ("vec4<i32>(31), HALF_UP", "vec4<i32>(31), HALF_EVEN")),
    ("Conv", ("vec4<i32>(max(field, vec4<u32>(1u))) - 150)", "vec4<i32>(max(field, vec4<u32>(1u))) - 149)")),
    (
        "MatMul",
        (
            "max(bit_length(x), vec4<u32>(24u)) - vec4<u32>(24u)",
            "max(bit_length(x), vec4<u32>(23u)) - vec4<u32>(23u)",
        ),
    ),
    ("AveragePool", ("ROUNDING, rest != vec4<u32>(0u));", "ROUNDING, vec4<bool>());")),
    ("Conv", ("wide(addend - params.finish.addend_zero)", "wide(addend)")),
    ("Gemm", ("addend_zero), f.other)", "addend_zero), f.m)")),
    ("Conv", ("x[i] - params.finish.x_zero", "x[i]")),
    ("Conv", ("W_FORM);", "3u - W_FORM);")),
    ("Conv", ("return codes ^ 0x80808080u;", "return codes;")),
    ("Conv", ("select(outside, x[p.i + c], p.inside)", "x[p.i + c]")),
    ("Conv", ("bias - params.zero * sum", "bias")),
    ("Gemm", ("params.o_step + i * params.step", "params.o_step")),
    ("MatMul", ("return a[i] ^ 0x80808080u;", "return a[i];")),
    ("ReduceMean", ("& 3u, X_FORM", "& 3u, SIGNED")),
    ("Add", ("word << (24u - 8u * i)", "word << (16u - 8u * i)")),
    ("Gemm", ("s.high + v.high + ones(low < v.low)", "s.high + v.high")),
    ("MatMul", ("if SATURATE == 1u", "if SATURATE == 2u")),
    ("Conv", ("v = x[i] - zero[index];", "v = x[i];")),
    ("AveragePool", ("factor_of(counted)", "factor_of(1u)")),
    ("Sub", ("- params.b_zero) * params.sign", "- params.b_zero)")),
    ("Add", ("x.a >> vec4<u32>(12u)", "x.a >> vec4<u32>(31u)")),
    ("Add", ("fused(q, of_q.m, float(of_sum.m))", "float(of_sum.m)")),
    ("AveragePool", ("q |= ones(rest", "q &= ones(rest")),
    ("Mul", ("(p ^ q) < vec4<i32>(0)", "p < vec4<i32>(0)")),
    ("ReduceMean", ("select(0u, 1u, low < v.x)", "0u")),
    ("Conv", ("clamp(both, V(-32768), V(32767))", "both")),
    ("Conv", ("t * params.cg + c, steps", "c, steps")),
    ("MatMul", ("V(-32768), V(32767)", "V(-32767), V(32767)")),
    ("Gemm", ("+ zero * steps", "")),
    ("MatMul", ("params.finish.x_zero + i32(SHIFT)", "params.finish.x_zero")),
    ("Conv", ("add_to(s.sum, s.first)", "s.sum")),
];

fn a_changed_constant_in_a_kernel_is_found() {
    let Some(gpu) = gpu() else { return };
    let relu = by_name("Relu").expect("in the list");
    let seen = found(&gpu, relu, "Relu", ("x < X()", "x < X(0.125)"), 4);
    assert_eq!(seen, 4, "the walk does not see a wrong kernel");
    let def = by_name("Integer").expect("in the list");
    let texts: Vec<&str> = def.kernels.iter().flat_map(|k| k.sources.iter().map(|(_, text)| *text)).collect();
    let mut missed = Vec::new();
    for (of, fault) in FAULTS {
        assert!(texts.iter().any(|text| text.contains(fault.0)), "{:?} is in no kernel", fault.0);
        if found(&gpu, def, of, *fault, 1) == 0 {
            missed.push(format!("{of}: {}", fault.0));
        }
    }
    report(&missed);
}

/// Operators through which codes pass, or that copy them.
const MOVERS: [&str; 14] = [
    "Concat",
    "DepthToSpace",
    "Expand",
    "Gather",
    "GlobalMaxPool",
    "Identity",
    "MaxPool",
    "Pad",
    "ReduceMax",
    "Reshape",
    "Resize",
    "Slice",
    "Split",
    "Transpose",
];

/// The same problem with codes in place of numbers; `None` where the operator takes none, or its sample has none.
fn with_codes(def: &'static OpDef, sample: &Sample, dtype: DType, rng: &mut Rng) -> Option<Sample> {
    let (low, high) = dtype.limits().expect("codes");
    let mut s = sample.clone();
    let mut any = false;
    for input in s.inputs.iter_mut().filter(|i| i.dtype() == DType::F32) {
        let n = input.shape.iter().product();
        let codes: Vec<i32> = (0..n).map(|_| rng.code(low, high)).collect();
        let codes = Tensor::from_codes(dtype, &input.shape, &codes).expect("within the type");
        input.fill = Fill::Exact(codes);
        any = true;
    }
    for (_, v) in s.attrs.0.iter_mut().filter(|(k, _)| k == "value" || k == "extrapolation_value") {
        *v = AttrValue::Int(high.into());
    }
    let types: Vec<TensorType> =
        s.inputs.iter().map(|i| TensorType::new(i.dtype(), i.shape.iter().copied())).collect();
    let op = Problem::op(def, &s).ok()?;
    (any && op.infer(&types).is_ok()).then_some(s)
}

fn codes_of_every_type_move_on_the_device() {
    let Some(gpu) = gpu() else { return };
    let mut rng = Rng::new(9);
    let mut wrong = Vec::new();
    for dtype in [DType::I4, DType::U4, DType::I8, DType::U8, DType::I16, DType::U16] {
        for name in MOVERS {
            let Some(def) = by_name(name) else { continue };
            let mut ran = 0;
            for (seed, sample) in samples(def).into_iter().filter(|(seed, _)| *seed < 2) {
                let Some(sample) = with_codes(def, &sample, dtype, &mut rng) else { continue };
                let p = Problem::new(def, &sample, seed, &|op| op).expect("it was read before");
                wrong.extend(p.check(&gpu));
                ran += 1;
            }
            if ran == 0 {
                wrong.push(format!("{name} takes no {dtype}"));
            }
        }
    }
    report(&wrong);
}

/// A node of one or two inputs.
fn add(g: &mut Graph, op: &str, attrs: Attrs, inputs: &[ValueId]) -> ValueId {
    let typed = inputs.iter().map(|v| Some(Input { ty: g.value(*v).ty.clone(), known: None }));
    let mut r = Reader::new(Source::Graph, op, attrs, typed.collect(), 1);
    let op = (by_name(op).expect("in the list").read)(&mut r).expect("read");
    let name = format!("node{}", g.nodes().len());
    let out = format!("{name}.out");
    g.add_node(name, None, op, inputs, &[out]).expect("types fit")[0]
}

/// A random graph over `[N, 6, 4, 4]`, of operators of different layouts, whose values stay small.
fn random_graph(rng: &mut Rng) -> Graph {
    let mut g = Graph::new("random");
    let shape = [Dim::Batch(1), Dim::Fixed(6), Dim::Fixed(4), Dim::Fixed(4)];
    let mut values: Vec<ValueId> = (0..rng.int(1, 3))
        .map(|i| g.add_input(format!("x{i}"), TensorType::new(DType::F32, shape)))
        .collect();
    for i in 0..rng.int(1, 20) {
        let (a, b) = (rng.pick(&values), rng.pick(&values));
        let mut weights = |g: &mut Graph, shape: [usize; 4]| {
            let drawn = SampleInput::of(shape, Fill::Range(-0.1, 0.1)).draw(rng);
            g.add_constant(format!("w{i}"), drawn)
        };
        let out = match i % 5 {
            0 => {
                let w = weights(&mut g, [6, 6, 3, 3]);
                add(&mut g, "Conv", Attrs::new().ints("pads", [1, 1, 1, 1]), &[a, w])
            }
            1 => add(&mut g, "Relu", Attrs::new(), &[a]),
            2 => {
                let both = add(&mut g, "Concat", Attrs::new().int("axis", 2), &[a, b]);
                let wide = [Dim::Batch(1), Dim::Fixed(12), Dim::Fixed(4), Dim::Fixed(4)];
                let wide = add(&mut g, "Reshape", Attrs::new().dims("shape", &wide), &[both]);
                let w = weights(&mut g, [6, 12, 1, 1]);
                add(&mut g, "Conv", Attrs::new(), &[wide, w])
            }
            3 => add(&mut g, "Sub", Attrs::new(), &[a, b]),
            _ => add(&mut g, "Tanh", Attrs::new(), &[a]),
        };
        values.push(out);
    }
    g.outputs = vec![*values.last().expect("at least an input")];
    g
}

fn both_executors_agree_on_random_graphs_with_and_without_taps() {
    let Some(gpu) = gpu() else { return };
    let device = Device::Gpu(gpu);
    let mut wrong = Vec::new();
    for seed in 0..30 {
        let mut rng = Rng::new(seed);
        let g = random_graph(&mut rng);
        let inputs: Vec<Tensor> =
            g.inputs.iter().map(|_| SampleInput::f32([5, 6, 4, 4]).draw(&mut rng)).collect();
        let taps: Vec<ValueId> = g.nodes().iter().map(|n| n.outputs[0]).collect();
        let want = CpuExecutor::new(g.at_batch(5).expect("holds")).run(&inputs, &taps).expect("runs");
        let mut engine = Engine::new(g, &device).with_batch(2);
        let all = engine.run(&inputs, &taps).expect("runs");
        // Rounding of up to 20 layers of reductions of 54 products.
        let tolerance = Tolerance { reduction: 20 * 54, extra: 0.0 };
        wrong.extend(compare(&want, &all, Some(tolerance)).iter().map(|d| format!("seed {seed}: {d}")));
        let few = engine.run(&inputs, &[]).expect("runs");
        let out = engine.graph().outputs[0];
        if few.values[&out] != all.values[&out] {
            wrong.push(format!("seed {seed}: taps change the output"));
        }
    }
    report(&wrong);
}

/// Host time of a run of 50 small dispatches: `cargo test --release --test parity -- --ignored --nocapture overhead`.
fn overhead_of_a_chain_of_fifty_relus() {
    let Some(gpu) = gpu() else { return };
    let mut g = Graph::new("chain");
    let mut v = g.add_input("x", TensorType::new(DType::F32, [16]));
    for _ in 0..50 {
        v = add(&mut g, "Relu", Attrs::new(), &[v]);
    }
    g.outputs = vec![v];
    let executor = GpuExecutor::new(Arc::clone(&gpu), &g);
    let input = [SampleInput::f32([16]).draw(&mut Rng::new(1))];
    let start = std::time::Instant::now();
    let trace = executor.run(&input, &[]).expect("runs");
    let first = start.elapsed();
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let start = std::time::Instant::now();
            executor.run(&input, &[]).expect("runs");
            start.elapsed()
        })
        .collect();
    times.sort();
    let median = times[times.len() / 2];
    let each = median / u32::try_from(trace.dispatches).expect("few");
    println!("{}: first {first:?}, then {median:?}, {each:?} a dispatch", Device::Gpu(gpu));
}

/// Mesa's software driver leaves a loop after 65536 rounds.
fn sums_that_drivers_cut_off_run_on_the_cpu() {
    let gpu = gpu().expect("checked in main");
    for (k, on_the_cpu) in [(60_000usize, false), (140_000, true)] {
        let mut graph = Graph::new("long");
        let x = graph.add_input("x", TensorType::new(DType::F32, vec![1, k]));
        let w = graph.add_constant("w", Tensor::from_f32([k, 2], vec![1.0; 2 * k]));
        let types = [graph.value(x).ty.clone(), graph.value(w).ty.clone()];
        let op = samebit::ops::build("MatMul", Attrs::new(), &types).expect("builds");
        graph.outputs = graph.add_node("product", None, op, &[x, w], &["y".to_owned()]).expect("adds");
        let ones = Tensor::from_f32([1, k], vec![1.0; k]);
        let trace = GpuExecutor::new(Arc::clone(&gpu), &graph).run(&[ones], &[]).expect("runs");
        #[allow(clippy::cast_precision_loss, reason = "exact below 2^24")]
        let sum = k as f32;
        assert_eq!(trace.values[&graph.outputs[0]].f32s(), [sum, sum]);
        assert_eq!(!trace.cpu_ops.is_empty(), on_the_cpu, "{k}");
    }
}
