//! Numbers as text that reads back to the same bits.

const USUAL_NAN: u32 = 0x7fc0_0000;

pub(in crate::graph) fn print(v: f32) -> String {
    match v.to_bits() {
        USUAL_NAN => "nan".to_owned(),
        bits if v.is_nan() => format!("nan:{bits:08x}"),
        _ => format!("{v:?}"),
    }
}

pub(in crate::graph) fn parse(w: &str) -> Option<f32> {
    match w.strip_prefix("nan") {
        Some("") => Some(f32::from_bits(USUAL_NAN)),
        Some(bits) => {
            let bits = u32::from_str_radix(bits.strip_prefix(':')?, 16).ok()?;
            Some(f32::from_bits(bits)).filter(|v| v.is_nan())
        }
        None => w.parse().ok().filter(|v: &f32| !v.is_nan()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_kind_of_number_keeps_its_bits() {
        let bits = [0, 1, 0x8000_0000, 0x3f80_0000, 0x7f7f_ffff, 0x7f80_0000, 0xff80_0000];
        let nans = [0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0x7fff_ffff];
        let strides = (0..u32::MAX).step_by(9_999_991);
        for b in bits.into_iter().chain(nans).chain(strides) {
            let text = super::print(f32::from_bits(b));
            assert_eq!(super::parse(&text).map(f32::to_bits), Some(b), "{text}");
        }
        for wrong in ["", "x", "NaN", "nan:", "nan:3f800000", "1.0f", "nan:7fc00001:"] {
            assert_eq!(super::parse(wrong).map(f32::to_bits), None, "{wrong}");
        }
    }
}
