"""Write tests/golden/preprocess.json: drawn images after timm's evaluation transform.

Run from the root of the repository, in an environment with torch, torchvision and timm, which zoo itself does not need.
The test imports `golden_image`, which draws the images, so that both sides read the same ones.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

CASES = [
    # height, width of the image; size, crop_pct, interpolation, crop_mode
    (375, 500, (224, 224), 0.875, "bilinear", "center"),
    (500, 333, (224, 224), 0.95, "bicubic", "center"),
    (97, 131, (96, 96), 1.0, "bicubic", "center"),
    (40, 30, (64, 64), 0.9, "lanczos", "center"),
    (301, 200, (128, 192), 0.875, "bicubic", "center"),
    (200, 301, (160, 96), 0.95, "bilinear", "center"),
    (333, 500, (224, 224), 1.0, "bicubic", "squash"),
    (180, 240, (96, 128), 0.9, "bilinear", "squash"),
    (120, 77, (64, 64), 0.875, "nearest", "center"),
]


def golden_image(height: int, width: int) -> np.ndarray:
    """Draw a uint8 (height, width, 3) image with structure at several scales, the same on every machine."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    checks = ((x // 7 + y // 11) % 2) * 90
    ramps = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x * y // 13) % 256], -1)
    ring = (((x - width // 3) ** 2 + (y - height // 2) ** 2) // 64 % 5 == 0) * 120
    return np.clip(ramps // 2 + checks[..., None] + ring[..., None] // 2, 0, 255).astype(np.uint8)


def summary(pixels: np.ndarray) -> dict[str, object]:
    """Return a digest of all pixels, and a few pixels that show how large a mismatch is."""
    rows, columns = (np.linspace(0, side - 1, 4).astype(int) for side in pixels.shape[:2])
    return {
        "shape": list(pixels.shape),
        "sha256": hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest(),
        "pixels": pixels[np.ix_(rows, columns)].tolist(),
    }


def main() -> None:
    import PIL
    import timm
    from PIL import Image
    from timm.data import create_transform

    found = []
    for height, width, size, crop_pct, interpolation, crop_mode in CASES:
        transform = create_transform(
            (3, *size), crop_pct=crop_pct, interpolation=interpolation, crop_mode=crop_mode, normalize=False
        )
        pixels = transform(Image.fromarray(golden_image(height, width))).permute(1, 2, 0).numpy()
        found.append(summary(pixels))
    target = Path("tests/golden/preprocess.json")
    source = {"timm": timm.__version__, "pillow": PIL.__version__}
    target.write_text(json.dumps({"source": source, "cases": found}) + "\n")


if __name__ == "__main__":
    main()
