"""The memory of accelerators, as their drivers report it: less than the name says."""

from __future__ import annotations

from ..errors import ConfigError

__all__ = ["ACCELERATORS", "accelerator_bytes"]

MEBIBYTE = 2**20
ACCELERATORS = {
    "t4": 15360,
    "v100-16gb": 16384,
    "v100": 32768,
    "l4": 23034,
    "a10g": 23028,
    "a10": 23028,
    "rtx-4090": 24564,
    "a100-40gb": 40960,
    "l40s": 46068,
    "a100": 81920,
    "h100": 81559,
    "mi300x": 196592,
    "h200": 143771,
    "b200": 183359,
}
"""Name → MiB, as `nvidia-smi` and `rocm-smi` report the total."""


def accelerator_bytes(name: str) -> int:
    """Return an accelerator's memory.

    Raises:
        ConfigError: If it is not known; lists those that are.
    """
    key = name.lower().replace("nvidia-", "").replace("tesla-", "").replace("_", "-")
    if key not in ACCELERATORS:
        raise ConfigError(
            f"{name!r} is no accelerator that this package knows.",
            hint=f"Give one of {', '.join(ACCELERATORS)}, or its memory, such as 24Gi.",
        )
    return ACCELERATORS[key] * MEBIBYTE
