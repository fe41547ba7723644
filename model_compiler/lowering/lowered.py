"""What lowering gives: a circuit, and where its inputs and outputs sit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import Circuit
from tacit.layout import Layout

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """One plan's circuit.

    Attributes:
        batch: rows per evaluation.
        inputs: layout of each input; the circuit's inputs are their ciphertexts in this order.
        outputs: layout of each output, likewise.
        levels: level of each input's ciphertexts.
        samples: for some polynomials, values they read; see `noise_course.samples_of`.
        output_level: level of all outputs.
    """

    circuit: Circuit
    batch: int
    inputs: Mapping[str, Layout]
    outputs: Mapping[str, Layout]
    levels: Mapping[str, int]
    samples: Mapping[bytes, Floats] = field(default_factory=dict)
    output_level: int = 0
