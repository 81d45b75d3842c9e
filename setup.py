"""The parts of the build that pyproject.toml cannot say: which packages there are, and the catalogue's copy.

`plugins/` and `adapters/` lie beside `zoo/` and are installed inside it; `registry.toml` lies at the root and is copied
into the package, so that a wheel finds it without the repository.
"""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

MAPPED = {"zoo.plugins": "plugins", "zoo.adapters": "adapters"}
CATALOGUE = Path("registry.toml")


class BuildWithCatalogue(build_py):
    """Puts `registry.toml` beside the package's modules."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode and CATALOGUE.exists():
            self.copy_file(str(CATALOGUE), str(Path(self.build_lib) / "zoo" / CATALOGUE.name))


def packages() -> list[str]:
    """Every importable package, those that are mapped into `zoo` included."""
    found = find_packages(include=["zoo", "zoo.*"])
    for name, folder in MAPPED.items():
        found += [name, *(f"{name}.{inner}" for inner in find_packages(folder))]
    return found


setup(packages=packages(), cmdclass={"build_py": BuildWithCatalogue})
