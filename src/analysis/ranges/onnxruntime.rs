//! ONNX Runtime's calibration cache (`quantize_static(calibration_cache_path=)`, `load_tensors_data`): a range for each
//! tensor between operators, of which its quantizer makes scale and zero point. Weights it quantizes by itself.

use super::{Entry, Form, Given, LeftOut, Tensors};
use crate::quant::Range;
use crate::tensor::DType;
use serde_json::{Map, Value, json};

pub(super) static FORM: Form = Form {
    name: "onnxruntime",
    about: "ONNX Runtime's calibration cache: a least and a greatest number for each tensor",
    is,
    read,
    write,
};

fn is(object: &Map<String, Value>) -> bool {
    let tensors = object.get("data").and_then(Value::as_object).unwrap_or(object);
    !tensors.is_empty() && tensors.values().all(|t| t.get("lowest").is_some() || t.is_array())
}

/// Whether a range, with zero in it, is too narrow for any scale.
pub(super) fn is_zero(range: Range, dtype: DType) -> bool {
    let (low, high) = dtype.limits().unwrap_or_default();
    let width = f64::from(range.high.max(0.0)) - f64::from(range.low.min(0.0));
    width / (f64::from(high) - f64::from(low)) < f64::from(f32::MIN_POSITIVE)
}

/// Scale and zero point that ONNX Runtime makes of a range where neither symmetry nor a least range is asked of it.
#[allow(clippy::cast_possible_truncation, reason = "rounds to nearest; the zero point is clamped before")]
pub(super) fn scale(range: Range, dtype: DType) -> (f32, i32) {
    let (low, high) = dtype.limits().unwrap_or_default();
    let (low, high) = (f64::from(low), f64::from(high));
    let (min, max) = (f64::from(range.low.min(0.0)), f64::from(range.high.max(0.0)));
    let scale = (max - min) / (high - low);
    if is_zero(range, dtype) {
        return (1.0, 0);
    }
    (scale as f32, (low - min / scale).round_ties_even().clamp(low, high) as i32)
}

/// A range of which ONNX Runtime makes this scale and zero point to the last bit: the numbers that the outermost codes
/// stand for, or their neighbours where rounding these to f32 would change the scale.
fn range(wanted: f32, zero_point: i32, dtype: DType) -> Option<Range> {
    const STEPS: [f64; 9] = [0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 4.0, -4.0];
    let (low, high) = dtype.limits()?;
    let at = |code: i32| f64::from(wanted) * (f64::from(code) - f64::from(zero_point));
    let (low, high) = (at(low), at(high));
    #[allow(clippy::cast_possible_truncation, reason = "rounds to nearest")]
    let f32 = |x: f64| x as f32;
    // The end nearer to zero moves by less than the other one can.
    let largest = f32(high.max(-low));
    let step = f64::from(largest.next_up() - largest) / 4.0;
    let all = STEPS.iter().flat_map(|h| STEPS.iter().map(move |l| (low + l * step, high + h * step)));
    let mut ranges = all.filter_map(|(l, h)| Range::new(f32(l), f32(h)).ok());
    ranges.find(|r| scale(*r, dtype) == (wanted, zero_point))
}

fn write(entries: &[Entry<'_>], left_out: &mut Vec<LeftOut>) -> Value {
    let number = |x: f32| json!({ "data": f64::from(x), "dtype": "float32", "CLS": "numpy.array" });
    let mut data = Map::new();
    for e in entries {
        let p = e.params;
        let reason = match (e.constant, p.axis().is_some() || p.narrow()) {
            (true, _) => "ONNX Runtime quantizes constants by their own numbers",
            (_, true) => "the form has one range a tensor, for all codes of its type",
            _ => match range(p.scales()[0], p.zero_points()[0], p.dtype()) {
                Some(r) => {
                    let tensor =
                        json!({ "lowest": number(r.low), "highest": number(r.high), "CLS": "TensorData" });
                    // ONNX Runtime takes the clamp into the operator before it, and asks for that one's range.
                    data.extend(e.before_clamp.iter().map(|name| (name.clone(), tensor.clone())));
                    data.insert(e.name.clone(), tensor);
                    continue;
                }
                None => "no range gives its scale and zero point in ONNX Runtime",
            },
        };
        left_out.push(LeftOut { tensor: e.name.clone(), reason });
    }
    json!({
        "CLS": "TensorsData",
        "data": data,
        "calibration_method": { "CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax" },
        "smooth_quant": false,
    })
}

fn read(object: &Map<String, Value>) -> Result<Tensors, String> {
    // Older versions write the tensors alone, the oldest a pair of numbers for each.
    let tensors = object.get("data").and_then(Value::as_object).unwrap_or(object);
    let given = |t: &Value| -> Result<Given, String> {
        let (low, high) = match t.as_array().map(Vec::as_slice) {
            Some([low, high]) => (number(low)?, number(high)?),
            Some(_) => return Err("no pair of a least and a greatest number".into()),
            None => {
                let end = |key| t.get(key).ok_or_else(|| format!("no {key:?}")).and_then(number);
                (end("lowest")?, end("highest")?)
            }
        };
        Range::new(low, high).map(Given::Range).map_err(|e| e.to_string())
    };
    Ok(tensors.iter().map(|(n, t)| (n.clone(), given(t).unwrap_or_else(Given::Unfit))).collect())
}

/// A number as numpy's arrays are written: of no axes, or of one element.
fn number(v: &Value) -> Result<f32, String> {
    let v = v.get("data").unwrap_or(v);
    let mut inner = v;
    while let Some([one]) = inner.as_array().map(Vec::as_slice) {
        inner = one;
    }
    #[allow(clippy::cast_possible_truncation, reason = "rounds to nearest")]
    let number = inner.as_f64().map(|x| x as f32);
    number.ok_or_else(|| format!("{v} is not one number: ranges of channels are not supported"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::sample::Rng;

    #[test]
    fn scales_are_those_of_onnx_runtime() {
        // compute_scale_zp of onnxruntime 1.31.1.
        let of = |low, high, dtype| scale(Range { low, high }, dtype);
        assert_eq!(of(0.0, 6.0, DType::I8), (6.0 / 255.0, -128));
        assert_eq!(of(-1.0, 3.0, DType::U8), (4.0 / 255.0, 64));
        assert_eq!(of(1.0, 3.0, DType::U8), (3.0 / 255.0, 0));
        assert_eq!(of(-2.0, -1.0, DType::I16), (2.0 / 65535.0, 32767));
        assert_eq!(of(0.0, 0.0, DType::U8), (1.0, 0));
    }

    #[test]
    fn every_scale_and_zero_point_has_a_range() {
        let mut rng = Rng::new(5);
        for dtype in [DType::I4, DType::U4, DType::I8, DType::U8, DType::I16, DType::U16] {
            let (low, high) = dtype.limits().unwrap();
            for _ in 0..2000 {
                let s = rng.float(1.0, 2.0) * 2f32.powi(rng.code(-30, 30));
                for zero_point in [low, high, (low + high + 1) / 2, rng.code(low, high)] {
                    let r =
                        range(s, zero_point, dtype).unwrap_or_else(|| panic!("{dtype} {s:e} {zero_point}"));
                    assert_eq!(scale(r, dtype), (s, zero_point));
                }
            }
        }
    }
}
