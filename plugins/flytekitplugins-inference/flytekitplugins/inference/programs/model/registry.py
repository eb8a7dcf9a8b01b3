"""Asking an MLflow registry where a model version is."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from ...dependencies import requires
from ...errors import (
    FetchError,
    RevisionNotFoundError,
    SourceUnavailableError,
)
from ..stores.store import Source, error_for_status, mask

if TYPE_CHECKING:
    from pathlib import Path

    from .source import Reading


def lookup(
    name: str, version: str, is_alias: bool, staging: Path, reading: Reading
) -> tuple[str, str]:
    """Return the version's number and an address that `stores` can read.

    Args:
        name: The registered model.
        version: Its version, stage, or alias.
        is_alias: Whether `version` is an alias.
        staging: Where files go that only MLflow's client can fetch; emptied first.
        reading: With MLFLOW_TRACKING_URI in its environment.

    Raises:
        MissingDependencyError: mlflow is not installed.
        RevisionNotFoundError: The registry has no such model or version.
        SourceUnavailableError: It does not answer.
    """
    with requires(
        "mlflow-skinny",
        f"models:/{name}",
        hint="pip install mlflow-skinny, and sqlalchemy for a sqlite:// URI",
    ):
        from mlflow import MlflowClient, artifacts
        from mlflow.exceptions import MlflowException
    if not reading.may_write:  # a check is soon over, and tries again itself
        os.environ.setdefault(
            "MLFLOW_HTTP_REQUEST_TIMEOUT", str(max(1, int(reading.stall_seconds)))
        )
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client = MlflowClient(tracking_uri=reading.environ.get("MLFLOW_TRACKING_URI") or None)
    asked = version
    try:
        if is_alias:
            version = client.get_model_version_by_alias(name, version).version
        uri = client.get_model_version_download_uri(name, str(version))
        if reading.may_write and not reading.is_readable(uri):
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            uri = artifacts.download_artifacts(
                artifact_uri=uri,
                dst_path=str(staging),
                tracking_uri=reading.environ.get("MLFLOW_TRACKING_URI") or None,
            )
    except MlflowException as error:
        raise _translated(error, f"models:/{name}{'@' if is_alias else '/'}{asked}") from error
    except FetchError:
        raise
    except OSError as error:  # requests' errors are some
        raise _unanswered(f"models:/{name}", error) from error
    return str(version), uri


def listing(uri: str, what: str, reading: Reading) -> list[Source]:
    """Return the files below an address that only MLflow's client can read; as `uri` their relative names.

    Args:
        uri: The address.
        what: What to call it in an error.
        reading: With MLFLOW_TRACKING_URI in its environment.

    Raises:
        FetchError: It may not be listed, or does not answer.
    """
    from mlflow import artifacts
    from mlflow.exceptions import MlflowException

    tracking_uri = reading.environ.get("MLFLOW_TRACKING_URI") or None
    found: list[Source] = []
    folders = [""]
    try:
        while folders:
            folder = folders.pop()
            for item in artifacts.list_artifacts(
                artifact_uri=f"{uri}/{folder}".rstrip("/"), tracking_uri=tracking_uri
            ):
                name = (
                    folder + item.path.rpartition("/")[2]
                )  # before it, stores differ in what it is relative to
                if item.is_dir:
                    folders.append(f"{name}/")
                else:
                    found.append(Source(uri=name, size=item.file_size, version="", ranges=False))
    except MlflowException as error:
        raise _translated(error, what) from error
    except OSError as error:
        raise _unanswered(what, error) from error
    return found


def _translated(error: Exception, what: str) -> FetchError:
    status = error.get_http_status_code() if hasattr(error, "get_http_status_code") else 500
    if status in (400, 404):
        return RevisionNotFoundError(
            f"The registry has no {what}.",
            hint="Check the name, the version or alias, and MLFLOW_TRACKING_URI.",
        )
    if status in (401, 403):
        return error_for_status(status, mask(what), type(error).__name__)
    return _unanswered(what, error)


def _unanswered(what: str, error: Exception) -> FetchError:
    return SourceUnavailableError(
        f"The registry did not answer for {what} ({type(error).__name__}).",
        hint="Check MLFLOW_TRACKING_URI.",
    )
