#!/usr/bin/env python3
"""Times ONNX Runtime's CPU provider on a model and prints one JSON line. `cargo bench` calls it for its ratios.

    python3 -m venv target/peers
    target/peers/bin/pip install -r benches/peers/requirements.txt
    target/peers/bin/python benches/peers/onnxruntime_peer.py MODEL.onnx --random --threads 2 --batch 8 --repeat 10

Only `run` is timed: no loading, decoding or preprocessing. Two runs before the timed ones are not counted.
"""
import argparse
import json
import statistics
import time

import numpy as np
import onnxruntime as ort

DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
          "tensor(int8)": np.int8, "tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(int64)": np.int64,
          "tensor(bool)": np.bool_}


def feed(info, files, batch, rng):
    """One input: the first `batch` frames of its file, repeated if there are fewer, or random values."""
    dtype = DTYPES[info.type]
    if info.name in files:
        frames = np.load(files[info.name], mmap_mode="r")
        return np.ascontiguousarray(frames[np.arange(batch) % len(frames)], dtype=dtype)
    fixed = [d for d in info.shape[1:] if not isinstance(d, int)]
    if fixed:
        raise SystemExit(f"input {info.name} has the shape {info.shape}: give it as {info.name}=FILE.npy")
    return rng.uniform(0, 1, [batch, *info.shape[1:]]).astype(dtype)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model")
    args.add_argument("input", nargs="*", metavar="NAME=FILE.npy", help="axis 0 = frame, as the model wants it")
    args.add_argument("--random", action="store_true", help="uniform values in 0..1 for the inputs not given")
    args.add_argument("--threads", type=int, default=1)
    args.add_argument("--batch", type=int, default=1)
    args.add_argument("--repeat", type=int, default=10)
    args = args.parse_args()

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    options.log_severity_level = 3
    session = ort.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
    files = dict(i.split("=", 1) for i in args.input)
    inputs = session.get_inputs()
    missing = [i.name for i in inputs if i.name not in files]
    unknown = files.keys() - {i.name for i in inputs}
    if unknown or (missing and not args.random):
        raise SystemExit(f"no such input: {', '.join(unknown)}" if unknown else
                         f"no data for {', '.join(missing)}: give NAME=FILE.npy or --random")
    first = inputs[0].shape[0]
    if isinstance(first, int) and first != args.batch:
        raise SystemExit(f"the model's batch is fixed at {first}")

    rng = np.random.default_rng(0)
    feeds = {i.name: feed(i, files, args.batch, rng) for i in inputs}
    seconds = []
    for _ in range(args.repeat + 2):
        start = time.perf_counter()
        session.run(None, feeds)
        seconds.append(time.perf_counter() - start)
    rates = [args.batch / s for s in seconds[2:]]
    print(json.dumps({"engine": f"onnxruntime {ort.__version__}", "images_per_second": statistics.median(rates),
                      "slowest": min(rates), "fastest": max(rates), "threads": args.threads, "batch": args.batch,
                      "repeat": args.repeat}))


if __name__ == "__main__":
    main()
