//! `kl`: the threshold of magnitudes that loses the least information.

use super::mse::Mse;
use super::{Bin, Observer, ObserverDef, ObserverError, Summary, clip, ends};
use crate::quant::{Range, Scheme};
use crate::tensor::DType;

pub(super) static DEF: ObserverDef = ObserverDef {
    name: "kl",
    usage: "kl",
    about: "magnitudes up to where quantizing diverges least (Kullback-Leibler); mse for more than 8 bits",
    parse: |p| p.is_none().then(|| Box::new(Kl) as Box<dyn Observer>),
};

/// Bins of equal width into which magnitudes are sorted.
pub(super) const BINS: usize = 2048;

#[derive(Debug)]
struct Kl;

impl Observer for Kl {
    fn range(&self, summary: &Summary, dtype: DType, scheme: Scheme) -> Result<Range, ObserverError> {
        let whole = ends(summary)?;
        let params = scheme.per_tensor(whole, dtype)?;
        let (low, high) = params.codes();
        let codes = high.abs_diff(low) as usize + 1;
        if codes > 256 {
            return Mse.range(summary, dtype, scheme);
        }
        let absmax = f64::from(whole.absmax());
        if absmax == 0.0 {
            return Ok(whole);
        }
        // Codes for one sign: all of them where there is only one.
        let one_sided = scheme == Scheme::Asymmetric && (whole.low >= 0.0 || whole.high <= 0.0);
        let levels = if one_sided { codes } else { codes / 2 };
        let share = threshold(&uniform(&summary.magnitudes(), absmax), levels);
        Ok(clip(whole, absmax * share))
    }
}

/// Counts of [`BINS`] bins of equal width up to `absmax`. Zeros are left out: every quantizer keeps them.
pub(super) fn uniform(magnitudes: &[Bin], absmax: f64) -> Vec<f64> {
    #![allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "places among few bins"
    )]
    let mut out = vec![0.0; BINS];
    let unit = BINS as f64 / absmax;
    for b in magnitudes.iter().filter(|b| b.high > 0.0) {
        let (from, to) = (b.low * unit, b.high * unit);
        let (first, last) = ((from as usize).min(BINS - 1), (to as usize).min(BINS - 1));
        for (i, count) in out.iter_mut().enumerate().take(last + 1).skip(first) {
            let inside = to.min(i as f64 + 1.0) - from.max(i as f64);
            *count += if first == last { b.count } else { b.count * inside / (to - from) };
        }
    }
    out
}

/// The threshold as a share of the whole: the widest of those with the least divergence.
///
/// A threshold after `i` bins gives P, the counts before it with all that lies beyond added to the last of them, and
/// Q, the counts before it averaged over the bins of each of `levels` levels where P is not zero.
#[allow(clippy::cast_precision_loss, reason = "few bins")]
pub(super) fn threshold(counts: &[f64], levels: usize) -> f64 {
    let n = counts.len();
    let log_of = |p: f64| if p > 0.0 { p * p.ln() } else { 0.0 };
    let (mut mass, mut some, mut logs) = (vec![0.0], vec![0.0], vec![0.0]);
    for (i, c) in counts.iter().enumerate() {
        mass.push(mass[i] + c);
        some.push(some[i] + f64::from(u8::from(*c > 0.0)));
        logs.push(logs[i] + log_of(*c));
    }
    let total = mass[n];
    // sum p ln(p/total) - p ln(q/inside) over the bins of P, times total.
    let divergence = |i: usize| -> f64 {
        let (inside, last) = (mass[i], counts[i - 1]);
        let beyond = total - inside;
        let of_p = logs[i] - log_of(last) + log_of(last + beyond);
        let mut of_q = 0.0;
        for level in 0..levels {
            let (from, to) = (level * i / levels, (level + 1) * i / levels);
            let here = mass[to] - mass[from];
            let (mut p, mut bins) = (here, some[to] - some[from]);
            if to == i {
                p += beyond;
                bins += f64::from(u8::from(last <= 0.0 && beyond > 0.0));
            }
            if p <= 0.0 {
                continue;
            }
            if here <= 0.0 {
                return f64::INFINITY;
            }
            of_q += p * (here / bins).ln();
        }
        of_p - of_q + total * (inside / total).ln()
    };
    let mut least = (f64::INFINITY, n);
    for i in (levels..=n).rev() {
        let d = divergence(i);
        if d < least.0 {
            least = (d, i);
        }
    }
    least.1 as f64 / n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::sample::Rng;

    /// The definition, bin by bin.
    fn naive(counts: &[f64], levels: usize) -> f64 {
        let mut least = (f64::INFINITY, counts.len());
        for i in (levels..=counts.len()).rev() {
            let mut p = counts[..i].to_vec();
            p[i - 1] += counts[i..].iter().sum::<f64>();
            let mut q = vec![0.0; i];
            for level in 0..levels {
                let places = level * i / levels..(level + 1) * i / levels;
                let bins = places.clone().filter(|j| p[*j] > 0.0).count() as f64;
                let here: f64 = counts[places.clone()].iter().sum();
                places.filter(|j| p[*j] > 0.0).for_each(|j| q[j] = here / bins);
            }
            let (of_p, of_q): (f64, f64) = (p.iter().sum(), q.iter().sum());
            let d: f64 = (0..i)
                .filter(|j| p[*j] > 0.0)
                .map(|j| p[j] / of_p * ((p[j] / of_p) / (q[j] / of_q)).ln())
                .sum();
            if d < least.0 {
                least = (d, i);
            }
        }
        least.1 as f64 / counts.len() as f64
    }

    #[test]
    fn prefix_sums_give_the_threshold_of_the_definition() {
        let mut rng = Rng::new(1);
        for (bins, levels) in [(300, 8), (257, 16), (400, 128)] {
            for holes in [0.0, 0.3, 0.9] {
                let decay = rng.float(0.002, 0.05);
                let counts: Vec<f64> = (0..bins)
                    .map(|i| {
                        let hole = rng.float(0.0, 1.0) < holes;
                        let count =
                            f64::from(rng.float(0.5, 1.5)) * 1e4 * (-f64::from(decay) * f64::from(i)).exp();
                        if hole { 0.0 } else { count.ceil() }
                    })
                    .collect();
                assert_eq!(
                    threshold(&counts, levels),
                    naive(&counts, levels),
                    "{bins} bins, {levels} levels"
                );
            }
        }
    }

    #[test]
    fn counts_are_spread_over_the_uniform_bins() {
        let bins = [
            Bin { low: 0.0, high: 0.0, count: 9.0 },
            Bin { low: 0.0, high: 0.5, count: 1024.0 },
            Bin { low: 0.5, high: 0.75, count: 3.0 },
            Bin { low: 1.0, high: 1.0, count: 2.0 },
        ];
        let all = uniform(&bins, 1.0);
        assert!(all[..1024].iter().all(|c| (c - 1.0).abs() < 1e-9));
        assert!((all.iter().sum::<f64>() - 1029.0).abs() < 1e-9);
        assert_eq!(all[BINS - 1], 2.0);
    }
}
