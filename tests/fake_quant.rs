//! Quantizers on a device give the codes of the CPU: at every boundary between codes, and on random numbers.

mod support;

use libtest_mimic::Arguments;
use samebit::exec::{CpuExecutor, GpuExecutor};
use samebit::graph::sample::Rng;
use samebit::graph::{Graph, Stage};
use samebit::ops::fake_quant;
use samebit::quant::{Division, Origin, QParams, Quantizer, Role, Rounding, Spec, Step};
use samebit::tensor::{DType, Tensor};
use std::sync::Arc;
use support::{gpu, trial};

const DTYPES: [DType; 6] = [DType::I4, DType::U4, DType::I8, DType::U8, DType::I16, DType::U16];

fn main() {
    let absent = gpu().is_none();
    let trials = vec![
        trial("codes_at_every_boundary_are_those_of_the_cpu", absent, boundaries),
        trial("codes_of_ten_million_random_numbers_are_those_of_the_cpu", absent, random),
        trial("special_numbers_saturate_or_become_the_zero_point", absent, special),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn quantizer(dtype: DType, scales: &[f32], zeros: &[i32], how: (Rounding, Division)) -> Quantizer {
    let axis = (scales.len() > 1).then_some(1);
    let params = QParams::new(dtype, false, scales.to_vec(), zeros.to_vec(), axis).expect("legal");
    let mut spec = Spec::new(dtype, Role::Activation, "fixed");
    (spec.rounding, spec.division) = how;
    Quantizer::with_params(spec, params, Origin::Fixed)
}

/// Panics at the first element that the device computes otherwise.
fn compare(q: &Quantizer, x: &Tensor) {
    let mut g = Graph::new("quantizer");
    g.stage = Stage::FakeQuant;
    let input = g.add_input("x", x.ty());
    g.outputs = g
        .add_node("q", None, fake_quant(q.clone()), &[input], &["y".to_owned()])
        .expect("one fits the other");
    let out = g.outputs[0];
    let inputs = std::slice::from_ref(x);
    let cpu = CpuExecutor::new(g.clone()).run(inputs, &[]).expect("runs");
    let gpu = GpuExecutor::new(Arc::clone(&gpu().expect("checked")), &g).run(inputs, &[]).expect("runs");
    assert_eq!(gpu.dispatches, 1);
    let (want, got) = (cpu.values[&out].f32s(), gpu.values[&out].f32s());
    let wrong = (0..want.len()).find(|i| want[*i].to_bits() != got[*i].to_bits());
    if let Some(i) = wrong {
        panic!("{:?} gives {:?} on the CPU, {:?} on the GPU with {q:?}", x.f32s()[i], want[i], got[i]);
    }
}

fn each_kind(mut f: impl FnMut(DType, (Rounding, Division))) {
    for dtype in DTYPES {
        for rounding in Rounding::ALL {
            for division in Division::ALL {
                f(dtype, (rounding, division));
            }
        }
    }
}

/// Every threshold of a step and three floats on each side of it.
fn around_thresholds(step: &Step, low: i32, high: i32) -> Vec<f32> {
    let mut out = Vec::new();
    for code in low + 1..=high {
        let mut x = step.threshold(code).expect("there is one");
        (0..3).for_each(|_| x = x.next_down());
        for _ in 0..7 {
            out.push(x);
            x = x.next_up();
        }
    }
    out
}

fn boundaries() {
    let mut rng = Rng::new(1);
    each_kind(|dtype, how| {
        let (low, high) = dtype.limits().expect("codes");
        let zero = |rng: &mut Rng| if low < 0 { 0 } else { rng.code(low, high) };
        let exponents: &[(f32, f32)] =
            if high < 300 { &[(-100.0, -60.0), (-9.0, 9.0), (60.0, 100.0)] } else { &[(-9.0, 9.0)] };
        for (from, to) in exponents {
            let (scale, zero) = (rng.float(*from, *to).exp2(), zero(&mut rng));
            let q = quantizer(dtype, &[scale], &[zero], how);
            let x = around_thresholds(&q.params.as_ref().expect("given").step(0), low, high);
            compare(&q, &Tensor::from_f32([x.len()], x));
        }
        if high < 300 {
            // Three channels, in rows of one element and of as many as there are boundaries.
            let scales: Vec<f32> = (0..3).map(|_| rng.float(-9.0, 9.0).exp2()).collect();
            let zeros: Vec<i32> = (0..3).map(|_| zero(&mut rng)).collect();
            let q = quantizer(dtype, &scales, &zeros, how);
            let params = q.params.as_ref().expect("given");
            let rows: Vec<Vec<f32>> = (0..3).map(|c| around_thresholds(&params.step(c), low, high)).collect();
            let n = rows.iter().map(Vec::len).min().expect("three");
            let planes: Vec<f32> = rows.iter().flat_map(|r| r[..n].to_vec()).collect();
            compare(&q, &Tensor::from_f32([1, 3, n], planes));
            let lanes: Vec<f32> = (0..n).flat_map(|i| [rows[0][i], rows[1][i], rows[2][i]]).collect();
            compare(&q, &Tensor::from_f32([n, 3], lanes));
        }
    });
}

fn random() {
    let mut rng = Rng::new(2);
    let each = 10_000_000 / (DTYPES.len() * 9) + 1;
    each_kind(|dtype, how| {
        let (low, high) = dtype.limits().expect("codes");
        let scale = rng.float(-9.0, 9.0).exp2();
        let zero = if low < 0 { 0 } else { rng.code(low, high) };
        #[allow(clippy::cast_precision_loss, reason = "codes of 16 bits")]
        let span = 1.2 * scale * (high - low) as f32;
        let x = (0..each).map(|_| rng.float(-span, span)).collect();
        compare(&quantizer(dtype, &[scale], &[zero], how), &Tensor::from_f32([each], x));
    });
}

fn special() {
    let values = vec![
        f32::NAN,
        -f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        0.0,
        -0.0,
        1e-45,
        -1e-45,
        f32::MIN_POSITIVE,
        -1e-30,
    ];
    each_kind(|dtype, how| {
        for scale in [samebit::quant::SCALE_MIN, 0.1, samebit::quant::SCALE_MAX] {
            let (low, high) = dtype.limits().expect("codes");
            compare(
                &quantizer(dtype, &[scale], &[(low + high) / 2 + 1], how),
                &Tensor::from_f32([values.len()], values.clone()),
            );
        }
    });
}
