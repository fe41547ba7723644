"""OpenFHE's own bootstrapping with a function: `EvalFEFuncBootstrap`.

It computes what the native engine computes, by its own steps: it needs one level more at the
beginning, three or more in between, and rotation keys of its own choice, which
`EvalBootstrapKeyGen` makes after `prepare`.
"""

from __future__ import annotations

import threading

import numpy as np
import openfhe
from numpy.typing import NDArray

from tacit.bootstrap import PERIOD, Bootstrap
from tacit.errors import CircuitError, LevelError, ParameterError
from tacit.fourier import complex_series
from tacit.params import CryptoParams
from tacit.runtime.backends.openfhe_calls import call, call_with_key

Floats = NDArray[np.float64]

# OpenFHE keeps its tables in the context, which the whole process shares.
_PREPARING = threading.Lock()


class Bootstrapping:
    """The bootstraps of one context; several threads may use it after `prepare`.

    Args:
        params: the parameters.
        context: OpenFHE's for these, with the feature FHE.
    """

    def __init__(self, params: CryptoParams, context: openfhe.CryptoContext) -> None:
        self._params = params
        self._context = context
        self._prepared: dict[int, tuple[int, int]] = {}

    def prepare(self, plan: Bootstrap) -> None:
        """Make OpenFHE's tables for a plan's slots and stages, once.

        Raises:
            ParameterError: the first modulus is not twice the scale, or the period not 2.
            CircuitError: the same slots were prepared with other stages.
        """
        params = self._params
        if params.log_first != params.log_scale + 1 or plan.period != PERIOD:
            raise ParameterError(
                f"OpenFHE bootstraps with a period of {PERIOD} and a first modulus one bit above "
                f"the scale, got {plan.period}, {params.log_first} and {params.log_scale} bits"
            )
        stages = (plan.to_slots, plan.to_coefficients)
        with _PREPARING:
            known = self._prepared.get(plan.log_slots)
            if known is None:
                slots = 1 << plan.log_slots
                call(self._context.EvalFEFuncBootstrapSetup, list(stages), [0, 0], slots)
                self._prepared[plan.log_slots] = stages
            elif known != stages:
                raise CircuitError(
                    f"OpenFHE can bootstrap {1 << plan.log_slots} slots in stages {known} or "
                    f"{stages}, not both: use one choice for all bootstraps"
                )

    def apply(self, a: openfhe.Ciphertext, plan: Bootstrap, series: Floats) -> openfhe.Ciphertext:
        """Bootstrap and rescale to degree 1, at the level where OpenFHE comes out.

        Args:
            a: degree 1, at least one level above `plan.to_coefficients`.
            plan: what to do; its level is not looked at.
            series: shape (2, degree + 1).

        Raises:
            LevelError: too few levels.
            UnknownKeyError: a key is missing.
        """
        level = self._params.depth - a.GetLevel()
        if level <= plan.to_coefficients:
            raise LevelError(
                f"OpenFHE bootstraps from level {plan.to_coefficients + 1} or above, not {level}"
            )
        self.prepare(plan)
        coefficients = list(complex_series(series) / 2.0)
        inside = call(self._context.Compress, a, level + 1, 1)
        inside.SetSlots(1 << plan.log_slots)
        key = "a key for bootstrapping"
        made = call_with_key(self._context.EvalFEFuncBootstrap, inside, coefficients, key=key)
        made.SetSlots(self._params.slots)
        left = self._params.depth - made.GetLevel()
        if made.GetNoiseScaleDeg() == 1:
            return made
        return call(self._context.Compress, made, left, 1)
