"""How much memory the ciphertexts of a circuit take while it runs."""

from __future__ import annotations

from tacit.circuit import Circuit, LinearPlan, Node, Op, last_uses
from tacit.params import CryptoParams


class CiphertextPeak:
    """Bytes of the ciphertexts alive after each node, and of a linear map's rotations.

    Attributes:
        most: the most so far.
    """

    def __init__(self, circuit: Circuit, params: CryptoParams) -> None:
        """Begin before the first node, with the inputs alive."""
        self._circuit = circuit
        self._params = params
        self._last = last_uses(circuit)
        self._alive = sum(self._bytes(v) for v in circuit.inputs)
        self.most = self._alive

    def after(self, index: int) -> int:
        """Return the bytes while a node runs; ask for the nodes in circuit order."""
        node = self._circuit.nodes[index]
        self._alive += sum(self._bytes(v) for v in node.outputs)
        during = self._alive + self._scratch(node)
        self.most = max(self.most, during)
        ended = [v for v in {*node.inputs, *node.outputs} if self._last.get(v, -1) <= index]
        self._alive -= sum(self._bytes(v) for v in ended)
        return during

    def _bytes(self, value: int) -> int:
        return self._params.ciphertext_bytes(self._circuit.types[value].level)

    def _scratch(self, node: Node) -> int:
        level = self._circuit.types[node.inputs[0]].level
        if isinstance(node.attribute, LinearPlan):
            terms = node.attribute.terms
            kept = len({(t.input, t.baby) for t in terms if t.baby})
            kept += len({(t.output, t.giant) for t in terms})
        else:
            kept = 4 if node.op is Op.CHEBYSHEV else 1
        return kept * self._params.ciphertext_bytes(level)
