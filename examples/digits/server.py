"""The model server: answers images of digits with labels.

A LitServe server. It knows nothing of Flyte: that the model is there when it starts, and where, it
reads from the file that the variable `INFERENCE_INPUTS` names, a JSON object with the task's inputs
by name.

    POST /predict   {"images": [[0.0, …, 15.0], …]}, 64 grey values each → {"labels": [3, …]}
    GET /health     200 once the model is loaded
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import joblib
import litserve
import numpy as np


class Digits(litserve.LitAPI):
    """The hooks that LitServe calls.

    It calls `setup` once, then `decode_request`, `predict` and `encode_response` for each request.
    """

    def setup(self, device: str) -> None:
        """Load the model that the task got as its input `model`."""
        inputs = json.loads(Path(os.environ["INFERENCE_INPUTS"]).read_text(encoding="utf-8"))
        self.model = joblib.load(inputs["model"])
        print(f"loaded {inputs['model']}")

    def decode_request(self, request: dict[str, Any]) -> np.ndarray[Any, Any]:
        """Return the request's images as an array (images, 64)."""
        return np.asarray(request["images"], dtype=float)

    def predict(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the labels of the images as an array (images,)."""
        return np.asarray(self.model.predict(images))

    def encode_response(self, labels: np.ndarray[Any, Any]) -> dict[str, list[int]]:
        """Return what becomes the answer's JSON."""
        return {"labels": labels.tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve a model of handwritten digits.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    server = litserve.LitServer(Digits(), accelerator="cpu", healthcheck_path="/health", timeout=30)
    server.run(host="0.0.0.0", port=port, generate_client_file=False, access_log=False)
