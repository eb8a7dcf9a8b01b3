"""Train a model of handwritten digits, serve it beside a task, and measure it through the server.

    pyflyte run examples/digits/workflow.py digits

`train` and `evaluate` are plain Flyte tasks. What `evaluate` adds is its `task_config`: a model
server that gets the task's inputs before it starts and answers the task on localhost. On this
machine both are processes, on a cluster both are containers of one pod; this file is the same.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import requests
from flytekit import Deck, current_context, task, workflow
from flytekit.deck import DeckField
from flytekit.types.file import FlyteFile
from report import predictions_report
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from urllib3.util import Retry

from flytekitplugins.inference import ModelInferenceTemplate

IMAGE = os.environ.get("DIGITS_IMAGE", "digits:1.0")
"""What the Dockerfile makes, for the task as well as for the server. Not used on one machine."""

SERVER = ModelInferenceTemplate(
    image=IMAGE,
    # A path from the working directory, so that it is right in both places: pyflyte is started at
    # the root of the repository, and the image has examples/ in its working directory too.
    command=["python", "examples/digits/server.py", "--port", "$(INFERENCE_PORT)"],
    health_endpoint="/health",
    port=8080,
    cpu=1,
    gpu=0,
    mem="2Gi",
    download_inputs=True,
    startup_timeout=120,  # seconds; then the pod ends and says why
)
EPOCHS = 60
BATCH = 60


def split_digits() -> list[Any]:
    """Split the 1,797 digits: 80 % for training, 20 % held out.

    Returns the training images, held-out images, training labels and held-out labels.

    Always the same split, so that `evaluate` asks for no image that any model was trained on.
    """
    images, labels = load_digits(return_X_y=True)
    return list(train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels))


@task(container_image=IMAGE)
def train(seed: int) -> FlyteFile:
    """Train a small neural network and return it as a joblib file.

    Args:
        seed: Of the network's first weights and of the order of the images.
    """
    began = time.perf_counter()
    images, _, labels, _ = split_digits()
    network = MLPClassifier(hidden_layer_sizes=(64,), batch_size=50, random_state=seed)
    model = make_pipeline(MinMaxScaler().fit(images), network)
    for epoch in range(1, EPOCHS + 1):
        network.partial_fit(model[0].transform(images), labels, classes=np.unique(labels))
        if epoch % 10 == 0:
            accuracy = model.score(images, labels)
            print(
                f"train: epoch {epoch} of {EPOCHS}, loss {network.loss_:.3f}, accuracy "
                f"{accuracy:.1%}"
            )
    path = Path(current_context().working_directory, "digits.joblib")
    joblib.dump(model, path)
    print(f"train: took {time.perf_counter() - began:.2f} s")
    return FlyteFile(str(path))


@task(
    task_config=SERVER,
    container_image=IMAGE,
    enable_deck=True,
    deck_fields=(DeckField.SOURCE_CODE,),
)
def evaluate(model: FlyteFile) -> float:
    """Ask the server for the label of every held-out image and return the share of right ones.

    Args:
        model: What the server loads; this function never reads it.
    """
    print(f"evaluate: the server answers at {SERVER.base_url}")
    began = time.perf_counter()
    _, images, _, labels = split_digits()
    with requests.Session() as session:
        # The server answers before this function starts. Should a connection break all the same,
        # try it again.
        retries = Retry(total=5, backoff_factor=0.2, allowed_methods=None, raise_on_status=False)
        session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retries))
        predicted: list[int] = []
        for first in range(0, len(images), BATCH):
            batch = images[first : first + BATCH].tolist()
            response = session.post(
                f"{SERVER.base_url}/predict", json={"images": batch}, timeout=(2, 30)
            )
            response.raise_for_status()
            predicted += response.json()["labels"]
            print(f"evaluate: {len(predicted)} of {len(images)} images")
    accuracy = float(np.mean(labels == predicted))
    print(f"evaluate: took {time.perf_counter() - began:.2f} s, accuracy {accuracy:.4f}")
    Deck("Predictions", predictions_report(images, labels, np.array(predicted)))
    return accuracy


@workflow
def digits(seed: int = 0) -> float:
    """Train, serve, measure.

    Args:
        seed: Another one makes another, equally good model.
    """
    return evaluate(model=train(seed=seed))
