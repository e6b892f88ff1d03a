#!/usr/bin/env python3
"""Times PPQ's simulation (fake-quant, PyTorch on the CPU) of a model and prints one JSON line. `cargo bench` calls it for its
ratios, with the Python that SAMEBIT_PPQ_PYTHON names: PPQ needs older packages than the other peers.

    python3 -m venv target/ppq
    target/ppq/bin/pip install -r benches/peers/ppq_requirements.txt && target/ppq/bin/pip install --no-deps ppq==0.6.6
    target/ppq/bin/python benches/peers/ppq_peer.py MODEL.onnx --shape 3x224x224 --threads 2 --batch 8

Only the simulation's forward is timed, behind a calibration on random frames. Two runs before the timed ones are not
counted.
"""
import argparse
import contextlib
import json
import os
import statistics
import sys
import time

# PPQ's generated protobuf code is older than today's protobuf.
os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model")
    args.add_argument("--shape", required=True, help="of one frame, as 3x224x224")
    args.add_argument("--threads", type=int, default=1)
    args.add_argument("--batch", type=int, default=1)
    args.add_argument("--repeat", type=int, default=7)
    args = args.parse_args()

    with contextlib.redirect_stdout(sys.stderr):
        import torch
        from ppq import QuantizationSettingFactory, TargetPlatform, TorchExecutor
        from ppq.api import quantize_onnx_model

        torch.set_num_threads(args.threads)
        torch.manual_seed(3)
        shape = [args.batch, *map(int, args.shape.split("x"))]
        frames = [torch.rand(shape) for _ in range(8)]
        graph = quantize_onnx_model(
            onnx_import_file=args.model, calib_dataloader=frames, calib_steps=8, input_shape=shape,
            platform=TargetPlatform.OPENVINO_INT8, device="cpu", verbose=0, collate_fn=lambda x: x,
            setting=QuantizationSettingFactory.default_setting())
        executor = TorchExecutor(graph, device="cpu")
        seconds = []
        with torch.no_grad():
            for _ in range(args.repeat + 2):
                start = time.perf_counter()
                executor.forward([frames[0]])
                seconds.append(time.perf_counter() - start)
    print(json.dumps({"images_per_second": args.batch / statistics.median(seconds[2:])}))


if __name__ == "__main__":
    main()
