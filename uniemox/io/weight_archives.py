"""Check of a weight archive before torch.load reads it, so that no small file claims gigabytes.

torch.load with weights_only runs no foreign code, but it inflates compressed data, and calls functions that build large
objects from small ones as often as a file requests. With torch 2.15 alone, 74 bytes become 1.9 GB (bytearray), 1 MB of
a compressed archive 1 GB, and 243 bytes (a key of 2^40 parts) keep it busy for more than 20 s.

Nothing here imports torch.
"""

import os
import pickle
import pickletools
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from uniemox.errors import CheckpointError
from uniemox.io.files import open_regular

ARCHIVE_ERRORS = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError, MemoryError, OverflowError),
    *(AssertionError, StopIteration, pickle.UnpicklingError, struct.error, zipfile.BadZipFile, zlib.error),
)
"""Errors of torch, numpy and open_clip for files that are missing, damaged or of another kind."""
ZIP_START = b"PK\x03\x04"
LEGACY_PICKLES = 5  # magic number, protocol, machine, the content, its storages' names
MIN_PARTS = 2**20
MAX_GROWTH = 64
"""A pickle may have MIN_PARTS + MAX_GROWTH x its bytes parts, each counted as often as it is referred to."""
BUILDERS = ("_codecs encode", "builtins bytearray", "__builtin__ bytearray")
"""Functions that torch.load calls for a file and that build large objects: bytearray(10**9), encode(x, "hex")."""
_GETS = ("BINGET", "LONG_BINGET")
_PUTS = ("BINPUT", "LONG_BINPUT")
_MARK = -1


def check_weight_archive(path: Path) -> None:
    """Check a file of torch.save, a zip archive or the older plain pickles, without building its objects.

    Incomplete pickles pass, because torch.load stops at the same byte.

    Raises:
        CheckpointError: For an archive that is compressed, claims more than the file holds, calls one of BUILDERS, or
            repeats its parts too often.
        ValueError or OSError: For one that can't be read.
    """
    with open_regular(path) as file:
        is_zip = file.read(len(ZIP_START)) == ZIP_START
        file.seek(0)
        if is_zip:
            _check_zip(file, path)
            return
        size = os.path.getsize(path)
        for _ in range(LEGACY_PICKLES):
            if not _check_pickle(file, size, path):
                return


def _check_zip(file: IO[bytes], path: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            _check_members(archive, path)
            for member in archive.infolist():
                if "data.pkl" in member.orig_filename.lower():  # torch ignores case
                    with archive.open(member) as stream:
                        _check_pickle(stream, member.file_size, path)
    except (zipfile.BadZipFile, RuntimeError, struct.error, OverflowError, EOFError) as error:
        raise ValueError(f"not an archive that can be read ({error})") from error


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    """Check that members are stored uncompressed and contiguous, as torch.save writes them."""
    members = archive.infolist()
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise CheckpointError(
                f"{path} was refused: {member.filename[:80]!r} in it is compressed, {member.file_size:,} bytes out of "
                f"{member.compress_size:,}; torch.save compresses nothing. If you trust its source, load it there, "
                "and save it again"
            )
    claimed = sum(member.file_size for member in members)
    size = os.path.getsize(path)
    if claimed > size:
        raise CheckpointError(
            f"{path} was refused: what is in it claims {claimed:,} bytes, the file has {size:,}; fetch it again"
        )
    if archive.comment or min((member.header_offset for member in members), default=0):
        # Zip readers differ in where they search for the list of members.
        raise CheckpointError(f"{path} was refused: there is something before or behind its members; fetch it again")


def _check_pickle(stream: IO[bytes], size: int, path: Path) -> bool:
    """Read one pickle and count its parts, without building any; returns True if it was complete.

    Args:
        size: Bytes of the pickle, or of the file around it.

    Raises:
        the CheckpointError: Of `check_weight_archive`.
    """
    limit = MIN_PARTS + MAX_GROWTH * size
    stack: list[int] = []  # number of parts of each value
    memo: dict[Any, int] = {}  # by the pickle's own number
    try:
        for operation, argument, _ in pickletools.genops(stream):
            if operation.name == "GLOBAL" and argument in BUILDERS:
                raise CheckpointError(refusal(path, str(argument).replace(" ", ".")))
            if operation.name in _PUTS:
                memo[argument] = stack[-1]
                continue
            if operation.name in _GETS:
                parts = memo[argument]
            else:
                parts = _parts(operation, argument, stack)
            if parts > limit:
                raise CheckpointError(
                    f"{path} was refused: its {size:,} bytes refer to themselves until they are more than {limit:,} "
                    "parts, as no weight file does; fetch it again"
                )
            if operation.stack_after:
                stack.append(_MARK if operation.name == "MARK" else parts)
    except (ValueError, IndexError, KeyError):
        return False
    return True


def _parts(operation: pickletools.OpcodeInfo, argument: Any, stack: list[int]) -> int:
    """Take an operation's operands off the stack; returns the parts of its result, their sum plus one."""
    if isinstance(argument, str | bytes):
        parts = max(1, len(argument))
    else:
        parts = 1
    needs = len(operation.stack_before)
    if pickletools.markobject in operation.stack_before:
        needs = operation.stack_before.index(pickletools.markobject)
        while (top := stack.pop()) != _MARK:
            parts += top
    return parts + sum(stack.pop() for _ in range(needs))


def refusal(path: Path, wanted: str) -> str:
    """Return the message about a file that requests a call.  wanted: module.name."""
    return (
        f"{path} was refused: reading it would run code ({wanted}), which a weight file need not. If you trust its "
        "source, load it there, keep only the tensors, and save them as safetensors"
    )
