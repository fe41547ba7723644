"""The constructor parameters that all estimators have."""

from __future__ import annotations

from dataclasses import dataclass, field

from tacit.client.training.connection import Connection
from tacit.client.training.parameters import Parameterised, at_least, one_of
from tacit.errors import UserError

PRESET_ITERATIONS, PRESET_DEGREE, PRESET_CLIP, PRESET_WHITEN = 4, 5, 4.0, 0.5
"""Chosen by cross-validation inside training folds; docs/training.md has the figures."""


@dataclass(eq=False, repr=False, kw_only=True)
class CommonParameters(Parameterised):
    """Base of the estimators: their constructors take its fields, and those they add.

    Attributes:
        url: the server, or a connection to it.
        iterations: of the gradient method.
        clip: prepared features are moved to [-clip, clip].
        whiten: 0 standardises features, 1 makes them uncorrelated; powers between.
        missing: "refuse" or "mean".
        constant: "refuse" or "ignore".
        validation: share of the rows held back for the learning curve.
        validate_every: iterations between its points.
        early_stopping: points without improvement after which training stops; 0 for never.
        where: "server" or "client".
        simulate: train in this process, without encryption and server.
        random_state: of the division into training and validation rows.
        verbose: show progress.
    """

    url: str | Connection | None = field(default=None, kw_only=False)
    iterations: int = PRESET_ITERATIONS
    clip: float = PRESET_CLIP
    whiten: float = PRESET_WHITEN
    missing: str = "refuse"
    constant: str = "refuse"
    validation: float = 0.0
    validate_every: int = 1
    early_stopping: int = 0
    where: str = "server"
    simulate: bool = False
    random_state: int = 0
    verbose: bool = False

    def _check_parameters(self) -> None:
        at_least("iterations", self.iterations, 1)
        at_least("clip", self.clip, 1e-3)
        at_least("whiten", self.whiten, 0.0)
        at_least("validation", self.validation, 0.0)
        at_least("validate_every", self.validate_every, 1)
        at_least("early_stopping", self.early_stopping, 0)
        one_of("missing", self.missing, ("refuse", "mean"))
        one_of("constant", self.constant, ("refuse", "ignore"))
        one_of("where", self.where, ("server", "client"))
        if self.validation >= 1.0:
            raise UserError(f"validation={self.validation!r}: a share below 1 is expected")
        if self.early_stopping and not self.validation:
            raise UserError(
                f"early_stopping={self.early_stopping} looks at validation rows: hold some back, "
                "for example validation=0.2"
            )
        if self.url is None and not self.simulate:
            raise UserError(
                f"{type(self).__name__} needs a server: pass its URL, or simulate=True to train in "
                "this process without encryption"
            )
