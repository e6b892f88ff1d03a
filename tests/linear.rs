//! ONNX's quantizers: the same bits on both devices where codes change, and what of types and scales is read or refused.

mod support;

use libtest_mimic::Arguments;
use samebit::exec::parity::{Tolerance, compare};
use samebit::exec::{CpuExecutor, GpuExecutor};
use samebit::graph::attrs::Input;
use samebit::graph::sample::Rng;
use samebit::graph::{Attrs, Graph, Reader, Source};
use samebit::onnx::{ImportOptions, import_bytes};
use samebit::ops::by_name;
use samebit::quant::{Division, QParams};
use samebit::tensor::{DType, Tensor};
use std::sync::Arc;
use support::onnx::{self, A, D, F32};
use support::{gpu, trial};

fn main() {
    let absent = gpu().is_none();
    let trials = vec![
        trial("codes_change_at_the_same_numbers_on_both_devices", absent, boundaries),
        trial("numbers_of_codes_are_the_same_bits_on_both_devices", absent, numbers),
        trial("a_range_gives_the_same_scale_on_both_devices", absent, dynamic),
        trial("a_scale_that_was_computed_outside_its_limits_is_an_error", false, computed_scale),
        trial("a_constant_scale_outside_its_limits_is_refused_at_import", false, constant_scale),
        trial("stored_narrow_integers_are_read", false, stored),
        trial("a_fill_of_16_bits_is_read_whole", false, fill),
        trial("quantizers_of_constants_are_kept_and_known", false, kept),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A graph of one node whose inputs are all runtime inputs.
fn graph_of(op: &str, attrs: Attrs, inputs: &[Tensor]) -> Graph {
    let mut g = Graph::new(op);
    let ids: Vec<_> = inputs.iter().enumerate().map(|(i, t)| g.add_input(format!("x{i}"), t.ty())).collect();
    let typed = inputs.iter().map(|t| Some(Input { ty: t.ty(), known: None })).collect();
    let def = by_name(op).expect("in the list");
    let op = (def.read)(&mut Reader::new(Source::Graph, op, attrs, typed, 1)).expect("reads");
    let types: Vec<_> = inputs.iter().map(Tensor::ty).collect();
    let outputs: Vec<String> = (0..op.infer(&types).expect("fits").len()).map(|i| format!("y{i}")).collect();
    g.outputs = g.add_node("node", None, op, &ids, &outputs).expect("fits");
    g
}

/// Panics where the devices differ.
fn check(op: &str, attrs: Attrs, inputs: &[Tensor]) {
    let g = graph_of(op, attrs, inputs);
    let cpu = CpuExecutor::new(g.clone()).run(inputs, &[]).expect("runs");
    let gpu = GpuExecutor::new(Arc::clone(&gpu().expect("checked")), &g).run(inputs, &[]).expect("runs");
    assert!(gpu.cpu_ops.is_empty());
    assert_eq!(compare(&cpu, &gpu, Tolerance::EXACT), [], "{op} of scale {:?}", inputs.get(1));
}

fn boundaries() {
    let mut rng = Rng::new(1);
    for dtype in [DType::I4, DType::U4, DType::I8, DType::U8, DType::I16, DType::U16] {
        let (low, high) = dtype.limits().expect("codes");
        for exponents in [(-100.0, -60.0), (-9.0, 9.0), (60.0, 100.0)] {
            let (scale, zero) = (rng.float(exponents.0, exponents.1).exp2(), rng.code(low, high));
            let params = QParams::per_tensor(dtype, scale, zero).expect("legal").divided(Division::Divide);
            let step = params.step(0);
            let mut x = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MAX, 1e-45];
            for _ in 0..(high - low).min(2000) {
                let t = step.threshold(rng.code(low + 1, high)).expect("there is one");
                x.extend([t.next_down(), t, t.next_up()]);
            }
            let zero = Tensor::from_codes(dtype, &[], &[zero]).expect("in range");
            let inputs = [Tensor::from_f32([x.len()], x), Tensor::scalar(scale), zero];
            check("QuantizeLinear", Attrs::new().str("output_dtype", dtype.name()), &inputs);
        }
    }
}

fn numbers() {
    let mut rng = Rng::new(2);
    for dtype in [DType::I8, DType::U16, DType::I16, DType::I32] {
        let (low, high) = dtype.limits().expect("codes");
        let mut codes: Vec<i32> = (0..5000).map(|_| rng.code(low, high)).collect();
        if dtype == DType::I32 {
            // Around and on the ties of 25 to 31 bits.
            codes.extend((24..31).flat_map(|b| (-3..=3).flat_map(move |d| [(1 << b) + d, -(1 << b) + d])));
            codes.extend([i32::MIN, i32::MAX, 0x0100_0001, 0x0100_0003, 0x0200_0002, 0x0200_0006]);
        }
        let x = Tensor::from_codes(dtype, &[codes.len()], &codes).expect("in range");
        let mut inputs = vec![x, Tensor::scalar(rng.float(-9.0, 9.0).exp2())];
        if dtype != DType::I32 {
            inputs.push(Tensor::from_codes(dtype, &[], &[rng.code(low, high)]).expect("in range"));
        }
        check("DequantizeLinear", Attrs::new(), &inputs);
    }
}

fn dynamic() {
    let mut rng = Rng::new(3);
    for i in 0..300 {
        let high = rng.float(-90.0, 90.0).exp2();
        let low = -high * rng.float(-0.2, 2.0).max(0.0);
        let mut x: Vec<f32> = (0..1 + i).map(|_| rng.float(low, high)).collect();
        x.extend([low, high]);
        check("DynamicQuantizeLinear", Attrs::new(), &[Tensor::from_f32([x.len()], x)]);
    }
    for x in [vec![0.0, -0.0], vec![f32::NAN], vec![1e-45, -1e-40], vec![f32::MAX, -1.0], vec![1e-37]] {
        check("DynamicQuantizeLinear", Attrs::new(), &[Tensor::from_f32([x.len()], x)]);
    }
}

fn computed_scale() {
    let x = Tensor::from_f32([1], vec![1.0]);
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-38] {
        let inputs = [x.clone(), Tensor::scalar(scale)];
        let g = graph_of("QuantizeLinear", Attrs::new(), &inputs);
        let e = CpuExecutor::new(g).run(&inputs, &[]).expect_err("no scale").to_string();
        assert!(e.contains("y_scale") && e.contains("2^-100"), "{e}");
    }
}

/// Little-endian bytes of one f32.
fn scale(name: &str, v: f32) -> onnx::Message {
    onnx::f32s(name, &[], &[v])
}

fn constant_scale() {
    let model = |v: f32| {
        let g = onnx::Graph::new().input("x", F32, &[D::Size(2)]).init(scale("s", v));
        g.node("q", "QuantizeLinear", &["x", "s"], &["y"], &[]).output("y").model(21)
    };
    assert!(import_bytes(model(0.5), &ImportOptions::default()).is_ok());
    let e = import_bytes(model(0.0), &ImportOptions::default()).expect_err("no scale").to_string();
    assert!(e.contains("q (QuantizeLinear)") && e.contains("y_scale") && e.contains("0.0"), "{e}");
}

/// ONNX type numbers.
const U16: i64 = 4;
const I16: i64 = 5;
const U4: i64 = 21;
const I4: i64 = 22;

fn stored() {
    // Of 4-bit elements the first lies in the lower half of the first byte.
    type Stored = (i64, DType, &'static [u8], &'static [i64], [i32; 3]);
    let cases: [Stored; 4] = [
        (U16, DType::U16, &[255, 255, 1, 0, 0, 128], &[65535, 1, 32768], [65535, 1, 32768]),
        (I16, DType::I16, &[255, 255, 1, 0, 0, 128], &[-1, 1, -32768], [-1, 1, -32768]),
        (U4, DType::U4, &[0x8f, 0x03], &[0x8f, 0x03], [15, 8, 3]),
        (I4, DType::I4, &[0x8f, 0x03], &[0x8f, 0x03], [-1, -8, 3]),
    ];
    for (elem, dtype, raw, ints, want) in cases {
        let typed = onnx::Message::new().int(1, 3).int(2, elem).text(8, "w");
        let typed = typed.all(ints, |m, v| m.int(5, *v));
        for stored in [onnx::tensor("w", elem, &[3], raw), typed] {
            let g = onnx::Graph::new().init(stored).init(scale("s", 1.0));
            let g = g.node("d", "DequantizeLinear", &["w", "s"], &["y"], &[]).output("y");
            let g = import_bytes(g.model(21), &ImportOptions::default()).expect("imports");
            let w = g.value(g.find_value("w").expect("kept")).constant.clone().expect("a constant");
            assert_eq!((w.dtype(), w.codes()), (dtype, Some(want.to_vec())));
        }
        let short = onnx::tensor("w", elem, &[3], &raw[1..]);
        let g = onnx::Graph::new().init(short).init(scale("s", 1.0));
        let g = g.node("d", "DequantizeLinear", &["w", "s"], &["y"], &[]).output("y");
        let e =
            import_bytes(g.model(21), &ImportOptions::default()).expect_err("a byte is missing").to_string();
        assert!(e.contains("\"w\"") && e.contains("bytes"), "{e}");
    }
}

fn fill() {
    let g = onnx::Graph::new()
        .input("x", I16, &[D::Size(1)])
        .init(onnx::i64s("pads", &[2], &[1, 0]))
        .init(onnx::tensor("value", I16, &[], &(-300i16).to_le_bytes()))
        .node("pad", "Pad", &["x", "pads", "value"], &["y"], &[])
        .output("y");
    let g = import_bytes(g.model(21), &ImportOptions::default()).expect("imports");
    let out = CpuExecutor::new(g.clone()).run(&[Tensor::from_i16([1], vec![7])], &[]).expect("runs");
    assert_eq!(out.values[&g.outputs[0]], Tensor::from_i16([2], vec![-300, 7]));
}

/// A bound that went through a quantizer is known where an operator needs its value; weights stay codes.
fn kept() {
    let g = onnx::Graph::new()
        .input("x", F32, &[D::Size(1), D::Size(2)])
        .init(onnx::tensor("code", 3, &[], &[12]))
        .init(onnx::tensor("w", 3, &[2, 2], &[1, 2, 3, 4]))
        .init(scale("s", 0.5))
        .node("bound", "DequantizeLinear", &["code", "s"], &["six"], &[])
        .node("clip", "Clip", &["x", "", "six"], &["c"], &[])
        .node("weights", "DequantizeLinear", &["w", "s"], &["wf"], &[])
        .node("turn", "Transpose", &["wf"], &["wt"], &[("perm", A::Ints(vec![1, 0]))])
        .node("product", "MatMul", &["c", "wt"], &["y"], &[])
        .output("y");
    let g = import_bytes(g.model(21), &ImportOptions::default()).expect("imports");
    let names: Vec<&str> = g.nodes().iter().map(|n| n.op.def().name).collect();
    assert_eq!(names, ["Clip", "DequantizeLinear", "Transpose", "MatMul"]);
    let attrs = g.nodes()[0].op.attrs();
    assert!(attrs.same_bits(&Attrs::new().float("max", 6.0)), "{attrs:?}");
    let x = Tensor::from_f32([1, 2], vec![7.0, 1.0]);
    let out = CpuExecutor::new(g.clone()).run(&[x], &[]).expect("runs");
    assert_eq!(out.values[&g.outputs[0]].f32s(), [6.0 * 0.5 + 1.0, 6.0 * 1.5 + 2.0]);
}
