"""Show that exported models compute the same in timm, torchvision and transformers.

    python tools/export_roundtrip.py --reference PYTHON [NAME ...]

Takes the smallest variant of every family and the smallest with each key layout, or the named ones. Random weights are
exported to timm's layout with every build option, and to other layouts with the options that belong to them. The
reference loads them as its users would, and the logits are compared.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]


def loaded(folder: Path, layout: str, family: str) -> Any:
    """Return the model that the reference library builds from an exported folder."""
    import reference_backbones
    import timm
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    name, classes = config["architecture"], {"num_classes": config["num_classes"]}
    extra = reference_backbones.ARGS.get(family, {})
    if layout == "timm" and timm.is_model(name):
        return timm.create_model(f"local-dir:{folder}", pretrained=True, **extra).eval()
    if layout == "timm":
        classes |= extra | config["model_args"]
    model = reference_backbones.reference(name, layout, classes)
    tensors = load_file(folder / "model.safetensors")
    if layout == "transformers":
        return from_pretrained(model, folder, tensors)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    known = ("num_batches_tracked", "relative_position_index")  # what torch computes by itself
    assert not unexpected and all(key.endswith(known) for key in missing), (missing, unexpected)
    return model.eval()


def from_pretrained(like: Any, folder: Path, tensors: dict[str, Any]) -> Any:
    """Return transformers' model from an exported folder, with logits as its output.

    A model without a classifier gets the exported one.
    """
    from torch import nn

    like.config.save_pretrained(folder)
    model, info = type(like).from_pretrained(folder, output_loading_info=True)
    missing = [key for key in info["missing_keys"] if not key.endswith(("num_batches_tracked", "mask_token"))]
    assert not missing, missing
    head = None
    if hasattr(like, "head"):
        head = nn.Linear(*reversed(tensors["head.weight"].shape))
        head.load_state_dict({leaf: tensors[f"head.{leaf}"] for leaf in ("weight", "bias")})

    def logits(x: Any) -> Any:
        arguments = signature(model.forward).parameters
        given = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in arguments else {}
        found = model.eval()(x, **given)
        return found.logits if head is None else head(found.pooler_output)

    return logits


def reference_side(work: Path) -> None:
    import numpy as np
    import reference_backbones  # noqa: F401
    import torch

    for folder in sorted(work.iterdir()):
        name, layout, case, family = folder.name.split("--")
        x, wanted = np.load(folder / "x.npy"), np.load(folder / "logits.npy")
        with torch.no_grad():
            found = loaded(folder / "model", layout, family)(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
        assert wanted.std() > 1e-3
        print(
            f"{name} {layout} {case}: logits differ by at most {abs(found - wanted).max():.2g} (std {wanted.std():.2g})"
        )


def our_side(work: Path, python: str, names: Sequence[str]) -> None:
    import jax.numpy as jnp
    import numpy as np
    import parity_kit as kit
    import seeded

    from zoo.models.export import export
    from zoo.weights.load import layouts_of

    def write(name: str, layout: str, case: str, options: Mapping[str, Any], channels: int = 3) -> None:
        spec = kit.backbones()[name]
        model = kit.composed(spec, options, labels=("a", "b", "c"), in_channels=channels)
        tensors = seeded.tensors(kit.checkpoint_shapes(model), kit.golden(name)["scales"])
        kit.load(model, tensors)
        place = work / f"{name}--{layout}--{case},{channels}ch--{spec.family}"
        export(model, place / "model", layout)
        # Some references take no other size than their own, or treat small maps in a way of their own.
        size = kit.golden(name)["size"] if layout == "timm" else spec.preprocess.size
        x = seeded.images(2, *size, channels)
        np.save(place / "x.npy", x)
        np.save(place / "logits.npy", np.asarray(model(jnp.asarray(x))))

    chosen = list(names) or kit.one_per_family()
    seen: set[tuple[str, str]] = set()
    for spec in sorted(kit.backbones().values(), key=lambda spec: kit.golden(spec.name)["params"]):
        if spec.name in chosen and spec.native_layout == "timm":
            for name, case in kit.cases():
                for channels in (3, 4) if name == spec.name else ():
                    write(name, "timm", case, kit.options_of(spec, case), channels)
        for layout in layouts_of(spec):
            # Not every variant that has a layout has a reference in that library.
            known = layout in kit.golden(spec.name)["keys"]
            if layout == "timm" or not known or (spec.name not in names if names else (spec.family, layout) in seen):
                continue
            seen.add((spec.family, layout))
            tensors = kit.in_layout(spec, layout, kit.checkpoint(spec.name))
            options = next((c.options for c in spec.conventions if c.recognise(tensors)), {})
            write(spec.name, layout, "its options" if options else "default", options)
        if any(work.iterdir()):
            subprocess.run([python, __file__, "--check", str(work)], check=True)
            for place in work.iterdir():
                shutil.rmtree(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", metavar="PYTHON", help="an interpreter with torch, torchvision and timm")
    parser.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    if given.check:
        return reference_side(given.check)
    if not given.reference:
        parser.error("--reference is needed")
    with tempfile.TemporaryDirectory() as work:
        our_side(Path(work), given.reference, given.names)


if __name__ == "__main__":
    main()
