"""The options of `tritonserver` as data: a wrong name is found before a pod starts.

Read from `src/command_line_parser.cc` of triton-inference-server/server 2.71.0.
Written by `python -m dev.options triton`. Names are in snake case, without dashes.
"""

#: The version that these options are of.
VERSION = "2.71.0"

#: Booleans that can only be switched on: `--x`.
SWITCHES = frozenset(
    """
    disable_auto_complete_config
    """.split()
)

#: Booleans by a word: `--x true`, `--x false`.
BOOLEANS = frozenset(
    """
    allow_client_shm allow_cpu_metrics allow_gpu_metrics allow_grpc allow_http allow_metrics
    allow_sagemaker allow_vertex_ai enable_peer_access exit_on_error
    grpc_keepalive_permit_without_calls grpc_use_ssl grpc_use_ssl_mutual log_error log_info
    log_warning model_namespacing reuse_grpc_port reuse_http_port strict_model_config
    strict_readiness
    """.split()
)

#: One value; the name is repeated for more: `--x a --x b`.
APPENDED = frozenset(
    """
    backend_config cache_config cuda_memory_pool_byte_size cuda_virtual_address_size
    grpc_restricted_protocol host_policy http_restricted_api load_model metrics_config
    model_load_gpu_limit model_repository rate_limit_resource trace_config trace_level
    """.split()
)

#: One value.
VALUES = frozenset(
    """
    backend_directory buffer_manager_thread_count cache_directory exit_timeout_secs grpc_address
    grpc_header_forward_pattern grpc_http2_max_ping_strikes grpc_http2_max_pings_without_data
    grpc_http2_min_recv_ping_interval_without_data grpc_infer_allocation_pool_size
    grpc_infer_response_compression_level grpc_infer_thread_count grpc_keepalive_time
    grpc_keepalive_timeout grpc_max_connection_age grpc_max_connection_age_grace
    grpc_max_response_pool_size grpc_port grpc_root_cert grpc_server_cert grpc_server_key
    http_address http_header_forward_pattern http_max_input_size http_port http_thread_count id
    log_file log_format log_verbose metrics_address metrics_interval_ms metrics_port
    min_supported_compute_capability model_config_name model_control_mode model_load_retry_count
    model_load_thread_count pinned_memory_pool_byte_size rate_limit repoagent_directory
    repository_poll_secs response_cache_byte_size sagemaker_port sagemaker_safe_port_range
    sagemaker_thread_count trace_count trace_file trace_log_frequency trace_rate
    vertex_ai_default_model vertex_ai_port vertex_ai_thread_count
    """.split()
)

#: Other names → the long name.
ALIASES = {
    "model_store": "model_repository",
}

#: What the server still takes, with a warning → what to say instead.
DEPRECATED = {
    "response_cache_byte_size": "cache_config=local,size=…",
    "strict_model_config": "disable_auto_complete_config",
    "trace_count": "trace_config=count=…",
    "trace_file": "trace_config=triton,file=…",
    "trace_level": "trace_config=level=…",
    "trace_log_frequency": "trace_config=triton,log-frequency=…",
    "trace_rate": "trace_config=rate=…",
}

#: What the server no longer has → the first version known to lack it, and what to
#: say instead (empty: nothing).
REMOVED = {
    "tf_add_vgpu": ("2.2.0", "backend_config"),
    "tf_allow_soft_placement": ("2.2.0", "backend_config"),
    "tf_gpu_memory_fraction": ("2.2.0", "backend_config"),
}
