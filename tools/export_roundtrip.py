"""Show that exported models compute the same in timm and torchvision.

    python tools/export_roundtrip.py --reference PYTHON

For the smallest variant of every family, each layout that has a reference, and every build option: random weights are
exported, loaded by the reference as its users would, and the logits compared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]


def loaded(folder: Path, layout: str) -> Any:
    """The model as the reference library builds it from an exported folder."""
    import reference_backbones
    import timm
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    if layout == "timm":
        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    model = reference_backbones.reference(config["architecture"], layout, {"num_classes": config["num_classes"]})
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def reference_side(work: Path) -> None:
    import numpy as np
    import reference_backbones  # noqa: F401
    import torch

    for folder in sorted(work.iterdir()):
        name, layout, case = folder.name.split("--")
        x, wanted = np.load(folder / "x.npy"), np.load(folder / "logits.npy")
        with torch.no_grad():
            found = loaded(folder / "model", layout)(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
        assert wanted.std() > 1e-3
        print(
            f"{name} {layout} {case}: logits differ by at most {abs(found - wanted).max():.2g} (std {wanted.std():.2g})"
        )


def our_side(work: Path, python: str) -> None:
    import jax.numpy as jnp
    import numpy as np
    import parity_kit as kit
    import seeded

    from zoo.weights.export import export
    from zoo.weights.load import layouts_of

    for name, case in kit.cases():
        spec = kit.backbones()[name]
        if name not in kit.one_per_family():
            continue
        for channels in (3, 4):
            model = kit.composed(spec, kit.options_of(spec, case), labels=("a", "b", "c"), in_channels=channels)
            shapes = kit.checkpoint_shapes(model)
            kit.load(model, seeded.tensors(shapes, kit.golden(name, case)["scales"]))
            for layout in layouts_of(spec):
                # A reference outside of timm has the default options and three channels.
                if layout != "timm" and (case != "default" or channels != 3):
                    continue
                place = work / f"{name}--{layout}--{case},{channels}ch"
                export(model, place / "model", layout)
                x = seeded.images(2, *kit.golden(name)["size"], channels)
                np.save(place / "x.npy", x)
                np.save(place / "logits.npy", np.asarray(model(jnp.asarray(x))))
    subprocess.run([python, __file__, "--check", str(work)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", metavar="PYTHON", help="an interpreter with torch, torchvision and timm")
    parser.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.check:
        return reference_side(given.check)
    if not given.reference:
        parser.error("--reference is needed")
    with tempfile.TemporaryDirectory() as work:
        our_side(Path(work), given.reference)


if __name__ == "__main__":
    main()
