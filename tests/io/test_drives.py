"""Every command that writes works on drives that refuse locks, permissions or the flushing of folders."""

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs import losses, sha256, tiny_finetuning, uniemox_here
from uniemox.data.source import open_data
from uniemox.errors import InUseError
from uniemox.finetune.run import finetune
from uniemox.io import drive
from uniemox.io.drive import DriveWarning, copy_file, flush, open_standard_streams, set_permissions, try_lock
from uniemox.io.files import FileLock, write_file

PHOTOS = Path(__file__).resolve().parents[2] / "docs" / "images"
FINDER = PHOTOS.parents[1] / "uniemox" / "predict" / "embedded" / "finder.onnx"
NAMES = ("cat", "coffee", "galaxies", "rocket")


def refuse(number: int) -> Callable[..., Any]:
    def refused(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return refused


def without_locks(patch: pytest.MonkeyPatch, number: int = errno.ENOLCK) -> None:
    patch.setattr("fcntl.flock", refuse(number))


def without_permissions(patch: pytest.MonkeyPatch, number: int = errno.EPERM) -> None:
    for name in ("chmod", "fchmod", "lchmod"):
        patch.setattr(os, name, refuse(number), raising=False)


def without_folder_flush(patch: pytest.MonkeyPatch, number: int = errno.EINVAL) -> None:
    fsync = os.fsync

    def of_files(handle: Any) -> None:
        if stat.S_ISDIR(os.fstat(handle if isinstance(handle, int) else handle.fileno()).st_mode):
            refuse(number)()
        fsync(handle)

    patch.setattr(os, "fsync", of_files)


DRIVES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "NFS without a lock service": without_locks,
    "SMB on macOS": lambda patch: without_locks(patch, errno.ENOTSUP),
    "FUSE": lambda patch: without_locks(patch, errno.ENOSYS),
    "CIFS without uid": without_permissions,
    "Android": lambda patch: without_permissions(patch, errno.EACCES),
    "old CIFS": without_folder_flush,
}
COMMANDS = {
    "predict": ("predict", "photos", "--no-persons", "--out", "a.csv"),
    "predict, JSON lines": ("predict", "photos", "--no-persons", "--out", "a.jsonl"),
    "tag": ("tag", "photos"),
    "survey": ("survey", "photos", "--out", "survey.html"),
    "search": ("search", "photos", "--emotion", "awe"),
    "explain": ("explain", "photos/cat.jpg", "--out", "why.png"),
    "persons": ("data", "persons", "folder:classes", "--detector", FINDER, "--out", "persons.json"),
    "describe": ("data", "describe", "folder:classes", "--out", "texts.json"),
    "split": ("data", "split", "folder:classes", "splits.json"),
    "shard": ("data", "shard", "folder:classes", "shards"),
    "check": ("data", "check", "folder:classes", "--html", "check.html"),
    "evaluate": ("evaluate", "--model", "embedded", "--data", "folder:classes", "--split", "all"),
    "export": ("export", "embedded", "--to", "onnx", "--out", "copy.onnx"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four photographs, and the same in two classes."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(NAMES):
        for target in (tmp_path / "photos", tmp_path / "classes" / ("awe", "fear")[number % 2]):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(PHOTOS / f"{name}.jpg", target)
    return tmp_path


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.thorough) for kind in DRIVES])
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_write_on_every_kind_of_drive(
    name: str, kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        DRIVES[kind](patch)
        done = uniemox_here(*COMMANDS[name])
    assert done.returncode == 0, done.stderr
    assert not list(folder.rglob("*.partial"))
    assert {path.name for path in folder.iterdir()} > {"photos", "classes"} or list(folder.glob("photos/.uniemox/*"))


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["NFS without a lock service", "CIFS without uid", "old CIFS"])
def test_training_ends_with_the_same_bytes_on_every_kind_of_drive(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_data("synthetic:24")
    config = tiny_finetuning("scratch:timm:test_vit")
    finetune(config, data, tmp_path / "plain")
    with monkeypatch.context() as patch:
        DRIVES[kind](patch)
        finetune(config, data, tmp_path / "drive")
    for name in ("model.safetensors", "training_pictures.txt"):
        assert sha256(tmp_path / "plain" / name) == sha256(tmp_path / "drive" / name)
    assert losses(tmp_path / "plain") == losses(tmp_path / "drive")


@pytest.mark.parametrize("number", sorted(drive.NO_LOCKS))
def test_a_missing_lock_is_one_warning(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks(monkeypatch, number)
    with pytest.warns(DriveWarning, match=str(tmp_path)):
        lock = FileLock(tmp_path / "a.csv")
    lock.release()


def test_other_faults_of_a_lock_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks(monkeypatch, errno.EIO)
    with (tmp_path / "a").open("ab") as file, pytest.raises(OSError, match=os.strerror(errno.EIO)):
        try_lock(file, tmp_path / "a")


def test_a_second_writer_is_refused_where_locks_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniemox.io.files.WAIT_S", 0.0)
    lock = FileLock(tmp_path / "a.csv")
    with pytest.raises(InUseError):
        FileLock(tmp_path / "a.csv")
    lock.release()
    FileLock(tmp_path / "a.csv").release()


def test_permissions_stay_on_a_drive_that_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o640)
    with monkeypatch.context() as patch:
        without_permissions(patch)
        set_permissions(path, 0o600)
        write_file(path, "new")
        copy_file(path, tmp_path / "b")
    assert path.read_text() == (tmp_path / "b").read_text() == "new"
    assert (tmp_path / "b").stat().st_mtime_ns == path.stat().st_mtime_ns
    without_permissions(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        set_permissions(path, 0o600)


def test_files_are_flushed_and_folders_where_it_is_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("x")
    flush(tmp_path / "a")
    flush(tmp_path)
    without_folder_flush(monkeypatch)
    flush(tmp_path)
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    for path in (tmp_path, tmp_path / "a"):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            flush(path)


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_answers_are_the_same_with_closed_standard_streams(closed: str, folder: Path) -> None:
    command = f"{sys.executable} -m uniemox predict photos --no-persons --out {{}} {{}}"
    subprocess.run(command.format("open.csv", ""), shell=True, check=True, capture_output=True)
    subprocess.run(command.format("closed.csv", closed), shell=True, check=True, capture_output=True)
    assert (folder / "open.csv").read_bytes() == (folder / "closed.csv").read_bytes()


def test_closed_streams_get_the_null_device() -> None:
    code = (
        "import os; from uniemox.io.drive import open_standard_streams as fix; os.close(0); os.close(2); fix();"
        "print(all(os.path.samestat(os.fstat(n), os.stat(os.devnull)) and os.get_inheritable(n) for n in (0, 2)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"
    assert open_standard_streams() is None
