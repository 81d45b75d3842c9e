"""The same with nothing but the package: drawn images, and the weights that come with zoo.

python examples/offline.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import zoo
from zoo.demo.draw import DEMO, draw_folder


def main(images: int = 8, epochs: int = 10) -> float:
    """Train on a few drawings of each class; the accuracy on drawings that were not trained on."""
    with tempfile.TemporaryDirectory() as name:
        data = draw_folder(Path(name) / "train", DEMO, images, seed=0)
        unseen = draw_folder(Path(name) / "unseen", DEMO, 20, seed=1)
        model = zoo.create("resnet20.demo", "classifier", labels=list(DEMO))
        run = zoo.train(model, data, plan="head", epochs=epochs, out=Path(name) / "run")
        print(run.model.predict(sorted((unseen / "key").iterdir())[0]))
        accuracy: float = zoo.evaluate(run, unseen).metrics["accuracy"]
    print(f"accuracy {accuracy:.1%} on {20 * len(DEMO)} new drawings, chance is {1 / len(DEMO):.1%}")
    return accuracy


if __name__ == "__main__":
    main()
