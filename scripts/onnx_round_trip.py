#!/usr/bin/env python3
"""Writes models with `samebit save-onnx` and compares what ONNX Runtime makes of them with what it makes of the originals.

    pip install onnx onnxruntime numpy
    python3 scripts/onnx_round_trip.py target/release/samebit MODEL.onnx...

Random inputs in 0..1, one frame, ONNX Runtime without its optimizer. Prints the largest difference of each output; ends
with 1 where a file cannot be checked, loaded or run, or a quantized model's share of equal elements is below 90 %.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort


def outputs(path, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    if feeds is None:
        random = np.random.default_rng(1)
        shapes = {i.name: [d if isinstance(d, int) else 1 for d in i.shape] for i in session.get_inputs()}
        feeds = {name: random.random(shape, dtype=np.float32) for name, shape in shapes.items()}
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds))), feeds


def main():
    if len(sys.argv) < 3:
        raise SystemExit("usage: onnx_round_trip.py SAMEBIT MODEL...")
    samebit, models = sys.argv[1], [Path(m) for m in sys.argv[2:]]
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            written = Path(folder) / "written.onnx"
            try:
                subprocess.run([samebit, "save-onnx", model, "-o", written, "--quiet"], check=True)
                onnx.checker.check_model(str(written), full_check=True)
                want, feeds = outputs(model, None)
                got, _ = outputs(written, feeds)
            except Exception as why:  # Whatever it is, the next model is tried.
                print(f"{model.name}: {why}")
                bad += 1
                continue
            for name, a in want.items():
                b = got[name]
                equal = float(np.mean(a == b))
                close = np.allclose(a, b, rtol=1e-4, atol=1e-5) or equal >= 0.9
                bad += a.shape != b.shape or not close
                print(f"{model.name} {name}: {100 * equal:.1f} % equal, max |difference| {np.abs(a - b).max():.2e}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
