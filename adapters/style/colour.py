"""Preserve the colours of the content: Gatys et al., Preserving Color in Neural Artistic Style Transfer,
arXiv:1606.05897.
"""

from __future__ import annotations

import numpy as np

# RGB -> luminance (Y) and chrominance (I, Q).
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], np.float64)


def luminance_of(painted: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Return the painted luminance with the colours of the content (section 4).

    Args:
        painted: the painted image, (h, w, 3) in [0, 1].
        content: the content image, (h, w, 3) in [0, 1].
    """
    yiq = content @ _YIQ.T
    yiq[..., 0] = (np.clip(painted, 0, 1) @ _YIQ.T)[..., 0]
    return np.clip(yiq @ np.linalg.inv(_YIQ).T, 0, 1).astype(np.float32)


def matched(style: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Return the style image with the mean and covariance of the content's colours (section 3).

    Args:
        style: the style image, (h, w, 3) in [0, 1].
        content: the content image, (h, w, 3) in [0, 1].
    """
    # Whitening and colouring: C_s^(-1/2) makes the colours of the style uncorrelated with unit variance, and C_c^(1/2)
    # gives them the covariance of the content. Other square roots would do, too; these are the symmetric ones.
    colours, target = style.reshape(-1, 3).astype(np.float64), content.reshape(-1, 3).astype(np.float64)
    transfer = _root(np.cov(target.T), 0.5) @ _root(np.cov(colours.T), -0.5)
    matched = (colours - colours.mean(0)) @ transfer.T + target.mean(0)
    return np.clip(matched, 0, 1).reshape(style.shape).astype(np.float32)


def _root(covariance: np.ndarray, power: float) -> np.ndarray:
    """Return a power of a covariance matrix, with eigenvalues of at least 1e-6 (an image may have a single colour)."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, 1e-6) ** power) @ vectors.T
