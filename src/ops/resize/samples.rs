//! Problems of resizing.

use super::{COORDINATES, MODES, NEAREST};
use crate::graph::Attrs;
use crate::graph::sample::{Fill, Rng, Sample, SampleInput};

pub(super) fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (a, h, w) = (rng.int(1, 9), rng.int(2, 6), rng.int(2, 7));
    let base = |mode: &str, coordinates: &str, scales: &[f32]| {
        let attrs = Attrs::new().str("mode", mode).str("coordinate_transformation_mode", coordinates);
        attrs.floats("scales", scales)
    };
    let mut out = Vec::new();
    for mode in MODES {
        // Two, four and sixty-four products.
        let of = |attrs: Attrs, shape: &[usize]| Sample::new(attrs, [SampleInput::f32(shape)]).reduction(16);
        for (i, coordinates) in COORDINATES.iter().enumerate() {
            let shape = if i % 2 == 0 { [7, a, h, w] } else { [1, 8, w, h] };
            for scales in [[1.0, 1.0, 2.0, 2.5], [1.0, 1.0, 0.6, 1.7]] {
                let attrs = base(mode, coordinates, &scales).float("extrapolation_value", 1.5);
                let roi = [0.0, 0.0, 0.2, -0.3, 1.0, 1.0, 0.8, 1.2];
                let attrs = if i == 6 { attrs.floats("roi", &roi) } else { attrs };
                out.push(of(attrs, &shape));
            }
        }
        out.push(of(base(mode, "half_pixel", &[1.0, 1.0, 1.9]), &[7, a, h]));
        out.push(of(base(mode, "align_corners", &[2.5]), &[h]));
        out.push(of(base(mode, "half_pixel", &[1.0, 1.0, 2.0, 0.7, 1.5]), &[2, a, 3, h, w]));
        out.push(of(base(mode, "half_pixel", &[1.0, 2.0, 2.0]), &[3, h, w]));
        out.push(of(base(mode, "half_pixel", &[1.0, 1.0, 2.0]), &[2, 0, 3]));
        out.push(of(base(mode, "half_pixel", &[1.0, 1.0, 1.0, 1.0]), &[7, a, h, w]));
    }
    for nearest in NEAREST {
        let attrs = base("nearest", "half_pixel", &[1.0, 1.0, 2.0, 0.75]).str("nearest_mode", nearest);
        out.push(Sample::new(attrs.clone(), [SampleInput::f32([7, a, h, 8])]));
        out.push(Sample::new(attrs, [SampleInput::of([1, a, h, 8], Fill::Ints(-99, 99))]));
    }
    let cubic = base("cubic", "half_pixel", &[1.0, 1.0, 1.6, 0.7]).int("exclude_outside", 1);
    out.push(Sample::new(cubic.float("cubic_coeff_a", -0.5), [SampleInput::f32([7, a, h, w])]).reduction(16));
    out
}
