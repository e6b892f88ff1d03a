//! Nodes of which something is wrong or not known: what else is wrong with them is named, and nothing that may be right.

use super::{A, BOOL, Model, exactly, f32s, i64s, tensor, x};

/// A chain of faults behind an operator that is not supported: what each says does not depend on what feeds it.
#[test]
fn faults_behind_an_unknown_type_are_named() {
    let m = x()
        .init(f32s("w4", &[4, 4, 3, 3], &[1.0; 144]))
        .init(f32s("b3", &[3], &[1.0; 3]))
        .init(f32s("b4", &[4], &[1.0; 4]))
        .init(f32s("r3", &[2, 2, 2], &[1.0; 8]))
        .init(i64s("i3", &[3], &[1, 2, 3]))
        .init(tensor("st", BOOL, &[1], &[1]))
        .node("n1", "Foo", &["x"], &["a"], &[])
        .node("arity1", "Add", &["a"], &["b"], &[])
        .node("arity2", "Relu", &["b", "b"], &["c"], &[])
        .node("arity4", "Conv", &["c", "w4", "b3", "b3"], &["d"], &[])
        .node("rank", "Gemm", &["d", "r3"], &["e"], &[])
        .node("bn", "BatchNormalization", &["e", "b3", "b3", "b3", "b4"], &["f"], &[])
        .node("bias", "Conv", &["f", "w4", "b3"], &["g"], &[])
        .node("kernel", "Conv", &["g", "w4"], &["h"], &[("kernel_shape", A::Ints(vec![5, 5]))])
        .node("prelu", "PRelu", &["h", "i3"], &["i"], &[])
        .node("concat", "Concat", &["i", "st"], &["j"], &[("axis", A::Int(1))])
        .node("ln", "LayerNormalization", &["j", "b3", "b4"], &["k"], &[])
        .node("mm", "MatMul", &["k", "i3"], &["y"], &[])
        .output("y");
    // Whether `st` fits is for the other input of `concat` to say.
    exactly(
        &m,
        17,
        &[
            "arity1 (Add): takes 2 inputs, got 1",
            "arity2 (Relu): takes 1 inputs, got 2",
            "arity4 (Conv): takes 2 or 3 inputs, got 4",
            "bias (Conv): input 2 must have shape [4], has f32[3]",
            "bn (BatchNormalization): input 4 must have shape f32[3], has f32[4]",
            "kernel (Conv): input 1 must have shape [at least 1, at least 1] and [5, 5], has f32[4,4,3,3]",
            "ln (LayerNormalization): input 2 must have shape f32[3], has f32[4]",
            "mm (MatMul): input 1 must be f32, is i32",
            "n1 (Foo): operator Foo",
            "prelu (PRelu): input 1 must be f32, is i32",
            "rank (Gemm): input 1 must have rank 2, has 3",
        ],
    );
}

/// What fits some type of what is not known is no fault.
#[test]
fn what_may_be_right_behind_an_unknown_type_is_not_named() {
    let m = x()
        .init(f32s("w", &[6, 2, 3, 3], &[1.0; 108]))
        .init(f32s("b", &[6], &[1.0; 6]))
        .init(f32s("m", &[6, 7], &[1.0; 42]))
        .init(f32s("c", &[5, 7], &[1.0; 35]))
        .init(i64s("i", &[3], &[1, 2, 300]))
        .init(tensor("t", BOOL, &[2, 1], &[1, 0]))
        .node("n", "Nope", &["x"], &["a"], &[])
        .node("conv", "Conv", &["a", "w", "b"], &["c1"], &[("group", A::Int(3))])
        .node("gemm", "Gemm", &["c1", "m", "c"], &["d"], &[])
        .node("add", "Add", &["d", "i"], &["e"], &[])
        .node("gather", "Gather", &["e", "i"], &["f"], &[("axis", A::Int(2))])
        .node("cat", "Concat", &["f", "t"], &["g"], &[("axis", A::Int(-1))])
        .node("where", "Where", &["g", "b", "m"], &["h"], &[])
        .node("bn", "BatchNormalization", &["h", "b", "b", "b", "b"], &["j"], &[])
        .node("ln", "LayerNormalization", &["j", "m", "m"], &["y"], &[("axis", A::Int(-2))])
        .output("y");
    // The shapes of `b` and `m` do not broadcast, but only together with the condition's is that looked at.
    exactly(&m, 17, &["n (Nope): operator Nope"]);
}

#[test]
fn a_wrong_attribute_hides_no_other_fault() {
    let m = x()
        .init(f32s("w", &[4, 3, 3, 3], &[1.0; 108]))
        .init(i64s("big", &[1], &[1 << 40]))
        .init(f32s("three", &[3], &[1.0; 3]))
        .node("conv", "Conv", &["x", "w"], &["a"], &[("auto_pad", A::Str("FULL"))])
        .node("foo", "Conv", &["x", "w"], &["b"], &[("foo", A::Int(1))])
        .node("sm", "Softmax", &["x", "x"], &["c"], &[("axis", A::Str("1"))])
        .node("rl", "Relu", &["x"], &["d", "d2"], &[("foo", A::Int(1))])
        .node("add", "Add", &["x", "big"], &["e"], &[("axis", A::Int(1))])
        // The slope does not change the shape, so that what follows is judged; the axis does.
        .node("leaky", "LeakyRelu", &["x"], &["f"], &[("alpha", A::Int(3))])
        .node("behind", "Conv", &["f", "w"], &["g"], &[])
        .node("mean", "ReduceMean", &["x"], &["h"], &[("keepdims", A::Str("x"))])
        .node("unsure", "Add", &["h", "three"], &["i"], &[]);
    let m = ["a", "b", "c", "d", "d2", "e", "g", "i"].into_iter().fold(m, Model::output);
    let channels = "input 1 must have shape [multiple of 1, 4 / 1, ..] for 1 groups, has f32[4,3,3,3]";
    exactly(
        &m,
        13,
        &[
            "add (Add): attribute axis = 1 is not one that Add has",
            "add (Add): input 0 is f32 and input 1 is i32; supported",
            "add (Add): tensor \"big\" holds 1099511627776 at index 0",
            &format!("behind (Conv): {channels}"),
            "conv (Conv): attribute auto_pad = \"FULL\"; supported",
            &format!("conv (Conv): {channels}"),
            "foo (Conv): attribute foo = 1 is not one that Conv has",
            &format!("foo (Conv): {channels}"),
            "leaky (LeakyRelu): attribute alpha = 3; supported: a number",
            "mean (ReduceMean): attribute keepdims = \"x\"; supported: an integer",
            "rl (Relu): attribute foo = 1 is not one that Relu has",
            "rl (Relu): has 2 outputs; supported: 1",
            "sm (Softmax): attribute axis = \"1\"; supported: an integer",
            "sm (Softmax): takes 1 inputs, got 2",
        ],
    );
}

#[test]
fn every_wrong_constant_of_one_node_is_named() {
    let m = x()
        .init(f32s("two", &[2], &[0.0, 1.0]))
        .init(f32s("start", &[1], &[0.5]))
        .init(i64s("end", &[1], &[3]))
        .init(i64s("seven", &[1], &[7]))
        .init(i64s("zero", &[1], &[0]))
        .init(i64s("k", &[1], &[-2]))
        .init(f32s("p3", &[3], &[1.0; 3]))
        .init(f32s("p5", &[5], &[1.0; 5]))
        .init(f32s("p4", &[4], &[1.0; 4]))
        .node("clip", "Clip", &["x", "two", "two"], &["a"], &[])
        .node("slice", "Slice", &["x", "start", "end", "seven", "zero"], &["b"], &[])
        .node("top", "TopK", &["x", "k"], &["c", "ci"], &[("axis", A::Int(9))])
        .node("bn", "BatchNormalization", &["x", "p3", "p4", "p5", "p4"], &["d"], &[]);
    let m = ["a", "b", "c", "d"].into_iter().fold(m, Model::output);
    exactly(
        &m,
        17,
        &[
            "bn (BatchNormalization): input 1 must have shape f32[4], has f32[3]",
            "bn (BatchNormalization): input 3 must have shape f32[4], has f32[5]",
            "clip (Clip): attribute max = [0.0, 1.0]; supported: one number",
            "clip (Clip): attribute min = [0.0, 1.0]; supported: one number",
            "slice (Slice): attribute steps = [0]; supported: any integer but 0",
            "slice (Slice): axis 7 is outside a tensor of rank 4",
            "slice (Slice): input 1 must be integers, is f32",
            "top (TopK): attribute k = -2; supported: non-negative sizes",
            "top (TopK): axis 9 is outside a tensor of rank 4",
        ],
    );
}
