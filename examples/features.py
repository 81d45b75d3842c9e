"""Use a pretrained backbone as a feature extractor: find the images that look most alike.

python examples/features.py FOLDER IMAGE
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import zoo
from zoo.data import list_images


def embed(model: zoo.Model, images: list[Path], batch_size: int = 32) -> np.ndarray:
    """Return one unit vector per image, shape (n, c): the mean of the last stage's map."""
    vectors = []
    for start in range(0, len(images), batch_size):
        (maps,) = zoo.features(model, images[start : start + batch_size]).values()
        vectors.append(np.asarray(maps).mean((1, 2)))
    found = np.concatenate(vectors)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def main(folder: str, image: str, backbone: str = "resnet18.a1_in1k", count: int = 5) -> list[Path]:
    """Print the images of `folder` that are nearest to `image` by cosine similarity."""
    model = zoo.create(backbone, "classifier", num_classes=0)
    files = [file for file in list_images(folder) if file != Path(image)]
    similarity = embed(model, files) @ embed(model, [Path(image)])[0]
    nearest = [files[i] for i in np.argsort(-similarity)[:count]]
    for file in nearest:
        print(f"{similarity[files.index(file)]:.3f}  {file}")
    return nearest


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
