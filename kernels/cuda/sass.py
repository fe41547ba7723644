"""What the compiler made of the kernels: registers, spills and instructions, read from a cubin.

Nothing here needs a GPU or a driver. Instructions come from NVIDIA's disassembler, which the wheel
nvidia-cuda-nvdisasm brings; registers from the ELF file.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tacit.errors import UnusableEnvironmentError

_WITH_VALUE, _REGISTER_COUNT = 4, 0x2F  # EIFMT_SVAL, EIATTR_REGCOUNT
_SECTION = re.compile(r"\.section\s+\.text\.(\w+),")
_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)")


@dataclass(frozen=True, slots=True)
class Assembly:
    """One kernel's machine code.

    Attributes:
        registers: of a thread.
        instructions: by opcode with its modifiers, padding left out.
    """

    registers: int
    instructions: Mapping[str, int]

    @property
    def total(self) -> int:
        """All instructions."""
        return sum(self.instructions.values())

    @property
    def local(self) -> int:
        """Accesses to local memory: spilled registers."""
        return self.count("LDL", "STL")

    def count(self, *prefixes: str) -> int:
        """Count instructions whose opcode begins with one of these."""
        return sum(n for name, n in self.instructions.items() if name.startswith(prefixes))


def disassemble(cubin: bytes, tool: Path | None = None) -> dict[str, Assembly]:
    """Return each kernel of a cubin by name.

    Raises:
        UnusableEnvironmentError: there is no disassembler, or it refuses the cubin.
    """
    tool = tool or find_disassembler()
    if tool is None:
        raise UnusableEnvironmentError("no nvdisasm: install the wheel nvidia-cuda-nvdisasm")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([str(tool), "-c", file.name], capture_output=True, text=True)
    if done.returncode:
        raise UnusableEnvironmentError(f"nvdisasm failed: {done.stderr.strip()}")
    counts: dict[str, Counter[str]] = {}
    kernel = None
    for line in done.stdout.splitlines():
        section = _SECTION.search(line)
        if section:
            kernel = section.group(1)
            counts[kernel] = Counter()
        found = _INSTRUCTION.match(line)
        if found and kernel and found.group(1) != "NOP":
            counts[kernel][found.group(1)] += 1
    registers = registers_of(cubin)
    return {name: Assembly(registers[name], dict(made)) for name, made in counts.items()}


def registers_of(cubin: bytes) -> dict[str, int]:
    """Return the registers of each kernel, from the ELF sections .nv.info and .symtab."""
    sections = _sections(cubin)
    names, symbols = sections[".strtab"], sections[".symtab"]
    content = sections[".nv.info"]
    made, at = {}, 0
    while at < len(content):
        form, attribute, size = struct.unpack_from("<BBH", content, at)
        at += 4
        if form != _WITH_VALUE:
            continue
        if attribute == _REGISTER_COUNT:
            symbol, registers = struct.unpack_from("<II", content, at)
            (start,) = struct.unpack_from("<I", symbols, 24 * symbol)
            made[names[start : names.index(b"\0", start)].decode()] = registers
        at += size
    return made


def _sections(cubin: bytes) -> dict[str, bytes]:
    (table,) = struct.unpack_from("<Q", cubin, 40)
    entry, count, names = struct.unpack_from("<HHH", cubin, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", cubin, table + i * entry) for i in range(count)]
    made = {}
    for header in headers:
        start = headers[names][4] + header[0]
        name = cubin[start : cubin.index(b"\0", start)].decode()
        made[name] = cubin[header[4] : header[4] + header[5]]
    return made


def find_disassembler() -> Path | None:
    """Return nvdisasm of a wheel or of the PATH."""
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for folder in ("cu13/bin", "cuda_nvdisasm/bin"):
            tool = Path(root) / folder / "nvdisasm"
            if tool.is_file():
                return tool
    found = shutil.which("nvdisasm")
    return Path(found) if found else None
