"""Text features, computed once per distinct text and kept on disk."""

import hashlib
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uniemox.errors import TeacherError
from uniemox.teacher.protocol import Teacher


class TextCachedTeacher:
    """A teacher that asks another for each distinct text once, ever: the file outlives the process.

    path: an SQLite file, made if it is not there; several processes may share it. A feature's key is a hash of the
    teacher's fingerprint and the text, so another teacher never finds this one's features.
    Raises TeacherError if the file is no database or can't be written.
    """

    def __init__(self, teacher: Teacher, path: str | Path) -> None:
        self.teacher, self.path = teacher, Path(path)
        self.width, self.fingerprint = teacher.width, teacher.fingerprint
        self.lock = threading.Lock()  # one thread at a time talks to the database
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.database = sqlite3.connect(self.path, timeout=60, check_same_thread=False)  # s to wait for others
            self.database.execute("PRAGMA journal_mode=WAL")
            self.database.execute(
                "CREATE TABLE IF NOT EXISTS features (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID"
            )
        except (sqlite3.Error, OSError) as error:
            raise TeacherError(
                f"{path} can't keep text features ({error}); delete it or choose another path"
            ) from error

    def image_features(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """Ω, straight from the teacher."""
        return self.teacher.image_features(pixels, keys)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """texts: N.  Returns (N, C) float32, on the CPU."""
        key_of = {text: self._key(text) for text in texts}
        if not texts:
            return torch.empty(0, self.width)
        try:
            with self.lock:
                known = self._known_or_asked(key_of)
        except sqlite3.Error as error:
            raise TeacherError(f"{self.path} can't keep text features ({error}); delete it, it is a cache") from error
        return torch.from_numpy(np.stack([known[text] for text in texts]))

    def _known_or_asked(self, key_of: dict[str, str]) -> dict[str, np.ndarray]:
        """The feature of every text: from the file, or else from the teacher, and then kept."""
        known = {text: value for text, key in key_of.items() if (value := self._find(key)) is not None}
        new = [text for text in key_of if text not in known]
        if new:
            known |= dict(zip(new, self.teacher.text_features(new).float().cpu().numpy(), strict=True))
            rows = [(key_of[text], known[text].tobytes()) for text in new]
            with self.database:
                self.database.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", rows)
        return known

    def _key(self, text: str) -> str:
        return hashlib.sha256(f"{self.fingerprint}\0{text}".encode()).hexdigest()

    def _find(self, key: str) -> np.ndarray | None:
        row = self.database.execute("SELECT value FROM features WHERE key = ?", (key,)).fetchone()
        if row is None or len(row[0]) != 4 * self.width:
            return None
        return np.frombuffer(row[0], dtype=np.float32).copy()
