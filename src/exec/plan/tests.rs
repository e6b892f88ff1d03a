use super::build::padded;
use super::*;
use crate::graph::attrs::Input;
use crate::graph::sample::Rng;
use crate::graph::{Attrs, Reader, Source};
use crate::tensor::{DType, Tensor, TensorType};

fn add(g: &mut Graph, op: &str, attrs: Attrs, inputs: &[ValueId]) -> ValueId {
    let typed = inputs.iter().map(|v| Some(Input { ty: g.value(*v).ty.clone(), known: None }));
    let mut r = Reader::new(Source::Graph, op, attrs, typed.collect(), 1);
    let op = (crate::ops::by_name(op).unwrap().read)(&mut r).unwrap();
    let name = format!("node{}", g.nodes().len());
    g.add_node(name.clone(), None, op, inputs, &[format!("{name}.out")]).unwrap()[0]
}

/// A random graph of element-wise nodes, concatenations, reshapes and convolutions over `[2, c, 4, 4]`.
fn random(rng: &mut Rng) -> Graph {
    let mut g = Graph::new("random");
    let mut values: Vec<ValueId> = (0..rng.int(1, 3))
        .map(|i| g.add_input(format!("x{i}"), TensorType::new(DType::F32, [2, 6, 4, 4])))
        .collect();
    for i in 0..rng.int(1, 25) {
        let (a, b) = (rng.pick(&values), rng.pick(&values));
        let out = match rng.int(0, 4) {
            0 => add(&mut g, "Add", Attrs::new(), &[a, b]),
            1 => {
                let both = add(&mut g, "Concat", Attrs::new().int("axis", 2), &[a, b]);
                let attrs = Attrs::new().sizes("shape", &[2, 12, 4, 4]);
                let wide = add(&mut g, "Reshape", attrs, &[both]);
                let w = g.add_constant(format!("w{i}"), Tensor::zeros(DType::F32, [6, 12, 1, 1]));
                add(&mut g, "Conv", Attrs::new(), &[wide, w])
            }
            2 => {
                let w = g.add_constant(format!("w{i}"), Tensor::zeros(DType::F32, [6, 6, 3, 3]));
                add(&mut g, "Conv", Attrs::new().ints("pads", [1, 1, 1, 1]), &[a, w])
            }
            _ => add(&mut g, "Relu", Attrs::new(), &[a]),
        };
        values.push(out);
    }
    g.outputs = vec![*values.last().unwrap()];
    let more = rng.pick(&values);
    if more != g.outputs[0] {
        g.outputs.push(more);
    }
    g
}

/// Replays a plan on labels instead of numbers: what a step reads must be what the plan meant to be there.
fn replay(plan: &Plan, limits: &Limits) {
    let mut written: Vec<(Span, usize)> = Vec::new();
    let overlap = |a: &Span, b: &Span| {
        a.memory == b.memory && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes
    };
    let write = |written: &mut Vec<(Span, usize)>, span: Span, by: usize| {
        written.retain(|(w, _)| !overlap(w, &span));
        written.push((span, by));
    };
    let mut count = 0;
    for s in &plan.segments {
        for u in &s.uploads {
            write(&mut written, Span { bytes: padded(u.at.bytes), ..u.at }, 0);
        }
        for step in &s.steps {
            count += 1;
            let by = |access| step.bind.iter().zip(&step.access).filter(move |(_, a)| **a == access);
            for (r, _) in by(Access::Read) {
                assert!(r.offset.is_multiple_of(limits.storage_alignment));
                let whole = |w: &Span| w.memory == r.memory && w.offset == r.offset && w.bytes == r.bytes;
                let there = written.iter().any(|(w, _)| whole(w));
                assert!(!matches!(r.memory, Memory::Arena(_)) || there, "{}: overwritten input", step.label);
                for (w, _) in by(Access::ReadWrite) {
                    assert_ne!(r.memory, w.memory, "{} reads and writes one buffer", step.label);
                }
            }
            for (w, _) in by(Access::ReadWrite) {
                assert!(matches!(w.memory, Memory::Arena(_)), "{} writes a constant", step.label);
                write(&mut written, *w, count);
            }
        }
        for r in &s.reads {
            let there = written.iter().any(|(w, _)| w.memory == r.at.memory && w.offset == r.at.offset);
            assert!(there || !matches!(r.at.memory, Memory::Arena(_)), "a result was overwritten");
        }
    }
}

#[test]
fn no_step_reads_what_another_has_overwritten() {
    let limits = Limits::default();
    for seed in 0..100 {
        let g = random(&mut Rng::new(seed));
        g.verify().unwrap();
        replay(&Plan::new(&g, &[], &limits).unwrap(), &limits);
        let taps: Vec<ValueId> = g.nodes().iter().map(|n| n.outputs[0]).collect();
        replay(&Plan::new(&g, &taps, &limits).unwrap(), &limits);
    }
}

#[test]
fn a_chain_of_convolutions_is_copied_to_their_layout_once() {
    let mut g = Graph::new("chain");
    let mut v = g.add_input("x", TensorType::new(DType::F32, [1, 5, 8, 8]));
    for i in 0..4 {
        let w = g.add_constant(format!("w{i}"), Tensor::zeros(DType::F32, [5, 5, 3, 3]));
        v = add(&mut g, "Conv", Attrs::new().ints("pads", [1, 1, 1, 1]), &[v, w]);
        v = add(&mut g, "Relu", Attrs::new(), &[v]);
    }
    g.outputs = vec![v];
    let plan = Plan::new(&g, &[], &Limits::default()).unwrap();
    let copies = plan.segments.iter().flat_map(|s| &s.steps).filter(|s| s.kernel.name == "copy");
    assert_eq!(copies.count(), 1);
    assert_eq!(plan.arenas.len(), 2, "{:?}", plan.arenas);
}

#[test]
fn several_consumers_share_one_copy() {
    let mut g = Graph::new("fork");
    let x = g.add_input("x", TensorType::new(DType::F32, [1, 5, 8, 8]));
    for i in 0..3 {
        let w = g.add_constant(format!("w{i}"), Tensor::zeros(DType::F32, [5, 5, 1, 1]));
        let y = add(&mut g, "Conv", Attrs::new(), &[x, w]);
        g.outputs.push(y);
    }
    let plan = Plan::new(&g, &[], &Limits::default()).unwrap();
    assert_eq!(plan.dispatches(), 4);
}

#[test]
fn a_tensor_beyond_a_binding_is_refused_by_name_size_and_limit() {
    let mut g = Graph::new("large");
    let x = g.add_input("x", TensorType::new(DType::F32, [1000]));
    let y = add(&mut g, "Relu", Attrs::new(), &[x]);
    g.outputs = vec![y];
    let limits = Limits { binding_bytes: 2048, ..Limits::default() };
    let e = Plan::new(&g, &[], &limits).unwrap_err();
    assert!(matches!(e, ExecError::TooLarge { .. }));
    let text = e.to_string();
    assert!(["\"x\"", "4000", "2048"].iter().all(|t| text.contains(t)), "{text}");
}

#[test]
fn nodes_that_nobody_wants_are_not_planned() {
    let mut g = Graph::new("dead");
    let x = g.add_input("x", TensorType::new(DType::F32, [8]));
    let y = add(&mut g, "Relu", Attrs::new(), &[x]);
    let dead = add(&mut g, "Sigmoid", Attrs::new(), &[x]);
    g.outputs = vec![y];
    assert_eq!(Plan::new(&g, &[], &Limits::default()).unwrap().dispatches(), 1);
    assert_eq!(Plan::new(&g, &[dead], &Limits::default()).unwrap().dispatches(), 2);
}

/// `Conv -> Relu -> FakeQuant -> FakeQuant`, the quantizers with this many scales, and the values in this order.
fn chain(scales: usize, change: impl Fn(&mut Graph, [ValueId; 4])) -> (Graph, [ValueId; 4]) {
    let mut g = Graph::new("chain");
    g.stage = crate::graph::Stage::FakeQuant;
    let x = g.add_input("x", TensorType::new(DType::F32, [1, 5, 8, 8]));
    let w = g.add_constant("w", Tensor::zeros(DType::F32, [5, 5, 3, 3]));
    let conv = add(&mut g, "Conv", Attrs::new().ints("pads", [1, 1, 1, 1]), &[x, w]);
    let relu = add(&mut g, "Relu", Attrs::new(), &[conv]);
    let attrs = Attrs::new().str("state", "validation").floats("scale", &vec![0.1; scales]);
    let attrs = attrs.ints("zero_point", vec![0; scales]);
    let attrs = if scales > 1 { attrs.int("axis", 1) } else { attrs };
    let first = add(&mut g, "FakeQuant", attrs.clone(), &[relu]);
    let second = add(&mut g, "FakeQuant", attrs, &[first]);
    g.outputs = vec![second];
    let values = [conv, relu, first, second];
    change(&mut g, values);
    (g, values)
}

#[test]
fn a_clamp_and_a_quantizer_run_in_the_dispatch_before_them_unless_somebody_wants_what_lies_between() {
    let limits = Limits::default();
    // One copies the input to channels last; the second quantizer cannot be of the same epilogue.
    let count = |g: &Graph, taps: &[ValueId]| Plan::new(g, taps, &limits).unwrap().dispatches();
    let (g, [conv, relu, first, second]) = chain(1, |_, _| {});
    assert_eq!(count(&g, &[]), 3);
    assert_eq!(count(&g, &[second]), 3);
    assert_eq!(count(&g, &[conv]), 4);
    assert_eq!(count(&g, &[relu]), 4);
    assert_eq!(count(&g, &[conv, relu]), 5);
    assert_eq!(count(&g, &[first]), 3);
    let (shared, _) = chain(1, |g, [conv, ..]| g.outputs.push(conv));
    assert_eq!(count(&shared, &[]), 4);
    let (forked, _) = chain(1, |g, [_, relu, ..]| {
        let other = add(g, "Sigmoid", Attrs::new(), &[relu]);
        g.outputs.push(other);
    });
    assert_eq!(count(&forked, &[]), 5);
    let (dead, _) = chain(1, |g, [_, relu, ..]| {
        add(g, "Sigmoid", Attrs::new(), &[relu]);
    });
    assert_eq!(count(&dead, &[]), 3);
    let (by_channel, _) = chain(5, |_, _| {});
    assert_eq!(count(&by_channel, &[]), 4);
}

#[test]
fn a_step_names_the_nodes_that_it_computes() {
    let (g, _) = chain(1, |_, _| {});
    let plan = Plan::new(&g, &[], &Limits::default()).unwrap();
    let labels: Vec<&str> = plan.segments[0].steps.iter().map(|s| s.label.as_str()).collect();
    assert!(
        labels[1].contains("node0") && labels[1].contains(" to ") && labels[1].contains("node2"),
        "{labels:?}"
    );
}
