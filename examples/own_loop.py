"""Write the training loop yourself: a zoo model is a plain Flax NNX module.

    python examples/own_loop.py DATA

`zoo.create` gives the model, `zoo.data` the batches, `zoo.training.rules` the masked optax update; the loop is yours.
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import zoo
from zoo.data import Dataset, Loader, Sample, decode, prepare, read, split
from zoo.training.rules import assign


def batches(data: Dataset, model: zoo.Model, size: int, shuffle: bool = False) -> Loader:
    """Batches of uint8 pixels and class numbers."""
    preprocess = model.card.preprocess  # read here: `load` runs in threads, while the step updates the model

    def load(sample: Sample) -> dict[str, np.ndarray]:
        return {"image": prepare(decode(sample.image), preprocess), "label": np.int32(sample.target)}

    return Loader(data, load, size, shuffle=shuffle)


def main(data: str, backbone: str = "resnet18.a1_in1k", epochs: int = 5, batch_size: int = 16) -> float:
    """Train the head on a frozen backbone; return the accuracy on the images that were held out."""
    train, val = split(next(iter(read(data).values())), 0.2, seed=0)
    model = zoo.create(backbone, "classifier", labels=train.classes)

    # Frozen modules stay in evaluation mode, so that their batch statistics do not move either.
    assignment = assign(model, [("head.*", 1.0), ("*", None)])
    model.freeze(assignment.frozen_modules)
    model.train()
    optimizer = nnx.Optimizer(model, assignment.transform(optax.adamw(1e-2)), wrt=assignment.trains)

    @nnx.jit
    def step(model: zoo.Model, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array) -> jax.Array:
        def loss(model: zoo.Model) -> jax.Array:
            logits = model(model.normalize(images))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        # Only the gradients that the optimizer reads are computed.
        value, gradients = nnx.value_and_grad(loss, argnums=nnx.DiffState(0, assignment.trains))(model)
        optimizer.update(model, gradients)
        return value

    loader = batches(train, model, batch_size, shuffle=True)
    for epoch in range(epochs):
        losses = [step(model, optimizer, batch["image"], batch["label"]) for batch in loader.epoch(epoch)]
        print(f"epoch {epoch + 1}: loss {jnp.mean(jnp.stack(losses)):.3f}")

    model.eval()
    right = total = 0
    for batch in batches(val, model, batch_size).epoch(0):
        correct = jnp.argmax(model(model.normalize(jnp.asarray(batch["image"]))), -1) == batch["label"]
        right += int((correct & batch["valid"]).sum())  # a last batch is filled up with copies that do not count
        total += int(batch["valid"].sum())
    print(f"accuracy {right / total:.1%} on {total} images")
    return right / total


if __name__ == "__main__":
    main(sys.argv[1])
