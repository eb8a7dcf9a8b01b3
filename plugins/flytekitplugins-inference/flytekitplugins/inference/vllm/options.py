"""The options of `vllm serve` as data: a wrong name is found before a pod starts.

Read from the argument parser of `vllm.entrypoints.cli.serve` of vLLM 0.33.0.
Written by `python -m dev.options vllm`. Names are in snake case, without dashes.
"""

#: The version that these options are of.
VERSION = "0.33.0"

#: Booleans: `--x`, and `--no-x` for False.
NEGATABLE = frozenset(
    """
    allow_credentials allow_deprecated_quantization async_scheduling cohere_is_reasoning_model
    cudagraph_metrics data_parallel_external_lb data_parallel_hybrid_lb dcp_q_replicate
    disable_cascade_attn disable_chunked_mm_input disable_custom_all_reduce disable_fastapi_docs
    disable_hybrid_kv_cache_manager disable_nccl_for_dp_synchronization disable_sliding_window
    disable_uvicorn_access_log enable_auto_tool_choice enable_batch_sharded_sampling
    enable_chunked_prefill enable_cumem_allocator enable_dbo enable_elastic_ep
    enable_ep_weight_filter enable_eplb enable_expert_parallel enable_fault_tolerance
    enable_flash_late_interaction enable_flashinfer_autotune enable_force_include_usage enable_hc_sp
    enable_layerwise_nvtx_tracing enable_log_deltas enable_log_outputs enable_log_requests
    enable_logging_iteration_details enable_lora enable_mamba_cache_stochastic_rounding
    enable_mamba_shared_prefix_checkpoint enable_mfu_metrics enable_mixed_moe_lora_format
    enable_mm_embeds enable_moe_shared_loras enable_nccl_comm_suspend enable_offline_docs
    enable_per_request_metrics enable_prefix_caching enable_prompt_embeds
    enable_prompt_tokens_details enable_request_id_headers enable_return_routed_experts
    enable_scale_out enable_server_load_tracking enable_shm_tensor_arena enable_sleep_mode
    enable_ssl_refresh enable_tokenizer_info_endpoint enable_tower_connector_lora
    enable_trace_replay enforce_eager exclude_tools_when_tool_choice_none fail_on_environ_validation
    fully_sharded_loras interleave_mm_strings jit_monitor_verbose kv_cache_metrics
    kv_sharing_fast_prefill language_model_only log_error_stack
    long_prefill_token_threshold_adaptive mm_device_do_normalize mm_encoder_only monokernel
    numa_bind ray_workers_use_nsight return_sampling_mask return_tokens_as_token_ids
    scheduler_reserve_full_isl skip_mm_profiling skip_tokenizer_init sleep_mode_offload_cudagraph
    specialize_active_lora swa_bounded_replay tokens_only trust_remote_code
    trust_request_chat_template trust_request_mm_kwargs use_fp64_gumbel use_replayssm
    use_tqdm_on_load
    """.split()
)

#: Booleans that can only be switched on: `--x`.
SWITCHES = frozenset(
    """
    aggregate_engine_logging data_parallel_multi_port_external_lb disable_log_stats grpc headless
    """.split()
)

#: One or more values behind one name: `--x a b`.
LISTS = frozenset(
    """
    allowed_media_domains api_key collect_detailed_traces cpu_offload_params cudagraph_capture_sizes
    ignore_patterns kv_cache_dtype_skip_layers logits_processors lora_modules lora_target_modules
    numa_bind_cpus numa_bind_nodes offload_params served_model_name sleep_preserve_parameter_names
    """.split()
)

#: One value; the name is repeated for more: `--x a --x b`.
APPENDED = frozenset(
    """
    middleware
    """.split()
)

#: One value that is read as JSON.
JSON = frozenset(
    """
    additional_config allowed_headers allowed_methods allowed_origins attention_config
    aux_output_config compilation_config custom_histogram_buckets default_chat_template_kwargs
    default_mm_loras diffusion_config ec_manager_config ec_transfer_config engram_config eplb_config
    fault_tolerance_config hf_overrides ir_op_priority kernel_config kv_events_config
    kv_transfer_config limit_mm_per_prompt logging_config media_io_kwargs mm_processor_kwargs
    model_class_overrides model_loader_extra_config override_generation_config pooler_config
    profiler_config pt_load_map_location quantization_config reasoning_config reasoning_effort_map
    speculative_config structured_outputs_config watchdog_config watermark_config
    weight_transfer_config
    """.split()
)

#: One value.
VALUES = frozenset(
    """
    all2all_backend allowed_local_media_path anthropic_disabled_thinking_effort api_server_count
    attention_backend block_size chat_template chat_template_content_format code_revision
    cohere_format config config_format convert cp_kv_cache_interleave_size
    cpu_distributed_timeout_seconds cpu_offload_gb data_parallel_address data_parallel_backend
    data_parallel_rank data_parallel_rpc_port data_parallel_size data_parallel_size_local
    data_parallel_start_rank data_parallel_supervisor_port dbo_decode_token_threshold
    dbo_prefill_token_threshold dcp_comm_backend dcp_kv_cache_interleave_size
    decode_context_parallel_size device_ids disable_access_log_for_endpoints
    distributed_executor_backend distributed_timeout_seconds download_dir
    dp_supervisor_probe_failure_threshold dp_supervisor_probe_interval_s
    dp_supervisor_probe_timeout_s dp_sync_interval dtype elastic_ep_max_dp_size
    expert_placement_strategy fingerprint_mode fingerprint_value gdn_prefill_backend
    generation_config gpu_memory_utilization grpc_port h11_max_header_count
    h11_max_incomplete_event_size hf_config_path hf_token host io_processor_plugin jit_monitor_mode
    kda_decode_backend kda_prefill_backend kv_cache_dtype kv_cache_memory_bytes
    kv_cache_metrics_sample kv_offloading_backend kv_offloading_size linear_backend load_format
    log_config_file log_level logprobs_mode long_prefill_token_threshold lora_dtype mamba_backend
    mamba_block_size mamba_cache_dtype mamba_cache_mode mamba_cache_philox_rounds
    mamba_ssm_cache_dtype mamba_ssu_algorithm master_addr master_port max_cpu_loras
    max_cudagraph_capture_size max_log_len max_logprobs max_lora_cls_labels max_lora_rank max_loras
    max_model_len max_num_active_seqs max_num_batched_tokens max_num_queued_reqs
    max_num_queued_tokens max_num_scheduled_tokens max_num_seqs max_parallel_loading_workers
    mm_encoder_attn_backend mm_encoder_attn_dtype mm_encoder_fp8_scale_path
    mm_encoder_fp8_scale_save_margin mm_encoder_fp8_scale_save_path mm_encoder_tp_mode
    mm_hasher_algorithm mm_ipc_gpu_memory_gb mm_processor_cache_gb mm_processor_cache_type
    mm_processor_device mm_shm_cache_max_object_size_mb mm_tensor_ipc model model_impl moe_backend
    nnodes node_rank num_gpu_blocks_override offload_backend offload_group_size offload_num_in_group
    offload_prefetch_step optimization_level otlp_traces_endpoint per_request_spec_decode_metrics
    performance_mode pipeline_parallel_size port prefill_context_parallel_size
    prefill_schedule_interval prefix_cache_retention_interval prefix_caching_hash_algo
    prefix_match_unit quantization reasoning_parser reasoning_parser_plugin renderer_num_workers
    replayssm_buffer_len response_role revision root_path runner safetensors_load_strategy
    safetensors_prefetch_block_size safetensors_prefetch_num_threads scheduler_cls scheduling_policy
    seed show_hidden_metrics_for_version shutdown_timeout sleep_mode_backend
    sparse_indexer_topk_backend spec_method spec_model spec_tokens sse_keep_alive_interval
    ssl_ca_certs ssl_cert_reqs ssl_certfile ssl_ciphers ssl_keyfile stream_interval
    tensor_parallel_size tokenizer tokenizer_mode tokenizer_revision tool_call_parser
    tool_parser_plugin tool_server tool_strict_level ubatch_size uds uvicorn_log_level
    video_pruning_method video_pruning_rate watermark worker_cls worker_extension_cls
    """.split()
)

#: Those of `VALUES` that take a list as `--x a,b`.
COMMAS = frozenset(
    """
    device_ids disable_access_log_for_endpoints tool_server
    """.split()
)

#: Those of `VALUES` that are whole numbers.
INTEGERS = frozenset(
    """
    api_server_count block_size cp_kv_cache_interleave_size cpu_distributed_timeout_seconds
    data_parallel_rank data_parallel_rpc_port data_parallel_size data_parallel_size_local
    data_parallel_start_rank data_parallel_supervisor_port dbo_decode_token_threshold
    dbo_prefill_token_threshold dcp_kv_cache_interleave_size decode_context_parallel_size
    distributed_timeout_seconds dp_supervisor_probe_failure_threshold dp_sync_interval
    elastic_ep_max_dp_size grpc_port h11_max_header_count h11_max_incomplete_event_size
    long_prefill_token_threshold mamba_block_size mamba_cache_philox_rounds master_port
    max_cpu_loras max_cudagraph_capture_size max_log_len max_logprobs max_lora_cls_labels max_loras
    max_num_active_seqs max_num_queued_reqs max_num_seqs max_parallel_loading_workers
    mm_shm_cache_max_object_size_mb nnodes node_rank num_gpu_blocks_override offload_group_size
    offload_num_in_group offload_prefetch_step pipeline_parallel_size port
    prefill_context_parallel_size prefill_schedule_interval prefix_cache_retention_interval
    prefix_match_unit renderer_num_workers replayssm_buffer_len safetensors_prefetch_num_threads
    seed shutdown_timeout spec_tokens sse_keep_alive_interval ssl_cert_reqs stream_interval
    tensor_parallel_size ubatch_size
    """.split()
)

#: Those of `VALUES` that are numbers.
NUMBERS = frozenset(
    """
    cpu_offload_gb dp_supervisor_probe_interval_s dp_supervisor_probe_timeout_s
    gpu_memory_utilization kv_cache_metrics_sample kv_offloading_size
    mm_encoder_fp8_scale_save_margin mm_ipc_gpu_memory_gb mm_processor_cache_gb video_pruning_rate
    watermark
    """.split()
)

#: Those of `VALUES` that are whole numbers, also as `4k` (1000) or `4K` (1024).
SIZES = frozenset(
    """
    kv_cache_memory_bytes max_model_len max_num_batched_tokens max_num_queued_tokens
    max_num_scheduled_tokens safetensors_prefetch_block_size
    """.split()
)

#: Those of `JSON` that are objects.
OBJECTS = frozenset(
    """
    additional_config attention_config aux_output_config compilation_config custom_histogram_buckets
    default_chat_template_kwargs default_mm_loras diffusion_config ec_manager_config
    ec_transfer_config engram_config eplb_config fault_tolerance_config hf_overrides ir_op_priority
    kernel_config kv_events_config kv_transfer_config limit_mm_per_prompt logging_config
    media_io_kwargs mm_processor_kwargs model_class_overrides model_loader_extra_config
    override_generation_config pooler_config profiler_config quantization_config reasoning_config
    reasoning_effort_map speculative_config structured_outputs_config watchdog_config
    watermark_config weight_transfer_config
    """.split()
)

#: Those of `JSON` that are also read as plain text.
TEXTS = frozenset(
    """
    pt_load_map_location
    """.split()
)

#: Those of `VALUES` that take one of these.
CHOICES = {
    "all2all_backend": (
        "allgather_reducescatter",
        "deepep_high_throughput",
        "deepep_low_latency",
        "deepep_v2",
        "flashinfer_all2allv",
        "flashinfer_nvlink_one_sided",
        "flashinfer_nvlink_two_sided",
        "moonep",
        "mori_high_throughput",
        "mori_low_latency",
        "naive",
        "nixl_ep",
        "passthrough",
        "pplx",
    ),
    "convert": ("auto", "classify", "embed", "none"),
    "data_parallel_backend": ("mp", "ray"),
    "dcp_comm_backend": ("a2a", "ag_rs"),
    "dtype": ("auto", "bfloat16", "float", "float16", "float32", "half"),
    "expert_placement_strategy": ("linear", "round_robin"),
    "fingerprint_mode": ("custom", "full", "hash", "none"),
    "gdn_prefill_backend": ("aiter_flydsl", "cutedsl", "flashinfer", "sycl", "triton"),
    "jit_monitor_mode": ("error", "warn"),
    "kda_decode_backend": ("auto", "flashinfer", "native", "triton"),
    "kda_prefill_backend": ("auto", "flashinfer", "flashkda", "fused", "triton"),
    "kv_offloading_backend": ("lmcache", "native"),
    "logprobs_mode": ("processed_logits", "processed_logprobs", "raw_logits", "raw_logprobs"),
    "lora_dtype": ("auto", "bfloat16", "float16"),
    "mamba_cache_dtype": ("auto", "bfloat16", "float16", "float32"),
    "mamba_cache_mode": ("align", "none"),
    "mamba_ssm_cache_dtype": ("auto", "bfloat16", "float16", "float32"),
    "mamba_ssu_algorithm": ("auto", "horizontal", "simple", "vertical"),
    "max_lora_rank": ("1", "8", "16", "32", "64", "128", "256", "320", "512"),
    "mm_encoder_tp_mode": ("data", "weights"),
    "mm_hasher_algorithm": ("blake3", "sha256", "sha512"),
    "mm_processor_cache_type": ("lru", "shm"),
    "mm_tensor_ipc": ("direct_rpc", "torch_shm"),
    "offload_backend": ("auto", "prefetch", "uva"),
    "per_request_spec_decode_metrics": ("detailed", "none", "summary"),
    "performance_mode": ("balanced", "interactivity", "throughput"),
    "prefix_caching_hash_algo": ("sha256", "sha256_cbor", "xxhash", "xxhash_cbor"),
    "runner": ("auto", "draft", "generate", "pooling"),
    "scheduling_policy": ("fcfs", "priority"),
    "sparse_indexer_topk_backend": (
        "aiter",
        "auto",
        "cooperative",
        "deep_select",
        "flashinfer",
        "per_row",
        "persistent",
        "torch",
    ),
    "uvicorn_log_level": ("critical", "debug", "error", "info", "trace", "warning"),
    "video_pruning_method": ("evs", "vidcom2"),
}

#: Other names → the long name.
ALIASES = {
    "O": "optimization_level",
    "ac": "attention_config",
    "asc": "api_server_count",
    "cc": "compilation_config",
    "dc": "diffusion_config",
    "dcp": "decode_context_parallel_size",
    "device_memory_utilization": "gpu_memory_utilization",
    "dp": "data_parallel_size",
    "dpa": "data_parallel_address",
    "dpb": "data_parallel_backend",
    "dpe": "data_parallel_external_lb",
    "dph": "data_parallel_hybrid_lb",
    "dpl": "data_parallel_size_local",
    "dpm": "data_parallel_multi_port_external_lb",
    "dpn": "data_parallel_rank",
    "dpp": "data_parallel_rpc_port",
    "dpr": "data_parallel_start_rank",
    "ep": "enable_expert_parallel",
    "n": "nnodes",
    "pcp": "prefill_context_parallel_size",
    "pp": "pipeline_parallel_size",
    "q": "quantization",
    "r": "node_rank",
    "sc": "speculative_config",
    "tp": "tensor_parallel_size",
}

#: Names that switch an option of `NEGATABLE` off → that option.
INVERSES = {
    "disable_auto_tool_choice": "enable_auto_tool_choice",
    "disable_batch_sharded_sampling": "enable_batch_sharded_sampling",
    "disable_chunked_prefill": "enable_chunked_prefill",
    "disable_cumem_allocator": "enable_cumem_allocator",
    "disable_dbo": "enable_dbo",
    "disable_elastic_ep": "enable_elastic_ep",
    "disable_ep_weight_filter": "enable_ep_weight_filter",
    "disable_eplb": "enable_eplb",
    "disable_expert_parallel": "enable_expert_parallel",
    "disable_fault_tolerance": "enable_fault_tolerance",
    "disable_flash_late_interaction": "enable_flash_late_interaction",
    "disable_flashinfer_autotune": "enable_flashinfer_autotune",
    "disable_force_include_usage": "enable_force_include_usage",
    "disable_hc_sp": "enable_hc_sp",
    "disable_layerwise_nvtx_tracing": "enable_layerwise_nvtx_tracing",
    "disable_log_deltas": "enable_log_deltas",
    "disable_log_outputs": "enable_log_outputs",
    "disable_log_requests": "enable_log_requests",
    "disable_logging_iteration_details": "enable_logging_iteration_details",
    "disable_lora": "enable_lora",
    "disable_mamba_cache_stochastic_rounding": "enable_mamba_cache_stochastic_rounding",
    "disable_mamba_shared_prefix_checkpoint": "enable_mamba_shared_prefix_checkpoint",
    "disable_mfu_metrics": "enable_mfu_metrics",
    "disable_mixed_moe_lora_format": "enable_mixed_moe_lora_format",
    "disable_mm_embeds": "enable_mm_embeds",
    "disable_moe_shared_loras": "enable_moe_shared_loras",
    "disable_nccl_comm_suspend": "enable_nccl_comm_suspend",
    "disable_offline_docs": "enable_offline_docs",
    "disable_per_request_metrics": "enable_per_request_metrics",
    "disable_prefix_caching": "enable_prefix_caching",
    "disable_prompt_embeds": "enable_prompt_embeds",
    "disable_prompt_tokens_details": "enable_prompt_tokens_details",
    "disable_request_id_headers": "enable_request_id_headers",
    "disable_return_routed_experts": "enable_return_routed_experts",
    "disable_scale_out": "enable_scale_out",
    "disable_server_load_tracking": "enable_server_load_tracking",
    "disable_shm_tensor_arena": "enable_shm_tensor_arena",
    "disable_sleep_mode": "enable_sleep_mode",
    "disable_ssl_refresh": "enable_ssl_refresh",
    "disable_tokenizer_info_endpoint": "enable_tokenizer_info_endpoint",
    "disable_tower_connector_lora": "enable_tower_connector_lora",
    "disable_trace_replay": "enable_trace_replay",
    "enable_cascade_attn": "disable_cascade_attn",
    "enable_chunked_mm_input": "disable_chunked_mm_input",
    "enable_custom_all_reduce": "disable_custom_all_reduce",
    "enable_fastapi_docs": "disable_fastapi_docs",
    "enable_hybrid_kv_cache_manager": "disable_hybrid_kv_cache_manager",
    "enable_nccl_for_dp_synchronization": "disable_nccl_for_dp_synchronization",
    "enable_sliding_window": "disable_sliding_window",
    "enable_uvicorn_access_log": "disable_uvicorn_access_log",
}

#: What the server no longer has → the first version known to lack it, and what to
#: say instead (empty: nothing).
REMOVED = {
    "calculate_kv_scales": ("0.28.0", ""),
    "cuda_graph_sizes": ("0.13.0", "cudagraph_capture_sizes"),
    "device": ("0.10.0", ""),
    "disable_async_output_proc": ("0.11.0", ""),
    "disable_frontend_multiprocessing": ("0.19.0", ""),
    "disable_mm_preprocessor_cache": ("0.13.0", "mm_processor_cache_gb=0"),
    "enable_bf16x3_router_gemm": ("0.30.0", ""),
    "enable_lora_bias": ("0.11.1", ""),
    "enable_mamba_fine_grained_prefix_cache": ("0.31.0", ""),
    "enable_multimodal_encoder_data_parallel": ("0.13.0", "mm_encoder_tp_mode=data"),
    "enable_prompt_adapter": ("0.10.2", ""),
    "enable_reasoning": ("0.10.0", "reasoning_parser"),
    "eplb_log_balancedness": ("0.12.0", "eplb_config.log_balancedness"),
    "eplb_step_interval": ("0.12.0", "eplb_config.step_interval"),
    "eplb_window_size": ("0.12.0", "eplb_config.window_size"),
    "expand_tools_even_if_tool_choice_none": ("0.10.0", ""),
    "guided_decoding_backend": ("0.11.0", "structured_outputs_config.backend"),
    "guided_decoding_disable_additional_properties": (
        "0.11.0",
        "structured_outputs_config.disable_additional_properties",
    ),
    "guided_decoding_disable_any_whitespace": (
        "0.11.0",
        "structured_outputs_config.disable_any_whitespace",
    ),
    "guided_decoding_disable_fallback": ("0.11.0", ""),
    "logits_processor_pattern": ("0.17.0", ""),
    "long_lora_scaling_factors": ("0.10.0", ""),
    "lora_extra_vocab_size": ("0.12.0", ""),
    "max_long_partial_prefills": ("0.27.0", ""),
    "max_num_partial_prefills": ("0.27.0", ""),
    "max_prompt_adapter_token": ("0.10.0", ""),
    "max_prompt_adapters": ("0.10.0", ""),
    "max_seq_len_to_capture": ("0.11.0", ""),
    "multi_step_stream_outputs": ("0.10.1", ""),
    "num_lookahead_slots": ("0.12.0", ""),
    "num_redundant_experts": ("0.12.0", "eplb_config.num_redundant_experts"),
    "num_scheduler_steps": ("0.10.1", ""),
    "override_attention_dtype": ("0.28.0", ""),
    "override_neuron_config": ("0.10.2", ""),
    "override_pooler_config": ("0.12.0", "pooler_config"),
    "preemption_mode": ("0.11.0", ""),
    "prompt_adapters": ("0.10.0", ""),
    "qlora_adapter_name_or_path": ("0.10.0", ""),
    "rope_scaling": ("0.11.1", "hf_overrides.rope_parameters"),
    "rope_theta": ("0.11.1", "hf_overrides.rope_parameters"),
    "scheduler_delay_factor": ("0.11.0", ""),
    "swap_space": ("0.18.0", ""),
    "task": ("0.13.0", "runner (pooling) and convert"),
    "tokenizer_pool_extra_config": ("0.10.0", ""),
    "tokenizer_pool_size": ("0.10.0", ""),
    "tokenizer_pool_type": ("0.10.0", ""),
    "use_gpu_for_pooling_score": ("0.18.0", "enable_flash_late_interaction"),
    "use_v2_block_manager": ("0.10.0", ""),
}
