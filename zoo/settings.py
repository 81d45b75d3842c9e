"""Folders of zoo, and the environment variables that it reads. They are read at each call, never at import."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from zoo.errors import ConfigError

_LONGEST_NAME, _LONGEST_PATH = 255, 4095
"""Bytes in the name of a file, on every usual file system, and in a whole path, on Linux."""


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path that a user gave, with `~` and `~name` replaced by the home folder.

    Raises:
        ConfigError: there is no such home folder, or no file can have that name.
    """
    if "\0" in os.fspath(path):
        raise ConfigError(f"{os.fspath(path)!r} is no path: it has a null character.")
    try:
        whole = Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path} has no home folder to stand for ~: give the whole path.") from error
    name, place = (max(len(os.fsencode(part)) for part in parts) for parts in (whole.parts or ("",), (whole,)))
    if name > _LONGEST_NAME or place > _LONGEST_PATH:
        what = f"a name of {name} bytes" if name > _LONGEST_NAME else f"{place} bytes"
        raise ConfigError(
            f"the path {str(path)[:40]}... has {what}; names have at most {_LONGEST_NAME} bytes, and whole paths "
            f"{_LONGEST_PATH}. Give a shorter one."
        )
    return whole


def cache_dir() -> Path:
    """Return the folder of downloads, locks and compiled programs.

    It is `$ZOO_CACHE`, else `$XDG_CACHE_HOME/zoo`, else `~/.cache/zoo`.
    """
    if given := os.environ.get("ZOO_CACHE"):
        return expanded(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (expanded(base) if base else _home() / ".cache") / "zoo"


def config_dir() -> Path:
    """Return the folder of the user's own `registry.toml`.

    It is `$ZOO_CONFIG`, else `$XDG_CONFIG_HOME/zoo`, else `~/.config/zoo`.
    """
    if given := os.environ.get("ZOO_CONFIG"):
        return expanded(given)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (expanded(base) if base else _home() / ".config") / "zoo"


def hub_cache_dir() -> Path:
    """Return the Hugging Face cache, which is shared with other tools: files that they downloaded are found."""
    if given := os.environ.get("HF_HUB_CACHE"):
        return expanded(given)
    home = os.environ.get("HF_HOME")
    return (expanded(home) if home else _home() / ".cache" / "huggingface") / "hub"


def _home() -> Path:
    """Return the home folder; a path that cannot exist for a user without one, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.devnull) / "no-home-folder"


def hub_endpoint() -> str | None:
    """Return the address of the hub (`$HF_ENDPOINT`); None for the public one."""
    return os.environ.get("HF_ENDPOINT") or None


def plugin_seconds() -> float:
    """Return how long the examination of a plugin may take: `$ZOO_PLUGIN_SECONDS`, by default 60; 0 for none."""
    try:
        return max(float(os.environ.get("ZOO_PLUGIN_SECONDS", "60")), 0.0)
    except ValueError:
        return 60.0


def cache_problem() -> str:
    """Return why nothing can be written to the cache, e.g. in a container without a home folder; empty if it can."""
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"the cache directory {folder} cannot be written ({error.strerror or error})"


def start_jax() -> None:
    """Start JAX for a command, and cache its compiled programs on disk, unless it already has a cache folder.

    Each command is a new process, which would compile everything again. Nothing is cached if the folder cannot be
    written.

    Raises:
        ConfigError: the platform of `JAX_PLATFORMS` is not there.
    """
    import jax

    try:
        jax.devices()
    except Exception as error:  # JAX raises RuntimeError, or a bare AssertionError for cuda without its plugin
        asked = os.environ.get("JAX_PLATFORMS") or jax.config.jax_platforms or "not set"
        reason = " ".join(str(error).split()).rstrip(".") or "the platform is not installed"
        raise ConfigError(
            f"JAX_PLATFORMS is {asked}, and JAX cannot start: {reason}. Set JAX_PLATFORMS to a platform that this "
            "machine has, such as cpu, or unset it; `zoo doctor` shows what JAX finds."
        ) from error
    if jax.config.jax_compilation_cache_dir is None and not cache_problem():
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def offline() -> bool:
    """Return whether network requests are forbidden: `$ZOO_OFFLINE` or `$HF_HUB_OFFLINE` set to 1, true, yes or on."""
    return any(flag(name) for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE"))


def flag(name: str) -> bool:
    """Return whether an environment variable is switched on."""
    return os.environ.get(name, "").strip().lower() in {"1", "true", "yes", "on"}
