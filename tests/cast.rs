//! `Cast` to the 16-bit floats: the bits of every boundary between two of their numbers, on both executors.

mod support;

use half::{bf16, f16};
use libtest_mimic::Arguments;
use samebit::exec::{CpuExecutor, Engine};
use samebit::gpu::{Choice, Device};
use samebit::graph::attrs::Input;
use samebit::graph::sample::Rng;
use samebit::graph::{Attrs, Graph, Reader, Source};
use samebit::ops::by_name;
use samebit::tensor::Tensor;
use support::trial;

fn main() {
    let gpu = Device::open(&Choice::Gpu);
    let required = std::env::var("SAMEBIT_REQUIRE_GPU").as_deref() == Ok("1");
    assert!(gpu.is_ok() || !required, "a GPU is required");
    let trials = vec![
        trial("halves_are_the_nearest_ties_to_even", false, halves_are_the_nearest_ties_to_even),
        trial("the_gpu_rounds_to_the_same_bits", gpu.is_err(), the_gpu_rounds_to_the_same_bits),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A 16-bit float type: the name in graphs, a number from its bits, and the bits of its infinity.
struct Half {
    name: &'static str,
    number: fn(u16) -> f32,
    infinity: u16,
}

const TYPES: [Half; 2] = [
    Half { name: "f16", number: |b| f16::from_bits(b).to_f32(), infinity: 0x7c00 },
    Half { name: "bf16", number: |b| bf16::from_bits(b).to_f32(), infinity: 0x7f80 },
];

/// Numbers around every number of the type and around the middle to the next one, with what they must become.
fn boundaries(t: &Half) -> Vec<(f32, f32)> {
    let mut out = vec![(f32::INFINITY, f32::INFINITY), (f32::MAX, f32::INFINITY)];
    for bits in 0..t.infinity {
        let (low, high) = ((t.number)(bits), (t.number)(bits + 1));
        // Where the next number is infinity, the type goes on as if it had one more.
        let step = f64::from(low) - f64::from((t.number)(bits.saturating_sub(1)));
        let above = if high.is_finite() { f64::from(high) } else { f64::from(low) + step };
        // A middle needs one bit more than its neighbours, which an f32 lacks only below the least bf16 of full width.
        let middle = (f64::from(low) + above) / 2.0;
        #[allow(clippy::cast_possible_truncation, reason = "exact: checked")]
        let m = middle as f32;
        assert_eq!(f64::from(m), middle, "{bits:#x}");
        let even = if bits % 2 == 0 { low } else { high };
        out.extend([(low, low), (low.next_up(), low), (m.next_down(), low), (m, even), (m.next_up(), high)]);
        out.push((high.next_down(), high));
    }
    let negative: Vec<_> = out.iter().map(|(x, y)| (-x, -y)).collect();
    out.into_iter().chain(negative).collect()
}

fn cast(precision: &str, x: &Tensor) -> Graph {
    let mut g = Graph::new("cast");
    let input = g.add_input("x", x.ty());
    let attrs = Attrs::new().str("to", "f32").str("precision", precision);
    let inputs = vec![Some(Input { ty: x.ty(), known: None })];
    let def = by_name("Cast").expect("is an operator");
    let op = (def.read)(&mut Reader::new(Source::Graph, "Cast", attrs, inputs, 1)).expect("reads");
    g.outputs = g.add_node("cast", None, op, &[input], &["y".to_owned()]).expect("fits");
    g
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.as_f32().expect("numbers").iter().map(|x| x.to_bits()).collect()
}

fn on_cpu(precision: &str, x: &Tensor) -> Vec<u32> {
    let g = cast(precision, x);
    let y = g.outputs[0];
    bits(&CpuExecutor::new(g).run(std::slice::from_ref(x), &[]).expect("runs").values[&y])
}

fn halves_are_the_nearest_ties_to_even() {
    for t in TYPES {
        let cases = boundaries(&t);
        let x = Tensor::from_f32([cases.len()], cases.iter().map(|(x, _)| *x).collect());
        let got = on_cpu(t.name, &x);
        let wrong = cases.iter().zip(&got).find(|((_, want), got)| want.to_bits() != **got);
        assert!(wrong.is_none(), "{}: {wrong:?}", t.name);
    }
}

fn the_gpu_rounds_to_the_same_bits() {
    let device = Device::open(&Choice::Gpu).expect("is there");
    let mut rng = Rng::new(3);
    for t in TYPES {
        let mut values: Vec<f32> = boundaries(&t).into_iter().map(|(x, _)| x).collect();
        #[allow(clippy::cast_possible_truncation, reason = "the lower half of random bits")]
        values.extend((0..1 << 20).map(|_| f32::from_bits(rng.bits() as u32)));
        let x = Tensor::from_f32([values.len()], values);
        let g = cast(t.name, &x);
        let y = g.outputs[0];
        let trace = Engine::new(g, &device).run(std::slice::from_ref(&x), &[]).expect("runs");
        assert!(trace.dispatches > 0, "ran on the CPU");
        let (want, got) = (on_cpu(t.name, &x), bits(&trace.values[&y]));
        let wrong = want.iter().zip(&got).position(|(w, g)| w != g);
        assert_eq!(wrong, None, "{}: element {:?}", t.name, wrong.map(|i| (bits(&x)[i], want[i], got[i])));
    }
}
