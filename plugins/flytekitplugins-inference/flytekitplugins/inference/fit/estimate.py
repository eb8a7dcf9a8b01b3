"""What a model needs on each accelerator, what there is, and how many tokens of cache fit."""

from __future__ import annotations

from dataclasses import dataclass

from .architecture import Architecture
from .kv_cache import bytes_for_sequence, bytes_for_token
from .weights import weight_bytes

__all__ = ["Estimate", "Workload", "estimate"]

GIBIBYTE = 2**30
UTILIZATION = 0.92
"""The part of the memory that vLLM 0.33 takes (`CacheConfig.gpu_memory_utilization`)."""
BATCHED_TOKENS = 2048
"""Tokens of one step: the least default of vLLM with chunked prefill (`SchedulerConfig`)."""
CONTEXT_BYTES = GIBIBYTE // 2
"""What a CUDA context and the communication buffers take beside PyTorch: 0.3 to 0.6 GiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """How a model is to be used."""

    max_model_len: int
    """Tokens of the longest sequence."""
    sequences: int = 1
    """How many of these at once."""
    accelerators: int = 1
    """How many share the model by tensor parallelism."""
    utilization: float = UTILIZATION
    """The part of an accelerator's memory that the server may take."""
    batched_tokens: int = BATCHED_TOKENS
    """Tokens that one step computes."""
    cache_value_bytes: float | None = None
    """Bytes of one value of the cache; `None` is the model's own type."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """The bytes on each accelerator."""

    weights: int
    kv_cache: int
    """For all sequences of the workload at their full length."""
    activations: int
    context: int
    available: int
    """What the server may take."""
    cache_tokens: int
    """Tokens for which there is room beside weights and activations; 0 if not even for these."""

    @property
    def needed(self) -> int:
        """The sum."""
        return self.weights + self.kv_cache + self.activations + self.context

    @property
    def fits(self) -> bool:
        """Whether the whole workload has room."""
        return self.needed <= self.available


def estimate(
    model: Architecture, workload: Workload, *, memory: int, weights: int | None = None
) -> Estimate:
    """Return what a model needs on each accelerator.

    Args:
        model: The architecture.
        workload: How it is to be used.
        memory: Bytes of one accelerator.
        weights: Bytes of all weights, if known; else they are counted.
    """
    share = workload.accelerators
    size = workload.cache_value_bytes
    whole_weights = weight_bytes(model) if weights is None else weights
    # keys and values are divided by their heads; fewer heads than accelerators are copied
    cache_share = 1 if model.latent else min(share, model.kv_heads)
    sequence = bytes_for_sequence(model, workload.max_model_len, value_bytes=size)
    token = bytes_for_token(model, value_bytes=size) / cache_share
    weights_each = whole_weights // share
    activations = _activations(model, workload)
    available = int(memory * workload.utilization)
    room = available - weights_each - activations - CONTEXT_BYTES
    return Estimate(
        weights=weights_each,
        kv_cache=int(sequence * workload.sequences / cache_share),
        activations=activations,
        context=CONTEXT_BYTES,
        available=available,
        cache_tokens=max(0, int(room / token)) if token else 0,
    )


def _activations(model: Architecture, workload: Workload) -> int:
    """Return the peak of one step beside the weights.

    Of a layer, the feed-forward part is largest: the residual, its input and output, and for each
    token the matrices before the gate; then the logits of each sequence in 32 bits, twice
    (`GPUModelRunner.profile_run` of vLLM 0.33 measures the same two).
    """
    inner = model.experts.intermediate_size if model.experts else model.intermediate_size
    width = 4 * model.hidden_size + 3 * inner / workload.accelerators
    layer = workload.batched_tokens * width * model.value_bytes
    logits = 2 * 4 * max(workload.sequences, 1) * model.vocabulary
    return int(layer + logits)
