"""The public functions: one for each task. `import uniemox` gives all of them.

Importing this module imports neither torch nor any other large library; a function imports what it needs.
"""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

from uniemox.errors import ConfigError
from uniemox.io.progress import Progress, silent
from uniemox.io.run_files import ENCODER, ONNX, SPLITS
from uniemox.run_settings import preset_of, with_settings

if TYPE_CHECKING:
    from uniemox.data.sample import DataSet
    from uniemox.evaluate.evaluation import Evaluation
    from uniemox.finetune.few_labels_page import MethodAccuracy
    from uniemox.insight.explain.explanation import Explanation
    from uniemox.insight.explain.maps import Method
    from uniemox.insight.search import Hit
    from uniemox.insight.survey.summary import Summary
    from uniemox.insight.tag.folder import Naming, TaggedImage
    from uniemox.predict.images import ImageLike
    from uniemox.predict.predictor import Predictor
    from uniemox.run_settings import FewLabelsSettings, FinetuneSettings, PretrainSettings
    from uniemox.training.callback import Callback

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run of `pretrain` or `finetune`; functions that take a path of a run take it as well."""

    folder: Path

    def __fspath__(self) -> str:
        """Return the folder."""
        return str(self.folder)

    @property
    def model(self) -> Path:
        """model.onnx of a fine-tuning run, encoder.safetensors of a pre-training run."""
        classifier = self.folder / ONNX
        return classifier if classifier.exists() else self.folder / ENCODER

    @property
    def splits(self) -> Path | None:
        """splits.json of a fine-tuning run that has split its data; None if the data had splits."""
        path = self.folder / SPLITS
        return path if path.exists() else None

    @property
    def metrics(self) -> dict[str, list[float]]:
        """Values of each curve in metrics.jsonl, such as loss, one per recorded step."""
        from uniemox.evaluate.run_records import read_run  # noqa: PLC0415 - torch

        return {name: values.tolist() for name, (_, values) in read_run(self.folder).curves.items()}


def pretrain(
    data: "DataSet | str",
    *,
    out: PathLike,
    preset: Literal["paper", "best", "demo"] = "paper",
    resume: bool = False,
    callback: "Callback | None" = None,
    **settings: "Unpack[PretrainSettings]",
) -> Run:
    """Pre-train an encoder on scene, person and text (arXiv 2409.18877, section III).

    Trains on split train, or on all samples if the data have no splits. The same as `uniemox pretrain`.

    Args:
        data: Data set, or KIND:PATH as for `open_data`.
        out: Folder of the run: a new one, or one to continue with `resume`.
        preset: Settings to start from.
        resume: Continue the run in `out`, if there is one, with the same result.
        callback: Gets progress, plan and losses; None: silent.
        settings: Fields of `PretrainConfig` to replace, such as `schedule=ScheduleConfig(epochs=3)`.

    Raises:
        ConfigError: For settings that contradict each other or the data.
        DataError: For data that can't be used.
        TeacherError: For a teacher that can't be opened.
        CheckpointError: For initial weights that can't be used.
        StoppedError: After SIGTERM or Ctrl-C; the run can be resumed.
    """
    from uniemox.pretrain.presets import PRESETS  # noqa: PLC0415 - settings first, so that mistakes don't wait for torch

    config = with_settings(preset_of(PRESETS, preset), settings)
    samples = _opened(data).to_train()
    from uniemox.pretrain.run import pretrain as run  # noqa: PLC0415 - torch

    run(config, samples, Path(out), resume=resume, callback=callback)
    return Run(Path(out))


def finetune(
    data: "DataSet | str",
    *,
    out: PathLike,
    init: "PathLike | Run | None" = None,
    preset: Literal["paper", "best", "demo"] = "best",
    resume: bool = False,
    callback: "Callback | None" = None,
    **settings: "Unpack[FinetuneSettings]",
) -> Run:
    """Fine-tune an encoder to classify emotions (arXiv 2409.18877, section III-E).

    Trains on split train; data without splits are split 80/10/10. The same as `uniemox finetune`.

    Args:
        data: Data set, or KIND:PATH as for `open_data`.
        out: Folder of the run: a new one, or one to continue with `resume`.
        init: Initial weights: embedded or small (in this package), a run, a published checkpoint, timm:NAME, ...; None
            with preset best: embedded, and without a GPU method probe, unless `settings` has another.
        preset: Settings to start from.
        resume: Continue the run in `out`, if there is one, with the same result.
        callback: Gets progress, plan and losses; None: silent.
        settings: Fields of `FinetuneConfig` to replace, such as `method="probe"`.

    Raises:
        ConfigError: For settings that contradict each other or the data.
        DataError: For data that can't be used.
        CheckpointError: For initial weights that can't be used.
        StoppedError: After SIGTERM or Ctrl-C; the run can be resumed.
    """
    from uniemox.finetune.default_init import needs_default_init, with_default_init  # noqa: PLC0415
    from uniemox.finetune.presets import PRESETS  # noqa: PLC0415 - settings first, as above

    start = "" if init is None else os.fspath(init)
    config = with_settings(preset_of(PRESETS, preset), {"init": start, **settings})
    starts_from_package = needs_default_init(config, preset)
    samples = _opened(data)
    if starts_from_package:
        config, _ = with_default_init(config, has_method="method" in settings)
    from uniemox.finetune.run import finetune as run  # noqa: PLC0415 - torch

    run(config, samples, Path(out), resume=resume, callback=callback)
    return Run(Path(out))


def few_labels(
    data: "DataSet | str",
    *,
    out: PathLike,
    init: "PathLike | Run | None" = None,
    resume: bool = False,
    callback: "Callback | None" = None,
    **settings: "Unpack[FewLabelsSettings]",
) -> "list[MethodAccuracy]":
    """Measure the accuracy of light heads over the number of labelled images of each class.

    Heads are fitted to random draws of the split train, and scored on the split test, or else val. `out` gets a page, a
    drawing, a table and the predictions.

    Args:
        data: Labelled data set, or KIND:PATH as for `open_data`; without splits it is divided 80/10/10.
        out: Folder of the results: a new one, or one to continue.
        init: Encoder: embedded or small (in this package), a run, a published checkpoint, timm:NAME@FILE,
            clip:NAME@FILE, ...; None: embedded.
        resume: Continue the work in `out`, if there is any, with the same result.
        callback: Gets the progress; None: silent.
        settings: Fields of `FewLabelsConfig` to replace, such as `images=(1, 4, 16)`.

    Returns:
        Points of the curves, one for each method and number of images: the mean accuracy of the draws, with its 95 %
        interval. Chance and the most frequent class come first.

    Raises:
        ConfigError: For settings that contradict each other or the work in `out`.
        DataError: If a class has too few training images, or if no image can be scored.
        CheckpointError: For an encoder that can't be used.
        StoppedError: After SIGTERM or Ctrl-C; the work can be resumed.
    """
    from uniemox.finetune.default_init import DEFAULT_INIT  # noqa: PLC0415
    from uniemox.finetune.few_labels_config import FewLabelsConfig  # noqa: PLC0415 - settings first, as above

    start = DEFAULT_INIT if init is None else os.fspath(init)
    config = with_settings(FewLabelsConfig(init=start), settings)
    samples = _opened(data)
    from uniemox.finetune.few_labels import few_labels as run  # noqa: PLC0415 - torch

    return run(config, samples, Path(out), resume=resume, callback=callback)


def evaluate(
    model: "PathLike | Run",
    data: "DataSet | str",
    *,
    by: str | None = None,
    task: Literal["affect"] | None = None,
    label_pairs: "Mapping[str, tuple[str, ...]] | None" = None,
    allow_seen: bool = False,
    save_as: str | None = None,
    on_progress: Progress = silent,
) -> "Evaluation":
    """Score a classifier on all samples of a data set, with 95 % intervals over images.

    Args:
        model: A fine-tuning run or its model.safetensors; or an ONNX file, embedded or small, which need no torch.
        data: Data set, or KIND:PATH as for `open_data`; `data.only("test")` has one split.
        by: Also score each value of a column: domain, split, label, group, part, or a field of the annotations.
        task: affect: compare a classifier's valence and arousal with people's ratings.
        label_pairs: Labels of the model that mean each label of the data, such as {"fun": ("amusement", "awe"), "yuck":
            ("disgust",)}; images of a label with none are left out. None: the known map between the two sets.
        allow_seen: Also score images that the model was trained on.
        save_as: Also write scores and predictions to RUN/evaluations under this name, for `uniemox report`.
        on_progress: Called with the name of the work, the finished items, and all items.

    Raises:
        DataError: For training images of the model, or if no sample can be scored.
        LabelError: If the model's labels can't be converted to those of the data.
        ConfigError: For an unknown column.
    """
    from uniemox.evaluate import evaluation_files, run  # noqa: PLC0415 - opened by models that need it

    samples = _opened(data)
    path = Path(model)
    evaluation = run.evaluate(
        path, samples, by=by, task=task, allow_seen=allow_seen, label_pairs=label_pairs, on_progress=on_progress
    )
    if save_as is not None:
        evaluation_files.write_evaluation(evaluation, path, samples, "all", name=save_as)
    return evaluation


def export(
    model: "PathLike | Run",
    *,
    out: PathLike,
    to: Literal["onnx", "hub-folder"] = "onnx",
    weights: Literal["float16", "int8"] | None = None,
) -> Path:
    """Write a classifier for other programs: as one ONNX file, or as a folder for a model hub.

    Args:
        model: A fine-tuning run; for onnx also its model.safetensors, an ONNX file, embedded or small.
        out: File or folder to write.
        to: onnx: one file. hub-folder: model card, model.onnx, and weights for timm and transformers.
        weights: Data type of the stored weights of an ONNX file; None: float32. Computation stays float32.

    Returns:
        The written file or folder.

    Raises:
        CheckpointError: For an unfinished run, or a file that can't be read or written.
        ConfigError: For weights with a hub folder.
    """
    from uniemox.export.run import export_hub_folder, export_onnx  # noqa: PLC0415 - torch

    if to not in ("onnx", "hub-folder"):
        raise ConfigError(f"to must be onnx or hub-folder, got {to!r}")
    if to == "onnx":
        export_onnx(Path(model), Path(out), weights=weights)
        return Path(out)
    if weights is not None:
        raise ConfigError("a hub folder has float32 weights; leave out weights")
    from uniemox.evaluate.run_records import score_lines  # noqa: PLC0415 - torch

    export_hub_folder(Path(model), Path(out), score_lines)
    return Path(out)


def explain(
    predictor: "Predictor", image: "ImageLike", *, label: str | None = None, method: "Method" = "auto"
) -> "Explanation":
    """Show which parts of an image support a label, as a heat map.

    Args:
        predictor: From `load`.
        image: As for `Predictor.predict`.
        label: One of the predictor's labels; None: the most probable one.
        method: cam: class-activation map of a convolutional network. occlusion: any network, about 100 passes. auto:
            cam if the network has it, else occlusion.

    Raises:
        ImageError: For an unreadable image.
        LabelError: For an unknown label.
        ConfigError: For a method that the network does not have.
    """
    from uniemox.insight.explain.maps import heat_map  # noqa: PLC0415 - fonts and drawing

    return heat_map(predictor, image, label, method=method)


def survey(
    images: "PathLike | Iterable[PathLike]",
    *,
    out: PathLike,
    by: Sequence[str] = ("folder", "date"),
    table: PathLike | None = None,
    labels: str | None = None,
    resume: bool = False,
    index: PathLike | None = None,
    predictor: "Predictor | None" = None,
) -> "Summary":
    """Write a self-contained HTML page about the emotions that a collection of images evokes.

    The predictions are saved in OUT.jsonl as they are made. Those of one folder are shared with `search` and `tag`, in
    its index FOLDER/.uniemox/.

    Args:
        images: Files, folders or patterns.
        out: HTML file to write.
        by: Groups to compare: folder, date (month or year in EXIF), or columns of `table`.
        table: CSV file with a column path and the columns that `by` names.
        labels: Convert predictions to another label set, such as polarity.
        resume: Continue OUT.jsonl: skip images that it already contains.
        index: Folder for the index instead of FOLDER/.uniemox/.
        predictor: From `load`; None: the package's own model.

    Raises:
        ConfigError: For a name of `out` or of a group that can't be used, or if there is no image.
        DataError: For a folder that is missing, and a table or file that can't be read or written.
    """
    from uniemox.insight.survey.run import SurveySettings, run_survey  # noqa: PLC0415
    from uniemox.predict.images import list_images  # noqa: PLC0415

    if isinstance(images, (str, os.PathLike)):
        names = [os.fspath(images)]
    else:
        names = [os.fspath(name) for name in images]
    groups = (by,) if isinstance(by, str) else tuple(by)
    settings = SurveySettings(
        out=Path(out), by=groups, table=_path(table), labels=labels, resume=resume, index=_path(index)
    )
    return run_survey(lambda: _predictor(predictor), names, lambda: list_images(names), settings)


def search(  # noqa: PLR0913 - each is a part of the query, or a place
    folder: PathLike,
    *,
    like: "ImageLike | None" = None,
    emotion: str | None = None,
    mood: str = "",
    count: int = 24,
    unfamiliar: bool = False,
    out: PathLike | None = None,
    index: PathLike | None = None,
    predictor: "Predictor | None" = None,
) -> "list[Hit]":
    """Find images in a folder by similarity to other images, by emotion, or by mood.

    The first search predicts all images, and saves the predictions in the index FOLDER/.uniemox/. Later searches, `tag`
    and `survey` predict only new and changed images.

    Args:
        folder: Folder of images, including its subfolders.
        like: Image to which results are similar, as for `Predictor.predict`, or a folder whose mean features are taken.
            The images themselves are no results. For the searched folder itself, its most typical images come first.
        emotion: Label of the model; images with the highest probability come first.
        mood: Conditions on valence, arousal (1 to 9), labels, familiarity (0 to 1), people or faces (numbers), such as
            "valence>6 arousal<5". Without `like` and `emotion`, the first condition sorts the images: > puts the
            highest value first, < the lowest.
        count: Maximum number of results, at least 1.
        unfamiliar: Also return images whose predictions are guesses. Otherwise, a warning says how many were left out.
        out: Also write an HTML page of the results.
        index: Folder for the index instead of FOLDER/.uniemox/.
        predictor: From `load`; None: the package's own model.

    Raises:
        ConfigError: For no criterion, an unknown name, a malformed mood, or an index that another process writes.
        DataError: If there is no such folder, the index can't be read or written, or no image can be read.
        ImageError: If `like` can't be read.
    """
    from uniemox.insight.index_file import open_for_index  # noqa: PLC0415
    from uniemox.insight.search import Query, search_folder  # noqa: PLC0415

    query = Query(like=like, emotion=emotion, mood=mood, count=count, unfamiliar=unfamiliar)
    opened = predictor or open_for_index(
        Path(folder), _path(index), needs_people=query.needs_people, needs_faces=query.needs_faces
    )
    results = search_folder(opened, Path(folder), query, out=_path(out), index_path=_path(index))
    if results.guesses_note:
        warnings.warn(f"{results.guesses_note}; unfamiliar=True returns them", stacklevel=2)
    return list(results.hits)


def tag(
    folder: PathLike,
    *,
    naming: "Naming" = "photo.jpg.xmp",
    rating: bool = False,
    unfamiliar: bool = False,
    dry_run: bool = False,
    index: PathLike | None = None,
    predictor: "Predictor | None" = None,
) -> "list[TaggedImage]":
    """Write the emotions of a folder's images into XMP sidecar files, which photo programs read.

    A sidecar gets the keyword emotion|contentment for the most probable label, and valence and arousal. The photographs
    are not changed, and neither are the fields of other programs in existing sidecars. The predictions are saved in
    the index FOLDER/.uniemox/, as by `search`.

    Args:
        folder: Folder of images, including its subfolders.
        naming: Name of new sidecars; an existing one of either name is used.
        rating: Also write xmp:Rating: 1 star for a valence below 2, up to 5 stars from 8.
        unfamiliar: Also tag images whose predictions are guesses.
        dry_run: Write no sidecar.
        index: Folder for the index instead of FOLDER/.uniemox/.
        predictor: From `load`; None: the package's own model.

    Returns:
        What happened to each image. An image or a sidecar that can't be read is a result with this state.

    Raises:
        ConfigError: For an unknown naming, a model without emotion labels, or an index that another process writes.
        DataError: If there is no such folder, the index can't be read or written, or no image can be read.
    """
    from uniemox.insight.index_file import open_for_index  # noqa: PLC0415
    from uniemox.insight.tag.folder import TagSettings, tag_folder  # noqa: PLC0415

    opened = predictor or open_for_index(Path(folder), _path(index))
    settings = TagSettings(naming=naming, rating=rating, unfamiliar=unfamiliar, dry_run=dry_run)
    return list(tag_folder(opened, Path(folder), settings, index_path=_path(index)))


def untag(folder: PathLike, *, dry_run: bool = False) -> "list[TaggedImage]":
    """Remove from a folder's sidecar files what `tag` has written.

    A sidecar that `tag` has made and that contains nothing else is deleted.

    Args:
        folder: Folder of images, including its subfolders.
        dry_run: Change nothing.

    Returns:
        What happened to each sidecar that has fields of `tag`.

    Raises:
        DataError: If there is no such folder.
    """
    from uniemox.insight.tag.folder import untag_folder  # noqa: PLC0415

    return list(untag_folder(Path(folder), dry_run=dry_run))


def _predictor(predictor: "Predictor | None") -> "Predictor":
    from uniemox.predict.opening import load  # noqa: PLC0415

    return predictor or load()


def _path(path: PathLike | None) -> Path | None:
    """Return a path that may be left out.

    Raises:
        ConfigError: For an empty path, which would be the current folder.
    """
    if path is None:
        return None
    if not os.fspath(path):
        raise ConfigError("a path is empty; give a name, or None")
    return Path(path)


def _opened(data: "DataSet | str") -> "DataSet":
    from uniemox.data.source import open_data  # noqa: PLC0415

    return open_data(data) if isinstance(data, str) else data
