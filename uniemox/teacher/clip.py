"""CLIP as the teacher, through open_clip (the paper's: ViT-B/16, 512 channels)."""

import pickle
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import open_clip
import torch
from torch import Tensor

from uniemox.errors import TeacherError
from uniemox.teacher.protocol import fit_pixels, hash_module

# What open_clip raises for a weight file that is missing, mangled or something else; the file decides which of them.
UNLOADABLE = (
    *(RuntimeError, OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, StopIteration),
    *(AssertionError, pickle.UnpicklingError),
)


class ClipTeacher:
    """Image and text features of a frozen open_clip model, with its own normalisation and tokenizer.

    model, tokenizer: as open_clip makes them; `ClipTeacher.load` is the usual way. Texts longer than the model's
    context are cut off by its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:  # open_clip's are not typed
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, name: str = "ViT-B-16", weights: str = "openai", device: str | torch.device = "cpu") -> "ClipTeacher":
        """A model of open_clip with weights.

        name: open_clip's name of the architecture, or local-dir:FOLDER with open_clip_config.json and weights in it.
        weights: open_clip's name of published weights, fetched from the hub or its cache, or a local file. The weights
        of OpenAI need the architectures ending in -quickgelu when they come from a file.
        device: where the teacher runs; give the student's.
        Raises TeacherError if there is no such model or its weights can't be had.
        """
        is_folder = name.startswith("local-dir:")
        if not is_folder and open_clip.get_model_config(name) is None:
            raise TeacherError(f"open_clip has no model {name!r}; open_clip.list_models() lists what it has")
        try:
            model = open_clip.create_model(name, pretrained=None if is_folder else weights, require_pretrained=True)
            tokenizer = open_clip.get_tokenizer(name)
        except UNLOADABLE as error:
            raise TeacherError(
                f"the CLIP model {name} could not be loaded with weights {weights}: {error}. Give a local file, or a "
                f"name that open_clip.list_pretrained_tags_by_model({name!r}) lists, with network"
            ) from error
        return cls(model.to(device), tokenizer)

    @cached_property
    def width(self) -> int:
        """C, channels of its features."""
        return int(self.text_features([""]).shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the text tower's weights and structure, and with what the tokenizer makes of a text."""
        tokens = self.tokenizer(
            ["A photo of a café: 3 people, naïve & glad!"], context_length=self.model.context_length
        )
        return f"{hash_module(self.model, without='visual.')} {tokens.tolist()}"

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def image_features(self, pixels: Tensor, keys: Sequence[str] = ()) -> Tensor:
        """pixels: (N, 3, H, W) in [0, 1].  Returns (N, C) float32, not normalised. Keys are not needed."""
        visual = self.model.visual
        size = visual.image_size if isinstance(visual.image_size, tuple) else (visual.image_size, visual.image_size)
        pixels = fit_pixels(pixels.to(self._device), size, visual.image_mean, visual.image_std)
        return self.model.encode_image(pixels).float()

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """texts: N.  Returns (N, C) float32, not normalised."""
        tokens = self.tokenizer(list(texts), context_length=self.model.context_length)  # (N, context)
        return self.model.encode_text(tokens.to(self._device)).float()
