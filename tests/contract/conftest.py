"""Keys of OpenFHE's own, where OpenFHE is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.contract.foreign import Party


@pytest.fixture(scope="module")
def party() -> Party:
    from tests.contract.foreign import make_party

    return make_party()
