"""The model server: turns texts into vectors, many at once, by OpenAI's route for embeddings.

A LitServe server with a model that needs no download: it counts words and pairs of words, hashed
into 256 numbers.

    POST /v1/embeddings   {"model": "…", "input": "a text"} → {"data": [{"embedding": […]}], …}
    GET /health           200 once the model is loaded
"""

import argparse
import random
from typing import Any

import litserve
from fastapi import HTTPException
from sklearn.feature_extraction.text import HashingVectorizer


class Embeddings(litserve.LitAPI):
    """What LitServe calls: `setup` once, then `predict` for up to 64 requests together.

    Args:
        failing: The share of calls that fail, to see what the batch does then.
    """

    def __init__(self, failing: float) -> None:
        super().__init__(max_batch_size=64, batch_timeout=0.005)
        self.failing = failing

    def setup(self, device: str) -> None:
        """Make the model."""
        self.model = HashingVectorizer(n_features=256, ngram_range=(1, 2))

    def predict(self, texts: list[Any]) -> list[list[float]]:
        """Return a vector for each text."""
        if random.random() < self.failing:
            raise HTTPException(status_code=500, detail="the server had a bad moment")
        rows: list[list[float]] = (
            self.model.transform([str(text) for text in texts]).toarray().round(4).tolist()
        )
        return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve vectors of texts.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--failing", type=float, default=0.01)
    arguments = parser.parse_args()
    server = litserve.LitServer(
        Embeddings(arguments.failing),
        spec=litserve.OpenAIEmbeddingSpec(),
        accelerator="cpu",
        healthcheck_path="/health",
        timeout=30,
    )
    server.run(host="0.0.0.0", port=arguments.port, generate_client_file=False, access_log=False)
