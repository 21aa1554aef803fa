"""Frames of videos, decoded by PyAV, and of animations, decoded by Pillow."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence

from uniemox.io.colour import CICP, NARROW_RANGE, frame_to_srgb
from uniemox.io.exif import orientation_of
from uniemox.io.files import open_regular
from uniemox.io.image_headers import code_points_in, has_narrow_range
from uniemox.io.image_limits import check_memory, webp_pixels
from uniemox.io.images import PlainGif, check_size, scale_transparency, to_rgb, turned

ANIMATION_FORMATS = ("GIF", "WEBP", "PNG")
MAX_ASPECT = 4.0
# Matrices from YCbCr to RGB, by their number in ITU-T H.273.
BT709_MATRIX = 1
UNSPECIFIED = 2
# Maximum size of the pixels that are sent to the parent process.
SHORT_PX = 720
LONG_PX = 2048
# Each thread of a decoder holds frames, so more threads take more memory.
THREADS = 4
THUMBNAIL_PX = (64, 36)
WEBP_HEAD_BYTES = 30
# An animated PNG names its colour space within this part.
HEAD_BYTES = 2**20

# Only containers are opened, because a playlist (concat, hls, dash, sdp) leads FFmpeg to other files and machines.
CONTAINERS = "mov,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg"
OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}

# Time stamps go back by more than this where films were joined.
MIN_BACKWARD_S = 1.0
# Time stamps of all streams go forward by more than this where recordings of broadcasts were joined.
MIN_JUMP_S = 10.0
BROADCASTS = ("mpegts", "mpeg")
# A decoder may hold this number of pictures, and returns up to MAX_LATE of them after a gap in the time stamps.
REORDERED = 16
MAX_LATE = 2
# Number of packets without a picture, such as those of sound, after which the process reports that it is working.
REPORTED_PACKETS = 4096
# A film may end earlier than its container says by 5 % and 1 s: durations are rounded, and some are estimated.
MIN_LENGTH = 0.95
LENGTH_MARGIN_S = 1.0
# Bytes that AVI needs for one picture, even for an empty one.
AVI_CHUNK_BYTES = 8
# Part of a file that may follow its last packet, such as an index: a share, and a number of bytes.
MAX_TAIL = 0.1
MAX_TAIL_BYTES = 100_000


class DecodedFrame(NamedTuple):
    """Frame of a video or animation."""

    time_s: float
    duration_s: float
    thumbnail: NDArray[np.int16]
    """Grey levels, (36, 64), by which frames are compared."""
    size: tuple[int, int]
    """Width and height of the video as players show it, px."""
    to_image: Callable[[], Image.Image]
    """Function that returns the RGB image, upright, scaled down."""


def read_video(path: Path, report_progress: Callable[[], None]) -> Iterator[DecodedFrame]:
    """Decode the frames of a video with PyAV.

    Args:
        path: The video file.
        report_progress: Called again and again while the file is read without finding frames.

    Raises:
        ValueError: Before the first frame, if FFmpeg can't decode pictures of this file; after the last one, if the
            video ends much earlier than its container says.
    """
    import av  # noqa: PLC0415 - an extra

    # PyAV gets an open file, not its name, because FFmpeg would take "http:x.mp4" for an address.
    with open_regular(path) as file, av.open(file, "r", metadata_errors="ignore", options=OPTIONS) as container:
        stream: Any = container.streams.best("video")
        if stream is None:
            raise ValueError("there are no pictures in it")
        if stream.codec_context is None:
            raise ValueError("FFmpeg does not know the codec of its pictures")
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = THREADS
        packets = PacketReader(container, stream, report_progress)
        clock = _Clock(packets, is_avi=container.format.name == "avi")
        codec = stream.codec_context
        # An aspect ratio that differs is the container's; those of the codec may change within a broadcast.
        has_fixed_aspect = stream.sample_aspect_ratio != codec.sample_aspect_ratio
        end_s = 0.0
        last_frame: DecodedFrame | None = None
        for frame in packets.frames():
            check_size(frame.width, frame.height, "a frame")
            time_s = clock.time_of(frame, end_s)
            if time_s is None:
                continue
            aspect = float((stream if has_fixed_aspect else codec).sample_aspect_ratio or 1)
            frame_s = float((frame.duration or 0) * (frame.time_base or 0))
            duration_s = frame_s or float(1 / (stream.average_rate or 25))
            last_frame = _decoded_frame(frame, time_s, duration_s, aspect)
            end_s = time_s + duration_s
            yield last_frame
        if last_frame is None:
            raise ValueError("not one picture could be read")
        has_all_frames = clock.count >= stream.frames > 0
        if has_all_frames and clock.parts == 1:
            # A packet of VP9 in mp4 does not say that the last picture lasts longer than the others; the track does.
            stream_end_s = float(((stream.start_time or 0) + (stream.duration or 0)) * stream.time_base)
            duration_s = stream_end_s - clock.stamp_s
            if duration_s > last_frame.duration_s + MIN_BACKWARD_S:
                yield last_frame._replace(duration_s=duration_s)
        if not has_all_frames:
            _check_length(container, stream, max(end_s, packets.end_s))
        # Containers that count their pictures may skip some, as edit lists of mp4 do, and have large indexes.
        unread_bytes = container.size - packets.end_byte
        if not stream.frames and unread_bytes > MAX_TAIL * container.size + MAX_TAIL_BYTES:
            raise ValueError(f"{unread_bytes / container.size:.0%} of the file, after its last picture, can't be read")
        if packets.is_last_incomplete:
            raise ValueError("it is cut off: its last packet is incomplete")


def _check_length(container: Any, stream: Any, end_s: float) -> None:
    """Raise ValueError if all streams end much earlier than the container says."""
    declared_s = (container.duration or 0) / 1e6
    if stream.duration:
        # The duration of WMV grows with the time between the starts of sound and pictures; a stream's does not.
        declared_s = min(declared_s, float(stream.duration * stream.time_base))
    if container.format.name == "avi":
        # FFmpeg's duration of an AVI that is cut off is that of the remaining part; its header counts all pictures.
        # ffmpeg writes 2^30 of them if its output is a pipe, which is more than the file can hold.
        has_count = AVI_CHUNK_BYTES * stream.frames < container.size
        declared_s = float(stream.frames / stream.average_rate) if has_count and stream.average_rate else 0.0
    if end_s < MIN_LENGTH * declared_s - LENGTH_MARGIN_S:
        raise ValueError(f"it is probably cut off; it should last {declared_s:.0f} s")


class PacketReader:
    """Decodes the packets of a video stream, and follows the time stamps of all streams in its file."""

    def __init__(self, container: Any, stream: Any, report_progress: Callable[[], None]) -> None:
        """Prepare to read.

        Args:
            container: PyAV's container.
            stream: The video stream to decode.
            report_progress: Called again and again while packets bring no frames.
        """
        self._container = container
        self._stream = stream
        self._report_progress = report_progress
        self._is_broadcast = container.format.name in BROADCASTS
        # Time stamp of each stream's last packet; a packet of pictures may come after sound that is much later.
        self._last_s = dict[int, float]()
        self.end_s = 0.0
        """Latest end of a packet of any stream, as a time stamp in s."""
        self.jump_s = -math.inf
        """Time stamp after the last jump forward of all streams of a broadcast."""
        self.end_byte = 0
        """End of the last packet in the file; packets of other video streams, such as a second channel, don't count."""
        self.is_last_incomplete = False
        """True if the file ends within the last packet of the video stream."""

    def frames(self) -> Iterator[Any]:
        """Yield the decoded frames of the stream, as PyAV's."""
        for number, packet in enumerate(self._packets(), start=1):
            if number % REPORTED_PACKETS == 0:
                self._report_progress()
            self._follow(packet)
            is_selected = packet.stream.index == self._stream.index
            if packet.pos is not None and (is_selected or packet.stream.type != "video"):
                self.end_byte = max(self.end_byte, packet.pos + packet.size)
            if not is_selected:
                continue
            if packet.size:
                self.is_last_incomplete = packet.is_corrupt
            # An empty packet of Theora shows the last picture once more, and its decoder refuses it. The empty packet
            # without a time stamp, which PyAV adds at the end, makes the decoder return the pictures that it holds.
            is_repeat = packet.size == 0 and (packet.dts is not None or packet.pts is not None)
            if not is_repeat:
                yield from packet.decode()

    def _packets(self) -> Iterator[Any]:
        while True:
            try:
                yield from self._container.demux()
                return
            except BlockingIOError:  # FFmpeg found no packet in 64 KiB
                self._report_progress()
            except IndexError:  # at the end, PyAV meets streams that it does not know
                return

    def _follow(self, packet: Any) -> None:
        """Update the end of the file's streams and the last jump of their time stamps."""
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is None:
            return
        time_base = float(packet.stream.time_base)
        at_s = stamp * time_base
        self.end_s = max(self.end_s, (max(stamp, packet.pts or stamp) + (packet.duration or 0)) * time_base)
        if packet.stream.type not in ("video", "audio"):
            return
        if at_s < self._last_s.get(packet.stream.index, at_s) - MIN_BACKWARD_S:
            self._last_s.clear()
        if self._is_broadcast and self._last_s and at_s > max(self._last_s.values()) + MIN_JUMP_S:
            self.jump_s = at_s
        self._last_s[packet.stream.index] = at_s


class _Clock:
    """Tells the time of each frame by its time stamp: the first is at 0, and joined films follow each other."""

    def __init__(self, packets: PacketReader, *, is_avi: bool) -> None:
        self._packets = packets
        self._is_avi = is_avi
        self.count = 0
        """Number of frames so far."""
        self.parts = 0
        """Number of joined films so far."""
        self.stamp_s = math.inf
        """Time stamp of the last frame."""
        self._step_s = 0.0
        self._shift_s = 0.0
        self._dts = -math.inf
        self._has_dts_fallen = False
        # Time stamp and number of the frame before the last gap; number of late frames after it.
        self._gap_s = math.inf
        self._gap_count = 0
        self._late_count = 0

    def time_of(self, frame: Any, end_s: float) -> float | None:
        """Return the time of a frame in s, None for one to leave out.

        Args:
            frame: PyAV's frame; frames must come in the decoder's order.
            end_s: End of the frame before.
        """
        # AVI stores no pts; FFmpeg guesses them, in another order.
        stamp = frame.dts if self._is_avi else frame.pts
        at_s = math.nan if stamp is None else float(stamp * frame.time_base)
        is_late = self._gap_s < at_s < self.stamp_s - MIN_BACKWARD_S and self.count < self._gap_count + REORDERED
        # The decoder held this picture since before the gap. A third one would mean that the time stamps jump.
        if is_late and self._late_count < MAX_LATE:
            self._late_count += 1
            return None
        before_s = self.stamp_s
        step_before_s = self._step_s
        dts_before = self._dts
        if frame.dts is not None:
            self._dts = frame.dts
        if stamp is None:
            # The last pictures of AVI have no time stamps; they may be far apart, with empty chunks between them.
            if self._is_avi and self.count > 1:
                at_s = before_s + step_before_s
            else:
                at_s = end_s - self._shift_s
        self.stamp_s = at_s
        self._step_s = at_s - before_s
        if self._step_s > MIN_BACKWARD_S:
            self._gap_s = before_s
            self._gap_count = self.count
            self._late_count = 0

        # Where films were joined, dts goes back, too, some frames earlier; with B-frames alone, only pts does.
        self._has_dts_fallen |= self._dts < dts_before
        is_far = self._step_s > MIN_JUMP_S and abs(step_before_s) < MIN_BACKWARD_S
        has_jumped = is_far and before_s < self._packets.jump_s < at_s + MIN_BACKWARD_S
        # The first frame begins a part, too: its step is minus infinity.
        if (at_s < before_s and self._has_dts_fallen) or self._step_s < -MIN_BACKWARD_S or has_jumped:
            self._shift_s = end_s - at_s
            self._has_dts_fallen = False
            self.parts += 1
        self.count += 1
        return at_s + self._shift_s


def _decoded_frame(frame: Any, time_s: float, duration_s: float, aspect: float) -> DecodedFrame:
    """Convert PyAV's frame.

    Args:
        frame: The frame.
        time_s: Time from the start of the film.
        duration_s: Time until the next frame.
        aspect: Width of a pixel divided by its height; those of DVD and HDV are not square.
    """
    thumbnail = frame.reformat(*THUMBNAIL_PX, format="gray", threads=1).to_ndarray().astype(np.int16)
    if not (1 / MAX_ASPECT <= aspect <= MAX_ASPECT):
        aspect = 1.0
    stretched = (max(1, round(frame.width * aspect)), frame.height)
    size = stretched[::-1] if _turn(frame) % 180 else stretched
    return DecodedFrame(time_s, duration_s, thumbnail, size, partial(_to_image, frame, stretched))


def _to_image(frame: Any, size: tuple[int, int]) -> Image.Image:
    """Return PyAV's frame as an upright sRGB image, scaled down.

    Args:
        frame: The frame.
        size: Width and height before the frame is turned, with square pixels.
    """
    # FFmpeg itself would take the matrix of standard definition for all.
    matrix = BT709_MATRIX if frame.colorspace == UNSPECIFIED and _is_high_definition(frame) else None
    image = frame.reformat(*_sent_size(*size), format="rgb24", src_colorspace=matrix, threads=1).to_image()
    image = frame_to_srgb(image, int(frame.color_primaries), int(frame.color_trc))
    if _is_mirrored(frame):
        image = ImageOps.flip(image)
    if _turn(frame):
        return image.rotate(_turn(frame), expand=True)
    return image


def _is_high_definition(frame: Any) -> bool:
    """Return True for sizes at which players take the colours of an unmarked film for those of BT.709."""
    return frame.width >= 1280 or frame.height > 576


def _turn(frame: Any) -> int:
    """Return the degrees by which to turn a frame, 0 if its matrix is no quarter turn."""
    return 0 if frame.rotation % 90 else frame.rotation


def _is_mirrored(frame: Any) -> bool:
    """Return True if a frame is to be mirrored at its horizontal axis, before it is turned."""
    from av.sidedata.sidedata import SideDataContainer  # noqa: PLC0415 - an extra

    # frame.side_data and the frame would hold each other, with memory and threads, until garbage is collected.
    try:
        matrix = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg] # its stub lacks it
    except ValueError:  # PyAV does not know all kinds of side data, such as that of EXIF
        return False
    if matrix is None:
        return False
    # The matrix has rows of three numbers; a negative determinant of the upper left 2 x 2 mirrors.
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).astype(float)
    return bool(a * d < b * c)


def read_animation(path: Path) -> Iterator[DecodedFrame]:
    """Decode the frames of a GIF, WebP or PNG with Pillow.

    Args:
        path: The image file.

    Raises:
        ImageError: If the size of a frame is over the limits of still images.
    """
    size = path.stat().st_size
    with open_regular(path) as content:
        # Pillow allocates a WebP's pixels when it opens the file, so they are checked before.
        pixels = webp_pixels(content.read(WEBP_HEAD_BYTES))
        check_memory(size, "WEBP", pixels, 1, "the animation")
        content.seek(0)
        head = content.read(HEAD_BYTES)
        code_points = code_points_in(head)
        content.seek(0)
        with Image.open(content, formats=ANIMATION_FORMATS) as file:
            if file.format == "GIF":
                content.seek(0)
                yield from _animation_frames(PlainGif(content), size)
                return
            if file.format == "PNG":
                scale_transparency(file)
            if code_points is not None:
                file.info[CICP] = code_points
                file.info[NARROW_RANGE] = has_narrow_range(head)
            yield from _animation_frames(file, size)


def _animation_frames(file: Image.Image, size: int) -> Iterator[DecodedFrame]:
    time_s = 0.0
    orientation = orientation_of(file)
    for number, frame in enumerate(ImageSequence.Iterator(file)):
        # The default image of a PNG is for programs that show no animations.
        if number == 0 and getattr(file, "default_image", False):
            continue
        # Checked for each frame, because one of a GIF may enlarge the canvas.
        check_size(frame.width, frame.height, "a frame")
        check_memory(size, str(file.format), frame.width, frame.height, "the animation")
        image = to_rgb(frame, "the animation")
        if image is frame:  # Pillow puts the next frame into the same object
            image = frame.copy()
        image = turned(image, orientation)
        thumbnail = np.asarray(image.convert("L").resize(THUMBNAIL_PX), np.int16)
        # Browsers show frames of 10 ms or less for 100 ms.
        duration_ms = float(frame.info.get("duration") or 0)
        duration_s = (duration_ms if duration_ms > 10 else 100) / 1000
        to_image = partial(image.resize, _sent_size(*image.size))
        yield DecodedFrame(time_s, duration_s, thumbnail, image.size, to_image)
        time_s += duration_s


def _sent_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, SHORT_PX / min(width, height), LONG_PX / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
