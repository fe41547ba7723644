"""The transforms under fibres: equal to plain integers and the CPU engine, and no barrier spare."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.errors import ParameterError
from tacit.kernels import ntt, reference
from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.shim import Barriers, Shim, ShimControl
from tacit.kernels.cuda.tables import Row, row_table
from tacit.kernels.cuda.transforms import Form
from tacit.kernels.ring import Ring
from tacit.params import CryptoParams, Security
from tests.kernels.cuda.engines import make_engines
from tests.kernels.residues import Limbs, extreme, primes, residues

KINDS = ("zero", "one", "top", "sawtooth")
SIZES = [6, 7, 9, 10, *[pytest.param(k, marks=pytest.mark.slow) for k in (8, 11, 12, 13, 14)]]
TILED_ONLY = [pytest.param(k, marks=pytest.mark.slow) for k in (15, 16, 17)]


def _ring_params(log_n: int, bits: tuple[int, ...]) -> CryptoParams:
    moduli: list[int] = []
    for size in bits:
        moduli.append(next(q for q in primes(size, log_n, 8) if q not in moduli))
    special = next(q for q in primes(59, log_n, 8) if q not in moduli)
    return CryptoParams(
        *(log_n, len(bits) - 1, 30, 60, 1, tuple(moduli), (special,)),
        Security.UNCHECKED_INSECURE,
    )


def _inputs(moduli: tuple[int, ...], n: int) -> list[Limbs]:
    rng = np.random.default_rng(n)
    return [residues(rng, moduli, n), *[extreme(moduli, n, kind) for kind in KINDS]]


def _check(shim: Shim, driver: Driver, log_n: int, form: Form, doubles: bool) -> None:
    """Both directions on a batch of random and extreme rows, against the CPU engine."""
    params = _ring_params(log_n, (60, 51, 50, 49, 40, 30))
    device = DriverDevice(driver)
    kernels = CudaKernels(params, device, shim.image(log_n), form=form, doubles=doubles)
    moduli, n = params.moduli, params.n
    inputs = _inputs(moduli, n)
    joined = kernels.upload(np.stack(inputs, axis=1)[None])
    level = kernels.launches.levels[-1]
    kernels.transforms.forward(level.forward(extended=False), joined, len(inputs))
    ring = Ring(log_n, moduli)
    for index, coefficients in enumerate(inputs):
        wanted = coefficients.copy()
        ntt.forward(ring, wanted)
        np.testing.assert_array_equal(kernels.download(joined)[0, :, index], wanted)
    rows = [Row(i, i, i, factor=1) for i in range(len(moduli))]
    table = row_table(device, kernels.launches.ring, rows)
    kernels.transforms.backward(table, joined, joined, len(inputs))
    np.testing.assert_array_equal(kernels.download(joined)[0], np.stack(inputs, axis=1))


@pytest.mark.parametrize("doubles", [True, False], ids=["doubles", "integers"])
@pytest.mark.parametrize("form", list(Form), ids=lambda form: form.value)
@pytest.mark.parametrize("log_n", SIZES)
def test_transforms_equal_those_of_the_cpu(
    shim: Shim, shim_driver: Driver, log_n: int, form: Form, doubles: bool
) -> None:
    _check(shim, shim_driver, log_n, form, doubles)


@pytest.mark.parametrize("doubles", [True, False], ids=["doubles", "integers"])
@pytest.mark.parametrize("log_n", TILED_ONLY)
def test_transforms_of_large_rings_equal_those_of_the_cpu(
    shim: Shim, shim_driver: Driver, log_n: int, doubles: bool
) -> None:
    _check(shim, shim_driver, log_n, Form.TILED, doubles)


@pytest.mark.parametrize("form", list(Form), ids=lambda form: form.value)
def test_transforms_equal_plain_integers(shim: Shim, shim_driver: Driver, form: Form) -> None:
    engines = make_engines(shim, shim_driver, "wide-first", form=form)
    level = engines.params.depth
    a = engines.over_q(level, 1)
    found = engines.cuda.download(engines.cuda.transform(a[0, :, 0]))[0, :, 0]
    for row, q in enumerate(engines.params.moduli):
        plain = reference.forward(reference.integers(a[0, row, 0]), q, engines.ring.roots[row])
        assert found[row].tolist() == plain.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_threads_does_not_matter(
    shim: Shim, shim_driver: Driver, control: ShimControl, seed: int
) -> None:
    control.reset(seed)
    _check(shim, shim_driver, 7, list(Form)[seed % 2], seed >= 2)


def test_every_barrier_is_needed(shim: Shim, shim_driver: Driver, control: ShimControl) -> None:
    """Without any one of them some result is wrong, so a lost barrier cannot go unnoticed."""
    control.device(multiprocessors=1)  # so that blocks serve several entries of the batch
    log_n = 10
    barriers = Barriers(shim.library(log_n))

    def passes() -> bool:
        for form in Form:
            for _ in range(2):
                try:
                    _check(shim, shim_driver, log_n, form, True)
                except AssertionError:
                    return False
        return True

    assert passes()
    sites = barriers.reached()
    assert len(sites) == 6
    try:
        for site in sites:
            barriers.ignore(site)
            assert not passes(), f"without the barrier at {site} nothing changes"
    finally:
        barriers.ignore(None)


def test_rings_beyond_the_kernels_are_refused(shim: Shim, shim_driver: Driver) -> None:
    device = DriverDevice(shim_driver)
    with pytest.raises(ParameterError, match="2\\^6 to 2\\^17"):
        CudaKernels(_ring_params(5, (50,)), device, b"")
    with pytest.raises(ParameterError, match="does not fit into a block"):
        CudaKernels(_ring_params(15, (50,)), device, shim.image(15), form=Form.WHOLE)
