from flytekitplugins.inference.vllm.serve import VLLM, HFSecret

# Define Hugging Face secret details
# Assuming 'my-secrets-prefix' is configured in your Flyte environment
# and 'hf_token' is the key for your token within the 'my-hf-group' secret group.
hf_secret_config = HFSecret(
    secrets_prefix="my-secrets-prefix",
    hf_token_group="my-hf-group",
    hf_token_key="hf_token",
)

# Configure VLLM for a specific model
vllm_config = VLLM(
    hf_secret=hf_secret_config,
    arg_dict={
        "model": "mistralai/Mistral-7B-Instruct-v0.2",
        "tensor_parallel_size": 1,
        "max_model_len": 4096,
    },
    image="vllm/vllm-openai:latest", # Use a specific VLLM image version
    cpu=4,
    gpu=1,
    mem="20Gi",
)

# The 'vllm_config' object can now be used to define a Flyte task
# that deploys this VLLM inference server as a sidecar.
