"""The bytes of keys and values that attention keeps for each token of a sequence.

Two vectors for each head and layer (Kwon and others, "PagedAttention", 2023, section 3); one
compressed vector for all heads with latent attention (DeepSeek-V2, 2024, section 2.1.2).
"""

from __future__ import annotations

from .architecture import Architecture

__all__ = ["bytes_for_sequence", "bytes_for_token"]


def bytes_for_token(model: Architecture, *, value_bytes: float | None = None) -> int:
    """Return the bytes of one token in all layers that keep every token.

    Args:
        model: The architecture.
        value_bytes: Bytes of one value; `None` is the model's own type, 1 is an fp8 cache.
    """
    return int(_of_layer(model, value_bytes) * model.attention_layers)


def bytes_for_sequence(
    model: Architecture, tokens: int, *, value_bytes: float | None = None
) -> int:
    """Return the bytes of one sequence. Layers with a window keep only its newest tokens."""
    layer = _of_layer(model, value_bytes)
    whole = model.attention_layers - model.sliding_layers
    windowed = min(tokens, model.sliding_window) if model.sliding_layers else 0
    return int(layer * (whole * tokens + model.sliding_layers * windowed))


def _of_layer(model: Architecture, value_bytes: float | None) -> float:
    size = model.value_bytes if value_bytes is None else value_bytes
    if model.latent is not None:
        return (model.latent.kv_rank + model.latent.rope_size) * size
    return 2 * model.kv_heads * model.head_size * size
