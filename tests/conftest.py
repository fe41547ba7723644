"""Settings shared by all tests: one OpenMP thread, set before anything imports openfhe.

Generated examples are the same in every run, so that a change that breaks nothing is not refused by
an example nobody saw before; `TACIT_EXPLORE=1` looks for new ones.
"""

import os

from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

settings.register_profile(
    "tacit",
    deadline=None,
    derandomize=not os.environ.get("TACIT_EXPLORE"),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tacit")
