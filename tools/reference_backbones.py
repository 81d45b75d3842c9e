"""Reference outputs from timm, torchvision and torch. Run by `golden_backbones.py` with a Python that has them.

Reads jobs as JSON on standard input, writes one JSON line for each. Imports nothing of zoo.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

try:
    import torchvision_cpu  # noqa: F401  # declares torchvision's compiled operators to a torch that lacks them
except ImportError:
    pass
import timm
import torch
import torchvision
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

import seeded  # noqa: E402
from reference_libraries import LIBRARIES  # noqa: E402

TRANSFORMER_FAMILIES = ("ViT", "DeiT", "DeiT III", "DINOv2", "DINOv2 with registers", "CLIP", "SigLIP", "EVA-02")
# Where a stage's output is not that of the last module that owns its parameters: (family, stage) -> module.
OUTPUTS = {
    ("ResNet", "stem"): "act1",
    ("SE-ResNet", "stem"): "act1",
    ("ResNet-RS", "stem"): "act1",
    ("CIFAR ResNet", "stem"): "act1",
    ("SqueezeNet", "stem"): "features.1",
    **{(family, "embed"): "norm_pre" for family in TRANSFORMER_FAMILIES},
}


def vgg_outputs() -> dict[tuple[str, str], str]:
    """Return the stages of VGG: every ReLU and every pool, whose positions differ between variants."""
    found = {}
    for name, layers in timm.models.vgg.cfgs.items():
        for suffix, length in (("", 2), ("_bn", 3)):
            group, number, index = 1, 0, -1
            for layer in layers:
                if layer == "M":
                    number, index = 0, index + 1
                    found[name + suffix, f"pool{group}"] = f"features.{index}"
                    group += 1
                else:
                    number, index = number + 1, index + length
                    found[name + suffix, f"relu{group}_{number}"] = f"features.{index}"
    return found


OUTPUTS |= vgg_outputs()  # by the variant's name in place of the family's
# Families whose maps have their channels last in torch as well.
CHANNELS_LAST = {"Swin Transformer"}
# Arguments of timm's constructor that let a family take the small images of these runs.
ARGS: dict[str, dict[str, Any]] = {
    **{family: {"dynamic_img_size": True} for family in TRANSFORMER_FAMILIES},
    "Swin Transformer": {"strict_img_size": False},
}


def reference(name: str, layout: str, args: dict[str, Any]) -> nn.Module:
    """Return the reference model in evaluation mode, with its own number of classes unless `args` gives one.

    Raises `LookupError` where the layout's library has no such architecture.
    """
    return LIBRARIES[layout](name, **args).eval()


def shapes(model: nn.Module, ignored: Sequence[str] = ()) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the tensors of a checkpoint, without batch counters and those that zoo does not use."""
    globs = ("*num_batches_tracked", *ignored)
    tensors = model.state_dict().items()
    return {n: tuple(t.shape) for n, t in tensors if not any(fnmatchcase(n, glob) for glob in globs)}


def fill(model: nn.Module, x: torch.Tensor, ignored: Sequence[str] = ()) -> list[float]:
    """Give the model its seeded tensors, every batch norm with the variance of what reaches it for `x`.

    Returns those variances in sorted order of the norms' names.
    """
    wanted = shapes(model, ignored)
    model.load_state_dict({n: torch.from_numpy(t) for n, t in seeded.tensors(wanted).items()}, strict=False)
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    found = dict.fromkeys(seeded.norm_names(wanted), 1.0)
    assert found.keys() == norms.keys()

    def calibrate(name: str):
        def before(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            found[name] = float(f"{inputs[0].var().item():.3g}")
            for leaf in ("running_mean", "running_var"):
                value = seeded.tensor(f"{name}.{leaf}", module.running_var.shape, found[name])
                getattr(module, leaf).copy_(torch.from_numpy(value))

        return before

    hooks = [module.register_forward_pre_hook(calibrate(name)) for name, module in norms.items()]
    model(x)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in sorted(found)]


def outputs(model: nn.Module, job: dict[str, Any], x: torch.Tensor) -> dict[str, np.ndarray]:
    """Return the output of every stage with channels last, the pooled features and the logits."""
    kept: dict[str, np.ndarray] = {}

    def keep(name: str):
        def after(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            array = output.detach().numpy().copy()  # a copy: an in-place activation may follow
            channels_first = array.ndim == 4 and job["family"] not in CHANNELS_LAST
            kept[name] = array.transpose(0, 2, 3, 1) if channels_first else array

        return after

    def keep_input(name: str):
        def before(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            kept[name] = inputs[0].detach().numpy().copy()

        return before

    modules = dict(model.named_modules())
    for name, owned in job["stages"].items():
        if job["kinds"][name] != "vector":
            said = OUTPUTS.get((job["name"], name)) or OUTPUTS.get((job["family"], name))
            modules[said or owned[-1]].register_forward_hook(keep(name))
    # What reaches the classifier: pooled features, which are the last stage where that is a vector.
    modules[job["classifier"]].register_forward_pre_hook(keep_input("pooled"))
    logits = model(x).numpy()
    last = list(job["stages"])[-1]
    if job["kinds"][last] == "vector":
        kept[last] = kept["pooled"]
    elif kept["pooled"].ndim == 4:  # the classifier is a convolution, before any pooling
        kept["pooled"] = kept[last].mean((1, 2))
    order = [*job["stages"], "pooled"]
    return {name: kept[name] for name in order} | {"logits": logits}


def depends_on_input(name: str, array: np.ndarray) -> None:
    """Refuse golden values that would hide errors: two images must differ by a tenth of the scale of the output."""
    apart = np.sqrt(np.mean(np.square(array[0] - array[1]))) / np.sqrt(np.mean(np.square(array)))
    if not apart >= 0.1 or not np.isfinite(array).all():
        raise SystemExit(f"{name}: two images differ by {apart:.3g} of the output's scale; the fill proves nothing.")


@torch.no_grad()
def run(job: dict[str, Any]) -> dict[str, Any]:
    classes = {"num_classes": job["classes"]} if job["classes"] else {}
    model = reference(job["name"], job["layout"], ARGS.get(job["family"], {}) | classes | job["args"])
    x = torch.from_numpy(np.ascontiguousarray(seeded.images(2, *job["size"]).transpose(0, 3, 1, 2)))
    scales = fill(model, x, job["ignored"])
    found = outputs(model, job, x)
    for name, array in found.items():
        depends_on_input(f"{job['name']} {name}", array)
    classifier = model.get_submodule(job["classifier"])
    head = sum(p.numel() for p in classifier.parameters())
    digests = {job["layout"]: seeded.digest(shapes(model, job["ignored"]))}
    for layout in job["other_layouts"]:
        try:
            with torch.device("meta"):  # only names and shapes matter
                other = reference(job["name"], layout, classes)
        except LookupError:
            continue
        digests[layout] = seeded.digest(shapes(other, job["ignored"]))
    return {
        "size": job["size"],
        "params": sum(p.numel() for p in model.parameters()) - head,
        "keys": digests,
        "scales": scales,
        "outputs": {name: seeded.summary(array) for name, array in found.items()},
    }


def main() -> None:
    versions = {"timm": timm.__version__, "torch": torch.__version__, "torchvision": torchvision.__version__}
    print(json.dumps(versions), flush=True)
    for job in json.load(sys.stdin):
        print(json.dumps(run(job)), flush=True)


if __name__ == "__main__":
    main()
