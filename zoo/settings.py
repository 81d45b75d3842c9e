"""Where zoo keeps things, and the environment variables it reads. Always read at call time, never at import."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Downloads, locks and compiled programs: `$ZOO_CACHE`, else `$XDG_CACHE_HOME/zoo`, else `~/.cache/zoo`."""
    if given := os.environ.get("ZOO_CACHE"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "zoo"


def config_dir() -> Path:
    """The user's own `registry.toml`: `$ZOO_CONFIG`, else `$XDG_CONFIG_HOME/zoo`, else `~/.config/zoo`."""
    if given := os.environ.get("ZOO_CONFIG"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "zoo"


def hub_cache_dir() -> Path:
    """Where hub files are kept: the Hugging Face cache, so that files other tools downloaded are found."""
    if given := os.environ.get("HF_HUB_CACHE"):
        return Path(given).expanduser()
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Path(home).expanduser() / "hub"


def hub_endpoint() -> str | None:
    """The hub's address where it is not the public one (`$HF_ENDPOINT`)."""
    return os.environ.get("HF_ENDPOINT") or None


def keep_compiled_programs() -> None:
    """Have jax keep compiled programs in the cache folder, unless it was told of a place already.

    The command line does this: each of its calls is a new process, which would compile everything anew.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def offline() -> bool:
    """Whether no request may be made: `$ZOO_OFFLINE` or `$HF_HUB_OFFLINE` set to 1, true, yes or on."""
    return any(flag(name) for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE"))


def flag(name: str) -> bool:
    """Whether the environment variable is switched on."""
    return os.environ.get(name, "").strip().lower() in {"1", "true", "yes", "on"}
