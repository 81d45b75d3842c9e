"""Write tests/golden/backbone_<family>.json: outputs of the reference implementations with name-seeded weights.

    python tools/golden_backbones.py --reference PYTHON [NAME ...]

PYTHON is an interpreter with torch, torchvision and timm, which zoo itself does not need. Without names, all backbones
of the registry are written; with names, only those are replaced.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import parity_kit  # noqa: E402
import seeded  # noqa: E402

from zoo.registry import registry  # noqa: E402
from zoo.registry.spec import BackboneSpec  # noqa: E402


def job(spec: BackboneSpec, options: dict[str, Any]) -> dict[str, Any]:
    args: dict[str, Any] = {}
    for option, value in options.items():
        args |= spec.export_args[option][value]
    return {
        "name": spec.name,
        "family": spec.family,
        "layout": spec.native_layout,
        "other_layouts": sorted(spec.layouts),
        "args": args,
        "size": seeded.image_size(spec.preprocess.size[0], spec.min_size, spec.size_multiple),
        "stages": {stage.name: stage.modules for stage in spec.stages},
        "kinds": {stage.name: stage.kind for stage in spec.stages},
        "classifier": spec.classifier.path,
        "classes": None if spec.classifier.labels else seeded.CLASSES,
        "ignored": sorted(spec.ignored),
    }


def answers(python: str, jobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Return the output of the reference process: versions first, then one answer for each job."""
    command = [python, str(ROOT / "tools" / "reference_backbones.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(jobs))
        process.stdin.close()
        yield from map(json.loads, process.stdout)
    if process.returncode:
        raise SystemExit(f"the reference ended with {process.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, metavar="PYTHON")
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    specs = registry().backbones()
    chosen = given.names or sorted(specs)
    pairs = [(specs[name], case) for name, case in parity_kit.cases() if name in chosen]
    wanted = [(spec, case, job(spec, parity_kit.options_of(spec, case))) for spec, case in pairs]
    replies = answers(given.reference, [one for *_, one in wanted])
    versions, goldens = next(replies), {}
    for (spec, case, _), reply in zip(wanted, replies, strict=True):
        path = ROOT / "tests" / "golden" / seeded.family_file(spec.family)
        if path not in goldens:
            goldens[path] = json.loads(path.read_text()) if path.exists() else {"variants": {}}
        goldens[path]["source"] = versions
        goldens[path]["variants"].setdefault(spec.name, {})[case] = reply
        print(f"{spec.name} {case}: logits' standard deviation {reply['outputs']['logits']['std']:.3g}", flush=True)
    for path, golden in goldens.items():
        golden["variants"] = dict(sorted(golden["variants"].items()))
        lines = [f'  "{name}": {json.dumps(data)}' for name, data in golden["variants"].items()]
        source = json.dumps(golden["source"])
        path.write_text(f'{{"source": {source}, "variants": {{\n' + ",\n".join(lines) + "\n}}\n")


if __name__ == "__main__":
    main()
