"""A worker process whose engine does what the first bytes of a frame say."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tacit.errors import ResidueError
from tacit.runtime.refusals import DamagedKeysError
from tacit.runtime.requests import Frame, Result, Timing
from tacit.runtime.worker import Observe, main


class ObedientEngine:
    def __init__(self, key_id: str, key_frames: Sequence[Frame], threads: int) -> None:
        self.prepared: list[str] = []
        self.keys = b",".join(bytes(frame) for frame in key_frames)
        if b"broken" in self.keys:
            raise ResidueError("a residue is not below its modulus")
        if b"deadly" in self.keys:
            os.kill(os.getpid(), signal.SIGKILL)
        if b"damaged" in self.keys:
            raise DamagedKeysError("a stored evaluation key is damaged")

    def prepare(self, directory: Path, digest: str) -> None:
        self.prepared.append(directory.name)

    def run(
        self, directory: Path, digest: str, plan: str, frames: Sequence[Frame], observe: Observe
    ) -> Result:
        answers = [self.answer(bytes(frame), observe) for frame in frames]
        return Result(answers, Timing(0.1, 0.2, 0.3))

    def answer(self, order: bytes, observe: Observe) -> bytes:
        word, _, rest = order.partition(b":")
        match word:
            case b"die":
                os.kill(os.getpid(), signal.SIGKILL)
            case b"exit":
                os._exit(3)
            case b"fail":
                raise ResidueError("a residue is not below its modulus")
            case b"bug":
                raise ZeroDivisionError("secret detail")
            case b"pid":
                return str(os.getpid()).encode()
            case b"keys":
                return self.keys
            case b"prepared":
                return ",".join(self.prepared).encode()
            case b"sleep":
                time.sleep(float(rest))
            case b"steps":
                for step in range(10_000):
                    time.sleep(0.002)
                    observe(step, 10_000)
        return order


if __name__ == "__main__":
    main(int(sys.argv[1]), ObedientEngine)
