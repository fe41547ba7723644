"""How many multiplications and bytes each workload of question `engine` takes at least.

The formula is that of docs/roofline.md: multiplications by the algorithm, bytes as if every operand
were read and every result written once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.roofline import Machine
from tacit.kernels.library import InstructionSet

NARROW_BITS = 50
SIDE = 8  # the matrix has SIDE^2 diagonals: SIDE baby steps, SIDE giant steps
HOISTED = tuple(range(1, SIDE + 1))  # steps of the hoisted rotations


@dataclass(frozen=True, slots=True)
class Path:
    """Multiplications of one instruction set for primes of one width.

    Attributes:
        kind: which, in `Machine.multiplications`.
        factor: a residue times a constant, as in a butterfly.
        term: one product of a sum, before the reduction.
        wide_term: the same where the source is of a wide prime.
        reduction: of a sum.
    """

    kind: str
    factor: int
    term: int
    wide_term: int
    reduction: int


# As in kernels/csrc: (narrow, wide).
PATHS = {
    InstructionSet.SCALAR: (Path("integer", 3, 1, 1, 5), Path("integer", 3, 1, 1, 5)),
    InstructionSet.AVX2: (Path("avx2_double", 4, 4, 4, 10), Path("avx2_integer", 7, 4, 4, 10)),
    InstructionSet.AVX512: (Path("avx512_ifma", 3, 2, 4, 4), Path("avx512_integer", 5, 4, 4, 8)),
}


@dataclass(frozen=True, slots=True)
class Work:
    """Multiplications for narrow and for wide primes, and bytes."""

    narrow: float = 0.0
    wide: float = 0.0
    size_bytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.narrow + other.narrow, self.wide + other.wide, self.size_bytes + other.size_bytes
        )

    def __mul__(self, times: float) -> Work:
        return Work(self.narrow * times, self.wide * times, self.size_bytes * times)

    def compute_seconds(self, machine: Machine, instructions: InstructionSet) -> float:
        """Return the time at the machine's peak."""
        peaks = [machine.multiplications[path.kind] for path in PATHS[instructions]]
        return self.narrow / peaks[0] + self.wide / peaks[1]

    def memory_seconds(self, machine: Machine) -> float:
        """Return the time at the bandwidth of the smallest memory that holds all bytes."""
        return self.size_bytes / machine.bandwidth(self.size_bytes)


@dataclass(frozen=True, slots=True)
class Shape:
    """One ring at its top level.

    Attributes:
        log_n: base-2 logarithm of N.
        moduli: primes of Q.
        specials: primes of P.
        digits: of the key switch.
        instructions: of the kernels.
    """

    log_n: int
    moduli: tuple[int, ...]
    specials: tuple[int, ...]
    digits: int
    instructions: InstructionSet

    @property
    def every(self) -> tuple[int, ...]:
        """The basis QP."""
        return self.moduli + self.specials

    def transforms(self, primes: Sequence[int]) -> Work:
        """One NTT of a row per prime: N/2 log2(N) butterflies."""
        return self._rows(primes, lambda path: path.factor * self.log_n / 2)

    def factors(self, primes: Sequence[int]) -> Work:
        """One row per prime times a constant."""
        return self._rows(primes, lambda path: path.factor)

    def sums(self, primes: Sequence[int], terms: int) -> Work:
        """One row per prime of sums of products."""
        return self._rows(primes, lambda path: path.term * terms + path.reduction)

    def conversion(self, sources: Sequence[int], targets: Sequence[int]) -> Work:
        """Convert rows of some primes to others."""
        wide = any(is_wide(q) for q in sources)
        return self._rows(
            targets,
            lambda path: (path.wide_term if wide else path.term) * len(sources) + path.reduction,
        )

    def mod_up(self) -> Work:
        """Extend all digits: inverse transforms, conversions, transforms."""
        alpha = -(-len(self.moduli) // self.digits)
        total = self.transforms(self.moduli) + self.factors(self.moduli)
        for start in range(0, len(self.moduli), alpha):
            own = self.moduli[start : start + alpha]
            others = [q for q in self.every if q not in own]
            total += self.conversion(own, others) + self.transforms(others)
        return total

    def mod_down(self, polynomials: int) -> Work:
        """Divide by P."""
        special = self.transforms(self.specials) + self.factors(self.specials)
        limbs = self.conversion(self.specials, self.moduli) + self.transforms(self.moduli)
        return (special + limbs + self.factors(self.moduli)) * polynomials

    def key_products(self) -> Work:
        """Sums of digit times key, both halves."""
        return self.sums(self.every, self.digits) * 2

    def moved(self, rows: float) -> Work:
        """So many rows of N words, read or written."""
        return Work(size_bytes=8.0 * rows * (1 << self.log_n))

    def roots(self, forward: int, backward: int) -> Work:
        """Tables of roots: pairs of words, for each prime and direction."""
        return self.moved(2.0 * (forward + backward))

    def _rows(self, primes: Sequence[int], cost: Callable[[Path], float]) -> Work:
        narrow, wide = PATHS[self.instructions]
        n, broad = 1 << self.log_n, sum(map(is_wide, primes))
        return Work(n * (len(primes) - broad) * cost(narrow), n * broad * cost(wide))


def is_wide(q: int) -> bool:
    """Tell whether a prime is beyond the fast path."""
    return q >> NARROW_BITS > 0


def workloads(shape: Shape, hoisted: int, side: int) -> dict[str, Work]:
    """Return the work of each operation at the top level.

    Args:
        shape: the ring.
        hoisted: rotations of one ciphertext; the work is that of one of them.
        side: the matrix has side^2 diagonals.
    """
    limbs, rows = len(shape.moduli), len(shape.every)
    key, specials = 2 * shape.digits * rows, len(shape.specials)
    roots = shape.roots(rows, rows)
    divided = shape.mod_down(2)
    switch = shape.mod_up() + shape.key_products() + divided
    last = shape.moduli[-1:]
    rescale = (
        (
            shape.transforms(last)
            + (shape.factors(shape.moduli[:-1]) * 2)  # centring and the division
            + shape.transforms(shape.moduli[:-1])
        )
        * 2
    )
    once = shape.mod_up() + shape.moved(2 * limbs) + roots
    each = shape.key_products() + divided + shape.moved(key + 2 * limbs)
    baby = shape.mod_up() + shape.key_products() * (side - 1)
    giant = shape.mod_down(1) + shape.mod_up() + shape.key_products()
    return {
        "rotate": switch + shape.moved(4 * limbs + key) + roots,
        "multiply": switch
        + shape.sums(shape.moduli, 1) * 2
        + shape.sums(shape.moduli, 2)
        + shape.moved(6 * limbs + key)
        + roots,
        "rescale": rescale + shape.moved(4 * limbs - 2) + shape.roots(limbs - 1, 1),
        "hoisted rotation": once * (1 / hoisted) + each,
        f"bsgs {side * side}x{side * side}": baby
        + giant * (side - 1)
        + shape.sums(shape.every, side) * (2 * side)
        + divided
        + rescale
        + shape.moved(2 * (side - 1) * key + side * side * rows + 4 * limbs + specials)
        + roots,
    }


def transform_work(shape: Shape, q: int) -> Work:
    """Return the work of one transform: the row is read and written, its table read."""
    return shape.transforms([q]) + shape.moved(2) + shape.roots(1, 0)
