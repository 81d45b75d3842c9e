"""The losses of style transfer against slow references in NumPy, and the statistics that AdaIN promises."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import seeded

from zoo.adapters.style import adain, losses

pytestmark = pytest.mark.usefixtures("strict_dtypes")

X = seeded.images(2, 7, 9, 5)
Y = seeded.images(3, 7, 9, 5)[1:] * 1.7 + 0.4


def loop_gram(x: np.ndarray) -> np.ndarray:
    """Sum over places of products of channels, one by one (arXiv:1508.06576, eq. 3)."""
    batch, high, wide, channels = x.shape
    found = np.zeros((batch, channels, channels))
    for b in range(batch):
        for i in range(channels):
            for j in range(channels):
                for row in range(high):
                    for column in range(wide):
                        found[b, i, j] += float(x[b, row, column, i]) * float(x[b, row, column, j])
    return found / (high * wide * channels)


def test_gram_and_its_loss() -> None:
    expected, other = loop_gram(X), loop_gram(Y)
    np.testing.assert_allclose(losses.gram(jnp.asarray(X)), expected, rtol=1e-5, atol=1e-6)
    found = losses.squared_error(losses.gram(jnp.asarray(X)), losses.gram(jnp.asarray(Y)))
    np.testing.assert_allclose(found, ((expected - other) ** 2).reshape(2, -1).mean(1), rtol=1e-5)


def test_gram_under_a_mask_counts_what_lies_under_it() -> None:
    mask = np.zeros((2, 7, 9, 1), np.float32)
    mask[:, :4, 2:6] = 1
    np.testing.assert_allclose(
        losses.gram(jnp.asarray(X), jnp.asarray(mask)), loop_gram(X[:, :4, 2:6]), rtol=1e-5, atol=1e-6
    )


def test_content_loss() -> None:
    expected = [
        np.mean([(float(a) - float(b)) ** 2 for a, b in zip(x.flat, y.flat, strict=True)])
        for x, y in zip(X, Y, strict=True)
    ]
    np.testing.assert_allclose(losses.squared_error(jnp.asarray(X), jnp.asarray(Y)), expected, rtol=1e-5)


def test_statistics_loss() -> None:
    def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flat = x.reshape(x.shape[0], -1, x.shape[-1]).astype(np.float64)
        return flat.mean(1), np.sqrt(flat.var(1) + losses.EPS)

    (mean, deviation), (other_mean, other_deviation) = moments(X), moments(Y)
    expected = ((mean - other_mean) ** 2).mean(1) + ((deviation - other_deviation) ** 2).mean(1)
    found = losses.statistics_loss(jnp.asarray(X), losses.statistics(jnp.asarray(Y)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_total_variation() -> None:
    expected = []
    for x in X.astype(np.float64):
        down = [(x[i + 1, j, c] - x[i, j, c]) ** 2 for i in range(6) for j in range(9) for c in range(5)]
        right = [(x[i, j + 1, c] - x[i, j, c]) ** 2 for i in range(7) for j in range(8) for c in range(5)]
        expected.append(np.mean(down) + np.mean(right))
    np.testing.assert_allclose(losses.total_variation(jnp.asarray(X)), expected, rtol=1e-5)
    assert float(losses.total_variation(jnp.ones((1, 4, 4, 3)))[0]) == 0


def test_adain_gives_the_styles_statistics() -> None:
    mean, deviation = losses.statistics(losses.adain(jnp.asarray(X), losses.statistics(jnp.asarray(Y))))
    flat = Y.reshape(2, -1, 5).astype(np.float64)
    np.testing.assert_allclose(np.asarray(mean).reshape(2, 5), flat.mean(1), atol=1e-4)
    np.testing.assert_allclose(np.asarray(deviation).reshape(2, 5), flat.std(1), atol=1e-4)


def test_energy_makes_a_loss_a_share() -> None:
    nothing, target = jnp.zeros((2, 7, 9, 5)), jnp.asarray(Y)
    np.testing.assert_allclose(losses.squared_error(nothing, target) / losses.energy(target), [1, 1], rtol=1e-6)
    assert np.isfinite(np.asarray(losses.squared_error(target, nothing) / losses.energy(nothing))).all()


def test_a_part_of_a_map_is_changed_like_the_whole() -> None:
    """Statistics are the whole picture's, so that parts that are painted one by one match."""
    x, styles = jnp.asarray(X[:1]), losses.statistics(jnp.asarray(Y))
    shares = jnp.asarray(np.stack([np.full((7, 9, 1), 0.25), np.tile(np.linspace(0, 0.75, 9)[:, None], (7, 1, 1))]))
    shares, own = shares.astype(jnp.float32), losses.statistics(x)
    whole = adain.transferred(x, own, styles, shares, jnp.float32(0.5))
    part = adain.transferred(x[:, :, 3:], own, styles, shares[:, :, 3:], jnp.float32(0.5))
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_allclose(one[:, :, 3:], other, atol=1e-6)


def test_the_energy_is_that_of_the_changed_map() -> None:
    x, ones = jnp.asarray(X[:1]), jnp.ones((1, 7, 9, 1), jnp.float32)
    style = losses.statistics(jnp.asarray(Y[:1]))
    for strength, like in ((1.0, Y[:1]), (0.0, X[:1])):
        changed, energy = adain.transferred(x, losses.statistics(x), style, ones, jnp.float32(strength))
        np.testing.assert_allclose(
            np.asarray(losses.statistics(changed)[0]), like.mean((1, 2), keepdims=True), atol=1e-4
        )
        np.testing.assert_allclose(
            np.asarray(losses.statistics(changed)[1]), like.std((1, 2), keepdims=True), atol=1e-4
        )
        np.testing.assert_allclose(energy, np.full(energy.shape, np.square(like).mean()), rtol=1e-4)
