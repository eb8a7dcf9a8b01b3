"""The options of `llama-server` as data: a wrong name is found before a pod starts.

Read from `llama-server --help` of llama.cpp b11549.
Written by `python -m dev.options llamacpp`. Names are in snake case, without dashes.
"""

#: The version that these options are of.
VERSION = "b11549"

#: Booleans: `--x`, and `--no-x` for False.
NEGATABLE = frozenset(
    """
    agent cache_idle_slots cache_prompt cont_batching context_shift cors_credentials escape jinja
    kv_offload kv_unified log_jsonl log_prefix log_timestamps mmproj_auto mmproj_offload
    models_autoload op_offload perf prefill_assistant reasoning_preserve repack skip_chat_parsing
    slots spec_draft_backend_sampling ui ui_mcp_proxy warmup
    """.split()
)

#: Booleans that can only be switched on: `--x`.
SWITCHES = frozenset(
    """
    backend_sampling check_tensors cpu_moe embd_gemma_default embeddings fim_qwen_14b_spec
    fim_qwen_30b_default fim_qwen_3b_default fim_qwen_7b_default fim_qwen_7b_spec
    gpt_oss_120b_default gpt_oss_20b_default ignore_eos log_disable log_verbose
    lora_init_without_apply metrics no_host offline props reranking reuse_port spec_default
    spec_draft_cpu_moe special spm_infill swa_full vision_gemma_12b_default vision_gemma_4b_default
    """.split()
)

#: One or more values behind one name: `--x a b`.
LISTS = frozenset(
    """
    control_vector_layer_range
    """.split()
)

#: One value; the name is repeated for more: `--x a --x b`.
APPENDED = frozenset(
    """
    dry_sequence_breaker logit_bias
    """.split()
)

#: One value that is read as JSON.
JSON = frozenset(
    """
    chat_template_kwargs json_schema mcp_servers_json ui_config
    """.split()
)

#: One value.
VALUES = frozenset(
    """
    adaptive_decay adaptive_target alias api_key api_key_file api_prefix batch_size cache_ram
    cache_reuse cache_type_k cache_type_k_draft cache_type_v cache_type_v_draft chat_template
    chat_template_file checkpoint_min_step control_vector control_vector_scaled cors_headers
    cors_methods cors_origins cpu_mask cpu_mask_batch cpu_range cpu_range_batch cpu_strict
    cpu_strict_batch ctx_checkpoints ctx_size defrag_thold device docker_repo dry_allowed_length
    dry_base dry_multiplier dry_penalty_last_n dynatemp_exp dynatemp_range embd_normalize fit
    fit_ctx fit_target flash_attn frequency_penalty grammar grammar_file hf_file hf_repo hf_token
    host image_max_tokens image_min_tokens json_schema_file keep kv_unified_per_slot lazy_mode
    load_mode log_colors log_file log_prompts_dir log_verbosity lookup_cache_dynamic
    lookup_cache_static lora lora_scaled main_gpu mcp_servers_config media_path min_p mirostat
    mirostat_ent mirostat_lr mmproj mmproj_device mmproj_url model model_url models_dir models_max
    models_preset moe_cache_mib mtmd_batch_max_tokens n_cpu_ffn n_cpu_moe n_gpu_layers
    n_gpu_layers_draft n_predict numa override_kv override_tensor parallel path poll poll_batch
    pooling port presence_penalty prio prio_batch reasoning reasoning_budget
    reasoning_budget_message reasoning_effort reasoning_format repeat_last_n repeat_penalty
    reverse_prompt rope_freq_base rope_freq_scale rope_scale rope_scaling rpc samplers sampling_seq
    seed sleep_idle_seconds slot_prompt_similarity slot_save_path spec_draft_cpu_mask
    spec_draft_cpu_mask_batch spec_draft_cpu_range spec_draft_cpu_strict spec_draft_cpu_strict_batch
    spec_draft_device spec_draft_hf spec_draft_model spec_draft_n_cpu_moe spec_draft_n_max
    spec_draft_n_min spec_draft_override_tensor spec_draft_p_min spec_draft_p_split spec_draft_poll
    spec_draft_poll_batch spec_draft_prio spec_draft_prio_batch spec_draft_sampling
    spec_draft_threads spec_draft_threads_batch spec_ngram_map_k4v_min_hits
    spec_ngram_map_k4v_size_m spec_ngram_map_k4v_size_n spec_ngram_map_k_min_hits
    spec_ngram_map_k_size_m spec_ngram_map_k_size_n spec_ngram_mod_n_match spec_ngram_mod_n_max
    spec_ngram_mod_n_min spec_ngram_simple_min_hits spec_ngram_simple_size_m
    spec_ngram_simple_size_n spec_synth_len spec_synth_rates spec_type split_mode sse_ping_interval
    ssl_cert_file ssl_key_file tags temperature tensor_split threads threads_batch threads_http
    timeout tools tools_runtime top_k top_n_sigma top_p typical_p ubatch_size ui_config_file
    video_ffmpeg_dir video_fps video_timestamp_interval xtc_probability xtc_threshold
    yarn_attn_factor yarn_beta_fast yarn_beta_slow yarn_ext_factor yarn_orig_ctx
    """.split()
)

#: Those of `VALUES` that take a list as `--x a,b`.
COMMAS = frozenset(
    """
    alias api_key control_vector control_vector_scaled cors_headers cors_methods cors_origins device
    fit_target host lora lora_scaled override_kv override_tensor rpc spec_draft_device
    spec_draft_override_tensor spec_synth_rates spec_type tags tensor_split tools
    """.split()
)

#: Other names → the long name.
ALIASES = {
    "C": "cpu_mask",
    "Cb": "cpu_mask_batch",
    "Cbd": "spec_draft_cpu_mask_batch",
    "Cd": "spec_draft_cpu_mask",
    "Cr": "cpu_range",
    "Crb": "cpu_range_batch",
    "Crd": "spec_draft_cpu_range",
    "a": "alias",
    "ag": "agent",
    "b": "batch_size",
    "bs": "backend_sampling",
    "c": "ctx_size",
    "cb": "cont_batching",
    "cmoe": "cpu_moe",
    "cmoed": "spec_draft_cpu_moe",
    "cms": "checkpoint_min_step",
    "cpu_mask_batch_draft": "spec_draft_cpu_mask_batch",
    "cpu_mask_draft": "spec_draft_cpu_mask",
    "cpu_moe_draft": "spec_draft_cpu_moe",
    "cpu_range_draft": "spec_draft_cpu_range",
    "cpu_strict_batch_draft": "spec_draft_cpu_strict_batch",
    "cpu_strict_draft": "spec_draft_cpu_strict",
    "cram": "cache_ram",
    "ctk": "cache_type_k",
    "ctkd": "cache_type_k_draft",
    "ctv": "cache_type_v",
    "ctvd": "cache_type_v_draft",
    "ctxcp": "ctx_checkpoints",
    "dev": "device",
    "devd": "spec_draft_device",
    "device_draft": "spec_draft_device",
    "dr": "docker_repo",
    "draft_p_min": "spec_draft_p_min",
    "draft_p_split": "spec_draft_p_split",
    "dt": "defrag_thold",
    "e": "escape",
    "embedding": "embeddings",
    "fa": "flash_attn",
    "fitc": "fit_ctx",
    "fitt": "fit_target",
    "gpu_layers": "n_gpu_layers",
    "gpu_layers_draft": "n_gpu_layers_draft",
    "hf": "hf_repo",
    "hf_repo_draft": "spec_draft_hf",
    "hfd": "spec_draft_hf",
    "hff": "hf_file",
    "hfr": "hf_repo",
    "hfrd": "spec_draft_hf",
    "hft": "hf_token",
    "j": "json_schema",
    "jf": "json_schema_file",
    "kvo": "kv_offload",
    "kvu": "kv_unified",
    "l": "logit_bias",
    "lcd": "lookup_cache_dynamic",
    "lcs": "lookup_cache_static",
    "lm": "load_mode",
    "lv": "log_verbosity",
    "lzm": "lazy_mode",
    "m": "model",
    "md": "spec_draft_model",
    "mg": "main_gpu",
    "mm": "mmproj",
    "mmdev": "mmproj_device",
    "mmu": "mmproj_url",
    "model_draft": "spec_draft_model",
    "mu": "model_url",
    "n": "n_predict",
    "n_cpu_moe_draft": "spec_draft_n_cpu_moe",
    "ncffn": "n_cpu_ffn",
    "ncmoe": "n_cpu_moe",
    "ncmoed": "spec_draft_n_cpu_moe",
    "ngl": "n_gpu_layers",
    "ngld": "n_gpu_layers_draft",
    "np": "parallel",
    "ot": "override_tensor",
    "otd": "spec_draft_override_tensor",
    "override_tensor_draft": "spec_draft_override_tensor",
    "poll_batch_draft": "spec_draft_poll_batch",
    "poll_draft": "spec_draft_poll",
    "predict": "n_predict",
    "prio_batch_draft": "spec_draft_prio_batch",
    "prio_draft": "spec_draft_prio",
    "r": "reverse_prompt",
    "rea": "reasoning",
    "rerank": "reranking",
    "s": "seed",
    "sampler_seq": "sampling_seq",
    "sm": "split_mode",
    "sp": "special",
    "spec_draft_ncmoe": "spec_draft_n_cpu_moe",
    "spec_draft_ngl": "n_gpu_layers_draft",
    "spec_draft_type_k": "cache_type_k_draft",
    "spec_draft_type_v": "cache_type_v_draft",
    "sps": "slot_prompt_similarity",
    "swa_checkpoints": "ctx_checkpoints",
    "t": "threads",
    "tb": "threads_batch",
    "tbd": "spec_draft_threads_batch",
    "td": "spec_draft_threads",
    "temp": "temperature",
    "threads_batch_draft": "spec_draft_threads_batch",
    "threads_draft": "spec_draft_threads",
    "to": "timeout",
    "top_nsigma": "top_n_sigma",
    "ts": "tensor_split",
    "typical": "typical_p",
    "ub": "ubatch_size",
    "v": "log_verbose",
    "verbose": "log_verbose",
    "verbosity": "log_verbosity",
    "webui": "ui",
    "webui_config": "ui_config",
    "webui_config_file": "ui_config_file",
    "webui_mcp_proxy": "ui_mcp_proxy",
}

#: Names that switch an option of `NEGATABLE` off → that option.
INVERSES = {
    "nkvo": "kv_offload",
    "no_ag": "agent",
    "no_agent": "agent",
    "no_cache_idle_slots": "cache_idle_slots",
    "no_cache_prompt": "cache_prompt",
    "no_cont_batching": "cont_batching",
    "no_context_shift": "context_shift",
    "no_cors_credentials": "cors_credentials",
    "no_escape": "escape",
    "no_jinja": "jinja",
    "no_kv_offload": "kv_offload",
    "no_kv_unified": "kv_unified",
    "no_kvu": "kv_unified",
    "no_log_jsonl": "log_jsonl",
    "no_log_prefix": "log_prefix",
    "no_log_timestamps": "log_timestamps",
    "no_mmproj": "mmproj_auto",
    "no_mmproj_auto": "mmproj_auto",
    "no_mmproj_offload": "mmproj_offload",
    "no_models_autoload": "models_autoload",
    "no_op_offload": "op_offload",
    "no_perf": "perf",
    "no_prefill_assistant": "prefill_assistant",
    "no_reasoning_preserve": "reasoning_preserve",
    "no_repack": "repack",
    "no_skip_chat_parsing": "skip_chat_parsing",
    "no_slots": "slots",
    "no_spec_draft_backend_sampling": "spec_draft_backend_sampling",
    "no_ui": "ui",
    "no_ui_mcp_proxy": "ui_mcp_proxy",
    "no_warmup": "warmup",
    "no_webui": "ui",
    "no_webui_mcp_proxy": "ui_mcp_proxy",
    "nocb": "cont_batching",
    "nr": "repack",
}

#: Variables → the option that each sets; an argument overrules it.
ENVIRONMENT = {
    "HF_TOKEN": "hf_token",
    "LLAMA_API_KEY": "api_key",
    "LLAMA_ARG_AGENT": "agent",
    "LLAMA_ARG_ALIAS": "alias",
    "LLAMA_ARG_API_KEY_FILE": "api_key_file",
    "LLAMA_ARG_API_PREFIX": "api_prefix",
    "LLAMA_ARG_BACKEND_SAMPLING": "backend_sampling",
    "LLAMA_ARG_BATCH": "batch_size",
    "LLAMA_ARG_CACHE_IDLE_SLOTS": "cache_idle_slots",
    "LLAMA_ARG_CACHE_PROMPT": "cache_prompt",
    "LLAMA_ARG_CACHE_RAM": "cache_ram",
    "LLAMA_ARG_CACHE_REUSE": "cache_reuse",
    "LLAMA_ARG_CACHE_TYPE_K": "cache_type_k",
    "LLAMA_ARG_CACHE_TYPE_V": "cache_type_v",
    "LLAMA_ARG_CHAT_TEMPLATE": "chat_template",
    "LLAMA_ARG_CHAT_TEMPLATE_FILE": "chat_template_file",
    "LLAMA_ARG_CHAT_TEMPLATE_KWARGS": "chat_template_kwargs",
    "LLAMA_ARG_CHECKPOINT_MIN_SPACING_NT": "checkpoint_min_step",
    "LLAMA_ARG_CONTEXT_SHIFT": "context_shift",
    "LLAMA_ARG_CONT_BATCHING": "cont_batching",
    "LLAMA_ARG_CORS_CREDENTIALS": "cors_credentials",
    "LLAMA_ARG_CORS_HEADERS": "cors_headers",
    "LLAMA_ARG_CORS_METHODS": "cors_methods",
    "LLAMA_ARG_CORS_ORIGINS": "cors_origins",
    "LLAMA_ARG_CPU_MOE": "cpu_moe",
    "LLAMA_ARG_CTX_CHECKPOINTS": "ctx_checkpoints",
    "LLAMA_ARG_CTX_SIZE": "ctx_size",
    "LLAMA_ARG_DEFRAG_THOLD": "defrag_thold",
    "LLAMA_ARG_DEVICE": "device",
    "LLAMA_ARG_DOCKER_REPO": "docker_repo",
    "LLAMA_ARG_EMBEDDINGS": "embeddings",
    "LLAMA_ARG_ENDPOINT_METRICS": "metrics",
    "LLAMA_ARG_ENDPOINT_PROPS": "props",
    "LLAMA_ARG_ENDPOINT_SLOTS": "slots",
    "LLAMA_ARG_FIT": "fit",
    "LLAMA_ARG_FIT_CTX": "fit_ctx",
    "LLAMA_ARG_FIT_TARGET": "fit_target",
    "LLAMA_ARG_FLASH_ATTN": "flash_attn",
    "LLAMA_ARG_FREQUENCY_PENALTY": "frequency_penalty",
    "LLAMA_ARG_HF_FILE": "hf_file",
    "LLAMA_ARG_HF_REPO": "hf_repo",
    "LLAMA_ARG_HOST": "host",
    "LLAMA_ARG_IMAGE_MAX_TOKENS": "image_max_tokens",
    "LLAMA_ARG_IMAGE_MIN_TOKENS": "image_min_tokens",
    "LLAMA_ARG_JINJA": "jinja",
    "LLAMA_ARG_KV_OFFLOAD": "kv_offload",
    "LLAMA_ARG_KV_UNIFIED": "kv_unified",
    "LLAMA_ARG_KV_UNIFIED_PER_SLOT": "kv_unified_per_slot",
    "LLAMA_ARG_LAZY_MODE": "lazy_mode",
    "LLAMA_ARG_LOAD_MODE": "load_mode",
    "LLAMA_ARG_LOG_COLORS": "log_colors",
    "LLAMA_ARG_LOG_FILE": "log_file",
    "LLAMA_ARG_LOG_JSONL": "log_jsonl",
    "LLAMA_ARG_LOG_PREFIX": "log_prefix",
    "LLAMA_ARG_LOG_TIMESTAMPS": "log_timestamps",
    "LLAMA_ARG_LOG_VERBOSITY": "log_verbosity",
    "LLAMA_ARG_MAIN_GPU": "main_gpu",
    "LLAMA_ARG_MCP_SERVERS_CONFIG": "mcp_servers_config",
    "LLAMA_ARG_MCP_SERVERS_JSON": "mcp_servers_json",
    "LLAMA_ARG_MIN_P": "min_p",
    "LLAMA_ARG_MMPROJ": "mmproj",
    "LLAMA_ARG_MMPROJ_AUTO": "mmproj_auto",
    "LLAMA_ARG_MMPROJ_OFFLOAD": "mmproj_offload",
    "LLAMA_ARG_MMPROJ_URL": "mmproj_url",
    "LLAMA_ARG_MODEL": "model",
    "LLAMA_ARG_MODELS_AUTOLOAD": "models_autoload",
    "LLAMA_ARG_MODELS_DIR": "models_dir",
    "LLAMA_ARG_MODELS_MAX": "models_max",
    "LLAMA_ARG_MODELS_PRESET": "models_preset",
    "LLAMA_ARG_MODEL_URL": "model_url",
    "LLAMA_ARG_MOE_CACHE_MIB": "moe_cache_mib",
    "LLAMA_ARG_MTMD_BATCH_MAX_TOKENS": "mtmd_batch_max_tokens",
    "LLAMA_ARG_NO_HOST": "no_host",
    "LLAMA_ARG_NUMA": "numa",
    "LLAMA_ARG_N_CPU_FFN": "n_cpu_ffn",
    "LLAMA_ARG_N_CPU_MOE": "n_cpu_moe",
    "LLAMA_ARG_N_GPU_LAYERS": "n_gpu_layers",
    "LLAMA_ARG_N_GPU_LAYERS_DRAFT": "n_gpu_layers_draft",
    "LLAMA_ARG_N_PARALLEL": "parallel",
    "LLAMA_ARG_N_PREDICT": "n_predict",
    "LLAMA_ARG_OFFLINE": "offline",
    "LLAMA_ARG_OVERRIDE_TENSOR": "override_tensor",
    "LLAMA_ARG_PERF": "perf",
    "LLAMA_ARG_POOLING": "pooling",
    "LLAMA_ARG_PORT": "port",
    "LLAMA_ARG_PREFILL_ASSISTANT": "prefill_assistant",
    "LLAMA_ARG_PRESENCE_PENALTY": "presence_penalty",
    "LLAMA_ARG_REASONING": "reasoning",
    "LLAMA_ARG_REASONING_EFFORT": "reasoning_effort",
    "LLAMA_ARG_REASONING_PRESERVE": "reasoning_preserve",
    "LLAMA_ARG_REPACK": "repack",
    "LLAMA_ARG_REPEAT_PENALTY": "repeat_penalty",
    "LLAMA_ARG_RERANKING": "reranking",
    "LLAMA_ARG_REUSE_PORT": "reuse_port",
    "LLAMA_ARG_ROPE_FREQ_BASE": "rope_freq_base",
    "LLAMA_ARG_ROPE_FREQ_SCALE": "rope_freq_scale",
    "LLAMA_ARG_ROPE_SCALE": "rope_scale",
    "LLAMA_ARG_ROPE_SCALING_TYPE": "rope_scaling",
    "LLAMA_ARG_RPC": "rpc",
    "LLAMA_ARG_SKIP_CHAT_PARSING": "skip_chat_parsing",
    "LLAMA_ARG_SLOT_SAVE_PATH": "slot_save_path",
    "LLAMA_ARG_SPEC_DRAFT_BACKEND_SAMPLING": "spec_draft_backend_sampling",
    "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K": "cache_type_k_draft",
    "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V": "cache_type_v_draft",
    "LLAMA_ARG_SPEC_DRAFT_CPU_MOE": "spec_draft_cpu_moe",
    "LLAMA_ARG_SPEC_DRAFT_HF_REPO": "spec_draft_hf",
    "LLAMA_ARG_SPEC_DRAFT_MODEL": "spec_draft_model",
    "LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE": "spec_draft_n_cpu_moe",
    "LLAMA_ARG_SPEC_DRAFT_N_MAX": "spec_draft_n_max",
    "LLAMA_ARG_SPEC_DRAFT_N_MIN": "spec_draft_n_min",
    "LLAMA_ARG_SPEC_DRAFT_P_MIN": "spec_draft_p_min",
    "LLAMA_ARG_SPEC_DRAFT_P_SPLIT": "spec_draft_p_split",
    "LLAMA_ARG_SPEC_DRAFT_SAMPLING": "spec_draft_sampling",
    "LLAMA_ARG_SPEC_SYNTH_LEN": "spec_synth_len",
    "LLAMA_ARG_SPEC_SYNTH_RATES": "spec_synth_rates",
    "LLAMA_ARG_SPEC_TYPE": "spec_type",
    "LLAMA_ARG_SPLIT_MODE": "split_mode",
    "LLAMA_ARG_SSE_PING_INTERVAL": "sse_ping_interval",
    "LLAMA_ARG_SSL_CERT_FILE": "ssl_cert_file",
    "LLAMA_ARG_SSL_KEY_FILE": "ssl_key_file",
    "LLAMA_ARG_STATIC_PATH": "path",
    "LLAMA_ARG_SWA_FULL": "swa_full",
    "LLAMA_ARG_TAGS": "tags",
    "LLAMA_ARG_TEMPERATURE": "temperature",
    "LLAMA_ARG_TENSOR_SPLIT": "tensor_split",
    "LLAMA_ARG_THINK": "reasoning_format",
    "LLAMA_ARG_THINK_BUDGET": "reasoning_budget",
    "LLAMA_ARG_THINK_BUDGET_MESSAGE": "reasoning_budget_message",
    "LLAMA_ARG_THREADS": "threads",
    "LLAMA_ARG_THREADS_HTTP": "threads_http",
    "LLAMA_ARG_TIMEOUT": "timeout",
    "LLAMA_ARG_TOOLS": "tools",
    "LLAMA_ARG_TOOLS_RUNTIME": "tools_runtime",
    "LLAMA_ARG_TOP_K": "top_k",
    "LLAMA_ARG_TOP_P": "top_p",
    "LLAMA_ARG_UBATCH": "ubatch_size",
    "LLAMA_ARG_UI": "ui",
    "LLAMA_ARG_UI_CONFIG": "ui_config",
    "LLAMA_ARG_UI_CONFIG_FILE": "ui_config_file",
    "LLAMA_ARG_UI_MCP_PROXY": "ui_mcp_proxy",
    "LLAMA_ARG_VIDEO_FFMPEG_DIR": "video_ffmpeg_dir",
    "LLAMA_ARG_VIDEO_FPS": "video_fps",
    "LLAMA_ARG_VIDEO_TIMESTAMP_INTERVAL": "video_timestamp_interval",
    "LLAMA_ARG_YARN_ATTN_FACTOR": "yarn_attn_factor",
    "LLAMA_ARG_YARN_BETA_FAST": "yarn_beta_fast",
    "LLAMA_ARG_YARN_BETA_SLOW": "yarn_beta_slow",
    "LLAMA_ARG_YARN_EXT_FACTOR": "yarn_ext_factor",
    "LLAMA_ARG_YARN_ORIG_CTX": "yarn_orig_ctx",
    "MTMD_BACKEND_DEVICE": "mmproj_device",
}

#: What the server no longer has → the first version known to lack it, and what to
#: say instead (empty: nothing).
REMOVED = {
    "direct_io": ("b11549 or earlier", "load_mode"),
    "draft": ("b11549 or earlier", "spec_draft_n_max"),
    "draft_max": ("b11549 or earlier", "spec_draft_n_max"),
    "draft_min": ("b11549 or earlier", "spec_draft_n_min"),
    "draft_n": ("b11549 or earlier", "spec_draft_n_max"),
    "draft_n_min": ("b11549 or earlier", "spec_draft_n_min"),
    "mlock": ("b11549 or earlier", "load_mode"),
    "mmap": ("b11549 or earlier", "load_mode"),
    "no_mmap": ("b11549 or earlier", "load_mode"),
    "spec_ngram_min_hits": ("b11549 or earlier", ""),
    "spec_ngram_size_m": ("b11549 or earlier", ""),
    "spec_ngram_size_n": ("b11549 or earlier", ""),
}
