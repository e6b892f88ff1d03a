//! What the parity walk does not see: values that ONNX or C define beside the ordinary ones.

use crate::graph::attrs::Input;
use crate::graph::{Attrs, OpError, Reader, Scratch, Source};
use crate::ops::by_name;
use crate::tensor::Tensor;

fn eval(name: &str, attrs: Attrs, inputs: &[Tensor]) -> Result<Tensor, OpError> {
    let def = by_name(name).expect("an operator");
    let known = inputs.iter().map(|t| Some(Input { ty: t.ty(), known: None })).collect();
    let op = (def.read)(&mut Reader::new(Source::Graph, name, attrs, known, 1))?;
    let types: Vec<_> = inputs.iter().map(Tensor::ty).collect();
    op.infer(&types)?;
    Ok(op.eval(&Scratch::new(), inputs)?.remove(0))
}

fn floats(v: &[f32]) -> Tensor {
    Tensor::from_f32([v.len()], v.to_vec())
}

fn ints(v: &[i32]) -> Tensor {
    Tensor::from_i32([v.len()], v.to_vec())
}

fn int_result(name: &str, attrs: Attrs, a: &[i32], b: &[i32]) -> Vec<i32> {
    eval(name, attrs, &[ints(a), ints(b)]).expect("accepted").i32s().to_vec()
}

#[test]
fn integer_division_truncates_and_survives_zero_and_overflow() {
    let got = int_result("Div", Attrs::new(), &[7, -7, 7, i32::MIN, 5], &[2, 2, -2, -1, 0]);
    assert_eq!(got, [3, -3, -3, i32::MIN, 0]);
}

#[test]
fn modulo_takes_the_sign_that_fmod_says() {
    let (a, b) = ([-4, 7, 5, 4, -7, 8, 3], [2, -3, 8, -2, 3, 5, 0]);
    assert_eq!(int_result("Mod", Attrs::new().int("fmod", 0), &a, &b), [0, -2, 5, 0, 2, 3, 0]);
    assert_eq!(int_result("Mod", Attrs::new().int("fmod", 1), &a, &b), [0, 1, 5, 0, -1, 3, 0]);
    let x = [floats(&[-4.3, 7.2]), floats(&[2.1, -3.4])];
    assert!(eval("Mod", Attrs::new(), &x).is_err());
    let y = eval("Mod", Attrs::new().int("fmod", 1), &x).expect("accepted");
    assert_eq!(y.f32s(), [-4.3 % 2.1, 7.2 % -3.4]);
}

#[test]
fn powers_of_negative_bases_and_to_negative_exponents() {
    let y = eval(
        "Pow",
        Attrs::new(),
        &[floats(&[-2.0, -2.0, 0.0, 3.0, -2.0]), floats(&[3.0, 2.0, -1.0, 0.0, 0.5])],
    );
    let y = y.expect("accepted");
    assert_eq!(y.f32s()[..4], [-8.0, 4.0, f32::INFINITY, 1.0]);
    assert!(y.f32s()[4].is_nan());
    assert_eq!(
        int_result("Pow", Attrs::new(), &[3, -1, -1, 2, 0, i32::MAX], &[4, -3, -4, -1, 0, 2]),
        [81, -1, 1, 0, 1, 1]
    );
}

#[test]
fn nan_passes_through_max_and_min_from_either_side() {
    for name in ["Max", "Min"] {
        let y = eval(name, Attrs::new(), &[floats(&[f32::NAN, 1.0]), floats(&[1.0, f32::NAN])])
            .expect("accepted");
        assert!(y.f32s().iter().all(|v| v.is_nan()), "{name}");
    }
}

#[test]
fn a_slope_must_not_widen_its_tensor() {
    let x = Tensor::zeros(crate::tensor::DType::F32, [2, 1]);
    assert!(eval("PRelu", Attrs::new(), &[x.clone(), floats(&[1.0, 2.0])]).is_err());
    assert!(eval("PRelu", Attrs::new(), &[x, floats(&[1.0])]).is_ok());
}

#[test]
fn mean_divides_by_the_number_of_inputs() {
    let y = eval("Mean", Attrs::new(), &[floats(&[3.0]), floats(&[5.0]), floats(&[10.0])]).expect("accepted");
    assert_eq!(y.f32s(), [6.0]);
}
