"""The file of a film: its packets, and whether the file was read whole."""

import math
import os
import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uniemox.io.files import open_regular

BACK_S = 1.0  # by which a time stamp goes back where films were joined
JUMP_S = 10.0  # by which time stamps go forward where broadcasts were joined
BROADCASTS = ("mpegts", "mpeg")  # containers whose time stamps may jump
LATE_ENDS = ("avi", "matroska,webm", "asf", "ogg")  # containers that may end with a large index, or page
MANY_PICTURES = 10  # that no answer shows; fewer may be left over where streams end
SEARCHED_PACKETS = 4096  # that may go by without a picture before a sign of life
FAR = 20.0  # distance of two pictures in the file that is a hole: times the median distance
# size of a hole, at least: limits in bytes; share of the file
HOLE_BYTES = (2**14, 100_000)
HOLE_SHARE = 0.02
ADDITIONAL = "matroska_block_additional"  # what a block holds beside the picture: that of WebM is its transparency
SEGMENT = b"\x18\x53\x80\x67"  # of Matroska; its size follows
AFTER_PICTURES = (b"\x1c\x53\xbb\x6b", b"\x12\x54\xc3\x67", b"\x19\x41\xa4\x69", b"\x10\x43\xa7\x70")  # Cues, Tags ...
# names of AVI's chunks, and of media
CHUNK = re.compile(rb"[\w ]{4}")
MEDIA = re.compile(rb"\d\d(dc|db|wb|__)")
# Codecs in whose packets zeros are pixels:
UNCOMPRESSED = ("rawvideo", "r10k", "r210", "v210", "v308", "v408", "v410", "yuv4", "ayuv", "avui", "avrp")
HEAD_BYTES = 4096
NEAR_BYTES = 64
MAX_BOXES = 1_000_000  # of mp4
# box inside of moov, the head, that announces fragments; bytes of that head
EXTENDS = b"mvex"
MAX_HEAD_BYTES = 2**24
BESIDE_MEDIA = frozenset(b"ftyp styp moov moof mfra meta sidx ssix emsg prft free skip wide uuid".split())
ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # begins the properties of an ASF file
# of transport streams
SYNC = 0x47
PACKET_SIZES = (188, 192, 204)
BLOCK_BYTES = 2**22


class _Box(NamedTuple):
    """Part of an mp4 or AVI file."""

    name: bytes
    start: int
    length: int
    """Number of bytes, without those that the file lacks."""


class FilmFile:
    """Reads the packets of a container, and records where they lie and how far the time stamps of all streams go.

    A file that is cut off ends early in all streams; an undamaged one may end with a long picture or with sound.
    """

    def __init__(self, path: Path, container: Any, stream: Any, search_on: Callable[[], None]) -> None:
        """Open the file of a container.  search_on: called again and again while no frames come."""
        self._path = path
        self._container = container
        self._stream = stream
        self._search_on = search_on
        self._kind: str = container.format.name
        self._is_mp4 = self._kind.startswith("mov")
        has_boxes = self._is_mp4 or self._kind == "avi"
        boxes, self._is_short = _read_boxes(path, self._kind) if has_boxes else ([], False)
        self._is_fragmented = any(box.name in (b"moof", EXTENDS) for box in boxes)
        self._beside = [box for box in boxes if box.name in BESIDE_MEDIA]
        # of packets, in the file
        self._starts = array("q")
        self._sizes = array("q")
        self._end_byte = 0
        self._zero_bytes = 0  # of packets that begin with zeros, about which decoders of MPEG-2 and DV say nothing
        self.end_s = 0.0
        """Latest end of a packet."""
        self.jump_s = -math.inf
        """Where the time stamps went forward last, by more than JUMP_S from one packet to the next."""

    def frames(self) -> Iterator[Any]:
        """Yield the decoded frames of the stream."""
        last_s = dict[int, float]()  # by stream: a packet of pictures may come after sound that is much later
        slack = used = 0  # bytes before the packets so far that belong to none; bytes of all packets
        # frames in one block of Matroska have its place, and their own sizes
        block = -1
        laced = 0
        for packet in self._packets():
            size = packet.size + sum(more.data_size for more in packet.iter_sidedata() if more.data_type == ADDITIONAL)
            if packet.dts is None:
                at = packet.pts
            else:
                at = packet.dts
            index = packet.stream.index
            hole = 0
            if packet.pos is not None:  # that of an attached picture, which comes first, is None
                laced = size + (laced if packet.pos == block else 0)
                block = packet.pos
                self._end_byte = max(self._end_byte, block + laced)
                hole = max(0, block - used - slack)
                slack += hole
            if block >= 0:
                self._starts.append(block)
                self._sizes.append(size)
                used += size
                if len(self._starts) % SEARCHED_PACKETS == 0:  # of sound, after the last picture
                    self._search_on()
            if at is not None and packet.stream.type in ("video", "audio"):
                base = float(packet.stream.time_base)
                at_s = at * base
                end = max(at, packet.pts or at) + (packet.duration or 0)
                self.end_s = max(self.end_s, end * base)
                if at_s < last_s.get(index, at_s) - BACK_S:
                    last_s.clear()
                has_jumped = last_s and at_s > max(last_s.values()) + JUMP_S
                if has_jumped and self._kind in BROADCASTS and hole < HOLE_BYTES[1]:  # in a hole, time goes on
                    self.jump_s = at_s
                last_s[index] = at_s
            is_repeat = packet.size == 0 and at is not None  # Theora shows the picture before it once more
            if index == self._stream.index and not is_repeat:
                if size > NEAR_BYTES and not any(memoryview(packet)[:NEAR_BYTES]):
                    self._zero_bytes += size
                yield from packet.decode()

    def _packets(self) -> Iterator[Any]:
        while True:
            try:
                yield from self._container.demux()
                return
            except BlockingIOError:  # FFmpeg found no packet in 64 KiB
                self._search_on()
            except IndexError:  # at the end, PyAV finds streams that it does not know
                return

    def is_whole(self, count: int) -> bool:
        """Return True if the file proves that nothing is missing.  count: of the frames."""
        if self._kind.startswith("matroska"):
            end, is_read = self._matroska_end()
            return end <= self._container.size and is_read
        if self._kind == "asf":
            end, packet_bytes = self._asf_end()
            return 0 < end <= self._container.size and end - self._end_byte < 2 * packet_bytes
        if self._kind == "avi":
            return self._is_whole_avi(count)
        return count >= self._stream.frames > 0 and not self._is_fragmented

    def problem(self, count: int, end_s: float) -> str:
        """Return a sentence about what is missing or was not read; empty if the file is whole as far as it says.

        Args:
            count: Of the frames.
            end_s: End of the last one.
        """
        size = self._container.size
        holes, elsewhere = self._transport_holes() if self._kind == "mpegts" else (self._holes(count), 0)
        if elsewhere > MANY_PICTURES:
            return f"{elsewhere:,} pictures are in other streams, where this one has none; split it there"
        is_cut_off = self._is_cut_off(count)
        if holes > HOLE_SHARE * size and not is_cut_off:
            return f"{holes / size:.0%} of the file can't be read: it is damaged, or other streams begin there"
        declared_s = (self._container.duration or 0) / 1e6
        if self._kind == "avi" and self._stream.average_rate:
            declared_s = float(self._declared() / self._stream.average_rate)  # duration is that of what is there
        if max(end_s, self.end_s) < 0.95 * declared_s - 1 and not self.is_whole(count):
            return f"it is cut off; it should last {declared_s:.0f} s"
        return "it is cut off" if is_cut_off else ""

    def last_end_s(self) -> float:
        """Return the end of the pictures by the header of the container, as a time stamp in s; 0 if unknown."""
        if self._is_mp4 or (self._kind == "avi" and self._declared()):
            return float(((self._stream.start_time or 0) + (self._stream.duration or 0)) * self._stream.time_base)
        if self._kind == "asf" and not self._container.streams.audio:  # whose end it may be
            return float((self._stream.duration or 0) * self._stream.time_base)
        with suppress(ValueError):  # a tag of Matroska, such as 00:03:00.040000000
            hours, minutes, seconds = map(float, self._stream.metadata.get("DURATION", "").split(":"))
            return min(3600 * hours + 60 * minutes + seconds, (self._container.duration or 0) / 1e6)
        return 0.0

    def _is_cut_off(self, count: int) -> bool:
        """Return True if the file is shorter than it says, and pictures may be missing."""
        if self._kind.startswith("matroska"):
            end, is_read = self._matroska_end()
            return end > self._container.size and not is_read
        if self._kind == "asf":
            return self._asf_end()[0] > self._container.size
        if self._kind == "flv":  # a tag has 11 bytes, with its length in the second to fourth, and its content
            at = max(self._starts, default=0)
            with open_regular(self._path) as file:
                file.seek(at + 1)
                return at + 11 + int.from_bytes(file.read(3), "big") > self._container.size
        is_unknown = self._is_fragmented or not self._stream.frames  # such as DV of type 1
        return self._is_short and (is_unknown or count < self._declared())

    def _is_whole_avi(self, count: int) -> bool:
        """Return True if neither pictures nor sound follow the last packet; empty chunks, which FFmpeg skips, may.

        Args:
            count: Of the frames.
        """
        at = max(self._starts, default=8) - 8
        empty = 0
        with open_regular(self._path) as file:
            for number in range(MAX_BOXES):
                file.seek(at)
                head = file.read(12)
                if len(head) < 8:
                    return at <= self._container.size + 1  # the last byte may be a missing pad
                length = int.from_bytes(head[4:8], "little")
                if not number and not MEDIA.match(head):  # FFmpeg divides chunks of uncompressed sound
                    at = self._end_byte + self._end_byte % 2
                    continue
                if not CHUNK.match(head):
                    return count + empty >= self._declared() > 0
                if number and MEDIA.match(head):
                    if length:
                        return False
                    empty += 1
                is_list = head[:4] == b"RIFF" or head[8:] in (b"movi", b"rec ")
                at += 12 if is_list else 8 + length + length % 2
        return False

    def _declared(self) -> int:
        """Return the number of pictures in the header, 0 for one that needs a longer file, as in AVI from a pipe."""
        frames: int = self._stream.frames
        if self._kind == "avi" and 8 * frames > self._container.size:
            return 0
        return frames

    def _holes(self, count: int) -> int:
        """Return the number of bytes in large gaps between the packets, and after the last one; of mp4, in empty ones.

        Args:
            count: Of the frames.
        """
        if self._is_mp4 and not self._is_fragmented:  # its packets may lie anywhere
            if self._stream.codec_context.codec.name in UNCOMPRESSED:
                return 0
            return self._zero_bytes
        starts = np.concatenate([self._starts, [box.start for box in self._beside]]).astype(int)
        sizes = np.concatenate([self._sizes, [box.length for box in self._beside]]).astype(int)
        order = np.argsort(starts, kind="stable")
        slack = starts[order] - np.cumsum(sizes[order]) + sizes[order]
        gaps = np.diff(np.maximum.accumulate(slack))  # packets of several streams may lie in each other
        size = self._container.size
        if self._kind == "asf":
            end, packet_bytes = self._asf_end()
            gaps = np.append(gaps, end - self._end_byte - 2 * packet_bytes)
        if self._kind not in LATE_ENDS or (self._kind in LATE_ENDS[:2] and not self.is_whole(count)):
            gaps = np.append(gaps, size - max(self._end_byte, (starts + sizes).max(initial=0)))
        return int(gaps[gaps > np.clip(HOLE_SHARE * size, *HOLE_BYTES)].sum())

    def _transport_holes(self) -> tuple[int, int]:
        """Return how many bytes of a transport stream are in no packet, and how many pictures no answer shows."""
        held, places = _read_transport(self._path, self._search_on)
        own = places.pop(self._stream.id, np.empty(0, int))
        return self._container.size - held, sum(_in_holes(own, others) for others in places.values())

    def _matroska_end(self) -> tuple[int, bool]:
        """Return where a Matroska or WebM file should end, 0 if unknown; and whether its last packet was read."""
        with open_regular(self._path) as file:
            head = file.read(HEAD_BYTES)
            file.seek(max(0, self._end_byte - NEAR_BYTES))
            after = file.read(2 * NEAR_BYTES)
        at = head.find(SEGMENT) + len(SEGMENT)
        if not head.startswith(b"\x1aE\xdf\xa3") or not len(SEGMENT) <= at < len(head) or not head[at]:
            return 0, False
        length = 9 - head[at].bit_length()  # of the number, whose first 1 says how long it is
        number = int.from_bytes(head[at : at + length], "big") - (1 << 7 * length)
        is_read = any(one in after for one in AFTER_PICTURES)
        if number == (1 << 7 * length) - 1:  # a live recording
            return 0, is_read
        end = at + length + number
        return end, end - self._end_byte < NEAR_BYTES or is_read

    def _asf_end(self) -> tuple[int, int]:
        """Return where the packets of a WMV file should end, 0 if unknown, and their size (ASF specification 3.2)."""
        with open_regular(self._path) as file:
            head = file.read(HEAD_BYTES)
        at = head.find(ASF_FILE)
        is_live = at < 0 or len(head) < at + 96 or head[at + 88] & 1
        count, packet_bytes = (int.from_bytes(head[at + p : at + p + n], "little") for p, n in ((56, 8), (92, 4)))
        if is_live:
            return (0, 0)
        return (int.from_bytes(head[16:24], "little") + 50 + count * packet_bytes, packet_bytes)


def _read_boxes(path: Path, kind: str) -> tuple[list[_Box], bool]:
    """Return the boxes of an mp4 or AVI file, and whether the last one is longer than the file."""
    boxes = list[_Box]()
    at = 0
    name = b""
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        while at < size and len(boxes) < MAX_BOXES:
            file.seek(at)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            name = head[4:8]
            if kind == "avi":
                length = 8 + int.from_bytes(head[4:8], "little")
                name = head[:4]
            elif length == 1:
                length = int.from_bytes(head[8:], "big")
            if length < 8:  # 0: to the end of the file
                break
            boxes.append(_Box(name, at, min(length, size - at)))
            if name == b"moov" and EXTENDS in file.read(min(length, MAX_HEAD_BYTES)):
                boxes.append(_Box(EXTENDS, at, 0))
            at += length
    return boxes, at > size and name in (b"mdat", b"moof", b"RIFF")


def _read_transport(path: Path, search_on: Callable[[], None]) -> tuple[int, dict[int, NDArray[np.int64]]]:
    """Return how many bytes of a transport stream are packets, and where pictures begin, by PID (ISO 13818-1, 2.4.3).

    FFmpeg does not report streams that begin later, and null packets are no damage.
    """
    held = 0
    at = 0
    rest = b""
    places = defaultdict[int, list[NDArray[np.int64]]](list)
    with open_regular(path) as file:
        is_sync = np.frombuffer(file.read(BLOCK_BYTES), np.uint8) == SYNC
        length = max(PACKET_SIZES, key=lambda one: np.count_nonzero(is_sync[:-one] & is_sync[one:]))
        file.seek(0)
        while piece := file.read(BLOCK_BYTES):
            search_on()
            data = np.frombuffer(rest + piece, np.uint8)
            is_sync = data == SYNC
            packets = np.flatnonzero(is_sync[:-length] & is_sync[length:])
            held += length * len(np.unique(packets // length))  # payload may look like a packet, too
            begins = packets[data[packets + 1] & 0x40 > 0]
            adapts = data[begins + 3] & 0x20 > 0  # to a field before the payload, whose length it begins with
            payload = begins + 4 + np.where(adapts, 1 + data[begins + 4].astype(int), 0)
            begins, payload = begins[payload < begins + 184], payload[payload < begins + 184]
            is_pes = (data[payload] == 0) & (data[payload + 1] == 0) & (data[payload + 2] == 1)
            begins = begins[is_pes & (data[payload + 3] & 0xF0 == 0xE0)]
            pids = (data[begins + 1].astype(int) & 0x1F) << 8 | data[begins + 2]
            for pid in np.unique(pids):
                places[int(pid)].append(at + begins[pids == pid])
            rest = data[-length:].tobytes()
            at += len(data) - length
    return held + length, {pid: np.concatenate(some) for pid, some in places.items()}


def _in_holes(own: NDArray[np.int64], others: NDArray[np.int64]) -> int:
    """Return how many pictures of another stream lie where this one has none, if nearly all do; by place in the file.

    Streams that are sent at the same time lie close together, at least for a while; those of joined files do not.
    """
    if len(own) < 2:
        return 0
    edges = np.concatenate([[-np.inf], np.sort(own), [np.inf]])
    after = np.searchsorted(edges, others)
    is_far = edges[after] - edges[after - 1] > FAR * np.median(np.diff(own))
    return int(is_far.sum()) if is_far.mean() > 0.95 else 0
