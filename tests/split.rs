//! Rules with `split`: numbers of very different magnitude get scales of their own, and the results gain by it.

mod support;

use libtest_mimic::Arguments;
use samebit::data::{Array, write_npy};
use samebit::graph::sample::{Rng, SampleInput};
use samebit::graph::{Attrs, Graph, ValueId, file};
use samebit::ops::build;
use samebit::tensor::{DType, Dim, Tensor, TensorType};
use std::path::Path;
use support::binary::{json, refused, samebit, text};
use support::{gpu, trial};

const FRAMES: usize = 32;

fn main() {
    let trials = vec![
        trial("parts_of_a_constant_have_their_own_scales", gpu().is_none(), constant),
        trial("parts_of_a_concatenation_have_their_own_scales", gpu().is_none(), concatenation),
        trial("what_cannot_be_taken_apart_is_refused", false, refusals),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn add(g: &mut Graph, name: &str, op: &'static str, attrs: Attrs, inputs: &[ValueId]) -> ValueId {
    let types: Vec<TensorType> = inputs.iter().map(|v| g.value(*v).ty.clone()).collect();
    let op = build(op, attrs, &types).unwrap_or_else(|e| panic!("{name}: {e}"));
    g.add_node(name, None, op, inputs, &[format!("{name}_out")]).unwrap_or_else(|e| panic!("{name}: {e}"))[0]
}

fn input(g: &mut Graph, name: &str, dims: &[usize]) -> ValueId {
    let shape = std::iter::once(Dim::Batch(1)).chain(dims.iter().map(|d| Dim::Fixed(*d)));
    g.add_input(name, TensorType::new(DType::F32, shape))
}

fn draw(rng: &mut Rng, shape: &[usize], factor: f32) -> Tensor {
    let x = SampleInput::f32(shape).draw(rng);
    Tensor::from_f32(shape, x.f32s().iter().map(|x| x * factor).collect())
}

/// Signal over noise in dB.
fn sqnr(want: &[f32], got: &[f32]) -> f64 {
    assert_eq!(want.len(), got.len());
    let square = |x: f64| x * x;
    let signal: f64 = want.iter().map(|x| square(f64::from(*x))).sum();
    let noise: f64 = want.iter().zip(got).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    10.0 * (signal / noise).log10()
}

/// The SQNR of a tensor under a configuration, against the float model; and that the integer model has the same codes on
/// both executors.
fn quality(dir: &Path, graph: &Graph, inputs: &[(&str, Tensor)], config: &str, tensor: &str) -> f64 {
    let at = |name: &str| dir.join(name);
    let (g, fq, q, bin, toml, set) =
        (at("g"), at("fq"), at("q"), at("bin"), at("config.toml"), at("set.toml"));
    file::save(graph, &g).expect("saves");
    std::fs::write(&toml, config).expect("writes");
    let mut data = "[dataset]\nname = \"test\"\n".to_owned();
    let mut of_run = Vec::new();
    for (name, x) in inputs {
        let path = at(&format!("{name}.npy"));
        write_npy(&path, x).expect("writes");
        data += &format!("[[input]]\nname = \"{name}\"\nnpy = \"{name}.npy\"\n");
        of_run.extend(["--input".to_owned(), format!("{name}={}", path.display())]);
    }
    std::fs::write(&set, data).expect("writes");
    json(0, &["calibrate", text(&g), "--data", text(&set), "--config", text(&toml), "-o", text(&fq)]);
    json(0, &["convert", text(&fq), "-o", text(&q)]);
    json(0, &["compile", text(&q), "-o", text(&bin)]);
    let v = json(0, &["verify", text(&fq), text(&bin), "--data", text(&set), "--device-b", "gpu"]);
    assert!(v["consistent"] == true && v["compared_elements"].as_u64() > Some(0), "{v}");
    let read = |model: &Path, name: &str| -> Vec<f32> {
        let out = at(name);
        let mut args = vec!["run", text(model), "--layers", tensor, "--dump", text(&out)];
        args.extend(of_run.iter().map(String::as_str));
        json(0, &args);
        let found = out.join(format!("{tensor}.npy"));
        Array::open(&found).and_then(|a| a.read()).expect("reads").f32s().to_vec()
    };
    let (want, got) = (read(&g, "want"), read(&fq, "got"));
    sqnr(&want, &got)
}

/// Positions over the wavelengths of a sine embedding, whose 128 numbers reach from 1 to 8660.
fn constant() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut rng = Rng::new(1);
    let mut g = Graph::new("embedding");
    let x = input(&mut g, "x", &[4, 128]);
    let dim_t = (0..128u16).map(|k| 10000f64.powf(f64::from(k / 2 * 2) / 128.0) as f32).collect();
    let c = g.add_constant("dim_t", Tensor::from_f32([128], dim_t));
    let y = add(&mut g, "quotient", "Div", Attrs::new(), &[x, c]);
    g.outputs = vec![y];
    let inputs = [("x", draw(&mut rng, &[FRAMES, 4, 128], 6.0))];
    let whole = quality(dir.path(), &g, &inputs, "preset = \"all-i8\"\n", "quotient_out");
    let check = || {
        samebit(&["check", text(&dir.path().join("fq")), "--out", text(dir.path())]);
        std::fs::read_to_string(dir.path().join("model_check_result.txt")).expect("is written")
    };
    let said = check();
    assert!(said.contains("spread-constant") && said.contains("\"dim_t\""), "{said}");
    let rule = "preset = \"all-i8\"\n[[rule]]\nname = \"quotient\"\nsplit = true\n";
    let parts = quality(dir.path(), &g, &inputs, rule, "quotient_out");
    println!("SQNR of the quotient at i8: {whole:.1} dB, in parts {parts:.1} dB");
    assert!(parts > whole + 20.0, "{whole} {parts}");
    assert!(!check().contains("spread-constant"));
    let role = "preset = \"all-i8\"\n[[rule]]\nrole = \"constant\"\nsplit = true\n";
    let same = quality(dir.path(), &g, &inputs, role, "quotient_out");
    assert_eq!(same.to_bits(), parts.to_bits());
}

/// Parts that reach 4000 and 0.2, with weights that make both count.
fn concatenation() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut rng = Rng::new(2);
    for op in ["MatMul", "Gemm", "Conv"] {
        let mut g = Graph::new("parts");
        let tail: &[usize] = if op == "Conv" { &[3, 5] } else { &[] };
        let shape = |c: usize| [&[c], tail].concat();
        let xs: Vec<ValueId> =
            [("a", 3), ("b", 5), ("c", 4)].map(|(n, c)| input(&mut g, n, &shape(c))).to_vec();
        let joined = add(&mut g, "joined", "Concat", Attrs::new().int("axis", 1), &xs);
        let mut w = draw(&mut rng, &[12, 8], 1.0).f32s().to_vec();
        w[..24].iter_mut().for_each(|w| *w /= 4000.0);
        w[24..64].iter_mut().for_each(|w| *w /= 0.2);
        let transposed = |w: &[f32]| (0..96).map(|i| w[i % 12 * 8 + i / 12]).collect::<Vec<f32>>();
        let (attrs, w) = match op {
            "MatMul" => (Attrs::new(), Tensor::from_f32([12, 8], w)),
            "Gemm" => (Attrs::new().int("transB", 1), Tensor::from_f32([8, 12], transposed(&w))),
            _ => (Attrs::new(), Tensor::from_f32([8, 12, 1, 1], transposed(&w))),
        };
        let w = g.add_constant("w", w);
        let b = g.add_constant("bias", draw(&mut rng, &[8], 1.0));
        let y = match op {
            "MatMul" => {
                let y = add(&mut g, "product", op, attrs, &[joined, w]);
                add(&mut g, "biased", "Add", Attrs::new(), &[b, y])
            }
            _ => add(&mut g, "product", op, attrs, &[joined, w, b]),
        };
        let name = g.value(y).name.clone();
        g.outputs = vec![add(&mut g, "clamp", "Relu", Attrs::new(), &[y])];
        let frames = |c: usize| [&[FRAMES, c], tail].concat();
        let inputs = [
            ("a", draw(&mut rng, &frames(3), 4000.0)),
            ("b", draw(&mut rng, &frames(5), 0.2)),
            ("c", draw(&mut rng, &frames(4), 1.0)),
        ];
        // One scale for all: what the concatenation gives has 8 bits, not 16 as the last one would.
        let whole = quality(dir.path(), &g, &inputs, "preset = \"all-i8\"\n", "clamp_out");
        let rule = "preset = \"all-i8\"\n[[rule]]\nname = \"joined\"\nsplit = true\n";
        let parts = quality(dir.path(), &g, &inputs, rule, "clamp_out");
        println!("SQNR of {op} at i8: {whole:.1} dB, in parts {parts:.1} dB ({name})");
        assert!(parts > whole + 20.0, "{op}: {whole} {parts}");
    }
}

fn refusals() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut g = Graph::new("none");
    let x = input(&mut g, "x", &[2, 4]);
    let near = g.add_constant("near", Tensor::from_f32([4], vec![1.0, 2.0, 3.0, 16.0]));
    let matrix = Tensor::from_f32([2, 4], vec![1.0, 1e4, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    let matrix = g.add_constant("matrix", matrix);
    let y = add(&mut g, "product", "Mul", Attrs::new(), &[x, near]);
    let z = add(&mut g, "own", "Mul", Attrs::new(), &[x, y]);
    let both = add(&mut g, "both", "Concat", Attrs::new().int("axis", 2), &[y, z]);
    let rows = add(&mut g, "rows", "Add", Attrs::new(), &[z, matrix]);
    let square = add(&mut g, "square", "Sigmoid", Attrs::new(), &[both]);
    g.outputs = vec![rows, square];
    let (model, config, set) = (dir.path().join("g"), dir.path().join("c.toml"), dir.path().join("x.npy"));
    file::save(&g, &model).expect("saves");
    write_npy(&set, &draw(&mut Rng::new(3), &[2, 2, 4], 1.0)).expect("writes");
    for (name, reason) in [
        ("product", "differ by no more than 16"),
        ("own", "no operand of it is constant"),
        ("rows", "\"matrix\" does not vary along one axis alone"),
        ("both", "no product with constant weights sums over the axis"),
        ("square", "it is no Concat"),
        ("nothing", "matches nothing"),
    ] {
        std::fs::write(&config, format!("[[rule]]\nname = \"{name}\"\nsplit = true\n")).expect("writes");
        let args = ["calibrate", text(&model), "--data", text(&set), "--config", text(&config)];
        refused(&[&args[..], &["-o", text(&dir.path().join("fq"))]].concat(), &["rule 1", name, reason]);
    }
}
