"""Link the code into a folder as it is installed, with `zoo.plugins` and `zoo.adapters` below `zoo`, for tools that
read packages from folders.

    python tools/installed_tree.py .tree && cd .tree && mypy --config-file ../pyproject.toml -p zoo
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACES = {"zoo": "zoo", "plugins": "zoo/plugins", "adapters": "zoo/adapters"}


def lay_out(out: Path) -> None:
    """Create folders with a link to each file, and replace older ones."""
    shutil.rmtree(out, ignore_errors=True)
    for folder, place in PLACES.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            link = out / place / file.relative_to(ROOT / folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]).resolve())
