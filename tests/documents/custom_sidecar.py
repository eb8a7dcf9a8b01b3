from flytekitplugins.inference.sidecar_template import ModelInferenceTemplate

# Configure a model inference sidecar
# This example assumes a custom model server image 'my-model-server:latest'
# that listens on port 8080 and has a health check endpoint at /health.
# It also enables automatic input downloading.
model_sidecar = ModelInferenceTemplate(
    image="my-model-server:latest",
    health_endpoint="/health",
    port=8080,
    cpu=4,
    gpu=1,
    mem="16Gi",
    env={"MODEL_PATH": "/shared/my_model.pt"},
    download_inputs=True,
    download_inputs_mem="1Gi",
    download_inputs_cpu=1,
)

# The pod_template property holds the Kubernetes V1PodSpec
# This pod_template can then be used when defining a Flyte task
# For example:
# @task(pod_template=model_sidecar.pod_template)
# def my_inference_task(input_data: FlyteFile) -> str:
#     # The model server is accessible at model_sidecar.base_url
#     # Input data will be available in /shared/inputs.json
#     # ... logic to interact with the model server ...
#     pass

# You can inspect the generated pod template
print(model_sidecar.pod_template.pod_spec.to_dict())
