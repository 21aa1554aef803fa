"""Write the example on the empty page of `serve`: `python -m tools.serve_example docs/images/cat.jpg`.

Run it again when the built-in model has changed; `tests/serve/test_page.py` compares the answer with the model's.
"""

import json
import sys
from pathlib import Path

from PIL import Image

import uniemox
from uniemox.insight.site.writing import PAGE_FOLDER
from uniemox.io.files import write_file
from uniemox.io.images import encode_image

MAX_SIDE_PX = 480
COVERAGE = 0.9
QUALITY = 80


def main() -> None:
    folder = Path(str(PAGE_FOLDER))
    with Image.open(sys.argv[1]) as image:
        image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
        write_file(folder / "example.jpg", encode_image(image.convert("RGB"), "JPEG", quality=QUALITY))
    predictor = uniemox.load(finder=None)
    path = folder / "example.jpg"
    heat = uniemox.explain(predictor, path).overlay()
    write_file(folder / "example_map.jpg", encode_image(heat, "JPEG", quality=QUALITY))
    answer = predictor.predict(path, coverage=COVERAGE).to_dict()
    del answer["path"]
    example = {"model": {"name": predictor.name, "task": "label"}, "share": str(COVERAGE), "answer": answer}
    write_file(folder / "example.json", json.dumps(example, indent=1) + "\n")


if __name__ == "__main__":
    main()
