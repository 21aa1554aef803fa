"""Commands that prepare data: `uniemox data persons`, `describe` and `shard`."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from uniemox.cli.console import Files, Flag, JsonObject, need, progress_bar, say
from uniemox.cli.data_options import NO_FILES, FileOptions, Persons, Pool, Texts
from uniemox.errors import ConfigError
from uniemox.io.parallel import ONE_A_CORE
from uniemox.plurals import counted

if TYPE_CHECKING:
    from uniemox.data.sample import DataSet
    from uniemox.persons.detector import Detector
    from uniemox.teacher.attributes import Describer

# Name of the default weights of CLIP models in open_clip.
OPENAI = "openai"


@dataclass(frozen=True, kw_only=True)
class FinderOptions:
    """Options of the person detector."""

    detector: str
    """ONNX file of YOLOX, NanoDet, FastestDet or YOLOv3; Darknet's yolov3.cfg with yolov3.weights next to it;
    hub:owner/repository/file.onnx; or embedded, the small detector in this package."""
    confidence: float | None = None
    """Minimum confidence of a box, 0 to 1. Default: the detector's own (0.8 for YOLOv3, as in the authors' code)."""
    overlap: float | None = None
    """Non-maximum suppression: drop the weaker of two boxes whose IoU is above this. Default: the detector's own."""
    provider: Literal["cpu", "cuda", "tensorrt", "coreml", "openvino"] | None = None
    """Execution provider of onnxruntime for an ONNX file. Default: cuda if it works on this machine, else cpu. openvino
    computes in bfloat16 if the processor can."""

    def opener(self, *, on_cluster: bool) -> "tuple[Callable[[], Detector], bool]":
        """Return a function that opens the detector, and True if it uses an accelerator. Prints the device.

        Args:
            on_cluster: Machines may lack a GPU; the default is then the CPU.
        """
        from uniemox.io.onnx_sessions import pick_provider
        from uniemox.persons.detector import DetectorConfig
        from uniemox.predict.opening import finder_file, open_finder

        config = DetectorConfig(confidence=self.confidence, nms_overlap=self.overlap)
        file = finder_file(self.detector)
        provider = str(self.provider or "cpu")
        if str(file).endswith(".onnx"):
            provider = pick_provider(None if self.provider is None and not on_cluster else provider)
            if provider == "cuda" and self.provider is None:
                try:
                    open_finder(self.detector, config=config, provider=provider)
                except ConfigError:
                    # This onnxruntime is built for GPUs, but the machine has none.
                    provider = "cpu"
            say(f"onnxruntime runs {self.detector} on {provider}")
        return partial(open_finder, self.detector, 1, config=config, provider=provider), provider != "cpu"


def persons(
    source: str,
    /,
    *,
    finder: Annotated[FinderOptions, Parameter(name="*")],
    out: Files = None,
    as_json: JsonObject = False,
    pool: Pool = ONE_A_CORE,
) -> None:
    """Detect the people in every image once, and save their boxes next to the data. A stopped run resumes.

    For example:

    - uniemox data persons fi:photos/fi --detector yolox_nano.onnx
    - uniemox data persons emoset:photos/emoset --detector yolov3.cfg --out boxes.jsonl
    - uniemox data persons emoset:photos/emoset --detector yolov3.onnx --provider cuda

    Args:
        source: KIND:PATH.
        out: File to write. Default: persons.jsonl next to the data, where all commands find it.
    """
    from uniemox.data.people import PERSONS, detect_persons
    from uniemox.data.seen import read_seen
    from uniemox.data.source import folder_of, open_data

    target = out or folder_of(source) / PERSONS
    open_detector, on_gpu = finder.opener(on_cluster=pool.engine == "ray")
    data = open_data(source)
    training_hashes = read_seen(Path(finder.detector), in_folder=False)
    _name_changed_images(target, data, "their people")
    with progress_bar() as progress:
        report = detect_persons(
            data, open_detector, target, progress.show, pool=pool, on_gpu=on_gpu, training_hashes=training_hashes
        )
    words = (
        f"{counted(report.pictures, 'image')} ({report.new} in this run), "
        f"{counted(report.people, 'person', 'people')} in {report.with_people} of "
        f"them; wrote {target}"
    )
    _print_result(words, {"file": str(target), **asdict(report)}, as_json)


@dataclass(frozen=True, kw_only=True)
class DescriberOptions:
    """Networks that describe images without annotations."""

    teacher: str | None = None
    """CLIP model by its open_clip name, or local-dir:FOLDER; needs --vocabulary."""
    teacher_weights: str | None = None
    """Weights of the CLIP model, by open_clip's name or as a file. Default: openai."""
    vocabulary: Files = None
    """EmoSet's info.json: the words that the CLIP model chooses from."""
    classifier: str | None = None
    """timm network with ImageNet's classes, which names objects."""
    classifier_weights: Files = None
    """File with the network's weights. Default: download them from the hub."""

    def __post_init__(self) -> None:
        if (self.teacher is None) != (self.vocabulary is None):
            raise ConfigError("--teacher chooses among EmoSet's words: give --teacher and --vocabulary, or neither")
        if self.classifier_weights is not None and self.classifier is None:
            raise ConfigError("--classifier-weights needs --classifier, the network that they belong to")
        if self.teacher_weights is not None and self.teacher is None:
            raise ConfigError("--teacher-weights needs --teacher, the CLIP model that they belong to")

    def open(self) -> "Describer":
        """Open the networks that describe images, on the GPU if there is one."""
        from uniemox.teacher.attributes import Describer, ObjectClassifier, ZeroShot
        from uniemox.teacher.sources import ClipTeacher

        device = "cuda" if _has_gpu() else "cpu"
        zero_shot = None
        names = None
        if self.teacher is not None and self.vocabulary is not None:
            clip = ClipTeacher.load(self.teacher, self.teacher_weights or OPENAI, device)
            zero_shot = ZeroShot(clip, self.vocabulary)
        if self.classifier is not None:
            names = ObjectClassifier(self.classifier, self.classifier_weights, device)
        return Describer(zero_shot=zero_shot, classifier=names)

    def record(self) -> dict[str, Any]:
        """Return the settings that change texts."""
        return {
            "teacher": None if self.teacher is None else f"{self.teacher} {self.teacher_weights or OPENAI}",
            "vocabulary": _fingerprint(self.vocabulary),
            "classifier": self.classifier and f"{self.classifier} {_fingerprint(self.classifier_weights)}",
        }


def describe(
    source: str,
    /,
    *,
    out: Files = None,
    persons: Persons = None,
    without_emotion: Flag = False,
    as_json: JsonObject = False,
    networks: Annotated[DescriberOptions, Parameter(name="*")] = DescriberOptions(),
    pool: Pool = ONE_A_CORE,
) -> None:
    """Write a text for every image, from EmoSet's annotations or from the image itself.

    Without annotations, a text names measured colours, the people of `data persons`, and objects from a classifier.
    With a CLIP model it also names scene, action and expression.

    For example:

    - uniemox data describe emoset:photos/emoset
    - uniemox data describe fi:photos/fi --teacher ViT-B-16 --vocabulary photos/emoset/info.json

    Args:
        source: KIND:PATH.
        out: File to write. Default: texts.jsonl next to the data, where all commands find it.
        without_emotion: Leave the label out of the texts (table VII of the paper).
    """
    need("torch", "timm", "open_clip", extra="train")
    from uniemox.data.people import TEXTS
    from uniemox.data.source import folder_of, open_data
    from uniemox.teacher.attributes import write_texts

    target = out or folder_of(source) / TEXTS
    data = open_data(source, persons=persons, with_texts=False)
    header = {"with_emotion": not without_emotion, **networks.record()}
    header["people"] = any(sample.persons is not None for sample in data.samples)
    _name_changed_images(target, data, "their texts")
    with progress_bar() as progress:
        broken = write_texts(
            data,
            target,
            networks.open,
            header,
            progress.show,
            with_emotion=not without_emotion,
            pool=pool,
            on_gpu=_has_gpu(),
        )
    _print_result(
        f"wrote {target}", {"file": str(target), "samples": len(data) - len(broken), "broken": broken}, as_json
    )


def _name_changed_images(target: Path, data: "DataSet", content: str) -> None:
    """Print a line about images that are newer than a file with their people or texts."""
    from uniemox.data.sidecar import changed_images

    changed = changed_images(target, data.samples)
    if changed:
        images = counted(len(changed), "image is", "images are")
        say(
            f"{images} newer than {target}, such as {changed[0]}: {content} stay those of before; remove the file to "
            "make all again"
        )


def shard(
    source: str,
    folder: Path,
    /,
    *,
    short_side: int | None = None,
    samples: int = 1000,
    seed: int = 0,
    as_json: JsonObject = False,
    files: FileOptions = NO_FILES,
    texts: Texts = None,
    pool: Pool = ONE_A_CORE,
) -> None:
    """Pack a data set into indexed tar shards, which train several times faster and can be read from any store.

    A stopped run resumes with the next shard. The `webdataset` package can read the shards too.

    For example:

    - uniemox data shard emoset:photos/emoset packed/emoset --short-side 256
    - uniemox data show shards:packed/emoset

    Args:
        source: KIND:PATH.
        folder: Folder to write shards to.
        short_side: Downscale images to this length of the short side, px. Default: copy the files unchanged.
        samples: Number of images per shard.
        seed: Random seed for the order of images.
    """
    from uniemox.data.shard_format import INDEX
    from uniemox.data.shard_writing import ShardConfig, write_shards

    need("fsspec", extra="data")
    config = ShardConfig(samples=samples, short_side_px=short_side, seed=seed, pool=pool)
    data = files.open(source, texts=texts)
    was_complete = (folder / INDEX).exists()
    with progress_bar() as progress:
        broken = write_shards(data, folder, config, progress.show)
    count = len(data) - len(broken)
    done = f"nothing to do, {folder} is complete" if was_complete else f"wrote {folder}"
    words = f"{done}: {counted(count, 'sample')}; open them as shards:{folder}"
    _print_result(words, {"folder": str(folder), "samples": count, "broken": broken}, as_json)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _fingerprint(file: Path | None) -> str | None:
    """Return 16 hexadecimal digits that identify a file's content; None without a file."""
    from uniemox.io.files import fingerprint_of

    return None if file is None else fingerprint_of([file], "")


def _print_result(words: str, values: dict[str, Any], as_json: bool) -> None:
    """Print a result, and on standard error the unreadable images, which its key "broken" lists."""
    broken = values["broken"]
    for line in broken[:5]:
        say(line)
    if len(broken) > 5:
        say(f"and {len(broken) - 5} more; uniemox data check lists all of them")
    if broken:
        say(f"{counted(len(broken), 'unreadable image was', 'unreadable images were')} left out")
    print(json.dumps(values) if as_json else words)
