"""What can go wrong, as one family.

Every error is a `FlyballError` and also the builtin that a caller would expect, so both
``except FlyballError`` and ``except ValueError`` work. A message names the thing in backticks,
then the value it had, then what to do about it.
"""

from __future__ import annotations


class FlyballError(Exception):
    """Any error that flyball raises on purpose; its message says what to do."""


class ConfigError(FlyballError, ValueError):
    """A configuration has an unknown key, a wrong type or a value out of range."""


class InputError(FlyballError, ValueError):
    """An array, tensor or argument does not have the shape, type or values that are needed."""


class InputTypeError(FlyballError, TypeError):
    """An argument is of a type that cannot be read."""


class MalformedTextWarning(UserWarning):
    """Some text is not UTF-8: it was scanned, but what stands at such bytes is not known."""


class PackError(ConfigError):
    """A rule pack cannot be read: the message names the file, the line, the rule, and what to write instead."""


class DeviceError(FlyballError, ValueError):
    """A device does not exist here, or cannot train."""


class MissingExtraError(FlyballError, ImportError):
    """An optional dependency is not installed; the message holds the line that installs it."""

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs `{package}`, which is not installed: run `pip install 'flyball[{extra}]'`")
        self.name = package
        self.extra = extra
        self.purpose = purpose

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by what the constructor takes, so the error survives a worker process."""
        return _rebuild_missing_extra, (self.name, self.extra, self.purpose)


def _rebuild_missing_extra(package: str, extra: str, purpose: str) -> MissingExtraError:
    return MissingExtraError(package, extra=extra, purpose=purpose)


class JournalError(FlyballError, ValueError):
    """A journal cannot be read past a damaged line, or is written after it was closed or by a forked process."""


class WriteError(FlyballError, OSError):
    """A file cannot be written; one that was there before is as it was."""


class RunFolderError(FlyballError, OSError):
    """A run folder cannot be created."""


class RunExistsError(RunFolderError, FileExistsError):
    """A run folder already holds a run, which is never overwritten."""


class GovernorExhausted(FlyballError, RuntimeError):
    """The governor has done what its budget allows, and the run still fails; the message lists what happened."""


class SnapshotError(FlyballError, RuntimeError):
    """A snapshot cannot be taken, kept or restored; nothing was changed, and older snapshots are as they were.

    Attributes:
        reason: What a program can decide by: ``unsupported`` (something cannot be captured), ``not-finite``,
            ``memory``, ``busy`` (no buffer is free), ``structure`` (the run no longer has the shape of the snapshot),
            ``damaged``, ``refused`` (a component's own loading failed, and was undone), ``unknown`` (no such
            snapshot), ``disk``.
    """

    def __init__(self, message: str, *, reason: str = "unknown") -> None:
        super().__init__(message)
        self.reason = reason


class RollbackFailed(FlyballError, RuntimeError):
    """No snapshot could be restored; where a restore broke off half-way the run is now a mix: do not train on.

    Attributes:
        restored: The components that are as the snapshot has them.
        not_restored: The components that are not, or about which nothing is known.
    """

    def __init__(self, message: str, *, restored: tuple[str, ...] = (), not_restored: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.restored = restored
        self.not_restored = not_restored


class AgreementError(FlyballError, RuntimeError):
    """The ranks of a run cannot act alike: one is gone, late, at another place of its program, or differs.

    Attributes:
        ranks: Those that the message names.
    """

    def __init__(self, message: str, *, ranks: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.ranks = ranks


class CheckpointError(FlyballError, RuntimeError):
    """A checkpoint cannot be written, read or resumed from; the run and what was written before are as they were.

    Attributes:
        reason: What a program can decide by: ``disk`` (it cannot be written), ``not-finite`` (the state is not worth
            writing), ``unsupported`` (something has no form in a file without code), ``missing``, ``damaged``,
            ``foreign`` (it is no checkpoint of flyball's, such as a pickle), ``changed`` (the run is not the one that
            it was written by).
    """

    def __init__(self, message: str, *, reason: str = "unknown") -> None:
        super().__init__(message)
        self.reason = reason
