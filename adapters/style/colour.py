"""Keeping a photo's colours: Gatys et al., Preserving Color in Neural Artistic Style Transfer, arXiv:1606.05897."""

from __future__ import annotations

import numpy as np

_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], np.float64)


def luminance_of(painted: np.ndarray, content: np.ndarray) -> np.ndarray:
    """The painted picture's light and dark with the content's colours; both (h, w, 3) in [0, 1]. Section 4."""
    yiq = content @ _YIQ.T
    yiq[..., 0] = (np.clip(painted, 0, 1) @ _YIQ.T)[..., 0]
    return np.clip(yiq @ np.linalg.inv(_YIQ).T, 0, 1).astype(np.float32)


def matched(style: np.ndarray, content: np.ndarray) -> np.ndarray:
    """The style picture with the mean and covariance of the content's colours, (h, w, 3) in [0, 1]. Section 3, by the
    symmetric root of the covariance."""
    colours, wanted = style.reshape(-1, 3).astype(np.float64), content.reshape(-1, 3).astype(np.float64)
    transfer = _root(np.cov(wanted.T), 0.5) @ _root(np.cov(colours.T), -0.5)
    found = (colours - colours.mean(0)) @ transfer.T + wanted.mean(0)
    return np.clip(found, 0, 1).reshape(style.shape).astype(np.float32)


def _root(covariance: np.ndarray, power: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, 1e-6) ** power) @ vectors.T
