"""Compute a finder in 8 bits. Run: python -m recipes.int8 FINDER.onnx --data KIND:PATH --out FILE.onnx

This halves the time on processors with VNNI. The ranges of the activations are measured on images of the training part;
the boxes before and after are compared on other images of the same data. The first and the last convolutions stay
float32, because their rounding moves most boxes.
"""

import argparse
import functools
import logging
import random
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
from PIL import Image

from uniemox.data.sample import decode_sample
from uniemox.data.source import open_data
from uniemox.export.onnx import forget_origin, write_model
from uniemox.io.onnx_sessions import quantization_tools, unpack_weights
from uniemox.persons.box import Detection, overlap
from uniemox.persons.detector import DetectorConfig, load_detector
from uniemox.persons.fitting import fit_images
from uniemox.persons.onnx_file import OnnxDetector

# Pattern of the weights whose convolutions stay float32.
FLOAT_LAYERS = r"conv_stem|blocks\.0\.|(heat|box)\.2\."
QUANTISED = ("Conv", "Add", "Resize", "Clip", "Relu")
# Numbers of images for the ranges, for the comparison, and for the time.
CALIBRATION_IMAGES = 128
COMPARISON_IMAGES = 500
TIMED_IMAGES = 20


def quantise(source: Path, target: Path, images: Sequence[Image.Image]) -> None:
    """Write a finder with 8-bit weights per channel and 8-bit activations, and unchanged metadata.

    Args:
        source: ONNX file of the finder.
        target: ONNX file to write.
        images: Images that the ranges of the activations are measured on.
    """
    tools = quantization_tools()
    preparation = OnnxDetector(source, DetectorConfig()).layout.preparation
    metadata = onnx.load(source).metadata_props
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        small = Path(folder) / "int8.onnx"
        unpack_weights(source, plain)
        model = onnx.load(plain)
        # Shapes from the exporter contradict those that onnxruntime infers.
        del model.graph.value_info[:]
        [pixels] = model.graph.input
        size = tuple(side.dim_value for side in pixels.type.tensor_type.shape.dim[2:])
        feeds = [{pixels.name: fit_images([image], size, preparation)[0]} for image in images]
        reader = SimpleNamespace(get_next=functools.partial(next, iter(feeds), None))
        float_layers = [
            item.name for item in model.graph.node if item.op_type == "Conv" and re.search(FLOAT_LAYERS, item.input[1])
        ]
        options = {"per_channel": True, "op_types_to_quantize": QUANTISED, "nodes_to_exclude": float_layers}
        tools.quantize_static(model, small, reader, activation_type=tools.QuantType.QUInt8, **options)
        result = onnx.load(small)
    forget_origin(result.graph)
    onnx.helper.set_model_props(result, {item.key: item.value for item in metadata})
    write_model(result, target)


def same_boxes(before: Sequence[Sequence[Detection]], after: Sequence[Sequence[Detection]]) -> int:
    """Count the boxes that have a box of their own with an IoU of at least 0.5 afterwards."""
    count = 0
    for ours, theirs in zip(before, after, strict=True):
        unmatched = [detection.box for detection in theirs]
        for detection in ours:
            # Each box of `theirs` can be matched once.
            shared = overlap(np.array([detection.box], float), np.array(unmatched, float).reshape(-1, 4))[0]
            if unmatched and shared.max() >= 0.5:
                count += 1
                del unmatched[int(shared.argmax())]
    return count


def main() -> None:
    """Quantise, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("finder", type=Path)
    parser.add_argument(
        "--data", required=True, help="KIND:PATH, several with commas; splits other than train are left out"
    )
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    # onnxruntime prints advice on the root logger.
    logging.root.setLevel(logging.ERROR)
    samples = [
        sample for source in args.data.split(",") for sample in open_data(source, with_texts=False).to_train().samples
    ]
    samples = list({str(sample.image): sample for sample in samples}.values())  # an image with several captions is one
    chosen = random.Random(0).sample(samples, CALIBRATION_IMAGES + COMPARISON_IMAGES)
    images = [decode_sample(sample)[0] for sample in chosen]
    quantise(args.finder, args.out, images[:CALIBRATION_IMAGES])
    detectors = [load_detector(path, threads=1) for path in (args.finder, args.out)]
    boxes = [detector.detect(images[CALIBRATION_IMAGES:]) for detector in detectors]
    times: list[list[float]] = [[], []]
    for image in images[:TIMED_IMAGES]:
        for i, detector in enumerate(detectors):
            start = time.process_time()
            detector.detect([image])
            times[i].append(time.process_time() - start)
    counts = [sum(map(len, sample)) for sample in boxes]
    before, after = (1000 * float(np.median(sample)) for sample in times)
    same = same_boxes(*boxes)
    print(f"{same} of {counts[0]} boxes are the same, of {counts[1]} afterwards, in {COMPARISON_IMAGES} images")
    print(
        f"{before:.1f} ms of processor time per image before, {after:.1f} ms after: {before / after:.2f} times faster"
    )
    print(f"{args.finder.stat().st_size / 1e6:.1f} MB before, {args.out.stat().st_size / 1e6:.1f} MB after")


if __name__ == "__main__":
    main()
