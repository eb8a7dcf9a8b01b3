"""Whether a safetensors file is whole: its header says how long it must be.

Catches what a digest cannot, a file that was already cut off where it comes from. Reads the header
only.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

from ...errors import InvalidSourceError

if TYPE_CHECKING:
    from pathlib import Path

MAX_HEADER_BYTES = 100_000_000
"""What the reference implementation accepts.

Source: `MAX_HEADER_SIZE`, github.com/huggingface/safetensors `safetensors/src/tensor.rs`.
"""


def check_safetensors(path: Path, name: str) -> None:
    """Check the header of a file against its size.

    Args:
        path: The file.
        name: What to call it in an error.

    Raises:
        InvalidSourceError: It is no safetensors file, or not all of it.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER_BYTES + 1
        # eight arbitrary bytes may announce exabytes
        header = file.read(length) if length <= min(MAX_HEADER_BYTES, size - 8) else b""
    try:
        tensors = json.loads(header)
        ends = [
            tensor["data_offsets"][1] for key, tensor in tensors.items() if key != "__metadata__"
        ]
        needed = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise InvalidSourceError(
            f"{name} is not a safetensors file: its header cannot be read.",
            hint="It was cut off or overwritten where it comes from; upload it again.",
        ) from error
    if needed != size:
        raise InvalidSourceError(
            f"{name} has {size} bytes, but its header describes {needed}.",
            hint="It was cut off where it comes from; upload it again.",
        )
