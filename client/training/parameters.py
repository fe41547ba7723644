"""Parameters of estimators as scikit-learn's tools expect them, without scikit-learn."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from tacit.errors import UserError

Self = TypeVar("Self", bound="Parameterised")


class Parameterised:
    """Reads and sets what the constructor takes; attributes have the parameters' names."""

    @classmethod
    def _parameters(cls) -> list[inspect.Parameter]:
        found = inspect.signature(cls.__init__).parameters.values()
        return [parameter for parameter in found if parameter.name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name; `deep` makes no difference, as none is an estimator."""
        return {p.name: getattr(self, p.name) for p in self._parameters()}

    def set_params(self: Self, **params: Any) -> Self:
        """Set parameters by name; returns the estimator.

        Raises:
            UserError: there is no such parameter (a ValueError too).
        """
        known = [parameter.name for parameter in self._parameters()]
        unknown = sorted(set(params) - set(known))
        if unknown:
            raise UnknownParameterError(
                f"Invalid parameter {', '.join(map(repr, unknown))} for estimator "
                f"{type(self).__name__}. Valid parameters are: {known}."
            )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        changed = [
            f"{p.name}={getattr(self, p.name)!r}"
            for p in self._parameters()
            if not _same(getattr(self, p.name), p.default)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"


class UnknownParameterError(UserError, ValueError):
    """An estimator has no such parameter."""


def one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Return if a parameter has one of some values.

    Raises:
        UserError: it has another.
    """
    if value not in allowed:
        raise BadParameterError(
            f"{name}={value!r}: expected one of {', '.join(map(repr, allowed))}"
        )


def at_least(name: str, value: float, least: float) -> None:
    """Return if a parameter is a number and not below a bound.

    Raises:
        UserError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
        raise BadParameterError(f"{name}={value!r}: a number of at least {least} is expected")


class BadParameterError(UserError, ValueError):
    """A parameter of an estimator is out of range."""


def _same(value: object, default: object) -> bool:
    return value is default or (type(value) is type(default) and value == default)
