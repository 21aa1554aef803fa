"""Errors caused by bad input. Each message names the expected value, the actual one, its place, and a remedy."""


class UniemoxError(Exception):
    """Base class of all errors caused by bad input. The command line prints the message and exits with 1."""


class ModelWarning(UserWarning):
    """Issued by `uniemox.load` for a model whose answers say less than those of others."""


class ConfigError(UniemoxError):
    """Raised when a setting is out of range, or two settings contradict each other."""


class InUseError(ConfigError):
    """Raised for a file that another process writes."""


class ShapeError(UniemoxError):
    """Raised when a tensor does not have the required shape."""


class AnnotationError(UniemoxError):
    """Raised when an annotation has the wrong type or value; the message names the field."""


class DataError(UniemoxError):
    """Raised when a data set has an unexpected layout, or too many unreadable files; the message names the file."""


class ShortageError(UniemoxError):
    """Raised when the machine allows no more processes, threads or open files; the message names the limit."""


class UnavailableError(DataError):
    """Raised when a database can't be used now; trying again later may help."""


class ImageError(UniemoxError):
    """Raised when a file is not an image, is cut off, or is refused (too large, too many pixels)."""


class UnexpectedImageError(ImageError):
    """Raised when reading an image fails in a way that nobody foresaw: please report it."""


class ImageNotFoundError(ImageError, FileNotFoundError):
    """Raised when an image file does not exist."""


class BoxError(UniemoxError):
    """Raised when a box is empty, not finite, or leaves its image."""


class LabelError(UniemoxError):
    """Raised when a label is not in its set, or two label sets cannot be mapped to each other."""


class DetectorError(UniemoxError):
    """Raised when a person detector can't be read or has an unknown layout."""


class HubError(UniemoxError):
    """Raised when a hub file can't be downloaded, or is not the requested one."""


class EncoderError(UniemoxError):
    """Raised when a network can't be used as the encoder of pre-training."""


class CheckpointError(UniemoxError):
    """Raised when a weight file can't be read, is of another type than it claims, or lacks weights."""


class TeacherError(UniemoxError):
    """Raised when a teacher can't be built, or lacks a requested feature."""


class NonFiniteLossError(UniemoxError):
    """Raised when a loss or the gradient norm is infinite or NaN; no weight has been changed."""


class OutOfMemoryError(UniemoxError):
    """Raised when a GPU has too little memory for a training step; the last checkpoint remains."""


class DivergedError(UniemoxError):
    """Raised when the loss rises or gradients grow and the run is set to stop then; earlier checkpoints remain."""


class StoppedError(UniemoxError):
    """Raised when a run is stopped by SIGTERM or Ctrl-C; its progress is saved.

    Args:
        exit_code: Exit code of the process, 128 plus the signal's number, as in shells.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class MissingPackageError(UniemoxError):
    """Raised when an optional package is missing; the message contains the command that installs it."""


class MissingReaderError(ImageError, MissingPackageError):
    """Raised when the format of an image needs an optional package; the message contains the command."""
