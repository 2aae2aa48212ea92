"""The exceptions of mtdcore: one small tree, each leaf one exit code of the command line.

::

    MtdError
    |-- ParameterError       a parameter is outside its domain           exit 2    (also a ValueError)
    |-- InputError           the data cannot be used as they are         exit 65   (also a ValueError)
    |-- DeviceError          the requested device is not usable here     exit 69   (also a RuntimeError)
    |-- DependencyError      an optional package is not installed        exit 69   (also an ImportError)
    `-- StorageError         reading or writing failed                   exit 74   (also an OSError)
        `-- CheckpointError  a checkpoint is damaged or does not match

Every message is one sentence that says what was expected, what came, and what to do about it.
"""

from __future__ import annotations


class MtdError(Exception):
    """Base class of every error that mtdcore raises on purpose."""

    exit_code = 1


class ParameterError(MtdError, ValueError):
    """A parameter is outside its domain."""

    exit_code = 2


class InputError(MtdError, ValueError):
    """The input data cannot be used as they are (shape, content, format, damage)."""

    exit_code = 65


class DeviceError(MtdError, RuntimeError):
    """The requested compute device is missing, too old, or out of memory."""

    exit_code = 69


class DependencyError(MtdError, ImportError):
    """An optional dependency is needed for this and is not installed."""

    exit_code = 69


class StorageError(MtdError, OSError):
    """Reading or writing failed; nothing that existed before was lost."""

    exit_code = 74


class CheckpointError(StorageError):
    """A checkpoint is damaged, or belongs to a different run."""


class Doubt(RuntimeWarning):
    """A warning about a result that was computed as asked: some of its diagnostics speak against it."""
