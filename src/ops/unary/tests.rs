//! What the parity walk does not see: NaN, infinities, signed zeros, and arguments far out.

use crate::graph::attrs::Input;
use crate::graph::sample::Rng;
use crate::graph::{Attrs, QuantRule, Reader, Scratch, Source};
use crate::ops::{OPS, build, by_name};
use crate::tensor::{DType, Tensor, TensorType};

fn eval(name: &str, attrs: Attrs, x: Tensor) -> Tensor {
    let def = by_name(name).expect("an operator");
    let input = Input { ty: x.ty(), known: None };
    let mut r = Reader::new(Source::Graph, name, attrs, vec![Some(input)], 1);
    let op = (def.read)(&mut r).expect("readable");
    op.eval(&Scratch::new(), &[x]).expect("accepted").remove(0)
}

fn at(name: &str, x: f32) -> f32 {
    eval(name, Attrs::new(), Tensor::scalar(x)).f32s()[0]
}

#[test]
fn nan_stays_nan_through_every_function_of_floats() {
    let mut seen = 0;
    for def in OPS.iter().filter(|d| d.kernels.iter().any(|k| k.sources.iter().any(|s| s.0 == "unary.wgsl")))
    {
        let x = Tensor::from_f32([2], vec![f32::NAN, 0.5]);
        if matches!(def.name, "IsNaN" | "IsInf" | "Not" | "BitwiseNot") {
            continue;
        }
        assert!(eval(def.name, Attrs::new(), x).f32s()[0].is_nan(), "{}", def.name);
        seen += 1;
    }
    assert!(seen > 30);
}

#[test]
fn functions_at_the_ends_of_their_domains() {
    let inf = f32::INFINITY;
    let cases: &[(&str, f32, f32)] = &[
        ("Relu", -inf, 0.0),
        ("Sigmoid", -200.0, 0.0),
        ("Sigmoid", 200.0, 1.0),
        ("Tanh", -inf, -1.0),
        ("Erf", inf, 1.0),
        ("Gelu", -40.0, 0.0),
        ("Gelu", 40.0, 40.0),
        ("Softplus", 200.0, 200.0),
        ("Softplus", -200.0, 0.0),
        ("Mish", 200.0, 200.0),
        ("Exp", 89.0, inf),
        ("Exp", -inf, 0.0),
        ("Log", 0.0, -inf),
        ("Round", 2.5, 2.0),
        ("Round", -3.5, -4.0),
        ("Elu", -inf, -1.0),
        ("Sign", -0.0, 0.0),
        ("HardSigmoid", 10.0, 1.0),
    ];
    for (name, x, want) in cases {
        assert_eq!(at(name, *x), *want, "{name}({x})");
    }
    for (name, x) in
        [("Log", -1.0), ("Sqrt", -1.0), ("Asin", 1.5), ("Acosh", 0.5), ("Sin", inf), ("Cos", -inf)]
    {
        assert!(at(name, x).is_nan(), "{name}({x})");
    }
}

#[test]
fn is_inf_looks_at_the_sign_that_it_is_asked_for() {
    let x = || Tensor::from_f32([3], vec![f32::INFINITY, f32::NEG_INFINITY, 1.0]);
    let asked = |p, n| Attrs::new().int("detect_positive", p).int("detect_negative", n);
    assert_eq!(eval("IsInf", asked(1, 1), x()).as_bool(), Some(&[1, 1, 0][..]));
    assert_eq!(eval("IsInf", asked(1, 0), x()).as_bool(), Some(&[1, 0, 0][..]));
    assert_eq!(eval("IsInf", asked(0, 1), x()).as_bool(), Some(&[0, 1, 0][..]));
}

#[test]
fn gelu_has_both_forms() {
    let form = |f| eval("Gelu", Attrs::new().str("approximate", f), Tensor::scalar(1.0)).f32s()[0];
    assert!((form("none") - 0.841_344_7).abs() < 1e-7);
    assert!((form("tanh") - 0.841_192).abs() < 1e-6);
}

/// Every function that can be quantized has a form for tables, which is the function.
#[test]
fn functions_for_tables_are_the_functions() {
    let mut seen = 0;
    let mut rng = Rng::new(3);
    for def in OPS {
        for sample in (def.samples)(&mut rng) {
            let [x] = sample.inputs.as_slice() else { continue };
            let ty = TensorType::new(x.dtype(), x.shape.clone());
            let unary = def.kernels.iter().any(|k| k.sources.iter().any(|s| s.0 == "unary.wgsl"));
            if !unary || ty.dtype != DType::F32 {
                continue;
            }
            let op = build(def.name, sample.attrs.clone(), &[ty]).expect("readable");
            if !matches!(op.quant_rule(), QuantRule::Compute) {
                continue;
            }
            seen += 1;
            let x = x.draw(&mut rng);
            let y = op.eval(&Scratch::new(), std::slice::from_ref(&x)).expect("accepted").remove(0);
            for (x, y) in x.f32s().iter().zip(y.f32s()) {
                let exact = op.exact(f64::from(*x)).unwrap_or_else(|| panic!("{} has none", def.name));
                let off = (f64::from(*y) - exact).abs();
                assert!(
                    off <= 4e-6 * exact.abs().max(0.05),
                    "{} {:?} at {x}: {y} {exact}",
                    def.name,
                    sample.attrs
                );
            }
        }
    }
    assert!(seen > 200, "{seen}");
}
