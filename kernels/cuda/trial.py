"""`python -m tacit.kernels.cuda.trial`: open the first CUDA device and use it; 0 if that works."""

from __future__ import annotations

import sys

import numpy as np

from tacit.errors import TacitError
from tacit.kernels.cuda.opening import open_device


def main() -> int:
    """Copy a few words there and back."""
    try:
        device = open_device()
        words = np.arange(64, dtype=np.uint64)
        block = device.block(words.nbytes)
        device.upload(words, block)
        found = device.download(block.address, len(words))
    except TacitError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0 if np.array_equal(found, words) else 1


if __name__ == "__main__":
    sys.exit(main())
