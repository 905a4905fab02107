"""One exception class for each hemi_status. Each also derives from the built-in exception that fits best. And warnings."""

import os
import sys
import warnings


class HemiError(Exception):
    """An error of the C library: its message, and `status`, the hemi_status (negative)."""

    status = -20

    def __init__(self, message, status=None):
        super().__init__(message)
        self.message = str(message)
        if status is not None:
            self.status = status

    def __str__(self):
        return self.message  # KeyError and OSError would decorate it

    def __reduce__(self):
        return type(self), (self.message, self.status)


class HemiArgumentError(HemiError, ValueError):
    status = -2


class HemiMemoryError(HemiError, MemoryError):
    status = -3


class HemiIOError(HemiError, OSError):
    status = -4


class HemiFormatError(HemiError, ValueError):
    status = -5


class HemiVersionError(HemiFormatError):
    status = -6


class HemiParamsError(HemiError, ValueError):
    status = -7


class HemiShapeError(HemiError, ValueError):
    status = -8


class HemiUnsupportedError(HemiError, NotImplementedError, ValueError):
    status = -9


class HemiNotFoundError(HemiError, LookupError, ValueError):
    status = -10


class HemiKeyError(HemiError, KeyError):
    status = -11


class HemiConflictError(HemiError, RuntimeError):
    status = -12


class HemiTooLargeError(HemiError, ValueError):
    status = -13


class HemiBusyError(HemiError, RuntimeError):
    status = -14


class HemiConnectionError(HemiError, ConnectionError):
    status = -15


class HemiRemoteError(HemiError, RuntimeError):
    status = -16


class HemiStateError(HemiError, RuntimeError):
    status = -17


class HemiLimitError(HemiError, RuntimeError):
    status = -19


class HemiAuthError(HemiError, PermissionError):
    """The server wants a token, or another one: init_client(token=...) or the environment's HEMI_TOKEN."""

    status = -21


class HemiForbiddenError(HemiError, PermissionError):
    """The token is good, and does not allow this."""

    status = -22


class HemiBudgetError(HemiLimitError):
    """The server's operator allows no further rows of this module (docs/threat-model.md). Trying again does not help."""

    status = -23


class HemiInternalError(HemiError, RuntimeError):
    status = -20


class HemiRangeWarning(UserWarning):
    """Rows beyond what a module with activations was calibrated for: their results are not to be relied on."""


class HemiAccuracyWarning(UserWarning):
    """A module was compiled less exactly than was asked for by default."""


def warn(warning):
    """Warns as of the line that led here from outside of this package and of torch."""
    inside = (os.path.dirname(os.path.abspath(__file__)) + os.sep, os.sep + os.path.join("torch", ""))
    frame, level = sys._getframe(1), 2
    while frame is not None and (frame.f_code.co_filename.startswith(inside[0]) or inside[1] in frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    warnings.warn(warning, stacklevel=level)


BY_STATUS = {
    c.status: c
    for c in list(globals().values())
    if isinstance(c, type) and issubclass(c, HemiError) and c is not HemiError
}
