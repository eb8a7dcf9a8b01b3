"""The bytes of a model's weights: what its files hold, or a count of its matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .architecture import Architecture

__all__ = ["parameters", "weight_bytes", "weight_bytes_of_index"]


def weight_bytes_of_index(index: Mapping[str, Any]) -> int:
    """Return the bytes that a `model.safetensors.index.json` tells.

    Raises:
        ConfigError: If it does not tell them.
    """
    total = (index.get("metadata") or {}).get("total_size")
    if not isinstance(total, (int, float)) or isinstance(total, bool) or total <= 0:
        raise ConfigError(
            f"The index says total_size={total!r}, which is no size of weights.",
            hint="Give the model.safetensors.index.json of the model's repository.",
        )
    return int(total)


def weight_bytes(model: Architecture) -> int:
    """Return the bytes of a model's weights, counted from its architecture.

    Embeddings and norms stay in the model's own type when the rest is quantised.
    """
    embeddings = _embeddings(model)
    rest = parameters(model) - embeddings
    return int(embeddings * model.value_bytes + rest * model.weight_bytes)


def parameters(model: Architecture) -> int:
    """Return the number of weights of a decoder, without biases.

    The matrices of each layer as `transformers` builds them (`modeling_llama.py`,
    `modeling_mixtral.py`, `modeling_deepseek_v3.py`).
    """
    norms = 2 * model.hidden_size
    layers = model.layers * (_attention(model) + norms)
    return _embeddings(model) + layers + _feed_forward(model) + model.hidden_size


def _embeddings(model: Architecture) -> int:
    return model.vocabulary * model.hidden_size * (1 if model.ties_embeddings else 2)


def _attention(model: Architecture) -> int:
    """Return the weights of one layer's attention."""
    latent, hidden = model.latent, model.hidden_size
    if latent is None:
        queries = hidden * model.heads * model.head_size
        return 2 * queries + 2 * hidden * model.kv_heads * model.head_size
    query_size = model.heads * (latent.no_rope_size + latent.rope_size)
    queries = hidden * query_size
    if latent.query_rank:
        # compressed, normalised, and expanded again
        queries = latent.query_rank * (hidden + 1 + query_size)
    compressed = hidden * (latent.kv_rank + latent.rope_size) + latent.kv_rank
    expanded = latent.kv_rank * model.heads * (latent.no_rope_size + latent.value_size)
    return queries + compressed + expanded + model.heads * latent.value_size * hidden


def _feed_forward(model: Architecture) -> int:
    """Return the weights of all layers' feed-forward parts."""
    matrices, hidden = 3 if model.is_gated else 2, model.hidden_size
    dense = matrices * hidden * model.intermediate_size
    experts = model.experts
    if experts is None:
        return model.layers * dense
    router = hidden * experts.experts
    routed = experts.experts * matrices * hidden * experts.intermediate_size
    shared = matrices * hidden * experts.shared_intermediate_size
    sparse_layers = model.layers - experts.dense_layers
    return experts.dense_layers * dense + sparse_layers * (router + routed + shared)
