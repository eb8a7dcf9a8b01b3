"""Put a data set through model servers in many pods.

The data set is sharded, each shard has a sidecar of its own, and results are merged in order.

    pyflyte run examples/batch_at_scale/workflow.py embed_all --rows 4000 --shards 4

`embed` is one pod: its task and its model server. `map_task` runs as many as there are shards, and
is all it takes to go beyond one machine. Each shard asks its own server as many rows at once as
that is good for, survives preemption by Flyte's checkpoint, and is asked again only for what is
missing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from flytekit import current_context, map_task, task, workflow
from flytekit.exceptions.user import FlyteRecoverableException
from flytekit.types.file import FlyteFile

from flytekitplugins.inference import ModelInferenceTemplate
from flytekitplugins.inference.client.batch import embeddings

IMAGE = os.environ.get("BATCH_IMAGE", "batch-at-scale:1.0")
"""What the Dockerfile makes, for the tasks as well as for the server. Not used on one machine."""

SERVER = ModelInferenceTemplate(
    image=IMAGE,
    command=["python", "examples/batch_at_scale/server.py", "--port", "$(INFERENCE_PORT)"],
    health_endpoint="/health",
    port=8090,
    cpu=1,
    gpu=0,
    mem="1Gi",
    startup_timeout=120,  # seconds; then the pod ends and says why
)
RETRIES = 3
TOPICS = ("invoice", "delivery", "password", "refund", "warranty", "subscription", "damaged parcel")


@task(container_image=IMAGE)
def shard(rows: int, shards: int) -> list[FlyteFile]:
    """Write the data set as JSON lines, in files of nearly the same size.

    Args:
        rows: Support tickets; they stand for a data set of your own.
        shards: Files, and so pods.
    """
    folder = Path(current_context().working_directory, "shards")
    folder.mkdir(parents=True)
    files = []
    for number in range(shards):
        path = folder / f"{number:05d}.jsonl"
        first = rows * number // shards
        last = rows * (number + 1) // shards
        with path.open("w", encoding="utf-8") as file:
            for row in range(first, last):
                text = (
                    f"Ticket {row}: a question about my {TOPICS[row % len(TOPICS)]}, asked for "
                    f"the {row // 7}th time"
                )
                file.write(json.dumps({"ticket": row, "text": text}) + "\n")
        files.append(FlyteFile(str(path)))
    return files


@task(task_config=SERVER, container_image=IMAGE, retries=RETRIES)
def embed(shard: FlyteFile) -> FlyteFile:
    """Return the vectors of one shard's rows, in their order, as Parquet.

    A row that failed does not stop the others. When some did, the task is retried, and the retry,
    which finds all others in the checkpoint, asks for these alone. The last attempt returns them as
    they are: with their errors.
    """
    rows = Path(shard.download())
    result = SERVER.batch(
        rows,
        work=embeddings(column="text", model="tickets"),
        id="ticket",
        # named after its shard: on one machine all shards have the same working directory
        output=Path(current_context().working_directory, f"{rows.stem}.parquet"),
    )
    summary = result.summary()
    print(
        f"embed: {summary['rows']} rows, {summary['failed']} failed, "
        f"{summary['rows_per_second']:.0f} rows/s"
    )
    if result.failed and int(os.environ.get("FLYTE_ATTEMPT_NUMBER", RETRIES)) < RETRIES:
        raise FlyteRecoverableException(
            f"{result.failed} rows failed, the first is {result.failures[0]}"
        )
    return FlyteFile(str(result.path))


@task(container_image=IMAGE)
def merge(parts: list[FlyteFile]) -> FlyteFile:
    """Return all parts as one Parquet file, in the order of the shards.

    One part is in memory at a time.
    """
    from pyarrow import parquet

    path = Path(current_context().working_directory, "all.parquet")
    writer = None
    rows = 0
    failed = 0
    for part in parts:
        table = parquet.read_table(part.download())
        if writer is None:
            writer = parquet.ParquetWriter(path, table.schema)
        writer.write_table(table.set_column(0, "index", [np.arange(rows, rows + len(table))]))
        rows += len(table)
        failed += len(table) - table["error"].null_count
    if writer is not None:
        writer.close()
    print(f"merge: {rows} rows of {len(parts)} shards, {failed} failed")
    return FlyteFile(str(path))


@workflow
def embed_all(rows: int = 4000, shards: int = 4) -> FlyteFile:
    """Shard, embed, merge.

    Args:
        rows: Of the data set.
        shards: Pods at most.
    """
    return merge(parts=map_task(embed, concurrency=2)(shard=shard(rows=rows, shards=shards)))
