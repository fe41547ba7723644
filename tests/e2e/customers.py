"""A customer of the arithmetic model: keys, upload, encryption; tiny insecure parameters."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tacit.artifact import Artifact
from tacit.client.codec import Codec
from tacit.client.keys import KeyPair
from tacit.client.service import KeyDeclaration, Service
from tacit.client.transport import Frames, Question
from tests.runtime.models import TINY_INSECURE, arithmetic_artifact

MODEL = arithmetic_artifact()
VALUES = np.random.default_rng(11).uniform(-1, 1, (2, 1, TINY_INSECURE.slots))
BOUND = 2.0**-18


def expected(values: NDArray[np.float64] = VALUES) -> NDArray[np.float64]:
    """What the model computes."""
    return np.roll(values**2, -3, axis=-1) + 0.25


@dataclass(frozen=True)
class Customer:
    """Keys for a model, and what is done with them."""

    keys: KeyPair
    codec: Codec

    @classmethod
    def make(cls, folder: Path, model: Artifact = MODEL) -> "Customer":
        signature = model.signature
        keys = KeyPair.for_model(signature, folder, allow_insecure=True)
        return cls(keys, Codec(signature, keys))

    def upload(self, url: str, token: str | None = None) -> None:
        facts = self.keys.facts
        declared = KeyDeclaration(
            self.keys.key_id,
            facts.params.digest.hex(),
            self.codec.signature.key_config,
            facts.frames,
        )
        with Service(url, token=token) as service:
            missing = service.declare_keys(declared)
            for entry in facts.frames:
                if entry.sha256 in missing:
                    path = self.keys.folder.file(entry)
                    service.upload_frame(declared.key_id, entry, path, lambda count: None)
            assert service.has_key(declared.key_id)

    def encrypt(self, values: NDArray[np.float64] = VALUES) -> Frames:
        return self.codec.encrypt(self.codec.signature.plan("latency"), values)

    def question(self, frames: Frames) -> Question:
        return Question("arithmetic", "", "latency", self.keys.key_id, frames)

    def error(self, frames: Frames, values: NDArray[np.float64] = VALUES) -> float:
        """Largest difference between decrypted answers and the clear ones."""
        answer = self.codec.decrypt(self.codec.signature.plan("latency"), frames)
        return float(np.max(np.abs(answer - expected(values))))
