"""Write zoo's `registry.toml` from the plugins' own tables, or check that it is up to date.

python tools/catalogue.py           writes it
python tools/catalogue.py --check   prints what would change and exits with 1, or with 0 when nothing would
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from zoo import derive, loader
from zoo.catalogue import FILE

PATH = Path(__file__).resolve().parent.parent / FILE


def derived() -> str:
    """The catalogue of zoo's own plugins. A plugin that cannot be loaded raises."""
    own = [candidate for candidate in loader.discover() if candidate.first_party]
    return derive.catalogue([(c.module, loader.load(c)) for c in own], "python tools/catalogue.py")


def main() -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 when the file is out of date")
    check = parser.parse_args().check
    new = derived()
    old = PATH.read_text(encoding="utf-8") if PATH.exists() else ""
    if not check:
        PATH.write_text(new, encoding="utf-8")
        return 0
    sys.stdout.writelines(
        difflib.unified_diff(old.splitlines(True), new.splitlines(True), FILE, f"{FILE} as the plugins say")
    )
    if old != new:
        print(f"{FILE} is out of date: run `python tools/catalogue.py`.", file=sys.stderr)
    return int(old != new)


if __name__ == "__main__":
    sys.exit(main())
