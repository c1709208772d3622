"""Every error that lossatlas raises on purpose, and the exit code that the command line gives it.

    LossAtlasError                    1
    |- InputError (ValueError)        2   what was given cannot be used; the message says what to give instead
    |  |- CheckpointError             2   a file of weights that is no such file, or of another network
    |  |- DataError                   2   no data, data that change between passes, a loader that fails
    |  |- DirectionError              2   a point or a direction of the wrong size, zero, or not finite
    |  |- NonFiniteLoss               2   the loss is NaN or infinite at the model's own point
    |  |- ConfigError                 2   an unknown key, a wrong type, a preset that does not exist
    |  `- OutputError                 2   a folder of another study, one that is in use, or that cannot be written
    |- MissingToolError               3   an optional program or package that was asked for is absent
    `- NumericalError                 4   a solver could not do what was asked of it

A message is one sentence or two: what was given, what was expected, what to do.
"""

from __future__ import annotations


class LossAtlasError(Exception):
    """The root of the tree above."""

    exit_code = 1


class InputError(LossAtlasError, ValueError):
    """What was given cannot be used."""

    exit_code = 2


class CheckpointError(InputError):
    """A file of weights that is no such file, or that belongs to another network."""


class DataError(InputError):
    """No data, data that change between passes, or a loader that fails."""


class DirectionError(InputError):
    """A point or direction of the wrong size, zero, collinear, or not finite."""


class NonFiniteLoss(InputError):
    """The loss is NaN or infinite at the model's own point."""


class ConfigError(InputError):
    """A configuration with an unknown key, a wrong type, or an impossible value."""


class OutputError(InputError):
    """A folder of another study, one that is in use, or one that cannot be written."""


class MissingToolError(LossAtlasError):
    """An optional program or package that was asked for is absent."""

    exit_code = 3


class NumericalError(LossAtlasError, ArithmeticError):
    """A solver could not do what was asked of it."""

    exit_code = 4


class ConvergenceWarning(UserWarning):
    """A result is returned with a residual above the tolerance that was asked for."""


class DerivativeWarning(UserWarning):
    """A gradient or a curvature is not that of the loss, by differences of the loss itself."""


class BufferWarning(UserWarning):
    """A point is evaluated with other buffers than its model's own: those of BatchNorm, of normalisers."""


class ReductionWarning(UserWarning):
    """Of what a loss is a mean is open or unusual: shapes that broadcast, a mean that depends on the batch size."""


class ZeroNormWarning(UserWarning):
    """Directions on the scale of the weights leave a tensor where it is, since it is zero."""
