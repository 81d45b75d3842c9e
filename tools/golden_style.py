"""Write tests/golden/style.json: images stylised by independent networks in torch. Run with a Python that has torch.

python tools/golden_style.py ../shared/assets
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

import reference_style as reference  # noqa: E402
import seeded  # noqa: E402

CONTENTS = ("cornell", "golden_gate", "sailboat")
CUT = (slice(100, 228), slice(120, 216))
"""Of the photos in the assets: 128x96 pixels, uncut by any resizing."""


def first(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def last(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy().transpose(0, 2, 3, 1)


def seeded_net(net: torch.nn.Module) -> torch.nn.Module:
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    net.load_state_dict({name: torch.from_numpy(array) for name, array in seeded.tensors(shapes).items()})
    return net.eval()


@torch.no_grad()
def main() -> None:
    """Compute and write the file."""
    assets = Path(sys.argv[1])
    variables = load_file(assets / "weights" / "fast_style_wave.safetensors")
    found: dict[str, object] = {"wave": {}}
    for name in CONTENTS:
        file = assets / "datasets" / "style_images" / "content" / f"{name}.jpg"
        pixels = np.asarray(Image.open(file).convert("RGB"))[CUT][None].astype(np.float32)
        painted = last(reference.tensorflow_net(variables, first(pixels)))
        found["wave"][name] = seeded.summary(np.clip(painted / 255, 0, 1))  # type: ignore[index]
    photo = (seeded.images(1, 36, 44) * 0.2 + 0.5).clip(0, 1)
    net = seeded_net(reference.TransformNet(8, 2))
    found["transform"] = seeded.summary(last(net(first(photo * 255)) / 255))
    found["decoder"] = seeded.summary(last(seeded_net(reference.decoder())(first(seeded.images(1, 4, 5, 512)))))
    (ROOT / "tests" / "golden" / "style.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
