//! What holds for every entry of the operator list.

use samebit::graph::attrs::Input;
use samebit::graph::sample::{Rng, Sample};
use samebit::graph::{Op, OpDef, Reader, Scratch, Source};
use samebit::ops::OPS;
use samebit::tensor::{Dim, TensorType};
use std::collections::HashSet;
use std::sync::Arc;

fn types(sample: &Sample) -> Vec<TensorType> {
    sample.inputs.iter().map(|i| TensorType::new(i.dtype(), i.shape.iter().copied())).collect()
}

fn build(def: &OpDef, sample: &Sample) -> Arc<dyn Op> {
    let inputs = types(sample).into_iter().map(|ty| Some(Input { ty, known: None })).collect();
    let mut r = Reader::new(Source::Graph, def.name, sample.attrs.clone(), inputs, 1);
    let op = (def.read)(&mut r).unwrap_or_else(|e| panic!("{} {:?}: {e}", def.name, sample.attrs));
    assert!(r.unread().is_empty(), "{}: sample attributes nobody reads: {:?}", def.name, r.unread());
    op
}

fn all_samples() -> Vec<(&'static OpDef, Sample)> {
    let mut out = Vec::new();
    for def in OPS {
        for seed in 0..4 {
            out.extend((def.samples)(&mut Rng::new(seed)).into_iter().map(|s| (*def, s)));
        }
    }
    out
}

#[test]
fn names_are_sorted_and_unique() {
    let names: Vec<&str> = OPS.iter().map(|d| d.name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(names, sorted);
    let onnx: Vec<&str> = OPS.iter().flat_map(|d| d.onnx.iter().copied()).collect();
    let unique: HashSet<&str> = onnx.iter().copied().collect();
    assert_eq!(onnx.len(), unique.len(), "an ONNX type is claimed twice");
}

#[test]
fn every_operator_has_samples() {
    for def in OPS {
        assert!(!(def.samples)(&mut Rng::new(1)).is_empty(), "{} has no samples", def.name);
    }
}

#[test]
fn reading_what_an_operator_says_gives_the_operator() {
    for (def, sample) in all_samples() {
        let op = build(def, &sample);
        let again = build(def, &Sample { attrs: op.attrs(), ..sample.clone() });
        assert!(op.attrs().same_bits(&again.attrs()), "{}: {:?} / {:?}", def.name, op.attrs(), again.attrs());
        assert!(std::ptr::eq(op.def(), def), "{} reads as {}", def.name, op.def().name);
    }
}

#[test]
fn evaluation_gives_the_inferred_types() {
    let cx = Scratch::new();
    for (def, sample) in all_samples() {
        let op = build(def, &sample);
        let inferred = op.infer(&types(&sample)).unwrap_or_else(|e| panic!("{}: {e}", def.name));
        let mut rng = Rng::new(7);
        let inputs: Vec<_> = sample.inputs.iter().map(|i| i.draw(&mut rng)).collect();
        let outputs =
            op.eval(&cx, &inputs).unwrap_or_else(|e| panic!("{} {:?}: {e}", def.name, sample.attrs));
        let got: Vec<TensorType> = outputs.iter().map(|t| t.ty()).collect();
        assert_eq!(inferred, got, "{} {:?} on {:?}", def.name, sample.attrs, types(&sample));
    }
}

/// A symbolic type is refused or inferred; where it is inferred it agrees with the concrete types at that batch.
#[test]
fn symbolic_inference_agrees_with_concrete() {
    let mut symbolic = 0;
    for (def, sample) in all_samples() {
        let op = build(def, &sample);
        let concrete = types(&sample);
        let n = match concrete.iter().find(|t| t.rank() > 0 && t.shape[0] != Dim::Fixed(1)) {
            Some(t) => t.dims().expect("concrete")[0],
            None => continue,
        };
        let with_n = concrete.iter().map(|t| {
            let mut t = t.clone();
            if t.shape.first() == Some(&Dim::Fixed(n)) && n > 0 {
                t.shape[0] = Dim::Batch(1);
            }
            t
        });
        if let Ok(out) = op.infer(&with_n.collect::<Vec<_>>()) {
            let at_n: Vec<TensorType> = out.iter().map(|t| t.at(n).expect("small")).collect();
            assert_eq!(
                at_n,
                op.infer(&concrete).expect("inferred before"),
                "{} {:?}",
                def.name,
                sample.attrs
            );
            symbolic += 1;
        }
    }
    assert!(symbolic > 0);
}
