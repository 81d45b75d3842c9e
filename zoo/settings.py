"""Folders of zoo, and the environment variables that it reads. They are read at each call, never at import."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder of downloads, locks and compiled programs.

    It is `$ZOO_CACHE`, else `$XDG_CACHE_HOME/zoo`, else `~/.cache/zoo`.
    """
    if given := os.environ.get("ZOO_CACHE"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "zoo"


def config_dir() -> Path:
    """Return the folder of the user's own `registry.toml`.

    It is `$ZOO_CONFIG`, else `$XDG_CONFIG_HOME/zoo`, else `~/.config/zoo`.
    """
    if given := os.environ.get("ZOO_CONFIG"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "zoo"


def hub_cache_dir() -> Path:
    """Return the Hugging Face cache, which is shared with other tools: files that they downloaded are found."""
    if given := os.environ.get("HF_HUB_CACHE"):
        return Path(given).expanduser()
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Path(home).expanduser() / "hub"


def hub_endpoint() -> str | None:
    """Return the address of the hub (`$HF_ENDPOINT`); None for the public one."""
    return os.environ.get("HF_ENDPOINT") or None


def plugin_seconds() -> float:
    """Return how long the examination of a plugin may take: `$ZOO_PLUGIN_SECONDS`, by default 60; 0 for none."""
    try:
        return max(float(os.environ.get("ZOO_PLUGIN_SECONDS", "60")), 0.0)
    except ValueError:
        return 60.0


def keep_compiled_programs() -> None:
    """Cache compiled programs of jax on disk, unless jax already has a cache folder.

    The command line does this because each of its calls is a new process, which would compile everything again.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def offline() -> bool:
    """Return whether network requests are forbidden: `$ZOO_OFFLINE` or `$HF_HUB_OFFLINE` set to 1, true, yes or on."""
    return any(flag(name) for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE"))


def flag(name: str) -> bool:
    """Return whether an environment variable is switched on."""
    return os.environ.get(name, "").strip().lower() in {"1", "true", "yes", "on"}
