#!/usr/bin/env python3
"""Times one of ONNX Runtime's calibrators on a model and prints one JSON line. `cargo bench --bench calibrate` calls it.

    target/peers/bin/python benches/peers/calibrators.py MODEL.onnx FRAMES.npy --method entropy

Frames go through one by one, as its data readers give them. Timed: writing the model with all tensors as outputs, the
passes over the frames, and finding the ranges; not the imports. A process for each method, for the sake of its peak memory.
"""
import argparse
import contextlib
import json
import pathlib
import sys
import tempfile
import time

import numpy as np
import onnxruntime as ort
from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

METHODS = {"minmax": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy,
           "percentile": CalibrationMethod.Percentile}


class Frames(CalibrationDataReader):
    def __init__(self, name, frames):
        self.feeds = ({name: np.ascontiguousarray(f[None], dtype=np.float32)} for f in frames)

    def get_next(self):
        return next(self.feeds, None)


def peak_bytes():
    """Of this program alone: `ru_maxrss` also counts the process that started it."""
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return None
    return next(int(line.split()[1]) * 1024 for line in status.open() if line.startswith("VmHWM:"))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model")
    args.add_argument("frames", metavar="FRAMES.npy", help="f32, axis 0 = frame, as the model wants it")
    args.add_argument("--method", choices=METHODS, required=True)
    args = args.parse_args()

    ort.set_default_logger_severity(3)
    session = ort.InferenceSession(args.model, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    del session
    if len(inputs) != 1:
        raise SystemExit(f"the model has {len(inputs)} inputs, this takes models of one")
    frames = np.load(args.frames, mmap_mode="r")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        start = time.perf_counter()
        calibrator = create_calibrator(args.model, augmented_model_path=f"{folder}/augmented.onnx",
                                       calibrate_method=METHODS[args.method])
        calibrator.collect_data(Frames(inputs[0].name, frames))
        ranges = calibrator.compute_data()
        seconds = time.perf_counter() - start
    print(json.dumps({"engine": f"onnxruntime {ort.__version__}", "method": args.method, "frames": len(frames),
                      "tensors": len(list(ranges.keys())), "seconds": seconds, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
