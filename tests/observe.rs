//! Statistics while a graph runs: on the CPU and on a device, in any batch and layout, the same bits.

mod support;

use libtest_mimic::Arguments;
use samebit::exec::{Engine, ExecError, Frames, Plan, Watch};
use samebit::gpu::{Device, Limits};
use samebit::graph::attrs::Input;
use samebit::graph::sample::{Rng, SampleInput};
use samebit::graph::{Attrs, Graph, Reader, Source, ValueId};
use samebit::observers::{FrameStats, Summary, plane};
use samebit::onnx::{ImportOptions, load_model};
use samebit::tensor::{DType, Dim, Tensor, TensorType};
use std::sync::Arc;
use support::{gpu, shared, trial};

const N: Dim = Dim::Batch(1);
const MODEL: &str = "data/models/resnet8_cifar10.onnx";

fn main() {
    let no_gpu = gpu().is_none();
    let no_model = shared(MODEL).is_none();
    let trials = vec![
        trial("inputs_have_the_statistics_of_the_cpu", no_gpu, inputs),
        trial("channels_last_tensors_have_the_statistics_of_the_cpu", no_gpu, channels_last),
        trial("special_numbers_are_counted_alike", no_gpu, special),
        trial("frames_lie_along_any_axis_or_none", false, axes),
        trial("a_bad_frame_is_told_with_its_value", false, bad_frame),
        trial("a_model_is_observed_as_its_taps_say", no_model, model),
        trial("what_joins_others_is_observed_as_its_own_numbers_say", false, joined),
        trial("what_cannot_be_observed_is_refused", false, refused),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn devices() -> Vec<Device> {
    [Device::Cpu].into_iter().chain(gpu().map(|g| Device::Gpu(Arc::clone(&g)))).collect()
}

fn add(g: &mut Graph, op: &str, attrs: Attrs, inputs: &[ValueId]) -> ValueId {
    let typed = inputs.iter().map(|v| Some(Input { ty: g.value(*v).ty.clone(), known: None }));
    let mut r = Reader::new(Source::Graph, op, attrs, typed.collect(), 1);
    let op = (samebit::ops::by_name(op).expect("an operator").read)(&mut r).expect("reads");
    let name = format!("node{}", g.nodes().len());
    g.add_node(name.clone(), None, op, inputs, &[format!("{name}.out")]).expect("fits")[0]
}

fn input(shape: &[Dim]) -> (Graph, ValueId) {
    let mut g = Graph::new("test");
    let x = g.add_input("x", TensorType::new(DType::F32, shape.iter().copied()));
    g.outputs = vec![x];
    (g, x)
}

/// Frames and summary of one watched value.
fn observe(
    g: &Graph,
    device: &Device,
    most: usize,
    v: ValueId,
    calls: &[&[Tensor]],
) -> (Vec<FrameStats>, Summary) {
    let mut engine = Engine::new(g.clone(), device).with_batch(most);
    engine.watch(&[v]).expect("can be watched");
    let mut frames = Vec::new();
    for inputs in calls {
        frames.extend(engine.observe(inputs).expect("runs").frames.remove(0));
    }
    (frames, engine.summaries().expect("collected")[0].clone())
}

/// What frames that lie one behind the other give.
fn expected(frames: &[Vec<f32>], shape: &[usize]) -> (Vec<FrameStats>, Summary) {
    let mut summary = Summary::new();
    let stats = frames.iter().map(|f| summary.observe(f, shape)).collect();
    (stats, summary)
}

fn frames_of(x: &Tensor, n: usize) -> Vec<Vec<f32>> {
    x.f32s().chunks((x.len() / n).max(1)).map(<[f32]>::to_vec).collect()
}

fn inputs() {
    let mut rng = Rng::new(1);
    let shapes: [&[usize]; 8] =
        [&[1], &[3, 5, 7], &[65], &[10, 1, 1], &[5, 13, 13], &[64, 8, 8], &[257, 3], &[2, 4099]];
    for shape in shapes {
        let dims: Vec<Dim> = [N].into_iter().chain(shape.iter().map(|d| Dim::Fixed(*d))).collect();
        let (g, x) = input(&dims);
        for n in [1, 7, 64] {
            let with_n: Vec<usize> = [n].iter().chain(shape).copied().collect();
            let t = SampleInput::f32(with_n.clone()).draw(&mut rng);
            let of_frame: Vec<usize> = [1].iter().chain(shape).copied().collect();
            let want = expected(&frames_of(&t, n), &of_frame);
            for device in devices() {
                for most in [64, 5] {
                    let got = observe(&g, &device, most, x, &[std::slice::from_ref(&t)]);
                    assert_eq!(got, want, "{with_n:?} at most {most} at once on {device}");
                }
            }
        }
    }
}

/// A value of these channels and sizes that lies with its channels last, equal to the input.
fn last(c: usize, sizes: &[usize]) -> (Graph, ValueId) {
    let dims: Vec<Dim> = [N, Dim::Fixed(c)].into_iter().chain(sizes.iter().map(|d| Dim::Fixed(*d))).collect();
    let (mut g, x) = input(&dims);
    let mut ones = vec![1; dims.len()];
    ones[0] = c;
    let w = g.add_constant("w", Tensor::from_f32(ones, vec![1.0; c]));
    let y = add(&mut g, "Conv", Attrs::new().int("group", i64::try_from(c).expect("few")), &[x, w]);
    g.outputs = vec![y];
    (g, y)
}

fn channels_last() {
    let mut rng = Rng::new(2);
    for (c, h, w) in [(1, 9, 9), (3, 5, 7), (4, 8, 8), (6, 1, 1), (13, 11, 10), (32, 30, 3)] {
        let (g, y) = last(c, &[h, w]);
        let of = |n| Watch {
            value: y,
            frames: Frames::of(&g.value(y).ty, n, true).expect("small"),
            parts: vec![],
        };
        let plan =
            Plan::observing(&g.at_batch(7).expect("holds"), &[of(7)], &Limits::default()).expect("plans");
        let kernels: Vec<&str> = plan.segments[0].steps.iter().map(|s| s.kernel.name).collect();
        assert_eq!(kernels[kernels.len() - 2..], ["observe", "observe_frame"], "the value is copied first");
        for n in [1, 7, 64] {
            let t = SampleInput::f32([n, c, h, w]).draw(&mut rng);
            let want = expected(&frames_of(&t, n), &[1, c, h, w]);
            for device in devices() {
                let got = observe(&g, &device, 64, y, &[std::slice::from_ref(&t)]);
                assert_eq!(got, want, "{:?} on {device}", t.shape());
            }
        }
    }
}

fn special() {
    let (g, x) = input(&[N, Dim::Fixed(211)]);
    let mut rng = Rng::new(3);
    let mut special: Vec<f32> = (0..211 * 40).map(|_| f32::from_bits(rng.bits() as u32)).collect();
    let named = [
        f32::NAN,
        -f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        1e-45,
        -1e-45,
        f32::MIN_POSITIVE,
        2f32.powi(-40),
        2f32.powi(-40).next_down(),
        2f32.powi(24),
        2f32.powi(24).next_down(),
        2f32.powi(48).next_down(),
        -f32::MAX,
    ];
    special[..named.len()].copy_from_slice(&named);
    // Frames whose numbers all count in moments, of all magnitudes: any other rounding would show.
    for v in &mut special[211 * 20..] {
        *v = rng.float(-1.0, 1.0) * rng.float(-39.0, 47.0).exp2();
    }
    // Frames of one kind of number.
    for (i, v) in [f32::NAN, 0.0, -0.0, f32::INFINITY, 1e-45].into_iter().enumerate() {
        special[211 * (2 + i)..211 * (3 + i)].fill(v);
    }
    let t = Tensor::from_f32([40, 211], special);
    let want = expected(&frames_of(&t, 40), &[1, 211]);
    assert!(want.1.mean().is_infinite() && want.0[30].squares.is_finite());
    for device in devices() {
        for most in [64, 7] {
            assert_eq!(observe(&g, &device, most, x, &[std::slice::from_ref(&t)]).0, want.0, "{device}");
            let halves =
                [0, 1].map(|h| Tensor::from_f32([20, 211], t.f32s()[h * 20 * 211..][..20 * 211].to_vec()));
            let calls = [&halves[1..], &halves[..1]];
            assert_eq!(observe(&g, &device, most, x, &calls).1, want.1, "{device}, the second half first");
        }
    }
}

fn axes() {
    let mut rng = Rng::new(4);
    let f = Dim::Fixed;
    // The axis of frames, and what a frame is then.
    for (dims, axis, k) in [
        (vec![f(2), N, f(3)], 1, 1),
        (vec![f(70), N], 1, 1),
        (vec![f(2), f(3), N, f(70)], 2, 1),
        (vec![f(3), f(2), f(4), Dim::Batch(2)], 3, 2),
        (vec![Dim::Batch(3), f(5)], 0, 3),
        (vec![Dim::Batch(2), f(3), f(9), f(8)], 0, 2),
    ] {
        let (g, x) = input(&dims);
        let n = 6;
        let shape: Vec<usize> = dims.iter().map(|d| d.at(n).expect("small")).collect();
        let t = SampleInput::f32(shape.clone()).draw(&mut rng);
        let inner: usize = shape[axis + 1..].iter().product();
        let frames: Vec<Vec<f32>> = (0..n)
            .map(|i| {
                let rows = t.f32s().chunks(shape[axis] * inner);
                rows.flat_map(|r| r[i * k * inner..(i + 1) * k * inner].to_vec()).collect()
            })
            .collect();
        let mut of_frame = shape.clone();
        of_frame[axis] = k;
        let want = expected(&frames, &of_frame);
        for device in devices() {
            for most in [64, 4] {
                let got = observe(&g, &device, most, x, &[std::slice::from_ref(&t)]);
                assert_eq!(got, want, "{dims:?} at most {most} at once on {device}");
            }
        }
    }
    // A value that is the same for all frames counts once for each of them.
    let (mut g, x) = input(&[N, f(4)]);
    let fixed = g.add_input("fixed", TensorType::new(DType::F32, [3, 4]));
    let y = add(&mut g, "Relu", Attrs::new(), &[fixed]);
    g.outputs = vec![x, y];
    let inputs = [[5, 4], [3, 4]].map(|s| SampleInput::f32(s).draw(&mut rng));
    let relu: Vec<f32> = inputs[1].f32s().iter().map(|v| v.max(0.0)).collect();
    let want = expected(&vec![relu; 5], &[3, 4]);
    for device in devices() {
        for most in [64, 2] {
            assert_eq!(observe(&g, &device, most, y, &[&inputs]), want, "at most {most} at once on {device}");
        }
    }
    // A graph without a batch has one frame; a tensor of no elements has statistics of none.
    for (dims, n) in [(vec![f(3), f(4), f(5), f(6)], 1), (vec![f(0), f(5)], 1), (vec![], 1)] {
        let (g, x) = input(&dims);
        let shape: Vec<usize> = dims.iter().map(|d| d.at(n).expect("small")).collect();
        let t = SampleInput::f32(shape.clone()).draw(&mut rng);
        let want = expected(&[t.f32s().to_vec()], &shape);
        for device in devices() {
            assert_eq!(
                observe(&g, &device, 64, x, &[std::slice::from_ref(&t)]),
                want,
                "{dims:?} on {device}"
            );
        }
    }
}

fn bad_frame() {
    let (mut g, x) = input(&[N, Dim::Fixed(3), Dim::Fixed(4)]);
    let y = add(&mut g, "Log", Attrs::new(), &[x]);
    g.outputs = vec![y];
    let mut numbers = vec![1.5f32; 9 * 12];
    numbers[5 * 12 + 7] = -1.0;
    let t = Tensor::from_f32([9, 3, 4], numbers);
    for device in devices() {
        let mut engine = Engine::new(g.clone(), &device).with_batch(4);
        engine.watch(&[x, y]).expect("can be watched");
        let observed = engine.observe(std::slice::from_ref(&t)).expect("runs");
        assert_eq!(observed.dispatches > 0, matches!(device, Device::Gpu(_)));
        let bad: Vec<(usize, usize)> = (0..9)
            .flat_map(|f| [(f, 0), (f, 1)])
            .filter(|(f, v)| observed.frames[*v][*f].nans + observed.frames[*v][*f].infinities > 0)
            .collect();
        assert_eq!(bad, [(5, 1)], "{device}");
        assert_eq!(engine.summaries().expect("collected")[1].nans(), 1);
    }
}

/// Every value of a model: on the CPU what its tensors say, on a device what that device's tensors say.
fn model() {
    let graph = load_model(&shared(MODEL).expect("checked"), &ImportOptions::default()).expect("loads");
    let floats = |v: &ValueId| graph.value(*v).ty.dtype == DType::F32;
    let produced = graph.nodes().iter().flat_map(|n| n.outputs.iter()).chain(&graph.inputs);
    let watched: Vec<ValueId> = produced.copied().filter(floats).collect();
    let shape: Vec<usize> =
        graph.value(graph.inputs[0]).ty.shape.iter().map(|d| d.at(5).expect("small")).collect();
    let t = SampleInput::f32(shape).draw(&mut Rng::new(5));
    for device in devices() {
        let mut engine = Engine::new(graph.clone(), &device).with_batch(2);
        let trace = engine.run(std::slice::from_ref(&t), &watched).expect("runs");
        engine.watch(&watched).expect("can be watched");
        engine.observe(std::slice::from_ref(&t)).expect("runs");
        for (v, got) in watched.iter().zip(engine.summaries().expect("collected")) {
            let x = &trace.values[v];
            let mut of_frame = x.shape().to_vec();
            of_frame[0] /= 5;
            let mut want = Summary::new();
            want.observe_frames(x.f32s(), 5, plane(&of_frame));
            assert_eq!(*got, want, "{} on {device}", graph.value(*v).name);
        }
    }
}

/// `Concat` of values that are watched, too, along several axes, of several types; one of it; with numbers that are none.
fn joined() {
    let f = Dim::Fixed;
    let mut rng = Rng::new(6);
    for (shapes, axis) in [
        (vec![vec![N, f(3), f(5), f(7)], vec![N, f(66), f(5), f(7)]], 1),
        (vec![vec![N, f(70), f(9)], vec![N, f(0), f(9)], vec![N, f(1), f(9)]], 1),
        (vec![vec![N, f(2), f(200), f(90)], vec![N, f(1), f(200), f(90)]], 1),
        (vec![vec![N, f(3), f(5)], vec![N, f(3), f(2)]], 2),
        (vec![vec![N, f(65)], vec![N, f(3)]], 1),
        (vec![vec![Dim::Batch(2), f(3), f(5)], vec![Dim::Batch(2), f(1), f(5)]], 1),
        (vec![vec![f(2), N, f(3)], vec![f(2), N, f(3)]], 0),
        (vec![vec![f(1), f(3), f(130)], vec![f(1), f(2), f(130)]], 1),
        (vec![vec![f(4), f(3), f(5)], vec![f(4), f(2), f(5)]], 1),
    ] {
        let mut g = Graph::new("test");
        let input = |(i, s): (usize, &Vec<Dim>)| {
            g.add_input(format!("x{i}"), TensorType::new(DType::F32, s.iter().copied()))
        };
        let inputs: Vec<ValueId> = shapes.iter().enumerate().map(input).collect();
        let along = Attrs::new().int("axis", axis);
        let one = add(&mut g, "Concat", along.clone(), &inputs);
        // Of a joined value, of one twice, and of one that nobody watches.
        let two = add(&mut g, "Concat", along.clone(), &[inputs[0], one, inputs[0]]);
        let other = add(&mut g, "Neg", Attrs::new(), &inputs[..1]);
        let three = add(&mut g, "Concat", along, &[two, other]);
        g.outputs = vec![three];
        let n = 6;
        let tensors: Vec<Tensor> = shapes
            .iter()
            .map(|s| {
                let s: Vec<usize> = s.iter().map(|d| d.at(n).expect("small")).collect();
                let mut x = SampleInput::f32(s.clone()).draw(&mut rng).f32s().to_vec();
                x.iter_mut().step_by(11).for_each(|v| *v = 0.0);
                x.iter_mut()
                    .skip(1)
                    .step_by(97)
                    .for_each(|v| *v = [f32::NAN, f32::INFINITY, 1e30][v.to_bits() as usize % 3]);
                Tensor::from_f32(s, x)
            })
            .collect();
        // Those that join come before what they join in the list, and alone.
        let all: Vec<ValueId> = [three, two, one].into_iter().chain(inputs.iter().copied()).collect();
        for device in devices() {
            for most in [64, 4] {
                let mut engine = Engine::new(g.clone(), &device).with_batch(most);
                engine.watch(&all).expect("can be watched");
                let mut frames = vec![Vec::new(); all.len()];
                for _ in 0..2 {
                    let seen = engine.observe(&tensors).expect("runs").frames;
                    frames.iter_mut().zip(seen).for_each(|(all, new)| all.extend(new));
                    // Asking in between changes nothing.
                    engine.summaries().expect("collected");
                }
                let summaries = engine.summaries().expect("collected").to_vec();
                for (i, v) in all.iter().enumerate() {
                    let alone = observe(&g, &device, most, *v, &[&tensors, &tensors]);
                    let what = format!("value {i} of {shapes:?} at most {most} at once on {device}");
                    assert_eq!(bits(&frames[i]), bits(&alone.0), "{what}");
                    assert_eq!(summaries[i], alone.1, "{what}");
                }
            }
        }
    }
}

fn bits(frames: &[FrameStats]) -> Vec<([u64; 4], [u32; 4])> {
    let of = |s: &FrameStats| {
        ([s.elements, s.zeros, s.nans, s.infinities], [s.min, s.max, s.sum, s.squares].map(f32::to_bits))
    };
    frames.iter().map(of).collect()
}

fn refused() {
    let (mut g, x) = input(&[N, Dim::Fixed(4)]);
    let w = g.add_constant("w", Tensor::zeros(DType::F32, [4]));
    let i = g.add_input("indices", TensorType::new(DType::I32, [4]));
    g.outputs = vec![x];
    for device in devices() {
        let mut engine = Engine::new(g.clone(), &device);
        assert!(matches!(engine.observe(&[]), Err(ExecError::NotWatching)));
        assert!(matches!(engine.summaries(), Err(ExecError::NotWatching)));
        for (list, name) in [(vec![w], "\"w\""), (vec![x, i], "\"indices\""), (vec![x, x], "\"x\"")] {
            let e = engine.watch(&list).expect_err("cannot be watched");
            assert!(matches!(e, ExecError::Unwatchable { .. }) && e.to_string().contains(name), "{e}");
        }
        engine.watch(&[x]).expect("can be watched");
        // A failed run may have counted a part of its frames.
        assert!(matches!(engine.observe(&[]), Err(ExecError::InputCount { .. })));
        assert!(matches!(engine.summaries(), Err(ExecError::NotWatching)));
        engine.watch(&[]).expect("nothing is always possible");
    }
}
