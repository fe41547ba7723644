"""First steps of bootstrapping under fibres, equal to the CPU engine's for every kind of secret."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.errors import InternalError
from tacit.kernels.cpu_kernels import CpuKernels
from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.shim import Shim
from tacit.kernels.cuda.transforms import Form
from tacit.moduli import encapsulation_moduli
from tacit.params import CryptoParams, SecretDistribution, Security
from tests.kernels.residues import Limbs, extreme, residues

BATCH = 3
LOG_N = 7


def _params(log_first: int, secret: SecretDistribution) -> CryptoParams:
    return CryptoParams.choose(
        LOG_N, 4, log_first - 1, log_first, 2, Security.UNCHECKED_INSECURE, secret
    )


def _first_limbs(params: CryptoParams) -> Limbs:
    """Residues modulo the first prime, edges among them: (2, 1, batch, N)."""
    rng, q = np.random.default_rng(params.log_first), params.moduli[:1]
    rows = [
        residues(rng, q, params.n),
        extreme(q, params.n, "top"),
        extreme(q, params.n, "sawtooth"),
    ]
    return np.stack([np.stack(rows, axis=1), np.stack(rows[::-1], axis=1)])


@pytest.mark.parametrize("form", list(Form), ids=lambda form: form.value)
@pytest.mark.parametrize("log_first", [31, 45, 50, 60])
def test_the_modulus_is_raised_as_on_the_cpu(
    shim: Shim, shim_driver: Driver, log_first: int, form: Form
) -> None:
    params = _params(log_first, SecretDistribution.UNIFORM_TERNARY)
    cuda = CudaKernels(params, DriverDevice(shim_driver), shim.image(LOG_N), form=form)
    cpu, a = CpuKernels(params), _first_limbs(params)
    x = cuda.upload(a)
    for limbs in (1, 3, len(params.moduli)):
        found = cuda.download(cuda.raised(x, limbs))
        np.testing.assert_array_equal(found, cpu.download(cpu.raised(a, limbs)))
    np.testing.assert_array_equal(cuda.download(x), a)


@pytest.mark.parametrize("form", list(Form), ids=lambda form: form.value)
@pytest.mark.parametrize("log_first", [31, 45, 60])
def test_switches_to_sparse_secrets_are_those_of_the_cpu(
    shim: Shim, shim_driver: Driver, log_first: int, form: Form
) -> None:
    """Each entry of the batch with the key of its owner; two entries share one."""
    params = _params(log_first, SecretDistribution.SPARSE_ENCAPSULATED)
    cuda = CudaKernels(params, DriverDevice(shim_driver), shim.image(LOG_N), form=form)
    cpu, a = CpuKernels(params), _first_limbs(params)
    moduli = (params.moduli[0], *encapsulation_moduli(LOG_N, params.moduli))
    rng = np.random.default_rng(log_first)
    keys = [np.stack([residues(rng, moduli, params.n)[None] for _ in range(2)]) for _ in range(2)]
    owners = (1, 0, 1)
    wanted = cpu.to_sparse(
        a, cpu.sparse_key_table([cpu.upload_sparse_key(keys[owner]) for owner in owners])
    )
    uploaded = [cuda.upload_sparse_key(key) for key in keys]
    table = cuda.sparse_key_table([uploaded[owner] for owner in owners])
    found = cuda.to_sparse(cuda.upload(a), table)
    np.testing.assert_array_equal(cuda.download(found), cpu.download(wanted))
    with pytest.raises(InternalError, match="2 keys of sparse secrets"):
        cuda.to_sparse(cuda.upload(a), cuda.sparse_key_table(uploaded))
    with pytest.raises(InternalError, match="key of shape"):
        cuda.upload_sparse_key(keys[0][:, :, :2])
