"""Reference outputs from timm, torchvision and torch. Run by `golden_backbones.py` with a Python that has them.

Reads jobs as JSON on standard input, writes one JSON line for each. Imports nothing of zoo.
"""

from __future__ import annotations

import json
import sys
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
from reference_cifar_resnet import CifarResNet  # noqa: E402

# Where a stage's output is not that of the last module that owns its parameters: (family, stage) -> module.
OUTPUTS = {("ResNet", "stem"): "act1", ("CIFAR ResNet", "stem"): "act1", ("SqueezeNet", "stem"): "features.1"}


def torchvision_model(name: str, **args: Any) -> nn.Module:
    """torchvision's model of an architecture that timm or torchvision names so. Raises `LookupError` for none."""
    if name.startswith("mobilenetv2"):
        if name.endswith("d"):
            raise LookupError(f"torchvision has no {name}")
        return torchvision.models.mobilenet_v2(width_mult=int(name[-3:]) / 100, **args).eval()
    if name == "resnext101_32x4d":
        block = torchvision.models.resnet.Bottleneck
        return torchvision.models.ResNet(block, [3, 4, 23, 3], groups=32, width_per_group=4, **args).eval()
    return torchvision.models.get_model(name, **args).eval()


def reference(name: str, layout: str, args: dict[str, Any]) -> nn.Module:
    """The reference model in evaluation mode; with its own number of classes where `args` do not say another."""
    if layout == "timm":
        return timm.create_model(name, **args).eval()
    if layout == "original":
        return CifarResNet(int(name.removeprefix("resnet")), **args).eval()
    return torchvision_model(name, **args)


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {n: tuple(t.shape) for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")}


def fill(model: nn.Module, x: torch.Tensor) -> list[float]:
    """Give the model its seeded tensors, every batch norm with the variance of what reaches it for `x`.

    Returns those variances in sorted order of the norms' names.
    """
    wanted = shapes(model)
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
    """Every stage's output with channels last, the pooled features and the logits."""
    kept: dict[str, np.ndarray] = {}

    def keep(name: str):
        def after(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            array = output.detach().numpy().copy()  # a copy: an in-place activation may follow
            kept[name] = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array

        return after

    modules = dict(model.named_modules())
    for name, owned in job["stages"].items():
        modules[OUTPUTS.get((job["family"], name), owned[-1])].register_forward_hook(keep(name))
    logits = model(x).numpy()
    last = kept[list(job["stages"])[-1]]
    if job["layout"] == "timm":
        pooled = model.forward_head(torch.from_numpy(np.ascontiguousarray(last.transpose(0, 3, 1, 2))), pre_logits=True)
        kept["pooled"] = pooled.numpy()
    else:
        kept["pooled"] = last.mean((1, 2))
    return kept | {"logits": logits}


def depends_on_input(name: str, array: np.ndarray) -> None:
    """Refuse a golden that would hide errors: two images must differ by a tenth of the output's scale."""
    apart = np.sqrt(np.mean(np.square(array[0] - array[1]))) / np.sqrt(np.mean(np.square(array)))
    if not apart >= 0.1 or not np.isfinite(array).all():
        raise SystemExit(f"{name}: two images differ by {apart:.3g} of the output's scale; the fill proves nothing.")


@torch.no_grad()
def run(job: dict[str, Any]) -> dict[str, Any]:
    model = reference(job["name"], job["layout"], job["args"])
    x = torch.from_numpy(np.ascontiguousarray(seeded.images(2, *job["size"]).transpose(0, 3, 1, 2)))
    scales = fill(model, x)
    found = outputs(model, job, x)
    for name, array in found.items():
        depends_on_input(f"{job['name']} {name}", array)
    classifier = model.get_submodule(job["classifier"])
    head = sum(p.numel() for p in classifier.parameters())
    digests = {job["layout"]: seeded.digest(shapes(model))}
    for layout in job["other_layouts"]:
        try:
            digests[layout] = seeded.digest(shapes(reference(job["name"], layout, {})))
        except LookupError:
            continue
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
