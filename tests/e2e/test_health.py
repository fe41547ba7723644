"""How fast health checks are answered while large requests are on their way.

Server, senders of large requests, and this process that asks are three processes.
"""

import time
from pathlib import Path

import httpx
import numpy as np

from tests.e2e.processes import server_process, start
from tests.runtime.models import LARGE, echo_artifact, write_repository


def test_health_answers_quickly_while_large_requests_are_in_flight(tmp_path: Path) -> None:
    root = write_repository(tmp_path, echo=echo_artifact(LARGE))
    seconds = []
    with server_process("serve_echo.py", root) as (_, ports):
        url = f"http://127.0.0.1:{ports.http}"
        words = (f"{url}/v2/models/echo/infer", "12000000", "4", "4")
        with start("send_large.py", *words) as sender, httpx.Client() as client:
            assert sender.stdin is not None
            assert sender.stdout is not None
            assert sender.stdout.readline() == "ready\n"
            sender.stdin.write("go\n")
            sender.stdin.flush()
            while sender.poll() is None:
                began = time.monotonic()
                assert client.get(f"{url}/v2/health/live").status_code == 200
                seconds.append(time.monotonic() - began)
                time.sleep(0.005)
            assert sender.stdout.read() == "16\n"
    assert len(seconds) > 20
    # Measured on two cores: median 3 ms, 95 of 100 below 13 ms; other load makes it more.
    assert float(np.median(seconds)) < 0.3
    assert float(np.percentile(seconds, 95)) < 1.5
