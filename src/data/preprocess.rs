//! From a stored sample to a graph input: value steps, axis order, element type.

use super::config::Step;
use crate::tensor::{DType, Data, Tensor};

/// What the value steps make of each 8-bit code, per channel.
///
/// Computed once on the host in f32, each step rounded as NumPy's float32 does, so that a device that looks codes up
/// here gets the figures that the steps would give.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelTables {
    tables: Vec<[f32; 256]>,
}

impl ChannelTables {
    /// Tables of the value steps (`mean`, `std`, `scale`) for `channels` channels; other steps do not count.
    pub fn new(steps: &[Step], channels: usize) -> ChannelTables {
        let table = |c| {
            let mut table = [0.0; 256];
            for (code, value) in (0u8..=255).zip(&mut table) {
                *value = compute(steps, c, f32::from(code));
            }
            table
        };
        ChannelTables { tables: (0..channels).map(table).collect() }
    }

    /// One table for each channel.
    pub fn tables(&self) -> &[[f32; 256]] {
        &self.tables
    }
}

/// The value steps, in order, on one value of channel c.
fn compute(steps: &[Step], c: usize, x: f32) -> f32 {
    let of = |v: &[f32]| v[if v.len() == 1 { 0 } else { c }];
    steps.iter().fold(x, |x, step| match step {
        Step::Mean(v) => x - of(v),
        Step::Std(v) => x / of(v),
        Step::Scale(v) => x * of(v),
        _ => x,
    })
}

/// How the axes of a stored sample become those of the graph input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrange {
    /// As they are.
    Keep,
    /// `[.., c]` becomes `[c, ..]`.
    LastToFirst,
    /// `[c, ..]` becomes `[.., c]`.
    FirstToLast,
}

/// Where a stored sample keeps its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channels {
    First,
    Last,
}

/// The part of an input's preparation that follows the pixels' geometry.
#[derive(Clone, Debug)]
pub(super) struct Values {
    /// `mean`, `std` and `scale`.
    pub steps: Vec<Step>,
    /// Where the stored sample keeps its channels, and whether the file said so.
    pub channels: Channels,
    pub declared: bool,
    /// Type and shape of the graph input, without the batch axis.
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// Number of channels and tables, where the source is 8-bit and there are steps.
    pub tables: Option<ChannelTables>,
}

impl Values {
    /// How a stored sample of this shape becomes the graph input.
    pub fn arrange(&self, stored: &[usize]) -> Result<Arrange, String> {
        let rotated = |left: bool| {
            let mut s = stored.to_vec();
            match left {
                _ if s.is_empty() => {}
                true => s.rotate_left(1),
                false => s.rotate_right(1),
            }
            s
        };
        match self.channels {
            Channels::Last if rotated(false) == self.shape => Ok(Arrange::LastToFirst),
            _ if stored == self.shape => Ok(Arrange::Keep),
            Channels::First if self.declared && rotated(true) == self.shape => Ok(Arrange::FirstToLast),
            channels => {
                let layout = match channels {
                    Channels::Last => " (channels last)",
                    Channels::First => "",
                };
                Err(format!("a sample is {stored:?}{layout}, the graph's input takes {:?}", self.shape))
            }
        }
    }

    /// Number of channels of a stored sample.
    pub fn channel_count(&self, stored: &[usize]) -> usize {
        let c = match self.channels {
            Channels::First => stored.first(),
            Channels::Last => stored.last(),
        };
        c.copied().unwrap_or(1)
    }

    /// Whether every list of numbers has one for each channel, or one for all.
    pub fn check_channels(&self, stored: &[usize]) -> Result<(), String> {
        let c = self.channel_count(stored);
        for step in &self.steps {
            let (name, given) = match step {
                Step::Mean(v) => ("mean", v.len()),
                Step::Std(v) => ("std", v.len()),
                Step::Scale(v) => ("scale", v.len()),
                _ => continue,
            };
            if given != 1 && given != c {
                return Err(format!(
                    "{name} has {given} numbers, a sample of shape {stored:?} has {c} channels"
                ));
            }
        }
        Ok(())
    }

    /// Turns a stored sample into the graph input.
    ///
    /// # Errors
    /// A shape the graph does not take, or a NaN that would become an integer.
    pub fn finish(&self, stored: &[usize], data: &Data) -> Result<Tensor, String> {
        let arrange = self.arrange(stored)?;
        self.check_channels(stored)?;
        let plan = Plan { arrange, channels: self.channels, c: self.channel_count(stored) };
        match data {
            Data::U8(v) => match &self.tables {
                Some(t) if t.tables.len() >= plan.c => {
                    self.typed(&plan, v, |c, x| t.tables[c][usize::from(x)])
                }
                _ => self.convert(&plan, data, v, f32::from),
            },
            Data::Bool(v) | Data::U4(v) => self.convert(&plan, data, v, f32::from),
            Data::I8(v) | Data::I4(v) => self.convert(&plan, data, v, f32::from),
            Data::I16(v) => self.convert(&plan, data, v, f32::from),
            Data::U16(v) => self.convert(&plan, data, v, f32::from),
            #[expect(clippy::cast_precision_loss, reason = "rounds to nearest, as documented")]
            Data::I32(v) => self.convert(&plan, data, v, |x| x as f32),
            Data::F32(v) => self.convert(&plan, data, v, |x| x),
        }
    }

    fn convert<T: Copy>(
        &self,
        plan: &Plan,
        data: &Data,
        v: &[T],
        widen: impl Fn(T) -> f32,
    ) -> Result<Tensor, String> {
        if self.steps.is_empty() {
            let shape = self.shape.clone();
            match (data, self.dtype) {
                (Data::U8(v), DType::U8) => return Ok(Tensor::from_u8(shape, plan.run(v, |_, x| x))),
                (Data::I8(v), DType::I8) => return Ok(Tensor::from_i8(shape, plan.run(v, |_, x| x))),
                (Data::I32(v), DType::I32) => return Ok(Tensor::from_i32(shape, plan.run(v, |_, x| x))),
                (Data::Bool(v), DType::Bool) => return Ok(Tensor::from_bool(shape, plan.run(v, |_, x| x))),
                _ => {}
            }
        }
        self.typed(plan, v, |c, x| compute(&self.steps, c, widen(x)))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a cast from float saturates, as documented; NaN was refused"
    )]
    fn typed<T: Copy>(
        &self,
        plan: &Plan,
        v: &[T],
        value: impl Fn(usize, T) -> f32,
    ) -> Result<Tensor, String> {
        let shape = self.shape.clone();
        let floats = plan.run(v, value);
        if self.dtype != DType::F32 && floats.iter().any(|x| x.is_nan()) {
            return Err(format!("NaN cannot become {}", self.dtype));
        }
        let codes = floats.iter().map(|x| x.round_ties_even());
        Ok(match self.dtype {
            DType::F32 => Tensor::from_f32(shape, floats),
            DType::Bool => return Err("only a bool source gives a bool input".into()),
            dtype => {
                let (low, high) = dtype.limits().expect("an integer type");
                let codes: Vec<i32> = codes.map(|x| (x as i32).clamp(low, high)).collect();
                Tensor::from_codes(dtype, &shape, &codes).expect("they were clamped")
            }
        })
    }
}

struct Plan {
    arrange: Arrange,
    channels: Channels,
    c: usize,
}

impl Plan {
    /// Applies `value` to each element with its channel, in the graph's order.
    fn run<T: Copy, U>(&self, v: &[T], value: impl Fn(usize, T) -> U) -> Vec<U> {
        let c = self.c.max(1);
        let n = v.len() / c;
        let mut out = Vec::with_capacity(v.len());
        match (self.arrange, self.channels) {
            (Arrange::Keep, Channels::Last) => {
                out.extend(v.chunks_exact(c).flat_map(|p| p.iter().enumerate()).map(|(k, x)| value(k, *x)));
            }
            (Arrange::Keep, Channels::First) => {
                for k in 0..c {
                    out.extend(v[k * n..(k + 1) * n].iter().map(|x| value(k, *x)));
                }
            }
            (Arrange::LastToFirst, _) => {
                for k in 0..c {
                    out.extend(v.chunks_exact(c).map(|p| value(k, p[k])));
                }
            }
            (Arrange::FirstToLast, _) => {
                for i in 0..n {
                    out.extend((0..c).map(|k| value(k, v[k * n + i])));
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(channels: Channels, declared: bool, dtype: DType, shape: &[usize], steps: Vec<Step>) -> Values {
        Values { steps, channels, declared, dtype, shape: shape.to_vec(), tables: None }
    }

    #[test]
    fn steps_compute_in_f32_in_the_written_order() {
        // numpy: (np.float32(200) - np.float32(123.675)) / np.float32(58.395) * np.float32(0.3)
        let steps = [Step::Mean(vec![123.675]), Step::Std(vec![58.395]), Step::Scale(vec![0.3])];
        assert_eq!(compute(&steps, 0, 200.0).to_bits(), 0.392_114_04_f32.to_bits());
        let tables = ChannelTables::new(&steps, 2);
        assert_eq!(tables.tables()[1][200].to_bits(), 0.392_114_04_f32.to_bits());
    }

    #[test]
    fn every_arrangement_puts_each_element_where_it_belongs() {
        let last = Data::U8(vec![1, 2, 3, 4, 5, 6].into());
        let v = values(Channels::Last, true, DType::F32, &[3, 2], vec![Step::Mean(vec![0.0, 10.0, 20.0])]);
        assert_eq!(
            v.finish(&[2, 3], &last),
            Ok(Tensor::from_f32([3, 2], vec![1.0, 4.0, -8.0, -5.0, -17.0, -14.0]))
        );
        let v = values(Channels::Last, true, DType::F32, &[2, 3], vec![Step::Mean(vec![0.0, 10.0, 20.0])]);
        assert_eq!(
            v.finish(&[2, 3], &last),
            Ok(Tensor::from_f32([2, 3], vec![1.0, -8.0, -17.0, 4.0, -5.0, -14.0]))
        );
        let v = values(Channels::First, true, DType::U8, &[3, 2], vec![]);
        assert_eq!(v.finish(&[2, 3], &last), Ok(Tensor::from_u8([3, 2], vec![1, 4, 2, 5, 3, 6])));
        let v = values(Channels::First, false, DType::I32, &[2, 3], vec![Step::Scale(vec![1.0, 10.0])]);
        assert_eq!(v.finish(&[2, 3], &last), Ok(Tensor::from_i32([2, 3], vec![1, 2, 3, 40, 50, 60])));
        let e = v.finish(&[3, 2], &last).expect_err("another shape");
        assert!(e.contains("[3, 2]") && e.contains("[2, 3]"), "{e}");
    }

    #[test]
    fn integers_are_rounded_half_to_even_and_saturate() {
        let v = values(Channels::First, false, DType::U8, &[5], vec![Step::Scale(vec![1.0])]);
        let data = Data::F32(vec![0.5, 1.5, -3.0, 300.0, f32::INFINITY].into());
        assert_eq!(v.finish(&[5], &data), Ok(Tensor::from_u8([5], vec![0, 2, 0, 255, 255])));
        assert!(v.finish(&[5], &Data::F32(vec![f32::NAN; 5].into())).is_err());
    }

    #[test]
    fn a_list_of_numbers_fits_the_channels() {
        let v = values(Channels::First, false, DType::F32, &[3], vec![Step::Mean(vec![1.0, 2.0])]);
        let e = v.finish(&[3], &Data::F32(vec![0.0; 3].into())).expect_err("two for three");
        assert!(e.contains("mean has 2 numbers") && e.contains("3 channels"), "{e}");
    }
}
