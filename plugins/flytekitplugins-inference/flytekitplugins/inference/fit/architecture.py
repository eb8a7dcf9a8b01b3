"""The numbers of a model's `config.json` that decide how much memory it needs.

The names are those of Hugging Face's `transformers` (`configuration_*.py`, 4.57). A multimodal
model nests those of its language model under `text_config`; GPT-2 and its relatives have other
names for the same things.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError

__all__ = ["Architecture", "LatentAttention", "MixtureOfExperts", "read_architecture"]

BYTES = {
    "float32": 4.0,
    "float16": 2.0,
    "bfloat16": 2.0,
    "float8_e4m3fn": 1.0,
    "float8_e5m2": 1.0,
}
QUANTIZED_BYTES = {
    "fp8": 1.0,
    "compressed-tensors": 1.0,
    "awq": 0.5,
    "gptq": 0.5,
    "mxfp4": 0.53125,  # 4 bits, and a scale of 8 bits for 32 values (OCP Microscaling, 5.2)
    "nvfp4": 0.5625,  # 4 bits, and a scale of 8 bits for 16 values
}
"""Bytes of a weight by `quantization_config.quant_method`, unless it says its own bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentAttention:
    """Multi-head latent attention: one compressed vector for all heads (DeepSeek-V2, 2.1)."""

    kv_rank: int
    query_rank: int
    """0: queries are not compressed."""
    rope_size: int
    no_rope_size: int
    value_size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureOfExperts:
    """Layers whose feed-forward part is a choice of many."""

    experts: int
    shared_experts: int
    intermediate_size: int
    """Of one expert."""
    dense_layers: int
    """Layers without experts."""
    shared_intermediate_size: int
    """Of all shared experts together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A decoder of transformer layers."""

    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    ties_embeddings: bool
    """Whether the output layer is the input embedding."""
    is_gated: bool
    """Whether the feed-forward part has three matrices instead of two."""
    weight_bytes: float
    """Bytes of one weight."""
    value_bytes: float
    """Bytes of one value of the computation, and of the cache unless it has its own type."""
    max_positions: int
    """The longest sequence that the model was made for; 0 if unknown."""
    sliding_window: int
    """Tokens that layers of `sliding_layers` look back; 0 without."""
    sliding_layers: int
    attention_layers: int
    """Layers with a cache that grows with the sequence; a hybrid model has fewer than `layers`."""
    latent: LatentAttention | None = None
    experts: MixtureOfExperts | None = None


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """Return the architecture that a `config.json` describes.

    Args:
        config: The file's content.

    Raises:
        ConfigError: If it describes no decoder, or lacks what every decoder has; names the fields.
    """
    text = config.get("text_config") or config.get("llm_config") or config
    missing = [
        "/".join(names)
        for names in (_LAYERS, _HIDDEN, _HEADS, ("vocab_size",))
        if _first({**config, **text}, names) is None
    ]
    if missing:
        raise ConfigError(
            f"config.json lacks {', '.join(missing)}, so it describes no transformer decoder.",
            hint="Give the config.json of a language model as its repository has it.",
        )
    return _architecture({**_outer(config), **text}, text)


_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_HEADS = ("num_attention_heads", "n_head", "n_heads")


def _outer(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a multimodal model says of itself as a whole."""
    names = ("torch_dtype", "dtype", "quantization_config", "tie_word_embeddings", "vocab_size")
    return {name: config[name] for name in names if name in config}


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)


def _architecture(config: Mapping[str, Any], text: Mapping[str, Any]) -> Architecture:
    layers = int(_first(config, _LAYERS))
    hidden, heads = int(_first(config, _HIDDEN)), int(_first(config, _HEADS))
    kv_heads = int(_first(config, ("num_key_value_heads", "num_kv_heads")) or heads)
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        kv_heads = 1  # the first Falcons have no number of their own
    dtype = _first(config, ("dtype", "torch_dtype")) or "bfloat16"
    value_bytes = BYTES.get(str(dtype).removeprefix("torch."), 2.0)
    window, sliding = _sliding(config, layers)
    return Architecture(
        layers=layers,
        hidden_size=hidden,
        intermediate_size=int(
            _first(config, ("intermediate_size", "n_inner", "ffn_dim")) or 4 * hidden
        ),
        heads=heads,
        kv_heads=kv_heads,
        head_size=int(config.get("head_dim") or hidden // heads),
        vocabulary=int(config["vocab_size"]),
        ties_embeddings=_ties(config, text),
        is_gated=_is_gated(config),
        weight_bytes=_weight_bytes(config, value_bytes),
        value_bytes=value_bytes,
        max_positions=int(_first(config, ("max_position_embeddings", "n_positions")) or 0),
        sliding_window=window,
        sliding_layers=sliding,
        attention_layers=_attention_layers(config, layers),
        latent=_latent(config),
        experts=_experts(config, layers),
    )


def _ties(config: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    given = config.get("tie_word_embeddings")
    if given is not None:
        return bool(given)
    # the default of `transformers` is to tie; these families change it in their own class
    return str(text.get("model_type", "")).startswith(("gemma", "gpt2", "falcon"))


def _is_gated(config: Mapping[str, Any]) -> bool:
    # models with a plain feed-forward part: two matrices (their `modeling_*.py`)
    plain = (
        "gpt2",
        "gpt_neox",
        "gptj",
        "opt",
        "bloom",
        "falcon",
        "phi",
        "starcoder2",
        "gpt_bigcode",
    )
    return config.get("model_type") not in plain


def _weight_bytes(config: Mapping[str, Any], value_bytes: float) -> float:
    quantization = config.get("quantization_config")
    if not isinstance(quantization, Mapping):
        return value_bytes
    bits = quantization.get("bits") or quantization.get("w_bit")
    if isinstance(bits, int):
        group = quantization.get("group_size")
        # a scale of 16 bits, and a zero point of as many bits as a weight, for each group
        more = (16 + bits) / group if isinstance(group, int) and group > 0 else 0
        return (bits + more) / 8
    return QUANTIZED_BYTES.get(str(quantization.get("quant_method")), value_bytes)


def _sliding(config: Mapping[str, Any], layers: int) -> tuple[int, int]:
    """Return the window of layers that see only the newest tokens, and how many they are."""
    window = config.get("sliding_window")
    if not window or config.get("use_sliding_window") is False:
        return 0, 0
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        return int(window), sum("sliding" in str(kind) for kind in kinds)
    pattern = config.get("sliding_window_pattern")
    if isinstance(pattern, int) and pattern > 1:
        return int(window), layers - layers // pattern
    if config.get("model_type") == "gemma2":  # every other layer
        return int(window), layers // 2
    return int(window), layers


def _attention_layers(config: Mapping[str, Any], layers: int) -> int:
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        return sum("attention" in str(kind) and "linear" not in str(kind) for kind in kinds)
    return layers


def _latent(config: Mapping[str, Any]) -> LatentAttention | None:
    rank = config.get("kv_lora_rank")
    if not rank:
        return None
    return LatentAttention(
        kv_rank=int(rank),
        query_rank=int(config.get("q_lora_rank") or 0),
        rope_size=int(config.get("qk_rope_head_dim") or 0),
        no_rope_size=int(config.get("qk_nope_head_dim") or 0),
        value_size=int(config.get("v_head_dim") or 0),
    )


def _experts(config: Mapping[str, Any], layers: int) -> MixtureOfExperts | None:
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    count = int(_first(config, names) or 0)
    if count <= 1:
        return None
    intermediate = config.get("moe_intermediate_size") or config["intermediate_size"]
    shared = int(config.get("n_shared_experts") or 0)
    own = config.get("shared_expert_intermediate_size")
    dense = int(config.get("first_k_dense_replace") or 0)
    return MixtureOfExperts(
        experts=count,
        shared_experts=shared,
        intermediate_size=int(intermediate),
        dense_layers=min(dense, layers),
        shared_intermediate_size=int(own or shared * int(intermediate)),
    )
