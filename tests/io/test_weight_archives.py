"""Files of a few bytes that ask for gigabytes, or for hours, are refused before torch.load sees them."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from uniemox.checkpoints.reading import read_weight_file, tensors_only
from uniemox.errors import CheckpointError
from uniemox.io.weight_archives import check_weight_archive
from uniemox.training.state import read_state


def text(value: str) -> bytes:
    """As protocol 2 writes it."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


ENCODE = b"c_codecs\nencode\n"
DOUBLED = b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(40))  # t = (t, t), 40 times
UNREAD = (
    b"}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n(("
    + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"J" + struct.pack("<i", 10**6)
    + b"NtQK\x00J" + struct.pack("<i", 10**6) + b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs"
)  # fmt: skip
PICKLES = {  # dictionaries with one entry
    "hex of hex": (
        b"}" + text("w") + ENCODE * 41 + text("a") + text("latin1") + b"\x86R" + (text("hex") + b"\x86R") * 40 + b"s",
        r"would run code \(_codecs\.encode\).*save them as safetensors",
    ),
    "bytearray": (
        b"}" + text("w") + b"c__builtin__\nbytearray\nJ" + struct.pack("<i", 2 * 10**9) + b"\x85Rs",
        r"would run code \(__builtin__\.bytearray\)",
    ),
    "a key of 2^40 parts": (b"})q\x00" + DOUBLED + b"K\x01s", "refer to themselves until .* fetch it again"),
    "a list of 2^40 parts": (
        b"}" + text("w") + b"]q\x00" + b"".join(
            b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(40)
        ) + b"\x87s",
        "refer to themselves until .* fetch it again",
    ),
}  # fmt: skip


def as_legacy(content: bytes) -> bytes:
    """The format before torch 1.6 around the operations of a pickle."""
    start = b"".join(pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {}))
    return start + b"\x80\x02" + content + b"." + pickle.dumps([], 2)


def as_zip(content: bytes) -> bytes:
    """Today's format around the operations of a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + content + b".")
        archive.writestr("a/version", "3\n")
        archive.writestr("a/byteorder", "little")
    return file.getvalue()


@pytest.mark.parametrize("container", [as_legacy, as_zip])
@pytest.mark.parametrize("name", PICKLES)
def test_pickles_that_grow_are_refused(name: str, container: object, tmp_path: Path) -> None:
    """None of them has 2 kB; torch.load with weights_only takes gigabytes, or does not end, for each but the last."""
    content, message = PICKLES[name]
    path = tmp_path / "bomb.pth"
    path.write_bytes(container(content))
    assert path.stat().st_size < 2000
    with pytest.raises(CheckpointError, match=rf"bomb\.pth was refused: .*{message}"):
        check_weight_archive(path)
    with pytest.raises(CheckpointError, match=r"bomb\.pth was refused"):
        read_weight_file(path)


@pytest.mark.parametrize("name", ["a/DATA.PKL", "a/Data.pkl"])
def test_the_pickle_is_found_as_torch_finds_it(name: str, tmp_path: Path) -> None:
    """Whatever the case of its name."""
    path = tmp_path / "bomb.pth"
    path.write_bytes(as_zip(b"}" + text("w") + b"K\x01s").replace(b"a/data.pkl", name.encode()))
    assert read_weight_file(path).content == {"w": 1}
    path.write_bytes(as_zip(PICKLES["hex of hex"][0]).replace(b"a/data.pkl", name.encode()))
    with pytest.raises(CheckpointError, match=r"bomb\.pth was refused: reading it would run code \(_codecs\.encode\)"):
        read_weight_file(path)


def test_tensors_for_which_the_file_has_no_bytes_are_refused_before_they_are_touched(tmp_path: Path) -> None:
    """The older format claims a storage's size, and need not give its content."""
    path = tmp_path / "unread.pth"
    path.write_bytes(as_legacy(UNREAD))
    content = read_weight_file(path).content
    assert content["w"].shape == (10**6,)
    with pytest.raises(CheckpointError, match=r"unread\.pth: up to w, its tensors claim more than the \d+ bytes"):
        tensors_only(content, path)


def rewritten(path: Path, *, compression: int = zipfile.ZIP_STORED, before: bytes = b"", comment: bytes = b"") -> Path:
    """A file of torch.save, zipped again."""
    torch.save({"w": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as old:
        members = {member.filename: old.read(member) for member in old.infolist()}
    with path.open("wb") as file:
        file.write(before)
        with zipfile.ZipFile(file, "w", compression) as new:
            new.comment = comment
            for name, content in members.items():
                new.writestr(name, content)
    return path


def test_an_archive_that_was_zipped_again_without_compression_is_read(tmp_path: Path) -> None:
    content = read_weight_file(rewritten(tmp_path / "again.pth")).content
    assert torch.equal(content["w"], torch.zeros(1000))


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_archives_are_refused(compression: int, tmp_path: Path) -> None:
    path = rewritten(tmp_path / "small.pth", compression=compression)
    with pytest.raises(CheckpointError, match=r"small\.pth was refused: '.*' in it is compressed, .*save it again"):
        read_weight_file(path)


@pytest.mark.parametrize("odd", [{"comment": b"hello"}, {"before": b"PK\x03\x04"}])
def test_archives_with_something_around_their_members_are_refused(odd: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"odd\.pth was refused: there is something before or behind"):
        read_weight_file(rewritten(tmp_path / "odd.pth", **odd))


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A thousand entries of the list of members for the same megabyte."""
    path = tmp_path / "shared.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data/0", bytes(2**20))
        for number in range(1, 1000):
            member = zipfile.ZipInfo(f"a/data/{number}")
            one = archive.filelist[0]
            member.CRC = one.CRC
            member.file_size = one.file_size
            member.compress_size = one.compress_size
            member.header_offset = one.header_offset
            archive.filelist.append(member)
            archive.NameToInfo[member.filename] = member
        archive._didModify = True
    with pytest.raises(CheckpointError, match=r"shared\.pth was refused: what is in it claims 1,048,576,000 bytes"):
        read_weight_file(path)


def test_a_runs_state_is_looked_at_too(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    path.write_bytes(as_zip(PICKLES["hex of hex"][0]))
    with pytest.raises(CheckpointError, match=r"state\.pt was refused"):
        read_state(path)
