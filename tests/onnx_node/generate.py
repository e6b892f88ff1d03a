#!/usr/bin/env python3
"""Writes ONNX's backend node tests in a form that needs no protobuf for the tensors.

    pip install -r tests/onnx_node/requirements.txt
    python3 tests/onnx_node/generate.py target/onnx-node

Per test a folder: `model.onnx`; `case.json` with `op_types` (subgraphs included; of another domain than ONNX's own as
`domain.Op`), `opset`, `inputs` and `outputs` (`name`, `file`, `dtype`), `rtol`, `atol`; and the npy files named there
(bfloat16 as float32, dtype `bf16`; 4-bit integers as 8-bit ones, dtypes `i4` and `u4`). A test whose tensors npy cannot hold (sequences, absent optionals, strings, 8-bit floats, ...) has
`"unsupported_io": true` and a `reason` instead of `inputs` and `outputs`.
"""
import json
import sys
import warnings
from pathlib import Path

import numpy as np
from onnx import AttributeProto, TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

DTYPES = {np.dtype(n): s for n, s in (
    ("bool", "bool"), ("int8", "i8"), ("int16", "i16"), ("int32", "i32"), ("int64", "i64"), ("uint8", "u8"),
    ("uint16", "u16"), ("uint32", "u32"), ("uint64", "u64"), ("float16", "f16"), ("float32", "f32"),
    ("float64", "f64"))}

# Held by npy as 8-bit integers.
FOUR_BITS = {"INT4": "i4", "UINT4": "u4"}

# Inputs that say what is computed rather than what with: samebit wants them to be constants of the model, as
# exporters write them, so the tests that feed them at run time get them as initializers.
CONSTANT = {
    "CenterCropPad": (1,), "Clip": (1, 2), "ConstantOfShape": (0,), "CumSum": (1,), "Dropout": (1, 2), "Expand": (1,),
    "NonMaxSuppression": (2, 3, 4), "OneHot": (1,), "Pad": (1, 2, 3), "Range": (0, 1, 2), "Reshape": (1,),
    "QLinearConv": (1, 2, 4, 5, 6, 7), "QLinearMatMul": (1, 2, 4, 5, 6, 7), "ConvInteger": (2, 3), "MatMulInteger": (2, 3),
    "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,), "Tile": (1,), "TopK": (1,),
    "Trilu": (1,), "Unsqueeze": (1,), "Upsample": (1,),
} | {f"Reduce{r}": (1,) for r in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")}


class Unsupported(Exception):
    """A value that npy cannot hold; the message says which."""


def op_types(graph):
    for node in graph.node:
        yield f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        for a in node.attribute:
            if a.type == AttributeProto.GRAPH:
                yield from op_types(a.g)


def save(folder, kind, infos, values):
    """Writes the values as `<kind>_<i>.npy` and lists them."""
    if len(infos) != len(values):
        raise Unsupported(f"{len(values)} {kind}s for {len(infos)} names")
    listed = []
    for i, (info, value) in enumerate(zip(infos, values)):
        form = info.type.WhichOneof("value")
        if form != "tensor_type":
            raise Unsupported(f"{kind} {info.name} is of {form}")
        declared = TensorProto.DataType.Name(info.type.tensor_type.elem_type)
        if isinstance(value, TensorProto):
            value = numpy_helper.to_array(value)
        if not isinstance(value, (np.ndarray, np.generic)):
            raise Unsupported(f"{kind} {info.name} ({declared}) is given as {type(value).__name__}")
        if value.dtype not in DTYPES:
            raise Unsupported(f"{kind} {info.name} is of dtype {declared}")
        dtype = DTYPES[value.dtype]
        if declared in FOUR_BITS:
            dtype = FOUR_BITS[declared]
            value = np.asarray(value).astype(np.int8 if dtype == "i4" else np.uint8)
        if declared == "BFLOAT16" and dtype == "u16":  # The upper halves of floats, which npy can hold whole.
            value, dtype = (np.asarray(value).astype(np.uint32) << 16).view(np.float32), "bf16"
        listed.append({"name": info.name, "file": f"{kind}_{i}.npy", "dtype": dtype})
        np.save(folder / listed[-1]["file"], np.asarray(value, order="C"))
    return listed


def fix(test):
    """Turns the inputs of `CONSTANT` into initializers."""
    if len(test.data_sets) != 1:
        return
    graph, (inputs, outputs) = test.model.graph, test.data_sets[0]
    fixed = {n.input[i] for n in graph.node for i in CONSTANT.get(n.op_type, ()) if i < len(n.input)}
    kept = []
    for info, value in zip(list(graph.input), inputs):
        if info.name in fixed and isinstance(value, (np.ndarray, np.generic)):
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), info.name))
            graph.input.remove(info)
        else:
            kept.append(value)
    test.data_sets[0] = (kept, outputs)


def write(folder, test):
    """One test; the reason why its tensors could not be written, or None."""
    folder.mkdir(parents=True, exist_ok=True)
    fix(test)
    (folder / "model.onnx").write_bytes(test.model.SerializeToString())
    graph = test.model.graph
    case = {
        "op_types": sorted(set(op_types(graph))),
        "opset": next((o.version for o in test.model.opset_import if o.domain in ("", "ai.onnx")), None),
        "rtol": test.rtol,
        "atol": test.atol,
    }
    reason = None
    try:
        if len(test.data_sets) != 1:
            raise Unsupported(f"{len(test.data_sets)} data sets")
        inputs, outputs = test.data_sets[0]
        case["inputs"] = save(folder, "input", graph.input, inputs)
        case["outputs"] = save(folder, "output", graph.output, outputs)
    except Unsupported as why:
        reason = str(why)
        case.pop("inputs", None)
        for left in folder.glob("*.npy"):
            left.unlink()
        case |= {"unsupported_io": True, "reason": reason}
    (folder / "case.json").write_text(json.dumps(case, indent=1) + "\n")
    return reason


def main():
    if len(sys.argv) != 2:
        raise SystemExit("usage: generate.py OUT")
    out = Path(sys.argv[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = collect_testcases(None)
    reasons = {t.name: r for t in tests if (r := write(out / t.name, t))}
    ops = {op for t in tests for op in op_types(t.model.graph)}
    print(f"{len(tests)} node tests of {len(ops)} operators, {len(tests) - len(reasons)} with tensors, "
          f"{len(reasons)} with tensors npy cannot hold")


if __name__ == "__main__":
    main()
