"""Benchmarks: ``python -m tests.benchmarks``. One thread, set before torch is imported."""

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler tells each start and stop
