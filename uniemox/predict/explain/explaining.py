"""Opens the explainer of a model, which draws heat maps and scores them; only Grad-CAM needs torch."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from uniemox.errors import ConfigError
from uniemox.persons.box import Detection
from uniemox.predict.confidence import answers_of
from uniemox.predict.explain.explanation import Explanation
from uniemox.predict.explain.maps import Method, heat_map, logits_of, views_of
from uniemox.predict.explain.scores import MapScores, map_scores
from uniemox.predict.images import ImageLike
from uniemox.predict.opening import open_finder, open_network
from uniemox.predict.predictor import Predictor


class Explainer:
    """Explains predictions with heat maps, and scores the maps.  method: as for `heat_map`."""

    def __init__(self, predictor: Predictor, method: Method = "auto") -> None:
        self.predictor, self.method, self.name = predictor, method, predictor.name
        self.looks_at_people = predictor.network.info.needs_person

    def explain(self, image: ImageLike, label: str | None, persons: Sequence[Detection] | None = None) -> Explanation:
        """Explain one image, see `heat_map`."""
        return heat_map(self.predictor, image, label, method=self.method, persons=persons)

    def score(self, explanation: Explanation) -> MapScores:
        """Measure one of the explainer's maps, see `map_scores`. Raises ConfigError for valence and arousal."""
        network, info = self.predictor.network, self.predictor.network.info
        if info.task == "affect":
            raise ConfigError(f"{self.name} predicts valence and arousal; deletion and insertion need probabilities")
        views, _ = views_of(network, explanation.image, explanation.persons)
        seen, index = info.views[0], info.labels.index(explanation.label)
        return map_scores(
            lambda pixels: answers_of(info, logits_of(network, views | {seen: pixels}))[:, index],
            views[seen][0],
            explanation.heat,
        )


def open_explainer(model: str | Path | None, method: Method = "auto") -> Explainer:
    """Open the explainer of a model.

    model: as for `uniemox.load`, None for the package's own; for grad-cam a fine-tuning run or its model.safetensors.
    method: only grad-cam needs torch.
    If the model reads the person view, the embedded detector finds people, as in `uniemox predict`.
    Raises CheckpointError or HubError for files that can't be used, ConfigError for grad-cam without a run.
    """
    if method != "grad-cam":
        return Explainer(_open_predictor(model), method)
    if model is None:
        raise ConfigError("grad-cam needs a run: give --model RUN; the package's model has cam")
    from uniemox.predict.explain.grad_cam import open_in_torch  # noqa: PLC0415 - torch

    return Explainer(open_in_torch(Path(model)), method)


def open_explainers(
    models: Sequence[str | Path | None], method: Method | Literal["both"]
) -> tuple[list[Explainer], list[str]]:
    """Open and name the explainers of several models; method "both" opens cam and occlusion for each model.

    Raises the errors of `open_explainer`.
    """
    if method != "both":
        explainers = [open_explainer(model, method) for model in models]
        return explainers, unique_names([one.name for one in explainers])
    methods: tuple[Method, Method] = ("cam", "occlusion")
    explainers = [Explainer(predictor, each) for predictor in map(_open_predictor, models) for each in methods]
    return explainers, unique_names([f"{one.name} ({one.method})" for one in explainers])


def _open_predictor(model: str | Path | None) -> Predictor:
    network = open_network(model)
    return Predictor(network, open_finder("embedded") if network.info.needs_person else None)


def unique_names(names: Sequence[str]) -> list[str]:
    """Number the names that occur more than once.

    >>> unique_names(["fi", "clip", "fi"])
    ['fi (1)', 'clip', 'fi (2)']
    """
    times, seen, unique = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        unique.append(f"{name} ({seen[name]})" if times[name] > 1 else name)
    return unique
