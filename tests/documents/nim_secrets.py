from flytekitplugins.inference.nim.serve import NIMSecrets

nim_secrets = NIMSecrets(
    ngc_image_secret="my-ngc-image-pull-secret",
    ngc_secret_key="ngc_api_key",
    secrets_prefix="_FSEC_",
    hf_token_key="hf_token",
)
