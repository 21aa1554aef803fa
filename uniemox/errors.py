"""Every error that bad input causes. Each message says what was expected, what came, where, and what to do next."""


class UniemoxError(Exception):
    """Base of every error that bad input causes; the command line prints its message and exits with 1."""


class ConfigError(UniemoxError):
    """A setting is out of range, or two settings contradict each other."""


class ShapeError(UniemoxError):
    """A tensor does not have the shape that the function needs."""


class AnnotationError(UniemoxError):
    """What a data set says of a picture has the wrong type or value; the message names the field."""


class EncoderError(UniemoxError):
    """A network cannot be the encoder of the pre-training."""


class CheckpointError(UniemoxError):
    """A weight file cannot be read, is not what it claims to be, or lacks weights."""


class TeacherError(UniemoxError):
    """A teacher cannot be built, or lacks a feature that was asked of it."""


class NonFiniteLossError(UniemoxError):
    """A loss or the gradient norm is infinite or not a number; no weight has been changed."""


class MissingPackageError(UniemoxError):
    """An optional package is needed; the message holds the line that installs it."""
