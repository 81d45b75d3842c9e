"""Compare the values of every backbone with its golden values, and record the fingerprints of those that agree.

    python tools/fingerprints.py [PATTERN]
    python tools/fingerprints.py --code

PATTERN is a regular expression; without it every backbone is compared, which takes some minutes. `--code` is for
changes of code that change no program: it checks that all fingerprints are the recorded ones, and records the hashes of
the code. The file belongs to the release of JAX that wrote it, so use the newest. With another release, the tests
compare values where programs differ.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import fingerprints
import jax
import parity_kit as kit

from zoo.models.model import Model


def main(pattern: str = "") -> int:
    cases, wrong = kit.cases(), 0
    values = pattern != "--code"
    pattern = pattern if values else ""
    codes = dict(kit.code_of(name) for name, _ in cases)
    known = {f"{name} {case}" for name, case in cases} | codes.keys()
    found = {key: value for key, value in fingerprints.recorded().items() if key in known}
    for name, case in cases:
        if not re.search(pattern, name):
            continue
        key, spec = f"{name} {case}", kit.backbones()[name]
        model = kit.composed(spec, kit.options_of(spec, case))
        fingerprint = kit.fingerprint(model, kit.golden(name, case))
        right = fingerprint == found.get(key) if not values else _agrees(model, name, case)
        if right:
            found[key] = fingerprint
        else:
            found.pop(key, None)
            codes.pop(kit.code_of(name)[0], None)
            wrong += 1
        print(f"{'ok   ' if right else 'WRONG'} {key}", flush=True)
    if not pattern:
        found |= codes
    fingerprints.record(found)
    print(f"{len(found)} entries of JAX {jax.__version__}, {wrong} wrong")
    return int(wrong > 0)


def _agrees(model: Model, name: str, case: str) -> bool:
    return max(kit.deviations(model, name, case).values()) <= kit.TOLERANCE


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
