"""Send large requests to an echo server: URL, bytes each, how many at a time, how often.

Waits for a line on standard input before it begins, and prints how many answers were right.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np

from tests.e2e.processes import tensor_body
from tests.runtime.echo import HEADERS


def main(url: str, size: int, together: int, times: int) -> int:
    body, length = tensor_body([np.random.default_rng(1).bytes(size)])
    headers = HEADERS | {"inference-header-content-length": str(length)}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()

    def send(index: int) -> int:
        with httpx.Client(timeout=60) as client:
            answers = [client.post(url, content=body, headers=headers) for _ in range(times)]
        return sum(answer.content.endswith(body[length:]) for answer in answers)

    with ThreadPoolExecutor(together) as pool:
        return sum(pool.map(send, range(together)))


if __name__ == "__main__":
    right = main(sys.argv[1], *(int(word) for word in sys.argv[2:]))
    sys.stdout.write(f"{right}\n")
