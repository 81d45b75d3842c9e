"""Damaged inputs of every reader: datasets, images, catalogues, tensors, lock files and foreign configurations.

    python benchmarks/fuzz.py --inputs 5000

Each input must end with a result or with an error of zoo, within 20 seconds and 8 GB of memory. The exit status is 1 if
one does not; the first fault of each kind is printed with its traceback. `--target coco --input 17` shows one input
again.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from fuzz_kit import TARGETS, Fault, fuzz, reproduced


def main() -> int:
    """Fuzz all targets, or show one input. Returns 1 if there are faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=5000, help="in total, over all targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=list(TARGETS))
    parser.add_argument("--input", type=int)
    options = parser.parse_args()
    with suppress(ImportError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    with tempfile.TemporaryDirectory() as folder:
        if options.input is not None:
            content = reproduced(options.target, options.input, Path(folder), options.seed)
            sys.stdout.buffer.write(content)
            return 0
        names = [options.target] if options.target else list(TARGETS)
        faults: list[Fault] = []
        for name in names:
            began, count = time.monotonic(), -(-options.inputs // len(names))
            found = fuzz(name, TARGETS[name], Path(folder) / name, count, options.seed)
            print(
                f"{name:12s} {count:5d} inputs, {len(found):3d} faults, {time.monotonic() - began:6.1f} s", flush=True
            )
            faults += found
    seen = set()
    for fault in faults:
        last = fault.said.strip().splitlines()[-3:]
        kind = (fault.target, re.sub(r"\d+", "0", last[0]), last[-1].split(":")[0])
        if kind not in seen:
            seen.add(kind)
            print(f"\n{fault.target}, input {fault.number}, {fault.file}:\n{fault.said}")
    print(f"{len(faults)} faults of {len(seen)} kinds")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
