"""What a caller may ask of the compiler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ParameterError
from tacit.model_compiler.op_times import Backend
from tacit.model_compiler.passes.approximate import DEFAULT_ACCURACY
from tacit.params import CryptoParams

Array = NDArray[np.generic]
Bounds = tuple[float | NDArray[np.float64], float | NDArray[np.float64]]

PLANS = ("latency", "interleaved", "batch")
BOOTSTRAPS = ("auto", "never", "always")


@dataclass(frozen=True, slots=True, eq=False)
class CompileOptions:
    """What to make of a model.

    Attributes:
        name: the model's name; "" takes the file's.
        version: the model's version.
        calibration: rows typical of what customers will send: an array for a model with one
            input, or arrays by input name; axis 0 counts rows. Without them ranges are bounded
            by interval arithmetic.
        input_range: declared (low, high) of every core input, replacing what the rows say.
        margin: factor on calibrated half widths; None for the default, 1.25, and 1.6 where the
            circuits bootstrap.
        accuracy: root mean square error, over the calibration rows, that the polynomials may
            cause in the model's outputs as the customer reads them (probabilities rather than
            logits), as a fraction of their range; no row may be off by more than 12 times as
            much. The shallowest polynomials that keep it are chosen. If none do at a sensible
            price, the best bargain is, and the report says so.
        keep_argmax: where outputs have several elements, also let no calibration row change its
            argmax, but for 0.5 % of them and for those whose two greatest elements differ by at
            most twice the accuracy.
        keep_on_server: keep input scaling and a final sigmoid in the encrypted part.
        precision_bits: encryption error at most 2^-bits of the output's half range; None for 16,
            and 7 where the circuits bootstrap.
        params: use these parameters (insecure ones in tests) instead of choosing.
        plans: which plans to try; those not worth having are left out, never all.
        max_key_mb: limit on the evaluation keys of the latency plan, in 10^6 bytes.
        bootstrap: "auto" lets the model and the predicted times decide, "never" makes leveled
            circuits only, "always" turns every activation into a bootstrap.
        known_answer: reserve a row of each plan that has room for inputs whose answer the
            signature states; the client refuses answers in which it came back wrong. Plans without
            room get such inputs for an evaluation of its own, which clients may ask for.
        target: the backend whose prices choose parameters and plans; the artifact runs on either.
    """

    name: str = ""
    version: str = "1"
    calibration: Array | Mapping[str, Array] | None = None
    input_range: Bounds | None = None
    margin: float | None = None
    accuracy: float = DEFAULT_ACCURACY
    keep_argmax: bool = True
    keep_on_server: bool = False
    precision_bits: float | None = None
    params: CryptoParams | None = None
    plans: tuple[str, ...] = ("latency", "batch")
    max_key_mb: float | None = None
    bootstrap: str = "auto"
    known_answer: bool = False
    target: Backend = Backend.NATIVE

    def __post_init__(self) -> None:
        unknown = sorted(set(self.plans) - set(PLANS))
        if unknown or not self.plans:
            raise ParameterError(f"plans must be some of {list(PLANS)}, got {list(self.plans)}")
        if not 0.0 < self.accuracy < 1.0:
            raise ParameterError(f"accuracy must lie between 0 and 1, got {self.accuracy}")
        if self.bootstrap not in BOOTSTRAPS:
            raise ParameterError(
                f"bootstrap must be one of {list(BOOTSTRAPS)}, got {self.bootstrap!r}"
            )
        if self.precision_bits is not None and not 1.0 <= self.precision_bits <= 40.0:
            raise ParameterError(f"precision must be 1 to 40 bits, got {self.precision_bits}")
        if self.max_key_mb is not None and self.max_key_mb <= 0.0:
            raise ParameterError(f"the limit on keys must be positive, got {self.max_key_mb} MB")
