"""A Bento's service: names the species of iris flowers by the nearest centroid.

The model is a directory with `centroids.json`: four measures in centimetres by species.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import bentoml
import numpy as np


@bentoml.service
class Iris:
    """Classifies flowers."""

    def __init__(self) -> None:
        centroids = json.loads(
            (Path(os.environ["MODEL_PATH"]) / "centroids.json").read_text(encoding="utf-8")
        )
        self.species = list(centroids)
        self.centroids = np.array(list(centroids.values()))

    @bentoml.api
    def classify(self, flowers: list[list[float]]) -> list[str]:
        """Return the species of each flower, given as four measures."""
        distances = np.linalg.norm(np.array(flowers)[:, None] - self.centroids, axis=2)
        return [self.species[index] for index in distances.argmin(axis=1)]
