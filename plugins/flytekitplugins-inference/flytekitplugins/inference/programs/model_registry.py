"""Asking an MLflow registry where a model version is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FetchError, MissingDependencyError, RevisionNotFoundError, SourceUnavailableError
from .stores import error_for_status, mask, scheme

if TYPE_CHECKING:
    from .model_sources import Reading


def lookup(name: str, version: str, is_alias: bool, staging: Path, reading: Reading) -> tuple[str, str]:
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
    try:
        from mlflow import MlflowClient, artifacts
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise MissingDependencyError(
            f"models:/{name} needs MLflow's client.",
            hint="pip install mlflow-skinny, and sqlalchemy for a sqlite:// URI",
        ) from error
    client = MlflowClient(tracking_uri=reading.environ.get("MLFLOW_TRACKING_URI") or None)
    try:
        if is_alias:
            version = client.get_model_version_by_alias(name, version).version
        uri = client.get_model_version_download_uri(name, str(version))
        if not _is_known(uri, reading):
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            uri = artifacts.download_artifacts(
                artifact_uri=uri, dst_path=str(staging), tracking_uri=reading.environ.get("MLFLOW_TRACKING_URI") or None
            )
    except MlflowException as error:
        raise _translated(error, name, str(version), is_alias) from error
    except FetchError:
        raise
    except OSError as error:  # requests' errors are some
        raise SourceUnavailableError(
            f"The registry did not answer for models:/{name} ({type(error).__name__}).",
            hint="Check MLFLOW_TRACKING_URI.",
        ) from error
    return str(version), uri


def _is_known(uri: str, reading: Reading) -> bool:
    return (scheme(uri) == "file" and Path(uri.removeprefix("file://")).exists()) or reading.stores().is_readable(uri)


def _translated(error: Exception, name: str, version: str, is_alias: bool) -> FetchError:
    status = error.get_http_status_code() if hasattr(error, "get_http_status_code") else 500
    what = f"models:/{name}{'@' if is_alias else '/'}{version}"
    if status in (400, 404):
        return RevisionNotFoundError(
            f"The registry has no {what}.", hint="Check the name, the version or alias, and MLFLOW_TRACKING_URI."
        )
    if status in (401, 403):
        return error_for_status(status, mask(what), type(error).__name__)
    return SourceUnavailableError(f"The registry did not answer for {what}.", hint="Check MLFLOW_TRACKING_URI.")
