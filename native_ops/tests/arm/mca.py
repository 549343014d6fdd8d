"""What the inner loops of the ARM kernels cost on models of real cores, by llvm-mca.

    python mca.py                  # a table for Cortex-A55, A72 and A76
    python mca.py --json

Time under an emulator means nothing, so that this is the measure of speed without the hardware. The
sources mark their loops with comments in the assembly, ``LLVM-MCA-BEGIN name macs``; a region is
the whole loop around such a mark, with its address arithmetic and branch. The model assumes that
loads hit the first cache.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

COMPILER = "aarch64-linux-gnu-g++"
KERNELS = Path(__file__).resolve().parents[2] / "kernels" / "arm"
SOURCES = {
    "neon_layers.cpp": "armv8-a",
    "neon_depthwise.cpp": "armv8-a",
    "neon_stem.cpp": "armv8-a",
    "neondot_layers.cpp": "armv8.2-a+dotprod",
    "neoni8mm_layers.cpp": "armv8.2-a+dotprod+i8mm",
}
ITERATIONS = 200
# 36 multiplications of a direct 3x3 convolution for 16 of F(2x2, 3x3), transforms not counted.
DIRECT_PER_F2X2 = 36 / 16

# The most multiply-accumulates a cycle that a core's vector units could do if there were no loads,
# by what a kernel multiplies with: Arm's Software Optimization Guides, throughput of the 128-bit
# form times its products. Counting bits takes 6 instructions for 128 products with one plane of the
# codes. A core without the extension has no entry.
PEAKS = {
    "cortex-a55": {"smlal8": 8, "smlal16": 4, "mla": 16, "cnt": 128 / 6, "sdot": 16},
    "cortex-a72": {"smlal8": 8, "smlal16": 4, "mla": 8, "cnt": 256 / 6},
    "cortex-a76": {"smlal8": 8, "smlal16": 4, "mla": 8, "cnt": 256 / 6, "sdot": 32},
}


@dataclass(frozen=True)
class Loop:
    """A marked loop; ``macs`` is of one iteration, 0 where nothing is multiplied."""

    name: str
    macs: int
    assembly: str

    @property
    def unit(self) -> str | None:
        """The instructions that multiply, the key into PEAKS."""
        for instruction, unit in (
            (r"\busmmla|\bsmmla", "mmla"),
            (r"\b[su]dot\b", "sdot"),
            (r"\bcnt\b", "cnt"),
            (r"\bmla\b.*16b", "mla"),
            (r"\bsmlal2?\s+v\d+\.8h", "smlal8"),
            (r"\bsmlal2?\s+v\d+\.4s", "smlal16"),
        ):
            if re.search(instruction, self.assembly):
                return unit
        return None

    def peak(self, core: str) -> float | None:
        """Multiply-accumulates a cycle that the vector units of ``core`` could do."""
        unit = self.unit
        if unit is None or unit not in PEAKS[core]:
            return None
        planes = re.search(r"_cnt_u(\d)", self.name)
        return PEAKS[core][unit] / (int(planes[1]) if planes else 1)


@dataclass(frozen=True)
class Result:
    """A loop on a core; the last four are None for what multiplies nothing."""

    kernel: str
    core: str
    cycles: float
    macs_per_cycle: float | None
    peak: float | None
    percent_of_peak: float | None
    direct_macs_per_cycle: float | None  # as if the same outputs were summed directly


def newest_mca() -> str | None:
    """The llvm-mca of the highest version: later ones model more of the Cortex-A55."""
    for version in range(40, 13, -1):
        if found := shutil.which(f"llvm-mca-{version}"):
            return found
    return shutil.which("llvm-mca")


def assembly(source: str, march: str) -> list[str]:
    """The compiler's output, with the flags of the build."""
    flags = ["-std=c++20", "-O3", "-ffp-contract=off", "-fno-exceptions", "-fno-rtti"]
    command = [COMPILER, *flags, f"-march={march}", "-S", "-o", "-", str(KERNELS / source)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def find_loops(lines: list[str]) -> Iterator[Loop]:
    """The loops around the marks: from the label above one to the branch back to that label."""
    for index, line in enumerate(lines):
        mark = re.match(r"\s*// LLVM-MCA-BEGIN (\S+) (\d+)", line)
        if mark is None:
            continue
        top = next(i for i in range(index, -1, -1) if re.match(r"\.L\w+:", lines[i]))
        label = lines[top].rstrip(":")
        back = re.compile(rf"\s(b\.?\w+|cbn?z|tbn?z)\s.*{re.escape(label)}$")
        end = next((i for i in range(index, len(lines)) if back.search(lines[i])), None)
        inside = lines[top + 1 : end + 1] if end is not None else []
        if end is None or any(re.match(r"\.L\w+:", other) for other in inside):
            raise ValueError(f"{mark[1]}: the mark is not in a loop without branches")
        body = [text for text in inside if not text.startswith(("#", "//"))]
        text = "\n".join(["top:", *body]).replace(label, "top")
        yield Loop(mark[1], int(mark[2]), text)


def all_loops() -> list[Loop]:
    """Every marked loop once; of copies of the same tile, the one with the fewest instructions."""
    loops: dict[str, Loop] = {}
    for source, march in SOURCES.items():
        for loop in find_loops(assembly(source, march)):
            known = loops.get(loop.name)
            if known is None or loop.assembly.count("\n") < known.assembly.count("\n"):
                loops[loop.name] = loop
    return list(loops.values())


def measure(loop: Loop, core: str, mca: str) -> Result:
    """Cycles of one iteration among many."""
    command = [mca, "-mtriple=aarch64-linux-gnu", f"-mcpu={core}", "-mattr=+dotprod,+i8mm"]
    command.append(f"-iterations={ITERATIONS}")
    done = subprocess.run(command, input=loop.assembly, check=True, capture_output=True, text=True)
    total = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if total is None:
        raise ValueError(f"{loop.name}: no cycles in the output of {mca}")
    cycles = int(total[1]) / ITERATIONS
    rate = loop.macs / cycles if loop.macs else None
    peak = loop.peak(core)
    percent = 100 * rate / peak if rate and peak else None
    saved = DIRECT_PER_F2X2 if "_f2x2_" in loop.name else 1
    return Result(loop.name, core, cycles, rate, peak, percent, rate * saved if rate else None)


def results(mca: str) -> list[Result]:
    """Every loop on every core that runs it."""
    loops = all_loops()
    return [
        measure(loop, core, mca)
        for core in PEAKS
        for loop in loops
        if loop.unit is None or loop.unit in PEAKS[core]
    ]


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="records instead of a table")
    parser.add_argument("--mca", default=newest_mca(), help="which llvm-mca; default: the newest")
    options = parser.parse_args()
    if options.mca is None or shutil.which(COMPILER) is None:
        print("mca.py: missing tools: apt-get install llvm g++-aarch64-linux-gnu", file=sys.stderr)
        return 3
    found = results(options.mca)
    if options.json:
        print(json.dumps([asdict(result) for result in found], indent=1))
        return 0
    print(
        f"{'core':<11} {'loop':<28} {'cycles':>7} {'MAC/cycle':>9} {'peak':>6} {'%':>4} {'direct':>7}"
    )
    for result in found:
        numbers = ""
        if result.macs_per_cycle and result.peak and result.direct_macs_per_cycle:
            numbers = f"{result.macs_per_cycle:9.2f} {result.peak:6.1f} "
            numbers += f"{result.percent_of_peak:4.0f} {result.direct_macs_per_cycle:7.2f}"
        print(f"{result.core:<11} {result.kernel:<28} {result.cycles:7.1f} {numbers}".rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
