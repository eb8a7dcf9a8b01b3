"""Asking an MLflow registry where a model version is."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

from ...dependencies import requires
from ...errors import (
    FetchError,
    RevisionNotFoundError,
    SourceUnavailableError,
)
from ...facts.address import mask
from ..stores.store import StoredFile, error_for_status

if TYPE_CHECKING:
    from pathlib import Path

    from ...facts.model_reference import RegistryReference
    from .source import SourceAccess


def lookup(reference: RegistryReference, staging: Path, access: SourceAccess) -> tuple[str, str]:
    """Return the version's number and an address that `stores` can read.

    Args:
        reference: The registered model, and its version, alias or stage.
        staging: Where files go that only MLflow's client can fetch; emptied first.
        access: With MLFLOW_TRACKING_URI in its environment.

    Raises:
        MissingDependencyError: mlflow is not installed.
        RevisionNotFoundError: The registry has no such model or version.
        SourceUnavailableError: It does not answer.
    """
    with requires(
        "mlflow-skinny",
        reference.label,
        hint="pip install mlflow-skinny, and sqlalchemy for a sqlite:// URI",
    ):
        from mlflow import MlflowClient, artifacts
        from mlflow.exceptions import MlflowException
    if not access.may_write:  # a check has little time, and tries again itself
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(max(1, int(access.stall_seconds))))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client = MlflowClient(tracking_uri=access.environ.get("MLFLOW_TRACKING_URI") or None)
    try:
        version = _version_number(client, reference)
        uri = client.get_model_version_download_uri(reference.model, version)
        if access.may_write and not access.is_readable(uri):
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            uri = artifacts.download_artifacts(
                artifact_uri=uri,
                dst_path=str(staging),
                tracking_uri=access.environ.get("MLFLOW_TRACKING_URI") or None,
            )
    except MlflowException as error:
        raise _translated(error, reference.text) from error
    except FetchError:
        raise
    except OSError as error:  # the errors of requests are OSErrors
        raise _unanswered(reference.label, error) from error
    return version, uri


def _version_number(client: Any, reference: RegistryReference) -> str:
    """Return the number of the version that an alias or a stage has now.

    Raises:
        RevisionNotFoundError: No version has this stage.
    """
    if reference.version is not None:
        return str(reference.version)
    if reference.alias:
        aliased = client.get_model_version_by_alias(reference.model, reference.alias)
        return str(aliased.version)
    # "latest" is no stage but the newest version of all, as in MLflow's own `models:` addresses
    stages = None if reference.stage.lower() == "latest" else [reference.stage]
    versions = client.get_latest_versions(reference.model, stages)
    if not versions:
        raise _no_version(reference.text)
    return str(max(int(version.version) for version in versions))


def listing(uri: str, what: str, access: SourceAccess) -> list[StoredFile]:
    """Return the files below an address that only MLflow's client can read.

    Their `uri` is the name relative to the address.

    Args:
        uri: The address.
        what: What to call it in an error.
        access: With MLFLOW_TRACKING_URI in its environment.

    Raises:
        FetchError: It may not be listed, or does not answer.
    """
    from mlflow import artifacts
    from mlflow.exceptions import MlflowException

    tracking_uri = access.environ.get("MLFLOW_TRACKING_URI") or None
    files: list[StoredFile] = []
    folders = [""]
    try:
        while folders:
            folder = folders.pop()
            for item in artifacts.list_artifacts(
                artifact_uri=f"{uri}/{folder}".rstrip("/"), tracking_uri=tracking_uri
            ):
                # only the last part: stores differ in what the path is relative to
                name = folder + item.path.rpartition("/")[2]
                if item.is_dir:
                    folders.append(f"{name}/")
                else:
                    files.append(
                        StoredFile(uri=name, size=item.file_size, version="", ranges=False)
                    )
    except MlflowException as error:
        raise _translated(error, what) from error
    except OSError as error:
        raise _unanswered(what, error) from error
    return files


def _translated(error: Exception, what: str) -> FetchError:
    status = error.get_http_status_code() if hasattr(error, "get_http_status_code") else 500
    if status in (400, 404):
        return _no_version(what)
    if status in (401, 403):
        return error_for_status(status, mask(what), type(error).__name__)
    return _unanswered(what, error)


def _no_version(what: str) -> FetchError:
    return RevisionNotFoundError(
        f"The registry has no {what}.",
        hint="Check the name, the version, alias or stage, and MLFLOW_TRACKING_URI.",
    )


def _unanswered(what: str, error: Exception) -> FetchError:
    return SourceUnavailableError(
        f"The registry did not answer for {what} ({type(error).__name__}).",
        hint="Check MLFLOW_TRACKING_URI.",
    )
