"""Text features, computed once per distinct text and kept on disk."""

import hashlib
import threading
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniemox.errors import TeacherError
from uniemox.io.files import replacing
from uniemox.teacher.protocol import Teacher

KEY_BYTES = 32  # of SHA-256
SUFFIX = ".safetensors"


class TextCachedTeacher:
    """A teacher that asks another for each distinct text once, ever: the folder outlives the process.

    folder: made if it is not there; several processes, on several machines, may share it. Whoever has asked for texts
    writes a file of its own, which is there whole or not at all and never changes, so that nothing has to be locked and
    network file systems will do; two who ask at the same time both ask. A feature's key is a hash of the teacher's
    fingerprint and the text, so another teacher never finds this one's features.
    Raises TeacherError if the folder can't be read or written.
    """

    def __init__(self, teacher: Teacher, folder: str | Path) -> None:
        self.teacher, self.folder = teacher, Path(folder)
        self.width, self.fingerprint = teacher.width, teacher.fingerprint
        self.lock = threading.Lock()
        self.known: dict[bytes, NDArray[np.float32]] = {}
        self.read: set[str] = set()  # names of files
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TeacherError(f"{folder} can't keep text features ({error}); choose another path") from error
        self._read_new()

    def image_features(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """Ω, straight from the teacher."""
        return self.teacher.image_features(pixels, keys)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """texts: N.  Returns (N, C) float32, on the CPU."""
        if not texts:
            return torch.empty(0, self.width)
        key_of = {text: self._key(text) for text in texts}
        with self.lock:
            if self._missing(key_of):
                self._read_new()
            if missing := self._missing(key_of):
                self._ask(missing, key_of)
            return torch.from_numpy(np.stack([self.known[key_of[text]] for text in texts]))

    def _missing(self, key_of: dict[str, bytes]) -> list[str]:
        return [text for text, key in key_of.items() if key not in self.known]

    def _ask(self, texts: list[str], key_of: dict[str, bytes]) -> None:
        """Ask the teacher, and keep what it says."""
        values = self.teacher.text_features(texts).float().cpu().numpy()
        keys = [key_of[text] for text in texts]
        self._remember(keys, values)
        name = f"{uuid.uuid4().hex}{SUFFIX}"
        rows = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
        try:
            with replacing(self.folder / name) as partial:
                safetensors.numpy.save_file({"keys": rows, "values": values}, partial)
        except OSError as error:
            raise TeacherError(f"{self.folder} can't keep text features ({error})") from error
        self.read.add(name)

    def _read_new(self) -> None:
        """What other processes, or earlier ones, have written since the last look."""
        try:
            names = {path.name for path in self.folder.iterdir() if path.suffix == SUFFIX} - self.read
        except OSError as error:
            raise TeacherError(f"{self.folder} can't be read ({error}); choose another path") from error
        for name in sorted(names):
            try:
                found = safetensors.numpy.load_file(self.folder / name)
                keys, values = found["keys"], found["values"]
            except (OSError, KeyError, safetensors.SafetensorError) as error:
                raise TeacherError(f"{self.folder / name} can't be read ({error}); delete it, it is a cache") from error
            if keys.shape[1:] == (KEY_BYTES,) and values.shape == (len(keys), self.width):  # else another teacher's
                self._remember([row.tobytes() for row in keys], values.astype(np.float32))
            self.read.add(name)

    def _remember(self, keys: Iterable[bytes], values: NDArray[np.float32]) -> None:
        self.known.update(zip(keys, values, strict=True))

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self.fingerprint}\0{text}".encode()).digest()
