"""From a sample to what a pre-training step takes of it."""

from dataclasses import dataclass, replace

import torch

from uniemox.data.prompts import text_of
from uniemox.data.sample import Sample
from uniemox.pretrain.step import PretrainBatch
from uniemox.views.loader import ViewBatch
from uniemox.views.mask import mask_noise
from uniemox.views.transforms import TrainViews, Views


@dataclass(frozen=True, slots=True)
class MaskedViews:
    """Views for training, with the draws of their masks: functions of seed, epoch and sample alone."""

    make_views: TrainViews
    length: int
    """L, patches of a view."""

    def __call__(self, sample: Sample, epoch: int) -> Views:
        """Make the views and draw the masks; errors as `TrainViews`."""
        seed = self.make_views.seed
        noise = [
            mask_noise([sample.key], self.length, seed=seed, epoch=epoch, stream=stream)
            for stream in ("scene", "person")
        ]
        return replace(self.make_views(sample, epoch), noise=torch.cat(noise))


def make_batch(views: ViewBatch, *, with_emotion: bool) -> PretrainBatch:
    """The batch of a step.  views: of `MaskedViews`.  with_emotion: see `text_of`."""
    noise = torch.empty(0, 2, 0) if views.noise is None else views.noise  # of a batch without images
    return PretrainBatch(
        scene=views.scene,
        person=views.person,
        texts=[text_of(sample, with_emotion) for sample in views.samples],
        keys=[sample.key for sample in views.samples],
        scene_noise=noise[:, 0],
        person_noise=noise[:, 1],
    )
