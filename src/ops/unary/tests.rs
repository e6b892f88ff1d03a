//! What the parity walk does not see: NaN, infinities, signed zeros, and arguments far out.

use crate::graph::attrs::Input;
use crate::graph::{Attrs, Reader, Scratch, Source};
use crate::ops::{OPS, by_name};
use crate::tensor::Tensor;

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
