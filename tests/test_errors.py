"""One family of errors, each also the builtin that a caller expects."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from flyball import errors

FAMILY = [
    one
    for _, one in inspect.getmembers(errors, inspect.isclass)
    if issubclass(one, errors.FlyballError) and one is not errors.FlyballError
]


@pytest.mark.parametrize("error", FAMILY)
def test_each_error_is_also_a_builtin(error: type[Exception]) -> None:
    builtins = [base for base in error.__mro__ if base.__module__ == "builtins"]
    assert builtins[0] is not Exception, "name the builtin that `except` would expect"


@pytest.mark.parametrize("error", [one for one in FAMILY if one is not errors.MissingExtraError])
def test_an_error_survives_a_worker_process(error: type[Exception]) -> None:
    assert str(pickle.loads(pickle.dumps(error("`x` is 3: use 4")))) == "`x` is 3: use 4"  # noqa: S301 -- our own


def test_a_missing_extra_names_the_line_that_installs_it() -> None:
    error = errors.MissingExtraError("matplotlib", extra="plots", purpose="drawing a run")
    assert str(error) == (
        "drawing a run needs `matplotlib`, which is not installed: run `pip install 'flyball[plots]'`"
    )
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 -- our own
        assert (str(twin), twin.name, twin.extra) == (str(error), "matplotlib", "plots")
