"""From what the loader gives to what a pre-training step takes."""

from torch import Tensor

from uniemox.data.prompts import text_of
from uniemox.pretrain.step import PretrainBatch
from uniemox.views.loader import ViewBatch
from uniemox.views.mask import mask_noise


def make_batch(views: ViewBatch, *, length: int, seed: int, epoch: int, with_emotion: bool) -> PretrainBatch:
    """The batch of a step, its masks drawn from (seed, epoch, sample) alone.

    length: L, patches of a view.  with_emotion: see `text_of`.
    """
    keys = [sample.key for sample in views.samples]

    def noise(stream: str) -> Tensor:
        return mask_noise(keys, length, seed=seed, epoch=epoch, stream=stream)

    return PretrainBatch(
        scene=views.scene,
        person=views.person,
        texts=[text_of(sample, with_emotion) for sample in views.samples],
        keys=keys,
        scene_noise=noise("scene"),
        person_noise=noise("person"),
    )
