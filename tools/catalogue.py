"""Write the files derived from the plugins' tables, or check that they are up to date: the catalogue `registry.toml`,
and `docs/backbones.md`, the same for people.

python tools/catalogue.py           writes them
python tools/catalogue.py --check   prints what would change and exits with 1, or with 0 when nothing would

Parameter counts are those of the references (`tests/golden`), against which the tests compare every backbone. A
backbone without golden values is built, as shapes only, and counted.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from zoo.models.backbone import count_params
from zoo.registry import derive, loader
from zoo.registry.catalogue import FILE
from zoo.registry.loader import Contribution
from zoo.registry.spec import BackboneSpec, WeightSpec

ROOT = Path(__file__).resolve().parent.parent
PATH = ROOT / FILE
PAGE = ROOT / "docs" / "backbones.md"
GOLDEN = ROOT / "tests" / "golden"
COMMAND = "python tools/catalogue.py"


def derived() -> dict[Path, str]:
    """Return file -> content, from zoo's own plugins. A plugin that cannot be loaded raises."""
    own = [(c.module, loader.load(c)) for c in loader.discover() if c.first_party]
    return {PATH: derive.catalogue(own, COMMAND, count), PAGE: page([given for _, given in own])}


@cache
def references() -> dict[str, int]:
    """Return backbone -> the parameter count of the reference, without its classifier."""
    found: dict[str, int] = {}
    for file in sorted(GOLDEN.glob("backbone_*.json")):
        variants = json.loads(file.read_text(encoding="utf-8"))["variants"]
        found |= {name: cases["default"]["params"] for name, cases in variants.items() if "default" in cases}
    return found


def count(spec: BackboneSpec) -> int:
    """Return the parameter count of a backbone."""
    return references().get(spec.name) or count_params(spec)


def page(plugins: Sequence[Contribution]) -> str:
    """Return a table of the families: variants, weights, key layouts, sizes, paper."""
    families: dict[str, list[BackboneSpec]] = {}
    weights: dict[str, list[WeightSpec]] = {}
    for given in plugins:
        for spec in given.specs["backbones"].values():
            families.setdefault(spec.family, []).append(spec)
        for row in given.specs["weights"].values():
            weights.setdefault(row.backbone, []).append(row)
    rows = sum(map(len, weights.values()))
    head = [
        "# Backbones",
        "",
        f"Derived from the plugins by `{COMMAND}`. {sum(map(len, families.values()))} backbones of {len(families)} "
        f"families, {rows} sets of weights.",
        "`zoo show NAME` tells stages, channels, strides, licences and the citation of each;",
        "`zoo list weights 'NAME.*'` lists its weights.",
        "",
        "| family | backbones | weights | key layouts | least image | paper |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(_family(*item, weights) for item in sorted(families.items()))]) + "\n"


def _family(name: str, specs: Sequence[BackboneSpec], weights: dict[str, list[WeightSpec]]) -> str:
    names = ", ".join(f"`{spec.name}`" for spec in sorted(specs, key=lambda spec: spec.name))
    found = [row for spec in specs for row in weights.get(spec.name, [])]
    restricted = sum(row.commercial_use == "no" for row in found)
    count = f"{len(found)}" + (f" ({restricted} not for commercial use)" if restricted else "")
    layouts = dict.fromkeys(layout for spec in specs for layout in (spec.native_layout, *spec.layouts))
    sizes = dict.fromkeys(
        f"{spec.min_size}" + (f", multiple of {spec.size_multiple}" if spec.size_multiple > 1 else "") for spec in specs
    )
    papers = ", ".join(
        f"[{paper.rpartition('/')[2]}]({paper})" for paper in dict.fromkeys(s.paper for s in specs) if paper
    )
    return f"| {name} | {names} | {count} | {', '.join(layouts)} | {'; '.join(sizes)} | {papers} |"


def main() -> int:
    """Write or check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 when a file is out of date")
    check, status = parser.parse_args().check, 0
    for path, new in derived().items():
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if not check:
            path.write_text(new, encoding="utf-8")
        elif old != new:
            lines = (old.splitlines(True), new.splitlines(True))
            sys.stdout.writelines(difflib.unified_diff(*lines, path.name, f"{path.name} as the plugins say"))
            print(f"{path.name} is out of date: run `{COMMAND}`.", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
