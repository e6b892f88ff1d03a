//! Files that are broken or hostile: refused with a message, without a panic and without much memory.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use samebit::graph::sample::Rng;
use samebit::onnx::{ImportOptions, import, import_bytes};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::onnx::{A, D, F32, Graph as Model, I8, Message, U8, external, f32s, i64s, tensor};

const N: D = D::Name("N");

/// The system's allocator, which remembers the largest single request.
struct Watching;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
#[allow(unsafe_code, reason = "the only way to see allocations")]
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// No test of this file may ask for more at once: folded tensors may have 2^20 elements, everything else is smaller.
const MOST_BYTES: usize = 64 << 20;

fn checked(bytes: Vec<u8>) -> Result<(), String> {
    let result = import_bytes(bytes, &ImportOptions::default()).map(drop).map_err(|e| e.to_string());
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest <= MOST_BYTES, "an allocation of {largest} bytes");
    result
}

/// A model with a bit of everything.
fn model() -> Vec<u8> {
    Model::new()
        .input("x", F32, &[N, D::Size(2), D::Size(3)])
        .init(i64s("zero", &[1], &[0]))
        .init(i64s("rest", &[1], &[-1]))
        .init(f32s("w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
        .node("s", "Shape", &["x"], &["s"], &[])
        .node("g", "Gather", &["s", "zero"], &["n"], &[("axis", A::Int(0))])
        .node("c", "Concat", &["n", "rest"], &["to"], &[("axis", A::Int(0))])
        .node("k", "ConstantOfShape", &["to"], &["kk"], &[("value", A::Tensor(f32s("", &[1], &[1.0])))])
        .node("r", "Reshape", &["x", "to"], &["flat"], &[])
        .node("l", "LeakyRelu", &["flat"], &["a"], &[("alpha", A::Float(0.25))])
        .node("t", "Transpose", &["w"], &["wt"], &[("perm", A::Ints(vec![1, 0]))])
        .node("sig", "Sigmoid", &["wt"], &["b"], &[])
        .output("a")
        .output("b")
        .model(13)
}

#[test]
fn every_prefix_is_refused_or_read_without_panic() {
    let bytes = model();
    checked(bytes.clone()).unwrap();
    let mut refused = 0;
    for len in 0..bytes.len() {
        refused += usize::from(checked(bytes[..len].to_vec()).is_err());
    }
    assert!(refused + 40 > bytes.len(), "{refused} of {} prefixes were refused", bytes.len());
}

#[test]
fn flipped_bits_never_panic_or_take_much_memory() {
    let bytes = model();
    let mut rng = Rng::new(11);
    let mut refused = 0;
    for _ in 0..6000 {
        let mut broken = bytes.clone();
        for _ in 0..rng.int(1, 4) {
            let at = rng.int(0, broken.len() - 1);
            broken[at] ^= 1 << rng.int(0, 7);
        }
        refused += usize::from(checked(broken).is_err());
    }
    assert!(refused > 3000, "only {refused} were refused");
}

#[test]
fn random_bytes_are_refused() {
    let mut rng = Rng::new(5);
    for len in 0..300 {
        let bytes = (0..len).map(|_| rng.bits().to_le_bytes()[0]).collect();
        assert!(checked(bytes).is_err());
    }
}

#[test]
fn structures_that_cannot_be_are_named() {
    let x = || Model::new().input("x", F32, &[N, D::Size(2)]);
    let relu = |m: Model, i: &'static str, o: &'static str| m.node(o, "Relu", &[i], &[o], &[]);
    let deep = |levels: usize| {
        let mut g = Model::new().node("n", "Relu", &["x"], &["y"], &[]).output("y");
        for _ in 0..levels {
            g = Model::new()
                .init(tensor("c", 9, &[], &[1]))
                .node(
                    "if",
                    "If",
                    &["c"],
                    &["y"],
                    &[("then_branch", A::Graph(g.clone())), ("else_branch", A::Graph(Model::new()))],
                )
                .output("y");
        }
        g.input("x", F32, &[N])
    };
    checked(deep(20).model(13)).unwrap();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("cycle", relu(relu(x(), "b", "a"), "a", "b").output("b").model(13), "cycle: "),
        ("self", relu(x(), "a", "a").output("a").model(13), "cycle: a (Relu) -> a (Relu)"),
        (
            "twice",
            relu(relu(x(), "x", "a"), "x", "a").output("a").model(13),
            "tensor \"a\" is produced more than once",
        ),
        ("input", relu(x(), "x", "x").output("x").model(13), "tensor \"x\" is produced more than once"),
        ("no output", x().model(13), "has no outputs"),
        (
            "output twice",
            relu(x(), "x", "a").output("a").output("a").model(13),
            "\"a\" is produced more than once",
        ),
        ("unproduced", x().output("y").model(13), "tensor \"y\" is used but nothing produces it"),
        (
            "negative",
            Model::new().init(f32s("w", &[-1], &[])).output("w").model(13),
            "tensor \"w\" has dimensions [-1]",
        ),
        (
            "2^40",
            Model::new().init(f32s("w", &[1 << 40], &[])).output("w").model(13),
            "tensor \"w\" has dimensions [1099511627776]",
        ),
        (
            "2^40 and 0",
            Model::new().init(f32s("w", &[1 << 40, 0], &[])).output("w").model(13),
            "tensor \"w\" has dimensions [1099511627776, 0]",
        ),
        ("rank 7", Model::new().init(f32s("w", &[1; 7], &[1.0])).output("w").model(13), "up to 6"),
        (
            "too few bytes",
            Model::new().init(f32s("w", &[1 << 30], &[1.0])).output("w").model(13),
            "needs 4294967296 bytes, the file has 4",
        ),
        (
            "typed too few",
            Model::new()
                .init(Message::new().int(1, 3).int(2, F32).text(8, "w").float(4, 1.0))
                .output("w")
                .model(13),
            "needs 3 elements, the file has 1",
        ),
        (
            "truth value",
            Model::new().init(tensor("w", 9, &[1], &[2])).output("w").model(13),
            "holds 2 at index 0",
        ),
        (
            "huge input",
            Model::new().input("x", F32, &[N, D::Size(1 << 40)]).output("x").model(13),
            "1099511627776",
        ),
        (
            "huge fill",
            Model::new()
                .init(i64s("s", &[2], &[1 << 20, 1 << 40]))
                .node("k", "ConstantOfShape", &["s"], &["y"], &[])
                .output("y")
                .model(13),
            "k (ConstantOfShape)",
        ),
        (
            "wrong rank",
            x().init(f32s("w", &[2], &[1.0, 2.0]))
                .node("c", "Concat", &["x", "w"], &["y"], &[("axis", A::Int(0))])
                .output("y")
                .model(13),
            "c (Concat)",
        ),
        (
            "index",
            Model::new()
                .init(i64s("v", &[2], &[1, 2]))
                .init(i64s("i", &[1], &[9]))
                .node("g", "Gather", &["v", "i"], &["y"], &[])
                .output("y")
                .model(13),
            "g (Gather)",
        ),
        ("nesting", deep(200).model(13), "not an ONNX model"),
        (
            "recursive value",
            Message::new()
                .message(7, &Message::new().message(12, &Message::new()))
                .message(8, &support::onnx::opset_id("", 13))
                .0,
            "tensor \"\" is used but nothing produces it",
        ),
    ];
    let mut wrong = Vec::new();
    for (what, bytes, want) in cases {
        match checked(bytes) {
            Ok(()) => wrong.push(format!("{what}: accepted")),
            Err(e) if e.contains(want) => {}
            Err(e) => wrong.push(format!("{what}: want {want}, got {e}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// ONNX Runtime lets them wrap; ours would not, so that the two would differ without a word.
#[test]
fn sums_beyond_32_bits_are_refused() {
    let model = |k: i64| {
        let w = vec![127u8; k.unsigned_abs() as usize];
        Model::new()
            .input("x", U8, &[N, D::Size(k)])
            .init(tensor("w", I8, &[k, 1], &w))
            .node("m", "MatMulInteger", &["x", "w"], &["y"], &[])
            .output("y")
            .model(17)
    };
    // 2^31 - 1 = 255 * 127 * 66311.1..
    checked(model(66_311)).expect("fits");
    let e = checked(model(66_312)).expect_err("does not fit");
    assert!(e.contains("m (MatMulInteger)") && e.contains("32 bits"), "{e}");
}

#[test]
fn a_large_fill_stays_a_node() {
    let m = Model::new()
        .init(i64s("s", &[2], &[1 << 15, 1 << 15]))
        .node("k", "ConstantOfShape", &["s"], &["y"], &[])
        .output("y");
    let g = import_bytes(m.model(13), &ImportOptions::default()).unwrap();
    assert_eq!(g.nodes().len(), 1);
    assert!(LARGEST.load(Ordering::Relaxed) <= MOST_BYTES);
}

fn external_model(entries: &[(&str, &str)]) -> Vec<u8> {
    Model::new().init(external("w", &[2], entries)).output("w").model(13)
}

#[test]
fn external_data_is_read_from_the_models_folder() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = [9.0f32, 1.0, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("data/w.bin"), bytes).unwrap();
    let path = dir.path().join("m.onnx");
    let entries = [("location", "data/w.bin"), ("offset", "4"), ("length", "8")];
    std::fs::write(&path, external_model(&entries)).unwrap();
    let g = import(&path, &ImportOptions::default()).unwrap();
    let w = g.value(g.outputs[0]).constant.clone().unwrap();
    assert_eq!(w.as_f32(), Some(&[1.0, 2.0][..]));
    let e = checked(external_model(&entries)).unwrap_err();
    assert!(e.contains("given as bytes"), "{e}");
}

#[test]
fn external_data_that_cannot_be_had_is_explained() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("model");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(root.path().join("secret"), [0; 8]).unwrap();
    std::fs::write(dir.join("short"), [0; 7]).unwrap();
    std::fs::write(dir.join("good"), [0; 8]).unwrap();
    let secret = root.path().join("secret").display().to_string();
    let mut cases: Vec<(Vec<(&str, &str)>, &str)> = vec![
        (vec![("location", "none")], "none"),
        (vec![], "relative path inside"),
        (vec![("location", "../secret")], "relative path inside"),
        (vec![("location", "./x/../../secret")], "relative path inside"),
        (vec![("location", &secret)], "relative path inside"),
        (vec![("location", ".")], "is not a file"),
        (vec![("location", "short")], "needs 8 bytes from offset 0, the file has 7"),
        (vec![("location", "good"), ("offset", "1")], "needs 8 bytes from offset 1, the file has 8"),
        (vec![("location", "good"), ("offset", "18446744073709551615")], "the file has 8"),
        (vec![("location", "good"), ("offset", "-1")], "offset \"-1\" is not a non-negative integer"),
        (vec![("location", "good"), ("length", "4611686018427387904")], "need 8 bytes"),
    ];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(root.path().join("secret"), dir.join("link")).unwrap();
        cases.push((vec![("location", "link")], "leads out of the model's folder"));
    }
    let path = dir.join("m.onnx");
    let mut wrong = Vec::new();
    for (entries, want) in cases {
        std::fs::write(&path, external_model(&entries)).unwrap();
        match import(&path, &ImportOptions::default()) {
            Ok(_) => wrong.push(format!("{entries:?}: accepted")),
            Err(e) if e.to_string().contains(want) && e.to_string().contains("\"w\"") => {}
            Err(e) => wrong.push(format!("{entries:?}: want {want}, got {e}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(import(Path::new("/nonexistent/m.onnx"), &ImportOptions::default()).is_err());
}
