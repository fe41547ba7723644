"""Settings shared by all tests: one OpenMP thread, set before anything imports openfhe."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
