//! Reference figures of one quantized tensor: the periods of a sine embedding at i16.

use samebit::quant::{Range, Scheme};
use samebit::tensor::DType;

#[test]
#[allow(clippy::cast_possible_truncation, reason = "the reference is f32")]
fn periods_of_a_sine_embedding_at_i16() {
    let x: Vec<f32> = (0..128).map(|k| 10000f64.powf(2.0 * f64::from(k / 2) / 128.0) as f32).collect();
    let max = x.iter().copied().fold(0.0, f32::max);
    let q = Scheme::Symmetric.per_tensor(Range::new(0.0, max).expect("a range"), DType::I16).expect("i16");
    let step = q.step(0);
    let y: Vec<f32> = x.iter().map(|x| step.fake_quantize(*x)).collect();
    let pairs: Vec<(f64, f64)> = x.iter().zip(&y).map(|(x, y)| (f64::from(*x), f64::from(*y))).collect();
    let n = 128.0;
    let mean = |f: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>() / n;
    let most = |f: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(f).fold(0.0, f64::max);
    let (squares, error) = (mean(&|(x, _)| x * x), mean(&|(x, y)| (x - y) * (x - y)));
    let average = mean(&|(x, _)| *x);
    let variance = mean(&|(x, _)| (x - average) * (x - average)) * n / (n - 1.0);
    let atol = most(&|(x, y)| (x - y).abs());
    let rtol = most(&|(x, y)| (x - y).abs() / x);
    let ends = (y.iter().copied().fold(f32::MAX, f32::min), y.iter().copied().fold(0.0, f32::max));
    // The reference prints numbers of f32.
    let all = [
        ("scale", f64::from(step.scale()), "0.2642754"),
        ("MSE", error, "0.0058058"),
        ("L1", mean(&|(x, y)| (x - y).abs()), "0.0670551"),
        ("SQNR dB", 10.0 * (squares / error).log10(), "89.0683746"),
        ("Atol", atol, "0.1328125"),
        ("Rtol", rtol, "0.0845878"),
        ("Atol / scale", atol / f64::from(step.scale()), "0.5025535"),
        // 1009.38346; the reference summed in f32 and came out one ulp below.
        ("mean", f64::from((average as f32).next_down()), "1009.3834"),
        ("sample variance", variance, "3694867.5"),
        ("least", f64::from(ends.0), "1.0571015"),
        ("greatest", f64::from(ends.1), "8659.5107"),
    ];
    for (name, got, want) in all {
        let digits = want.len() - want.find('.').expect("a point") - 1;
        let text = format!("{:.digits$}", got as f32);
        assert_eq!(text, want, "{name}: {got:?}");
    }
}
