"""Teacher that is fitted on pairs: an image tower and a text tower with a common feature space (teacher/fitting.py)."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from uniemox.checkpoints.reading import MAX_ENCODERS, check_file
from uniemox.checkpoints.timm_networks import load_timm
from uniemox.classifier_info import MAX_SIZE_PX
from uniemox.errors import CheckpointError, TeacherError, UniemoxError
from uniemox.io.files import open_regular, replacing
from uniemox.io.run_files import FITTED_TEACHER
from uniemox.io.typed import read_json
from uniemox.io.weight_archives import ARCHIVE_ERRORS
from uniemox.model.encoder import build_encoder
from uniemox.teacher.config import SMALL_PATCH_PX
from uniemox.teacher.sources import join_networks, network_features

DESCRIPTION = "teacher.json"
RUN = "fit"
FORMAT: Literal[1] = 1
# Name of the image tower that is fitted from random weights.
SMALL = "small"
SMALL_CHANNELS = 128
# Hidden width of the text tower.
HIDDEN = 256
# Maximum number of words of a text; further words are cut off, as CLIP's tokens are.
MAX_WORDS = 77
# A word, or a punctuation mark.
WORD = re.compile(r"[^\W_]+|[^\w\s]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Description of the two towers."""

    network: str
    """Image tower: timm's name, or "small"."""
    image_size: tuple[int, int]
    """Height and width of the input, px."""
    mean: tuple[float, ...]
    """Mean of the input by channel, on the scale of 0 to 1."""
    std: tuple[float, ...]
    """Standard deviation of the input, as `mean`."""
    channels: int
    """Number of channels of the image tower's features."""
    width: int
    """C, channels of the teacher's features."""
    words: tuple[str, ...]
    """Vocabulary of the text tower."""


@dataclass(frozen=True, slots=True)
class TeacherDescription:
    """Content of DESCRIPTION."""

    format: Literal[1]
    architecture: Architecture
    about: dict[str, Any]
    """Training data and scores."""


class WordTower(nn.Module):
    """Text tower: weighted sum of the words' embeddings, then a perceptron; unknown words are ignored.

    The fit sets `rarity`, a weight per word that falls with the share of images whose texts have the word. So words in
    all texts do not dominate rare ones.

    Args:
        words: Vocabulary.
        width: C, channels of its features.
    """

    rarity: Tensor

    def __init__(self, words: Sequence[str], width: int) -> None:
        super().__init__()
        # Row 0 is padding.
        self.index = {word: i for i, word in enumerate(words, start=1)}
        self.embed = nn.EmbeddingBag(len(words) + 1, HIDDEN, mode="sum", padding_idx=0)
        self.register_buffer("rarity", torch.ones(len(words) + 1))  # (V + 1,)
        self.layers = nn.Sequential(
            nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, width)
        )

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return features (N, C).  texts: N."""
        rows = [[self.index[word] for word in words_of(text) if word in self.index] for text in texts]
        longest = max((len(row) for row in rows), default=0) or 1
        padded = [row + [0] * (longest - len(row)) for row in rows]
        indices = torch.tensor(padded, dtype=torch.long, device=self.embed.weight.device)
        # For no texts too, of which the tensor above would have one dimension.
        indices = indices.view(-1, longest)  # (N, words)
        return self.layers(self.embed(indices, per_sample_weights=self.rarity[indices]))  # (N, C)


class FittedTeacher(nn.Module):
    """Image tower with a linear projection, and a text tower.

    Args:
        architecture: Description of the towers, which get random weights; usually use `FittedTeacher.load` or
            `fit_teacher`.
        about: Training data and scores, stored by `save`.
    """

    def __init__(self, architecture: Architecture, about: Mapping[str, Any]) -> None:
        super().__init__()
        self.architecture = architecture
        self.about = about
        self.network = build_network(architecture.network, architecture.image_size[0])
        self.project = nn.Linear(architecture.channels, architecture.width)
        self.text = WordTower(architecture.words, architecture.width)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "FittedTeacher":
        """Load the frozen teacher from a folder that `save` wrote.

        Args:
            folder: Folder with teacher.json and teacher.safetensors.
            device: Where the teacher runs; give the student's.

        Raises:
            TeacherError: If the folder has no teacher, or the weights do not match its description.
        """
        folder = Path(folder)
        description = read_json(
            folder / DESCRIPTION,
            TeacherDescription,
            remedy="write a teacher with uniemox teacher fit",
            error_class=TeacherError,
        )
        architecture = description.architecture
        try:
            open_regular(folder / FITTED_TEACHER).close()
            if architecture.network.count(",") >= MAX_ENCODERS or max(architecture.image_size) > MAX_SIZE_PX:
                raise CheckpointError(f"more than {MAX_ENCODERS} networks, or images over {MAX_SIZE_PX} px")
            # A description may claim any size: compare shapes on the meta device before memory is allocated.
            with torch.device("meta"):
                draft = cls(architecture, description.about)
            check_file(draft, folder / FITTED_TEACHER)
            teacher = cls(architecture, description.about)
            teacher.load_state_dict(load_file(folder / FITTED_TEACHER))
        except (*ARCHIVE_ERRORS, SafetensorError, UniemoxError) as error:
            raise TeacherError(
                f"{folder / FITTED_TEACHER} has no weights of this teacher: {error}; fit it again"
            ) from error
        return teacher.eval().requires_grad_(False).to(device)

    def save(self, folder: str | Path) -> None:
        """Write teacher.json and teacher.safetensors.

        Raises:
            TeacherError: For a folder with other files.
        """
        folder = Path(folder)
        check_folder(folder)
        parts = {"format": FORMAT, "architecture": asdict(self.architecture), "about": dict(self.about)}
        state = {name: value.cpu().contiguous() for name, value in self.state_dict().items()}
        with replacing(folder / FITTED_TEACHER) as weights, replacing(folder / DESCRIPTION) as description:
            save_file(state, weights)
            description.write_text(json.dumps(parts, indent=1) + "\n", "utf-8")

    @property
    def width(self) -> int:
        """C, number of feature channels."""
        return self.architecture.width

    @torch.no_grad()
    def image_features(self, pixels: Tensor, keys: Sequence[str] = ()) -> Tensor:
        """Return features (N, C) float32, not normalised.  pixels: (N, 3, H, W) in [0, 1].  keys: ignored."""
        tower = self.architecture
        features = network_features(self.network, pixels, tower.image_size, tower.mean, tower.std)  # (N, D)
        return self.project(features)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Return features (N, C) float32, not normalised.  texts: N, of any length; the first 77 words are read."""
        return self.text(texts).float()


def build_network(name: str, size: int) -> nn.Module:
    """Build an image tower with random weights and pooled features.

    Args:
        name: SMALL, or timm's name; several, separated by commas, are joined.
        size: Side of the small tower's input in px; other towers have their own.

    Raises:
        CheckpointError: For an unknown name.
    """
    if name == SMALL:
        shape = {"patch_size": SMALL_PATCH_PX, "embed_dim": SMALL_CHANNELS, "depth": 5, "num_heads": 4}
        tower: Any = build_encoder("vit_tiny_patch16_224", size, **shape)
        # Fitting runs on the CPU, where the fused kernel's backward pass is slow.
        for block in tower.blocks:
            block.attn.fused_attn = False
        return tower
    return join_networks([load_timm(part, None, pretrained=False) for part in name.split(",")])


def words_of(text: str) -> list[str]:
    """Return the first 77 words and punctuation marks of a text, in lower case.

    >>> words_of("A very_dark photo.")
    ['a', 'very', 'dark', 'photo', '.']
    """
    return WORD.findall(text.lower())[:MAX_WORDS]


def check_folder(folder: Path) -> None:
    """Check that a teacher may be written to a folder: it is absent, empty, or has a teacher or its fit.

    Raises:
        TeacherError: If the folder has other files.
    """
    if (folder / DESCRIPTION).is_file() or not folder.exists():
        return
    if not folder.is_dir() or any(path.name != RUN for path in folder.iterdir()):
        raise TeacherError(f"{folder} contains other files than a teacher; choose another folder")
