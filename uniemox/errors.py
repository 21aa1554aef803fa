"""Every error that bad input causes. Each message says what was expected, what came, where, and what to do next."""


class UniemoxError(Exception):
    """Base of every error that bad input causes; the command line prints its message and exits with 1."""


class ConfigError(UniemoxError):
    """A setting is out of range, or two settings contradict each other."""


class ShapeError(UniemoxError):
    """A tensor does not have the shape that the function needs."""


class AnnotationError(UniemoxError):
    """An annotation has the wrong type or value; the message names the field."""


class DataError(UniemoxError):
    """A data set is not laid out as its reader expects, or too much of it is broken; the message names the file."""


class ImageError(UniemoxError):
    """A file is no image, is cut off, or is refused (too large, too many pixels)."""


class ImageNotFoundError(ImageError, FileNotFoundError):
    """There is no file of an image's name."""


class BoxError(UniemoxError):
    """A box is empty, not finite, or leaves its image."""


class LabelError(UniemoxError):
    """A label is not one of its set, or two label sets cannot be mapped to each other."""


class DetectorError(UniemoxError):
    """A person detector cannot be read or is of a layout that is not known."""


class HubError(UniemoxError):
    """A file of the hub cannot be downloaded, or is not the one that was asked for."""


class EncoderError(UniemoxError):
    """A network cannot be the encoder of the pre-training."""


class CheckpointError(UniemoxError):
    """A weight file cannot be read, is not what it claims to be, or lacks weights."""


class TeacherError(UniemoxError):
    """A teacher cannot be built, or lacks a feature that was asked of it."""


class NonFiniteLossError(UniemoxError):
    """A loss or the gradient norm is infinite or not a number; no weight has been changed."""


class DivergedError(UniemoxError):
    """A run's loss rose or its gradients grew, and it was asked to stop then; earlier checkpoints stay."""


class StoppedError(UniemoxError):
    """A run was asked to stop, by SIGTERM or Ctrl-C; what it did is saved.

    exit_code: what the process ends with, 128 and the signal's number, as shells have it.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class MissingPackageError(UniemoxError):
    """An optional package is needed; the message holds the line that installs it."""
