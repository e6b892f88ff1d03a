//! Every observer finds in a summary what it would find in the numbers themselves, on distributions of several shapes
//! and on activations of the example models.

mod support;

use libtest_mimic::Arguments;
use samebit::data::Array;
use samebit::exec::CpuExecutor;
use samebit::graph::ValueId;
use samebit::graph::sample::Rng;
use samebit::observers::{OBSERVERS, ObserverError, Summary, channel_ranges, parse};
use samebit::onnx::{ImportOptions, load_model};
use samebit::quant::{Range, Scheme};
use samebit::tensor::{DType, Tensor};
use support::{shared, trial};

/// Models with the number of frames that goes through them.
const MODELS: [(&str, usize); 2] = [("resnet8_cifar10", 80), ("vit_cifar10", 40)];

fn main() {
    let absent = MODELS.iter().any(|(m, _)| shared(&format!("data/models/{m}.onnx")).is_none());
    let trials = vec![
        trial("ranges_of_random_numbers_are_those_of_the_numbers", false, random_numbers),
        trial("ranges_of_activations_are_those_of_the_numbers", absent, activations),
        trial("ranges_of_few_numbers_are_usable", false, few_numbers),
        trial("nothing_observed_is_an_error", false, nothing),
        trial("texts_are_read_or_refused_with_the_usage", false, texts),
        trial("channels_have_ranges_of_their_own", false, channels),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

const KINDS: [(DType, Scheme); 5] = [
    (DType::I8, Scheme::Symmetric),
    (DType::I8, Scheme::SymmetricNarrow),
    (DType::U8, Scheme::Asymmetric),
    (DType::I4, Scheme::Symmetric),
    (DType::I16, Scheme::Symmetric),
];

/// Observers whose range follows from a few of the numbers, or from a mean.
const DIRECT: [&str; 7] =
    ["minmax", "percentile", "percentile=99", "percentile=50", "clip_std", "norm=4", "norm=3,2.5"];
/// Observers that minimise something over all numbers.
const MINIMISING: [&str; 3] = ["mse", "kl", "mix"];

/// Numbers sorted by magnitude and by value, with their ends.
struct Exact {
    x: Vec<f32>,
    ascending: Vec<f32>,
    /// Sums of the ascending numbers and of their squares, up to each place.
    powers: Vec<[f64; 2]>,
    whole: Range,
}

impl Exact {
    fn new(x: &[f32]) -> Exact {
        let mut x = x.to_vec();
        x.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
        let low = x.iter().copied().fold(f32::INFINITY, f32::min);
        let high = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut ascending = x.clone();
        ascending.sort_by(f32::total_cmp);
        let mut powers = vec![[0.0; 2]];
        for v in ascending.iter().map(|v| f64::from(*v)) {
            let [one, two] = *powers.last().expect("the first");
            powers.push([one + v, two + v * v]);
        }
        Exact { x, ascending, powers, whole: Range::new(low, high).expect("numbers") }
    }

    fn clip(&self, t: f64) -> Range {
        let t = t as f32;
        Range { low: self.whole.low.clamp(-t, t), high: self.whole.high.clamp(-t, t) }
    }

    fn mean(&self, f: impl Fn(f64) -> f64) -> f64 {
        self.x.iter().map(|x| f(f64::from(*x))).sum::<f64>() / self.x.len() as f64
    }

    fn percentile(&self, p: f64) -> f64 {
        let at = p / 100.0 * (self.x.len() - 1) as f64;
        let number = |i: f64| f64::from(self.x[i as usize].abs());
        number(at.floor()) + (number(at.ceil()) - number(at.floor())) * (at - at.floor())
    }

    fn squared_error(&self, range: Range, (dtype, scheme): (DType, Scheme)) -> f64 {
        let params = scheme.per_tensor(range, dtype).expect("a range");
        let (step, (low, high)) = (params.step(0), params.codes());
        if high - low > 255 {
            return self.mean(|x| (x - f64::from(step.fake_quantize(x as f32))).powi(2));
        }
        // Numbers of one code are neighbours.
        let mut from = 0;
        let mut sum = 0.0;
        for code in low..=high {
            let next = (code < high).then(|| step.threshold(code + 1)).flatten();
            let to = next.map_or(self.ascending.len(), |t| self.ascending.partition_point(|x| *x < t));
            let v = f64::from(step.dequantize(code));
            let [one, two] = [0, 1].map(|m| self.powers[to][m] - self.powers[from][m]);
            sum += two - 2.0 * v * one + v * v * (to - from) as f64;
            from = to;
        }
        sum / self.x.len() as f64
    }

    /// Divergence of the numbers from what is left of them in `i` of 2048 bins. A level that only numbers beyond the last
    /// bin have is taken for half a number: it would be infinite.
    fn divergence(&self, counts: &[f64], i: usize, levels: usize) -> f64 {
        let mut p = counts[..i].to_vec();
        p[i - 1] += counts[i..].iter().sum::<f64>();
        let mut q = vec![0.0; i];
        for level in 0..levels {
            let bins = level * i / levels..(level + 1) * i / levels;
            let some = bins.clone().filter(|j| p[*j] > 0.0).count() as f64;
            let here = counts[bins.clone()].iter().sum::<f64>().max(0.5);
            bins.filter(|j| p[*j] > 0.0).for_each(|j| q[j] = here / some);
        }
        let (of_p, of_q): (f64, f64) = (p.iter().sum(), q.iter().sum());
        let some = (0..i).filter(|j| p[*j] > 0.0);
        some.map(|j| p[j] / of_p * (p[j] / of_p / (q[j] / of_q)).ln()).sum()
    }

    fn histogram(&self) -> Vec<f64> {
        let mut counts = vec![0.0; 2048];
        let absmax = f64::from(self.whole.absmax());
        for x in self.x.iter().filter(|x| **x != 0.0) {
            counts[((f64::from(x.abs()) / absmax * 2048.0) as usize).min(2047)] += 1.0;
        }
        counts
    }

    fn levels(&self, (dtype, scheme): (DType, Scheme)) -> usize {
        let (low, high) = scheme.per_tensor(self.whole, dtype).expect("a range").codes();
        let codes = high.abs_diff(low) as usize + 1;
        let one_sided = scheme == Scheme::Asymmetric && self.whole.low * self.whole.high >= 0.0;
        if one_sided { codes } else { codes / 2 }
    }
}

/// Whether a range found in a summary is what the numbers say: within 1 %, or, for observers that minimise something,
/// as good: numbers decide between neighbouring ranges by chance where their squared errors are within 1 %. A divergence
/// depends on each of 2048 counts; there it is 5 %, and what chance explains.
fn judge(text: &str, exact: &Exact, got: Range, kind: (DType, Scheme)) -> Result<(), String> {
    let whole = exact.whole;
    let near = |want: Range| {
        let room = 0.01 * want.absmax();
        let close = |a: f32, b: f32| (a - b).abs() <= room;
        if close(got.low, want.low) && close(got.high, want.high) {
            return Ok(());
        }
        Err(format!("{text} {kind:?}: {got:?}, the numbers say {want:?}"))
    };
    let least_error = |ranges: &[Range]| {
        let errors: Vec<f64> = ranges.iter().map(|r| exact.squared_error(*r, kind)).collect();
        let best = (0..ranges.len()).min_by(|a, b| errors[*a].total_cmp(&errors[*b])).expect("some");
        near(ranges[best]).or_else(|e| {
            let mine = exact.squared_error(got, kind);
            let good = mine <= 1.01 * errors[best];
            if good { Ok(()) } else { Err(format!("{e}: error {mine:e}, possible {:e}", errors[best])) }
        })
    };
    let shrunk = || -> Vec<Range> {
        (6..=100u8)
            .rev()
            .map(|f| {
                let f = f32::from(f) / 100.0;
                Range { low: whole.low * f, high: whole.high * f }
            })
            .collect()
    };
    match text {
        "minmax" if got == whole => Ok(()),
        "minmax" => Err(format!("{got:?} is not {whole:?}")),
        "percentile" => near(exact.clip(exact.percentile(99.99))),
        "percentile=99" => near(exact.clip(exact.percentile(99.0))),
        "percentile=50" => near(exact.clip(exact.percentile(50.0))),
        "mse" => least_error(&shrunk()),
        "kl" if kind.0 == DType::I16 => least_error(&shrunk()),
        "mix" => {
            let all = [99.9, 99.95, 99.99, 99.993, 99.995, 99.997, 99.999, 99.9995, 99.9999];
            least_error(&all.map(|p| exact.clip(exact.percentile(p))))
        }
        "kl" if whole.absmax() == 0.0 => near(whole),
        "kl" => {
            let (counts, levels) = (exact.histogram(), exact.levels(kind));
            let of = |i: usize| exact.divergence(&counts, i, levels);
            let (least, best) = (levels..=2048)
                .rev()
                .map(|i| (of(i), i))
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .expect("candidates");
            let absmax = f64::from(whole.absmax());
            near(exact.clip(absmax * best as f64 / 2048.0)).or_else(|e| {
                let i = (f64::from(got.absmax()) / absmax * 2048.0).round_ties_even() as usize;
                let mine = of(i);
                // 2N times the divergence of N numbers from what they are drawn from has about 2048 degrees of freedom;
                // three of its standard deviations.
                let chance = 3.0 * 4096f64.sqrt() / (2.0 * exact.x.len() as f64);
                let good = mine <= 1.05 * least + chance;
                if good { Ok(()) } else { Err(format!("{e}: divergence {mine:e}, possible {least:e}")) }
            })
        }
        "clip_std" => {
            let mean = exact.mean(|x| x);
            let around = 3.0 * exact.mean(|x| (x - mean).powi(2)).sqrt();
            let within = |x: f64| (x as f32).clamp(whole.low, whole.high);
            near(Range { low: within(mean - around), high: within(mean + around) })
        }
        "norm=4" | "norm=3,2.5" => {
            let (p, k) = if text == "norm=4" { (2.0, 4.0) } else { (3.0, 2.5) };
            let absmax = (k * exact.mean(|x| x.abs().powf(p)).powf(1.0 / p)) as f32;
            let low = if whole.low < 0.0 { -absmax } else { 0.0 };
            near(Range { low, high: if whole.high > 0.0 { absmax } else { 0.0 } })
        }
        other => Err(format!("no oracle for {other}")),
    }
}

/// What any quantizer must be able to do with a range.
fn usable(text: &str, range: Range, (dtype, scheme): (DType, Scheme)) -> Result<(), String> {
    let q = scheme.per_tensor(range, dtype).map_err(|e| e.to_string())?;
    let good = q.scales()[0].is_finite() && q.scales()[0] > 0.0 && q.step(0).fake_quantize(0.0) == 0.0;
    if good { Ok(()) } else { Err(format!("{text}: {range:?} gives {q:?}")) }
}

fn findings(what: &str, x: &[f32], texts: &[&str]) -> Vec<String> {
    let mut summary = Summary::new();
    summary.observe(x, &[x.len()]);
    let exact = Exact::new(x);
    let mut out = Vec::new();
    for text in texts {
        for kind in KINDS {
            let got = parse(text).expect("reads").range(&summary, kind.0, kind.1).expect("numbers");
            let found = judge(text, &exact, got, kind).and_then(|()| usable(text, got, kind));
            out.extend(found.err().map(|e| format!("{what}: {e}")));
        }
    }
    out
}

fn report(all: &[String]) {
    assert!(all.is_empty(), "{} findings:\n{}", all.len(), all.join("\n"));
}

fn normal(rng: &mut Rng) -> f32 {
    // Box and Muller.
    let (u, v) = (rng.float(1e-7, 1.0), rng.float(0.0, std::f32::consts::TAU));
    (-2.0 * u.ln()).sqrt() * v.cos()
}

fn random_numbers() {
    let mut rng = Rng::new(5);
    let laplace = |rng: &mut Rng| {
        let u = rng.float(-0.4999, 0.4999);
        -u.signum() * (1.0 - 2.0 * u.abs()).ln()
    };
    type Draw<'a> = &'a dyn Fn(&mut Rng) -> f32;
    let shapes: [(&str, Draw<'_>); 9] = [
        ("normal", &normal),
        ("normal around 3", &|r| normal(r) * 0.2 + 3.0),
        ("negative", &|r| -normal(r).abs() - 0.01),
        ("laplace", &laplace),
        ("relu", &|r| normal(r).max(0.0)),
        ("uniform", &|r| r.float(-3.0, 1.0)),
        ("outliers", &|r| if r.int(0, 4999) == 0 { r.float(-90.0, 90.0) } else { normal(r) }),
        ("codes", &|r| r.int(0, 255) as f32 / 255.0),
        ("two values", &|r| if r.int(0, 9999) == 0 { 7.0 } else { 1.0 }),
    ];
    let mut all = Vec::new();
    for (what, draw) in shapes {
        for n in [3000, 40_000] {
            let x: Vec<f32> = (0..n).map(|_| draw(&mut rng)).collect();
            all.extend(findings(&format!("{n} numbers, {what}"), &x, &DIRECT));
        }
    }
    // What numbers cost depends on where each of them lies between two codes: only of many numbers, and such as are
    // spread between the codes, can a histogram know it.
    for (what, draw) in &shapes[..7] {
        let x: Vec<f32> = (0..MANY).map(|_| draw(&mut rng)).collect();
        all.extend(findings(&format!("{MANY} numbers, {what}"), &x, &MINIMISING));
    }
    report(&all);
}

const MANY: usize = 300_000;

/// The first frames of the CIFAR-10 calibration images, as the models take them.
fn images(count: usize) -> Tensor {
    let file = Array::open(&shared("data/cifar10/calib_x.npy").expect("checked")).and_then(|a| a.read());
    let file = file.expect("reads");
    let x: Vec<f32> = file.bytes().iter().map(|b| f32::from(*b)).collect();
    let mut out = Vec::new();
    for frame in x.chunks(32 * 32 * 3).take(count) {
        (0..3).for_each(|c| out.extend(frame.iter().skip(c).step_by(3)));
    }
    Tensor::from_f32([count, 3, 32, 32], out)
}

fn activations() {
    let mut all = Vec::new();
    for (model, frames) in MODELS {
        let path = shared(&format!("data/models/{model}.onnx")).expect("checked");
        let graph = load_model(&path, &ImportOptions::default()).expect("loads");
        let graph = graph.at_batch(frames).expect("few frames");
        let floats = |v: &ValueId| graph.value(*v).ty.dtype == DType::F32;
        let outputs: Vec<ValueId> =
            graph.nodes().iter().flat_map(|n| n.outputs.clone()).filter(floats).collect();
        // Spread over the depth of the model.
        let taps: Vec<ValueId> = outputs.iter().copied().step_by(outputs.len().div_ceil(4)).collect();
        let trace = CpuExecutor::new(graph.clone()).run(&[images(frames)], &taps).expect("runs");
        for v in taps {
            let x = trace.values[&v].f32s();
            let what = format!("{model}, {} of {} numbers", graph.value(v).name, x.len());
            all.extend(findings(&what, x, &DIRECT));
            if x.len() > MANY {
                all.extend(findings(&what, x, &MINIMISING));
            }
        }
    }
    report(&all);
}

fn few_numbers() {
    let mut all = Vec::new();
    for x in
        [vec![0.0; 100], vec![2.5; 100], vec![-1e-3; 7], vec![3.0], vec![-0.0], vec![1e30], vec![1e-44, 0.0]]
    {
        let mut summary = Summary::new();
        summary.observe(&x, &[x.len()]);
        for text in DIRECT.iter().chain(&MINIMISING).chain(&["fixed=-1..1"]) {
            for kind in KINDS {
                let range = parse(text).expect("reads").range(&summary, kind.0, kind.1).expect("numbers");
                all.extend(usable(text, range, kind).err().map(|e| format!("{x:?}: {e}")));
                let exact = ["minmax", "percentile", "percentile=50"].contains(text) && x.len() != 2;
                if exact && (range.absmax() != x[0].abs()) {
                    all.push(format!("{x:?}: {text}: {range:?}"));
                }
            }
        }
    }
    report(&all);
}

fn nothing() {
    let mut no_number = Summary::new();
    no_number.observe(&[f32::NAN, f32::INFINITY], &[2]);
    for text in DIRECT.iter().chain(&MINIMISING) {
        let observer = parse(text).expect("reads");
        let of = |s: &Summary| observer.range(s, DType::I8, Scheme::Symmetric).expect_err("nothing to go by");
        assert_eq!(of(&Summary::new()), ObserverError::Empty, "{text}");
        assert_eq!(of(&no_number), ObserverError::NoNumbers { elements: 2 }, "{text}");
    }
}

fn texts() {
    for def in OBSERVERS {
        assert!(def.usage.starts_with(def.name), "{}", def.usage);
        let error = parse(&format!("{}=nonsense", def.name)).expect_err("nonsense").to_string();
        assert!(error.contains(def.usage), "{error}");
    }
    let names: Vec<&str> = OBSERVERS.iter().map(|d| d.name).collect();
    assert!(names.is_sorted() && names.contains(&samebit::observers::DEFAULT));
    for bad in [
        "percentile=49",
        "percentile=101",
        "norm",
        "norm=0.5,2",
        "norm=nan",
        "fixed=1",
        "fixed=2..1",
        "fixed",
    ] {
        assert!(matches!(parse(bad), Err(ObserverError::Parameters { .. })), "{bad}");
    }
    let error = parse("median").expect_err("none").to_string();
    assert!(error.contains("\"median\"") && error.contains("percentile[=P]"), "{error}");
    let fixed = parse("fixed = -0.5 .. 2").expect("reads");
    let range = fixed.range(&Summary::new(), DType::I8, Scheme::Symmetric).expect("given");
    assert_eq!(range, Range { low: -0.5, high: 2.0 });
}

fn channels() {
    let x = Tensor::from_f32([2, 3, 2], vec![1.0, -2.0, 3.0, 4.0, 0.0, 0.0, 5.0, 6.0, -7.0, 8.0, 0.5, -0.5]);
    let of = |axis| channel_ranges(&*parse("minmax").expect("reads"), &x, axis, DType::I8, Scheme::Symmetric);
    let range = |low, high| Range { low, high };
    assert_eq!(of(0), Ok(vec![range(-2.0, 4.0), range(-7.0, 8.0)]));
    assert_eq!(of(1), Ok(vec![range(-2.0, 6.0), range(-7.0, 8.0), range(-0.5, 0.5)]));
    assert_eq!(of(2), Ok(vec![range(-7.0, 5.0), range(-2.0, 8.0)]));
    assert!(matches!(of(3), Err(ObserverError::Channels { axis: 3, .. })));
}
