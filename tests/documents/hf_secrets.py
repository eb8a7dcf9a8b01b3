from flytekitplugins.inference.vllm.serve import HFSecret

# Example for a token named 'my_hf_token' in a group 'my_group'
# with a platform prefix '_FSEC_'
hf_secret_grouped = HFSecret(
    secrets_prefix="_FSEC_",
    hf_token_group="my_group",
    hf_token_key="my_hf_token",
)

# Example for a token named 'hf_token' without a group
# with a platform prefix '_UNION_'
hf_secret_ungrouped = HFSecret(
    secrets_prefix="_UNION_",
    hf_token_key="hf_token",
)
