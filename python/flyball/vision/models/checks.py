"""What the constructors of the models refuse, in one form."""

from __future__ import annotations

from flyball.errors import ConfigError


def whole(**given: int) -> None:
    """Refuse what is not a whole number of at least 1.

    Raises:
        ConfigError: One of them is not; the message names it.
    """
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:  # type: ignore[redundant-expr]
            raise ConfigError(f"`{name}` is {value!r}: pass a whole number, at least 1")


def share(**given: float) -> None:
    """Refuse what is no probability below 1.

    Raises:
        ConfigError: One of them is not; the message names it.
    """
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:  # type: ignore[redundant-expr]
            raise ConfigError(f"`{name}` is {value!r}: pass a probability, from 0 to below 1")


def one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    """Refuse what is not in a list.

    Raises:
        ConfigError: It is not; the message lists the choices.
    """
    if value not in known:
        raise ConfigError(f"`{name}` is {value!r}: use {', '.join(map(repr, known))}")
