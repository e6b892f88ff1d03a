//! Sums of two tensors of codes, as targets form them.

use super::{Factor, Multiplier, Requantize, Rounding, Step};

/// Bits by which codes are shifted before they come to a common scale.
const LEFT: i32 = 20;

/// How far operands are brought apart: 47 bits of a product and as many more leave room for a multiplier in 127. What lies
/// further below matters only by its sign, as the other operand is a multiple of 2^30.
const ROOM: i32 = 48;

/// What the sum of two operands is made with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Addends {
    /// `(a * by[0] + b * by[1]) / 2^shift`, rounded once.
    Exact {
        /// Multipliers of up to 110 bits.
        by: [u128; 2],
        /// How far to the right.
        shift: i32,
    },
    /// The factors of both operands after a shift by 20 bits, and of their sum.
    Doubling([Factor; 2], Factor),
    /// Multipliers of codes in f32, and what their products are added to.
    Float([f32; 2], f32),
}

/// Codes of `a + b` from codes of both.
#[derive(Clone, Debug)]
pub struct Addition {
    a: Step,
    b: Step,
    y: Step,
    form: Form,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    /// Both operands times the multiplier of s / (2 * the larger s), the sum times that of 2 * the larger s / s_y, all
    /// exact, one rounding.
    Fixed { by: [Multiplier; 2], to_y: Multiplier, rounding: Rounding },
    /// The same after a shift by 20 bits, with the roundings of `TFLite`'s multiplication at each step.
    Doubling { by: [Factor; 2], to_y: Factor },
    /// ONNX Runtime's, on processors that multiply and add with one rounding: with r = f32(s / s_y) of each operand and
    /// `fixed` = f32(z_y - f32(r_a * z_a + f32(r_b * z_b))), codes times r are added to that, those of `b` first, each with
    /// one rounding.
    Float { by: [f32; 2], fixed: f32 },
}

impl Addition {
    /// Of operands with these steps. `None` where the mode is a shift and scales are no powers of two.
    pub fn new(mode: Requantize, a: Step, b: Step, y: Step) -> Option<Addition> {
        let largest = a.scale().max(b.scale());
        let real = |s: &Step| f64::from(s.scale()) / (2.0 * f64::from(largest));
        let out = 2.0 * f64::from(largest) / f64::from(y.scale());
        let form = match mode {
            Requantize::Fixed => Form::Fixed {
                by: [Multiplier::new(real(&a)), Multiplier::new(real(&b))],
                to_y: Multiplier::new(out),
                rounding: y.rounding(),
            },
            Requantize::DoublingAway | Requantize::DoublingUp => {
                let up = mode == Requantize::DoublingUp;
                Form::Doubling {
                    by: [&a, &b].map(|s| Factor::Doubling(Multiplier::new(real(s)), up)),
                    to_y: Factor::Doubling(Multiplier::new(out * libm::ldexp(1.0, -LEFT)), up),
                }
            }
            #[allow(clippy::cast_precision_loss, reason = "zero points have at most 16 bits")]
            Requantize::Float => {
                let by = [a.scale() / y.scale(), b.scale() / y.scale()];
                let [za, zb, zy] = [&a, &b, &y].map(|s| s.zero_point() as f32);
                Form::Float { by, fixed: zy - by[0].mul_add(za, by[1] * zb) }
            }
            Requantize::Shift => {
                // Powers of two are exact as multipliers, too.
                for s in [&a, &b, &y] {
                    Factor::new(mode, y.rounding(), [s.scale(), 1.0], 1.0)?;
                }
                Form::Fixed {
                    by: [Multiplier::new(real(&a)), Multiplier::new(real(&b))],
                    to_y: Multiplier::new(out),
                    rounding: y.rounding(),
                }
            }
        };
        Some(Addition { a, b, y, form })
    }

    /// The same as multipliers.
    pub fn factors(&self) -> Addends {
        match self.form {
            Form::Doubling { by, to_y } => Addends::Doubling(by, to_y),
            Form::Float { by, fixed } => Addends::Float(by, fixed),
            Form::Fixed { by: [m, n], to_y, .. } => {
                let apart = m.shift.abs_diff(n.shift).cast_signed();
                let coarse = |m: Multiplier| u128::from(m.m) << apart.min(ROOM);
                let fine = |m: Multiplier| if apart > ROOM { 1 } else { u128::from(m.m) };
                let by = if m.shift <= n.shift { [coarse(m), fine(n)] } else { [fine(m), coarse(n)] };
                let shift = m.shift.min(n.shift) + apart.min(ROOM) + to_y.shift;
                Addends::Exact { by: by.map(|b| b * u128::from(to_y.m)), shift }
            }
        }
    }

    /// The code of the sum of what two codes stand for.
    #[inline]
    pub fn apply(&self, a: i32, b: i32) -> i32 {
        if let Form::Float { by: [m, n], fixed } = self.form {
            #[allow(clippy::cast_precision_loss, reason = "codes have at most 17 bits")]
            return self.y.place_code((a as f32).mul_add(m, (b as f32).mul_add(n, fixed)));
        }
        let (a, b) = (self.a.steps(a), self.b.steps(b));
        match self.form {
            Form::Fixed { by: [m, n], to_y, rounding } => {
                let (p, q) = (i128::from(a) * i128::from(m.m), i128::from(b) * i128::from(n.m));
                self.y.place(aligned(p, m.shift, q, n.shift, to_y, rounding))
            }
            Form::Doubling { by: [m, n], to_y } => {
                self.y.place(to_y.apply(m.apply(a << LEFT) + n.apply(b << LEFT)))
            }
            Form::Float { .. } => unreachable!("returned before"),
        }
    }
}

/// `(p / 2^i + q / 2^j) * to_y`, rounded once.
fn aligned(p: i128, i: i32, q: i128, j: i32, to_y: Multiplier, rounding: Rounding) -> i64 {
    // The operand of the larger scale has the smaller shift; p and q have at most 47 bits.
    let (coarse, fine, by, shift) = if i <= j { (p, q, j - i, i) } else { (q, p, i - j, j) };
    let aligned = if by <= ROOM {
        (coarse << by) + fine
    } else {
        // What is below the last bit matters only in that it is there.
        let down = (by - ROOM).min(120);
        let rest = fine - ((fine >> down) << down);
        (coarse << ROOM) + ((fine >> down) | i128::from(rest != 0))
    };
    to_y.apply(aligned, shift + by.min(ROOM), rounding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::sample::Rng;
    use crate::quant::QParams;
    use crate::tensor::DType;

    fn step(dtype: DType, scale: f32, zero: i32) -> Step {
        QParams::per_tensor(dtype, scale, zero).unwrap().step(0)
    }

    /// Within half a step of the real sum, and 2^-29 of it for the multipliers.
    #[test]
    fn a_sum_is_within_half_a_step() {
        let mut rng = Rng::new(6);
        for round in 0..60 {
            let scale = |rng: &mut Rng| rng.float(-9.0, 3.0).exp2();
            let (a, b) = (step(DType::I8, scale(&mut rng), -5), step(DType::U8, scale(&mut rng), 30));
            let y = step(DType::I16, a.scale().max(b.scale()) * rng.float(0.05, 2.0), 3);
            let sum = Addition::new(Requantize::Fixed, a, b, y).unwrap();
            for p in -128..128 {
                for q in 0..256 {
                    let real = |s: &Step, c: i32| s.steps(c) as f64 * f64::from(s.scale());
                    let exact = (real(&a, p) + real(&b, q)) / f64::from(y.scale()) + 3.0;
                    let got = f64::from(sum.apply(p, q));
                    let exact = exact.clamp(-32768.0, 32767.0);
                    assert!((got - exact).abs() <= 0.5 + 1e-5, "{round}: {p} {q}: {got} {exact}");
                }
            }
        }
    }

    #[test]
    fn scales_far_apart_are_rounded_once() {
        let y = step(DType::I8, 1.0, 0);
        // 2.5 and a little more or less: halves to even unless the other operand tips them.
        for exponent in [-20, -60, -95] {
            let (a, b) = (step(DType::I8, 0.5, 0), step(DType::I8, libm::ldexpf(1.0, exponent), 0));
            let sum = Addition::new(Requantize::Fixed, a, b, y).unwrap();
            assert_eq!([-1, 0, 1].map(|q| sum.apply(5, q)), [2, 2, 3], "{exponent}");
            assert_eq!([-1, 0, 1].map(|q| sum.apply(-5, q)), [-3, -2, -2], "{exponent}");
            let other = Addition::new(Requantize::Fixed, b, a, y).unwrap();
            assert_eq!([-1, 0, 1].map(|q| other.apply(q, 5)), [2, 2, 3], "{exponent}");
        }
    }
}
