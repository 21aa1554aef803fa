"""One thread for every test of teachers."""

from tests.finetune.conftest import _one_thread

__all__ = ["_one_thread"]
