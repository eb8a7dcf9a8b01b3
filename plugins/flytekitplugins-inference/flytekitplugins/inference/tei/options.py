"""The options of `text-embeddings-router` as data: a wrong name is found before a pod starts.

Read from `router/src/main.rs` (struct Args) of huggingface/text-embeddings-inference 1.9.3.
Written by `python -m dev.options tei`. Names are in snake case, without dashes.
"""

#: The version that these options are of.
VERSION = "1.9.3"

#: Booleans that can only be switched on: `--x`.
SWITCHES = frozenset(
    """
    disable_spans json_output
    """.split()
)

#: Booleans by a word: `--x true`, `--x false`.
BOOLEANS = frozenset(
    """
    auto_truncate
    """.split()
)

#: One value; the name is repeated for more: `--x a --x b`.
APPENDED = frozenset(
    """
    cors_allow_origin
    """.split()
)

#: One value.
VALUES = frozenset(
    """
    api_key default_prompt default_prompt_name dense_path dtype hf_api_token hf_token hostname
    huggingface_hub_cache max_batch_requests max_batch_tokens max_client_batch_size
    max_concurrent_requests model_id otlp_endpoint otlp_service_name payload_limit pooling port
    prometheus_port revision served_model_name tokenization_workers uds_path
    """.split()
)
