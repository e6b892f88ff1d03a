//! Integer forms of composite operators against their formulas in f64: within half a step of the output and what the
//! tables and mantissas inside may be off, as derived at each test.

use samebit::graph::sample::Rng;
use samebit::graph::{Attrs, CodeParams, Op, Scratch};
use samebit::ops::build;
use samebit::quant::{Accumulator, QParams};
use samebit::tensor::{DType, Tensor, TensorType};
use std::sync::Arc;

/// What a 16-bit mantissa of a reciprocal is off, relatively: half a unit of its operand and half a unit of its own.
const MANTISSA: f64 = 1.26 / 32768.0;

fn op(name: &'static str, attrs: Attrs, shapes: &[&[usize]]) -> Arc<dyn Op> {
    let types: Vec<TensorType> = shapes.iter().map(|s| TensorType::new(DType::F32, s.to_vec())).collect();
    build(name, attrs, &types).expect("reads")
}

fn params(dtype: DType, scale: f32, zero_point: i32) -> QParams {
    QParams::per_tensor(dtype, scale, zero_point).expect("legal")
}

/// Codes of a type, among them both ends.
fn codes(rng: &mut Rng, dtype: DType, n: usize) -> Vec<i32> {
    let (low, high) = dtype.limits().expect("codes");
    (0..n).map(|i| [low, high].get(i).copied().unwrap_or_else(|| rng.code(low, high))).collect()
}

fn reals(p: &QParams, codes: &[i32]) -> Vec<f64> {
    codes.iter().map(|c| f64::from(c - p.zero_points()[0]) * f64::from(p.scales()[0])).collect()
}

/// What an operator makes of codes.
fn integer(
    op: &dyn Op,
    inputs: &[(&QParams, &[usize], &[i32])],
    internals: &[QParams],
    y: &QParams,
) -> Vec<i32> {
    let tensors: Vec<Tensor> = inputs.iter().map(|(_, s, c)| Tensor::from_i32(*s, c.to_vec())).collect();
    let params = CodeParams::new(inputs.iter().map(|(p, ..)| (*p).clone()), y.clone(), internals.to_vec());
    let out = op.integer(&Scratch::new(), &params, &tensors).expect("computes").expect("has an integer form");
    assert_eq!(out.dtype(), y.dtype());
    out.codes().expect("codes")
}

/// Each code stands for the number it should, to within half a step and `off`.
fn near(got: &[i32], y: &QParams, exact: &[f64], off: impl Fn(usize) -> f64) {
    let ((low, high), s) = (y.codes(), f64::from(y.scales()[0]));
    for (i, (g, e)) in got.iter().zip(exact).enumerate() {
        let ideal = (e / s + f64::from(y.zero_points()[0])).clamp(f64::from(low), f64::from(high));
        let allowed = 0.5 + 1e-6 + off(i) / s;
        assert!((f64::from(*g) - ideal).abs() <= allowed, "{i}: {g} for {ideal}, {allowed} allowed");
    }
}

const TYPES: [DType; 4] = [DType::I8, DType::U8, DType::I16, DType::U16];

#[test]
fn softmax_is_within_half_a_step_and_its_table() {
    let mut rng = Rng::new(1);
    let inside = [params(DType::U16, 1.0 / 65536.0, 0), params(DType::I16, 1.0 / 16384.0, 0)];
    for dtype in TYPES {
        for (rows, n, scale) in [(5, 7, 0.05f32), (3, 65, 0.001), (2, 300, 0.6), (4, 1, 1.0)] {
            let x = params(dtype, scale, i32::from(dtype == DType::U8) * 100);
            for y in [
                params(DType::I16, 1.0 / 32768.0, 0),
                params(DType::I8, 1.0 / 127.0, -3),
                params(DType::U8, 1.0 / 255.0, 0),
            ] {
                let q = codes(&mut rng, dtype, rows * n);
                let shape = [rows, n];
                let softmax = op("Softmax", Attrs::new().int("axis", -1).int("to_end", 0), &[&shape]);
                let got = integer(softmax.as_ref(), &[(&x, &shape, &q)], &inside, &y);
                let real = reals(&x, &q);
                let mut exact = Vec::new();
                let mut sums = Vec::new();
                for row in real.chunks(n) {
                    let m = row.iter().copied().fold(f64::MIN, f64::max);
                    let e: Vec<f64> = row.iter().map(|x| libm::exp(x - m)).collect();
                    let sum: f64 = e.iter().sum();
                    exact.extend(e.iter().map(|e| e / sum));
                    sums.push(sum);
                }
                // Entries are off by half of 2^-16, that of 0 by all of it, and so is the sum of n of them.
                let unit = libm::ldexp(1.0, -16);
                near(&got, &y, &exact, |i| {
                    let (p, sum) = (exact[i], sums[i / n]);
                    unit / sum + p * (MANTISSA + n as f64 * unit / sum)
                });
                // A constant added to a row changes no bit.
                let (low, high) = dtype.limits().expect("codes");
                let half: Vec<i32> = q.iter().map(|c| (c - low) / 2 + low).collect();
                let moved: Vec<i32> = half.iter().map(|c| c + (high - low) / 2).collect();
                let of = |q: &[i32]| integer(softmax.as_ref(), &[(&x, &shape, q)], &inside, &y);
                assert_eq!(of(&half), of(&moved));
            }
        }
    }
}

#[test]
fn layer_normalisation_is_within_half_a_step_and_its_mantissa() {
    let mut rng = Rng::new(2);
    for dtype in TYPES {
        for (rows, n, scale, epsilon) in
            [(5, 8, 0.05f32, 1e-5f32), (3, 64, 0.0002, 1e-5), (2, 300, 3.0, 0.1), (2, 4, 1e-4, 1.0)]
        {
            let x = params(dtype, scale, i32::from(dtype == DType::U8) * 100);
            let normal = params(DType::I16, 6.0 / 32768.0, 0);
            let (gamma, beta) = (params(DType::I16, 2.0 / 32767.0, 0), params(DType::I16, 0.5 / 32767.0, 0));
            let inside = [normal.clone(), params(DType::I16, 1.0 / 16384.0, 0)];
            for y in [params(DType::I16, 1e-3, 0), params(DType::I8, 0.05, 7)] {
                let q = codes(&mut rng, dtype, rows * n);
                let (g, b) = (codes(&mut rng, DType::I16, n), codes(&mut rng, DType::I16, n));
                let (shape, width) = ([rows, n], [n]);
                let attrs = Attrs::new().int("axis", -1).float("epsilon", epsilon).int("statistics", 0);
                let norm = op("LayerNormalization", attrs, &[&shape, &width, &width]);
                let inputs = [(&x, &shape[..], &q[..]), (&gamma, &width, &g), (&beta, &width, &b)];
                let got = integer(norm.as_ref(), &inputs, &inside, &y);
                let (real, g, b) = (reals(&x, &q), reals(&gamma, &g), reals(&beta, &b));
                let mut exact = Vec::new();
                let mut unit = Vec::new();
                for row in real.chunks(n) {
                    let mean = row.iter().sum::<f64>() / n as f64;
                    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
                    let deviation = (variance + f64::from(epsilon)).sqrt();
                    for (j, x) in row.iter().enumerate() {
                        let limit = 6.0 * 32767.0 / 32768.0;
                        let u = ((x - mean) / deviation).clamp(-6.0, limit);
                        unit.push(u);
                        exact.push(u * g[j] + b[j]);
                    }
                }
                // A step of the tap and the mantissa, times gamma; epsilon is rounded to a unit of the variance.
                near(&got, &y, &exact, |i| {
                    (0.5 * f64::from(normal.scales()[0]) + unit[i].abs() * MANTISSA) * g[i % n].abs()
                });
                let bare = op(
                    "LayerNormalization",
                    Attrs::new().int("axis", -1).float("epsilon", epsilon).int("statistics", 0),
                    &[&shape, &width],
                );
                let plain = integer(bare.as_ref(), &inputs[..2], &inside, &y);
                let exact: Vec<f64> = exact.iter().enumerate().map(|(i, e)| e - b[i % n]).collect();
                near(&plain, &y, &exact, |i| {
                    (0.5 * f64::from(normal.scales()[0]) + unit[i].abs() * MANTISSA) * g[i % n].abs()
                });
            }
        }
    }
    // A row of equal numbers has no deviation.
    let x = params(DType::I8, 1.0, 0);
    let inside = [params(DType::I16, 1e-3, 0), params(DType::I16, 1.0 / 16384.0, 0)];
    let attrs = Attrs::new().int("axis", -1).float("epsilon", 0.0).int("statistics", 0);
    let norm = op("LayerNormalization", attrs, &[&[1, 3], &[3]]);
    let inputs = [(&x, &[1, 3][..], &[5, 5, 5][..]), (&x, &[3], &[1, 1, 1])];
    assert_eq!(integer(norm.as_ref(), &inputs, &inside, &x), [0, 0, 0]);
}

/// Every pair of 8-bit codes, and many of 16 bits.
#[test]
fn quotients_are_within_half_a_step_and_their_mantissa() {
    let mut rng = Rng::new(3);
    let check = |a: &QParams, b: &QParams, y: &QParams, p: &[i32], q: &[i32]| {
        let (sp, sq) = ([p.len(), 1], [q.len()]);
        let div = op("Div", Attrs::new(), &[&sp, &sq]);
        let got = integer(div.as_ref(), &[(a, &sp, p), (b, &sq, q)], &[], y);
        let (rp, rq) = (reals(a, p), reals(b, q));
        let by = |i: usize| (rp[i / q.len()], rq[i % q.len()]);
        let exact: Vec<f64> = (0..got.len())
            .map(|i| match by(i) {
                (p, 0.0) if p != 0.0 => p.signum() * f64::MAX,
                (_, 0.0) => 0.0,
                (p, q) => p / q,
            })
            .collect();
        near(&got, y, &exact, |i| if by(i).1 == 0.0 { 0.0 } else { exact[i].abs() * MANTISSA });
    };
    let all = |dtype: DType| -> Vec<i32> {
        let (low, high) = dtype.limits().expect("codes");
        (low..=high).collect()
    };
    for y in [params(DType::I8, 0.1, 5), params(DType::U8, 0.01, 0), params(DType::I16, 1e-3, 0)] {
        let (a, b) = (params(DType::I8, 0.03, -7), params(DType::U8, 0.02, 30));
        check(&a, &b, &y, &all(DType::I8), &all(DType::U8));
        let (a, b) = (params(DType::I16, 0.003, 9), params(DType::I16, 0.07, 0));
        check(&a, &b, &y, &codes(&mut rng, DType::I16, 200), &codes(&mut rng, DType::I16, 200));
    }
}

#[test]
fn several_scales_are_refused_and_other_operators_have_no_integer_form_yet() {
    let several = QParams::new(DType::I8, false, vec![1.0, 2.0], vec![0, 0], Some(0)).expect("legal");
    let one = params(DType::I8, 1.0, 0);
    let div = op("Div", Attrs::new(), &[&[2], &[2]]);
    let x = Tensor::from_i32([2], vec![1, 2]);
    let params = CodeParams::new([several, one.clone()], one, Vec::new());
    let error = div.integer(&Scratch::new(), &params, &[x.clone(), x.clone()]).expect_err("two scales");
    assert_eq!(error.to_string(), "input 0 needs one scale and one zero point");
    let power = op("Pow", Attrs::new(), &[&[2], &[2]]);
    assert!(power.integer(&Scratch::new(), &params, &[x.clone(), x]).expect("no error").is_none());
}

/// Every entry of a table is the nearest code of the function, for every code there is.
#[test]
fn tables_are_the_nearest_codes_of_their_functions() {
    type Function = fn(f64) -> f64;
    let functions: [(&'static str, Function); 7] = [
        ("Sigmoid", |x| 1.0 / (1.0 + (-x).exp())),
        ("Tanh", f64::tanh),
        ("Exp", f64::exp),
        ("Sqrt", |x| if x < 0.0 { 0.0 } else { x.sqrt() }),
        ("HardSwish", |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        ("LeakyRelu", |x| if x < 0.0 { x * f64::from(0.01f32) } else { x }),
        ("Sin", f64::sin),
    ];
    for dtype in [DType::I4, DType::I8, DType::U8, DType::I16, DType::U16] {
        let (low, high) = dtype.limits().expect("codes");
        let all: Vec<i32> = (low..=high).collect();
        let x = params(dtype, 8.0 / high as f32, (low + high) / 2);
        for (name, f) in functions {
            for y in [params(DType::U8, 1.0 / 256.0, 0), params(DType::I16, 1.0 / 4096.0, -5)] {
                let unary = op(name, Attrs::new(), &[&[all.len()]]);
                let got = integer(unary.as_ref(), &[(&x, &[all.len()], &all)], &[], &y);
                let exact: Vec<f64> = reals(&x, &all).into_iter().map(f).collect();
                near(&got, &y, &exact, |_| 0.0);
                let p = CodeParams::new([x.clone()], y.clone(), Vec::new());
                let (table, entries) =
                    samebit::ops::table(unary.as_ref(), &p).expect("computes").expect("a table");
                let codes = Tensor::from_codes(dtype, &[all.len()], &all).expect("codes");
                let through = table.eval(&Scratch::new(), &[codes, entries]).expect("accepted");
                assert_eq!(through[0].codes().expect("codes"), got, "{name} {dtype}");
            }
        }
    }
}

/// Every operator that becomes a table, with every code of 8 and of 16 bits, against what it makes of floats.
#[test]
fn every_table_is_its_operator_at_all_codes() {
    let mut seen = 0;
    let mut rng = Rng::new(8);
    for def in samebit::ops::OPS {
        let mut attributes: Vec<Attrs> = Vec::new();
        for sample in (def.samples)(&mut rng) {
            let alone = matches!(sample.inputs.as_slice(), [x] if x.dtype() == DType::F32);
            if alone && !attributes.contains(&sample.attrs) && attributes.len() < 4 {
                attributes.push(sample.attrs);
            }
        }
        for attrs in attributes {
            for dtype in [DType::I8, DType::U8, DType::I16] {
                let (low, high) = dtype.limits().expect("codes");
                let all: Vec<i32> = (low..=high).collect();
                let ty = TensorType::new(DType::F32, vec![all.len()]);
                let Ok(op) = build(def.name, attrs.clone(), &[ty]) else { continue };
                if !samebit::ops::has_table(op.as_ref(), dtype) {
                    continue;
                }
                let (x, y) = (
                    params(dtype, 6.0 / high as f32, (low + high) / 2),
                    params(DType::I16, 1.0 / 2048.0, -7),
                );
                let p = CodeParams::new([x.clone()], y.clone(), Vec::new());
                let (table, entries) =
                    samebit::ops::table(op.as_ref(), &p).expect("computes").expect("a table");
                let codes = Tensor::from_codes(dtype, &[all.len()], &all).expect("codes");
                let got = table.eval(&Scratch::new(), &[codes, entries]).expect("accepted")[0]
                    .codes()
                    .expect("codes");
                let step = x.step(0);
                let exact = |near: fn(f32) -> f32| {
                    let numbers = all.iter().map(|c| near(step.dequantize(*c))).collect();
                    let out = op.eval(&Scratch::new(), &[Tensor::from_f32([all.len()], numbers)]);
                    with_nearest(out.expect("accepted")[0].f32s())
                };
                // The table's argument is exact, that of floats rounded: jumps may lie between the two.
                let around = [exact(|x| x), exact(f32::next_down), exact(f32::next_up)];
                for (i, g) in got.iter().enumerate() {
                    let fits = around.iter().any(|t| {
                        let e = f64::from(t[i]);
                        let ideal = (e * 2048.0 - 7.0).clamp(-32768.0, 32767.0);
                        (f64::from(*g) - ideal).abs() <= 2e-5 * e.abs().max(0.05) * 2048.0 + 0.5
                    });
                    let (name, code, at) = (def.name, all[i], around[0][i]);
                    assert!(fits, "{name} {attrs:?}, {dtype} code {code}: {g} for {at}");
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 60, "{seen} tables");
}

/// Numbers; in place of what is none the nearest one, of two as near the one before.
fn with_nearest(all: &[f32]) -> Vec<f32> {
    let there: Vec<usize> = (0..all.len()).filter(|i| !all[*i].is_nan()).collect();
    let nearest = |i: usize| {
        let behind = there.partition_point(|j| *j < i);
        let before = behind.checked_sub(1).map(|k| there[k]);
        let found = before.into_iter().chain(there.get(behind).copied()).min_by_key(|j| j.abs_diff(i));
        all[found.expect("some number")]
    };
    (0..all.len()).map(nearest).collect()
}

/// Codes of 8 bits take another way through the processor than the same codes in 16 bits.
#[test]
fn the_type_that_holds_codes_changes_no_result() {
    let def = samebit::ops::by_name("Integer").expect("an operator");
    let mut compared = 0;
    for seed in 0..6 {
        let mut rng = Rng::new(seed);
        for sample in (def.samples)(&mut rng) {
            let inputs: Vec<Tensor> = sample.inputs.iter().map(|i| i.draw(&mut rng)).collect();
            let types: Vec<TensorType> = inputs.iter().map(Tensor::ty).collect();
            let narrow = build("Integer", sample.attrs.clone(), &types).expect("reads");
            let (op, params) = narrow.integer_of().expect("an operator on codes");
            // What a pair saturates is of 8 bits alone.
            if params.arithmetic.accumulator == Accumulator::SaturatingPairs {
                continue;
            }
            let (mut params, mut wide) = (params.clone(), inputs.clone());
            for (p, t) in params.inputs.iter_mut().zip(&mut wide) {
                let Some(old) = p.as_mut().filter(|p| [DType::I8, DType::U8].contains(&p.dtype())) else {
                    continue;
                };
                let (scales, zeros) = (old.scales().to_vec(), old.zero_points().to_vec());
                *old = QParams::new(DType::I16, false, scales, zeros, old.axis()).expect("legal");
                *t = Tensor::from_codes(DType::I16, t.shape(), &t.codes().expect("codes")).expect("fits");
            }
            let of = |op: &dyn Op, inputs: &[Tensor]| op.eval(&Scratch::new(), inputs).expect("computes");
            let other = samebit::ops::integer(Arc::clone(op), params);
            let (a, b) = (of(narrow.as_ref(), &inputs), of(other.as_ref(), &wide));
            assert!(a == b, "{:?}", sample.attrs);
            compared += 1;
        }
    }
    assert!(compared > 200, "{compared}");
}
