"""The options of `text-embeddings-router` as data, so that a wrong name is found before a pod is started.

Read from huggingface/text-embeddings-inference v1.9.3, `router/src/main.rs` (struct Args), by
`dev/tei_options.py`. Names are in snake case; the router takes them with dashes. Every name is of
exactly one kind.
"""

from __future__ import annotations

from typing import Final

__all__ = ["APPENDED", "BOOLEANS", "SWITCHES", "VALUES", "VERSION"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: The version of the router that these options are of.
VERSION: Final = "1.9.3"

#: `--x` only.
SWITCHES: Final = _names("""
    disable_spans json_output
""")

#: `--x true` and `--x false`.
BOOLEANS: Final = _names("""
    auto_truncate
""")

#: `--x VALUE`.
VALUES: Final = _names("""
        api_key default_prompt default_prompt_name dense_path dtype hf_api_token hf_token hostname
    huggingface_hub_cache     max_batch_requests max_batch_tokens max_client_batch_size
    max_concurrent_requests model_id otlp_endpoint     otlp_service_name payload_limit pooling port
    prometheus_port revision served_model_name tokenization_workers     uds_path
""")

#: `--x A --x B`.
APPENDED: Final = _names("""
    cors_allow_origin
""")
