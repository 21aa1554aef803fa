"""Compute a finder in 8 bits. Run: python -m recipes.int8 FINDER.onnx --data KIND:PATH --out FILE.onnx

Half the time on processors with VNNI. Images of the training part measure the ranges of the activations; others of the
same data compare the boxes before and after. The first and the last convolutions stay float32, because
their rounding moves most boxes.
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
from uniemox.persons.detector import load_detector
from uniemox.persons.fitting import fit_images

KEPT_FLOAT = r"conv_stem|blocks\.0\.|(heat|box)\.2\."  # names of weights
QUANTISED = ("Conv", "Add", "Resize", "Clip", "Relu")
# images
CALIBRATING = 128
COMPARING = 500
RUNS = 20


def quantise(src: Path, dst: Path, images: Sequence[Image.Image]) -> None:
    """Write a finder again with 8-bit weights per channel and 8-bit activations, and its metadata unchanged."""
    tools = quantization_tools()
    detector = load_detector(src)
    metadata = onnx.load(src).metadata_props
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        small = Path(folder) / "int8.onnx"
        unpack_weights(src, plain)
        model = onnx.load(plain)
        del model.graph.value_info[:]
        [pixels] = model.graph.input
        size = tuple(side.dim_value for side in pixels.type.tensor_type.shape.dim[2:])
        feeds = [{pixels.name: fit_images([image], size, detector.layout.preparation)[0]} for image in images]
        reader = SimpleNamespace(get_next=functools.partial(next, iter(feeds), None))
        kept = [one.name for one in model.graph.node if one.op_type == "Conv" and re.search(KEPT_FLOAT, one.input[1])]
        options = {"per_channel": True, "op_types_to_quantize": QUANTISED, "nodes_to_exclude": kept}
        tools.quantize_static(model, small, reader, activation_type=tools.QuantType.QUInt8, **options)
        result = onnx.load(small)
    forget_origin(result.graph)
    onnx.helper.set_model_props(result, {one.key: one.value for one in metadata})
    write_model(result, dst)


def same_boxes(before: Sequence[Sequence[Detection]], after: Sequence[Sequence[Detection]]) -> int:
    """Count the boxes that have a box of their own with an IoU of at least 0.5 afterwards."""
    count = 0
    for ours, theirs in zip(before, after, strict=True):
        left = [one.box for one in theirs]
        for one in ours:
            shared = overlap(np.array([one.box], float), np.array(left, float).reshape(-1, 4))[0]
            if left and shared.max() >= 0.5:
                count += 1
                del left[int(shared.argmax())]
    return count


def main() -> None:
    """Quantise, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("finder", type=Path)
    parser.add_argument(
        "--data", required=True, help="KIND:PATH, several with commas; splits other than train are left out"
    )
    parser.add_argument("--out", required=True, type=Path)
    given = parser.parse_args()
    logging.root.setLevel(logging.ERROR)  # onnxruntime prints advice on the root logger
    samples = [
        one for source in given.data.split(",") for one in open_data(source, with_texts=False).to_train().samples
    ]
    samples = list({str(one.image): one for one in samples}.values())  # an image with several captions is one
    chosen = random.Random(0).sample(samples, CALIBRATING + COMPARING)
    images = [decode_sample(sample)[0] for sample in chosen]
    quantise(given.finder, given.out, images[:CALIBRATING])
    both = [load_detector(path, threads=1) for path in (given.finder, given.out)]
    boxes = [detector.detect(images[CALIBRATING:]) for detector in both]
    times: list[list[float]] = [[], []]
    for image in images[:RUNS]:
        for which, detector in enumerate(both):
            start = time.process_time()
            detector.detect([image])
            times[which].append(time.process_time() - start)
    counts = [sum(map(len, one)) for one in boxes]
    before, after = (1000 * float(np.median(one)) for one in times)
    print(f"{same_boxes(*boxes)} of {counts[0]} boxes are the same, of {counts[1]} afterwards, in {COMPARING} images")
    print(
        f"{before:.1f} ms of processor time per image before, {after:.1f} ms after: {before / after:.2f} times faster"
    )
    print(f"{given.finder.stat().st_size / 1e6:.1f} MB before, {given.out.stat().st_size / 1e6:.1f} MB after")


if __name__ == "__main__":
    main()
