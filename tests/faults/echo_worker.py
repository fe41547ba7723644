"""A worker process whose engine does what the first bytes of a frame say."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tacit.errors import ResidueError
from tacit.runtime.refusals import DamagedKeysError
from tacit.runtime.requests import Owner, Result, Timing
from tacit.runtime.worker import (
    Answer,
    Begin,
    KeyPlace,
    ModelPlace,
    Observe,
    Request,
    descriptors_of,
    main,
)
from tacit.runtime.worker_settings import WorkerMemory


class ObedientEngine:
    """Runs `together` requests at the same time; a line of its own for each job."""

    def __init__(self, together: int) -> None:
        self.together = together
        self.prepared: list[str] = []
        self.keys: dict[Owner, bytes] = {}

    def load(self, place: KeyPlace) -> bytes:
        if place.owner in self.keys:
            return self.keys[place.owner]
        try:
            keys = b",".join(path.read_bytes() for path in place.frames)
        except OSError as error:
            raise DamagedKeysError("a stored evaluation key cannot be read") from error
        if b"broken" in keys:
            raise ResidueError("a residue is not below its modulus")
        if b"deadly" in keys:
            os.kill(os.getpid(), signal.SIGKILL)
        if b"damaged" in keys:
            raise DamagedKeysError("a stored evaluation key is damaged")
        self.keys[place.owner] = keys
        return keys

    def prepare(self, model: ModelPlace, keys: KeyPlace) -> None:
        self.load(keys)
        self.prepared.append(model.directory.name)

    def forget(self, owner: Owner) -> None:
        self.keys.pop(owner, None)

    def memory(self) -> WorkerMemory:
        return WorkerMemory(sum(len(keys) for keys in self.keys.values()), owners=len(self.keys))

    def run(
        self,
        model: ModelPlace,
        plan: str,
        requests: Sequence[Request],
        begin: Begin,
        answer: Answer,
    ) -> None:
        for start in range(0, len(requests), self.together):
            indices = list(range(start, min(len(requests), start + self.together)))
            begin(indices)
            with ThreadPoolExecutor(self.together) as threads:
                for index, result in zip(
                    indices, threads.map(self.one, [requests[i] for i in indices]), strict=True
                ):
                    answer(index, result)

    def one(self, request: Request) -> Result | Exception:
        try:
            keys = self.load(request.keys)
            request.observe(0, 0)
            answers = [self.answer(bytes(f), keys, request.observe) for f in request.frames]
        except Exception as error:
            return error
        return Result(answers, Timing(0.1, 0.2, 0.3))

    def answer(self, order: bytes, keys: bytes, observe: Observe) -> bytes:
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
                return keys
            case b"owners":
                return b",".join(sorted(self.keys.values()))
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
    main(descriptors_of(sys.argv[2]), ObedientEngine(int(sys.argv[1])))
