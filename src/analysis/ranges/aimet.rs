//! AIMET's encodings, version 0.6.1: a list of encodings a tensor, one a channel. A code is counted from 0 whatever its
//! type, so that offset = lowest code - zero point, and what is quantized lies from scale * offset on.

use super::{Channel, Entry, Form, Given, LeftOut, Tensors, is_symmetric};
use crate::quant::QParams;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const VERSION: &str = "0.6.1";
const SECTIONS: [&str; 2] = ["activation_encodings", "param_encodings"];

pub(super) static FORM: Form =
    Form { name: "aimet", about: "AIMET's encodings, version 0.6.1", is, read, write };

fn is(object: &Map<String, Value>) -> bool {
    SECTIONS.iter().any(|s| object.contains_key(*s))
}

fn write(entries: &[Entry<'_>], _: &mut Vec<LeftOut>) -> Value {
    let section = |constant: bool| -> Map<String, Value> {
        let of = entries.iter().filter(|e| e.constant == constant);
        of.map(|e| (e.name.clone(), encodings(e.params))).collect()
    };
    let bits = |constant: bool| {
        entries.iter().filter(|e| e.constant == constant).map(|e| bitwidth(e.params)).max().unwrap_or(8)
    };
    let mut constants = entries.iter().filter(|e| e.constant);
    json!({
        "version": VERSION,
        "activation_encodings": section(false),
        "param_encodings": section(true),
        "quantizer_args": {
            "activation_bitwidth": bits(false),
            "param_bitwidth": bits(true),
            "dtype": "int",
            "is_symmetric": text(constants.clone().all(|e| is_symmetric(e.params))),
            "per_channel_quantization": text(constants.any(|e| e.params.axis().is_some())),
            "quant_scheme": "post_training_tf",
        },
    })
}

/// AIMET writes truth as text.
fn text(truth: bool) -> &'static str {
    if truth { "True" } else { "False" }
}

fn bitwidth(params: &QParams) -> u32 {
    let (low, high) = params.dtype().limits().unwrap_or_default();
    high.abs_diff(low).count_ones()
}

fn encodings(params: &QParams) -> Value {
    let (low, high) = params.codes();
    let one = |(scale, zero_point): (&f32, &i32)| {
        let (scale, offset) = (f64::from(*scale), i64::from(low) - i64::from(*zero_point));
        #[allow(clippy::cast_precision_loss, reason = "codes of at most 16 bits")]
        let at = |step: i64| scale * step as f64;
        json!({
            "bitwidth": bitwidth(params),
            "dtype": "int",
            "is_symmetric": text(is_symmetric(params)),
            "max": at(offset + i64::from(high) - i64::from(low)),
            "min": at(offset),
            "offset": offset,
            "scale": scale,
        })
    };
    params.scales().iter().zip(params.zero_points()).map(one).collect()
}

fn read(object: &Map<String, Value>) -> Result<Tensors, String> {
    if let Some(version) = object.get("version") {
        // Versions before this one say the same with fewer fields; from 1.0.0 on the layout is another.
        if !version.as_str().is_some_and(|v| v.starts_with("0.")) {
            return Err(format!("holds AIMET encodings of version {version}; supported: up to {VERSION}"));
        }
    }
    let mut out = BTreeMap::new();
    for section in SECTIONS {
        let Some(tensors) = object.get(section) else { continue };
        let tensors = tensors.as_object().ok_or_else(|| format!("{section} is no object of tensors"))?;
        for (name, list) in tensors {
            let given = given(list).unwrap_or_else(|e| Given::Unfit(format!("{section}: {e}")));
            if out.insert(name.clone(), given).is_some() {
                return Err(format!("tensor {name:?} is in both sections"));
            }
        }
    }
    Ok(out)
}

fn given(list: &Value) -> Result<Given, String> {
    let list = list.as_array().filter(|l| !l.is_empty()).ok_or("no list of encodings")?;
    let mut bits = None;
    let mut channels = Vec::new();
    for encoding in list {
        let dtype = encoding.get("dtype").map_or(Some("int"), Value::as_str);
        if dtype != Some("int") {
            return Err(
                "dtype is not \"int\": let its node run in float by a rule, and take it out of the file"
                    .into(),
            );
        }
        let own = encoding.get("bitwidth").and_then(Value::as_u64).and_then(|b| u32::try_from(b).ok());
        let own = own.ok_or("no bitwidth")?;
        if *bits.get_or_insert(own) != own {
            return Err("channels of different bitwidths".into());
        }
        channels.push(channel(encoding, own)?);
    }
    Ok(Given::Steps { bits: bits.unwrap_or_default(), channels })
}

fn channel(encoding: &Value, bits: u32) -> Result<Channel, String> {
    let number = |key: &str| encoding.get(key).and_then(Value::as_f64);
    let (scale, offset) = (number("scale").ok_or("no scale")?, number("offset").ok_or("no offset")?);
    let whole = offset.fract() == 0.0 && offset.abs() <= f64::from(u32::MAX);
    if !whole {
        return Err(format!("offset {offset} is no code"));
    }
    // Strictly symmetric encodings leave a code out; only their ends tell.
    let steps = number("min").zip(number("max")).map(|(min, max)| ((max - min) / scale).round_ties_even());
    let narrow = steps.is_some_and(|s| bits < 32 && s == f64::from((1u32 << bits) - 2));
    #[allow(clippy::cast_possible_truncation, reason = "rounds to nearest; a code fits")]
    Ok(Channel { scale: scale as f32, offset: offset as i32, narrow })
}
