"""Compare the values of every backbone with its golden and record the fingerprints of those that agree.

    python tools/fingerprints.py [PATTERN]

Without PATTERN, a regular expression, every backbone, which takes some minutes. The file belongs to the release of JAX
that it was made with: with another, the tests compare values where programs differ. Make it with the newest.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import fingerprints
import jax
import parity_kit as kit


def main(pattern: str = "") -> int:
    cases, wrong = kit.cases(), 0
    known = {f"{name} {case}" for name, case in cases}
    found = {key: value for key, value in fingerprints.recorded().items() if key in known}
    for name, case in cases:
        if not re.search(pattern, name):
            continue
        spec = kit.backbones()[name]
        model = kit.composed(spec, kit.options_of(spec, case))
        fingerprint = kit.fingerprint(model, kit.golden(name, case))
        error = max(kit.deviations(model, name, case).values())
        if error <= kit.TOLERANCE:
            found[f"{name} {case}"] = fingerprint
        else:
            found.pop(f"{name} {case}", None)
            wrong += 1
        print(f"{'ok   ' if error <= kit.TOLERANCE else 'WRONG'} {error:.1e} {name} {case}", flush=True)
    fingerprints.record(found)
    print(f"{len(found)} fingerprints of JAX {jax.__version__}, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
