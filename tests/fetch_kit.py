"""Helpers for tests of fetching: a hub with one repository of weights, and processes that fetch from it."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hub_server import HubServer, subprocess_environment

from zoo.disk import sha256
from zoo.weights import client
from zoo.weights.file import write

REPO = "timm/tiny.a1_in1k"
SOURCE = f"hf://{REPO}"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Shorten the waits between retries, and silence the client's warnings."""
    monkeypatch.setattr(client, "WAITS", (0.05, 0.1))
    monkeypatch.setattr(client, "PATIENCE", 12.0)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "level", logging.ERROR)


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    values = np.random.default_rng(seed).normal(size=(64, 32)).astype(np.float32)
    return {"fc.weight": values, "fc.bias": values[:, 0].copy()}


def weights(folder: Path, seed: int = 0) -> bytes:
    """The bytes of a real weight file."""
    path = folder / f"made-{seed}.safetensors"
    write(path, tensors(seed), {"format": "pt"})
    return path.read_bytes()


@pytest.fixture
def repo(hub: HubServer, tmp_path: Path) -> HubServer:
    """A hub with one repository of weights and configuration."""
    hub.add_repo(REPO, {"main": {"model.safetensors": weights(tmp_path), "config.json": '{"num_classes": 5}'}})
    return hub


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")


def read_digest(data: bytes, folder: Path) -> str:
    path = folder / "digest"
    path.write_bytes(data)
    return sha256(path)


def child(code: str, hub: HubServer, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=subprocess_environment(hub, folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
