"""S3 and stores with the same protocol, through botocore.

It is the client inside s3fs, and takes a third of the time to import.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ...dependencies import requires
from ...errors import (
    InvalidSourceError,
    SourceForbiddenError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from ...facts.address import mask
from .store import (
    BLOCK_BYTES,
    Block,
    SourceChangedError,
    StoredFile,
    begins_at,
    body_blocks,
    byte_range,
    error_for_status,
    first_bytes,
    lost_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ACCESS_POINT = re.compile(r"(arn:[^:/]+:s3[^/:]*:[^/]*[:/]accesspoint[:/][^/:]+)/(.*)", re.DOTALL)
_FORBIDDEN = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
)
_BUSY = frozenset(
    {
        "InternalError",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
    }
)


class S3Store:
    """Objects of S3.

    Args:
        options: The options of s3fs: `key`, `secret`, `token`, `endpoint_url`, `anon`,
            `client_kwargs`, `config_kwargs`.
        connections: Maximum number of open connections.
        stall_seconds: How long a connection may deliver no byte.

    Raises:
        MissingDependencyError: botocore is not installed.
    """

    def __init__(
        self, options: Mapping[str, Any], *, connections: int, stall_seconds: float
    ) -> None:
        with requires(
            "botocore",
            "Reading s3:// addresses",
            hint="pip install s3fs, a dependency of flytekit that includes botocore.",
        ):
            import botocore.session
            from botocore import UNSIGNED
            from botocore.config import Config

        config = Config(
            connect_timeout=min(10.0, stall_seconds),
            read_timeout=stall_seconds,
            max_pool_connections=connections,
            # the caller retries, with its own back-off
            retries={"total_max_attempts": 1, "mode": "standard"},
            signature_version=UNSIGNED if options.get("anon") else None,
            **options.get("config_kwargs", {}),
        )
        arguments = {
            "aws_access_key_id": options.get("key"),
            "aws_secret_access_key": options.get("secret"),
            "aws_session_token": options.get("token"),
            "endpoint_url": options.get("endpoint_url"),
        }
        arguments.update(options.get("client_kwargs", {}))
        self._client = botocore.session.Session().create_client("s3", config=config, **arguments)

    def stat(self, uri: str, head_bytes: int = 0) -> StoredFile:
        """See `Store.stat`."""
        if head_bytes:
            try:
                answer = self._ask(
                    "get_object", uri, **_address(uri), Range=f"bytes=0-{head_bytes - 1}"
                )
            except SourceChangedError:
                pass  # 416: an empty object has no first byte
            else:
                size = _total(answer)
                head = first_bytes(_blocks(answer["Body"], uri), head_bytes)
                if not begins_at(0, answer.get("ContentRange", "bytes 0-")):
                    raise SourceUnavailableError(
                        f"The store of {mask(uri)} sent other bytes than it was asked for."
                    )
                return StoredFile(uri=uri, size=size, version=answer.get("ETag", ""), head=head)
        answer = self._ask("head_object", uri, **_address(uri))
        return StoredFile(uri=uri, size=answer["ContentLength"], version=answer.get("ETag", ""))

    def find(self, uri: str) -> list[tuple[str, StoredFile]]:
        """See `Store.find`."""
        address = _address(uri)
        prefix = f"{address['Key'].rstrip('/')}/".lstrip("/")
        root = f"{uri[: uri.index('://')]}://{address['Bucket']}/"
        files = []
        request: dict[str, str] | None = {"Bucket": address["Bucket"], "Prefix": prefix}
        while request is not None:
            page = self._ask("list_objects_v2", uri, **request)
            for item in page.get("Contents", []):
                # a key with a final slash marks a directory that somebody created in a console
                if not item["Key"].endswith("/"):
                    source = StoredFile(
                        uri=root + item["Key"], size=item["Size"], version=item.get("ETag", "")
                    )
                    files.append((item["Key"][len(prefix) :], source))
            more = page.get("IsTruncated")
            request = (
                {**request, "ContinuationToken": page["NextContinuationToken"]} if more else None
            )
        if not files:
            raise SourceNotFoundError(f"There is nothing below {mask(uri)}.")
        return files

    def read(self, source: StoredFile, start: int, end: int | None) -> Iterator[Block]:
        """See `Store.read`."""
        # a whole object is requested without a range: botocore then verifies the store's checksum
        whole = start == 0 and end in (None, source.size)
        parts = {} if whole else {"Range": byte_range(start, end)}
        answer = self._ask("get_object", source.uri, **_address(source.uri), **parts)
        if source.version and answer.get("ETag") != source.version:
            answer["Body"].close()
            raise SourceChangedError(f"{mask(source.uri)} was replaced while it was read.")
        if parts and answer["ResponseMetadata"]["HTTPStatusCode"] != 206:
            answer["Body"].close()
            raise InvalidSourceError(
                f"The store of {mask(source.uri)} does not hand out parts of objects."
            )
        if parts and not begins_at(start, answer.get("ContentRange", "")):
            answer["Body"].close()
            raise SourceUnavailableError(
                f"The store of {mask(source.uri)} sent other bytes than it was asked for."
            )
        yield from _blocks(answer["Body"], source.uri, checked=whole)

    def _ask(self, operation: str, uri: str, **parameters: Any) -> Any:
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            CredentialRetrievalError,
            HTTPClientError,
            NoCredentialsError,
            ParamValidationError,
            PartialCredentialsError,
        )

        try:
            return getattr(self._client, operation)(**parameters)
        except ClientError as error:
            raise _translated(error.response, uri) from error
        except ParamValidationError as error:
            raise InvalidSourceError(f"{mask(uri)} is not an address in S3.") from error
        except (CredentialRetrievalError, NoCredentialsError, PartialCredentialsError) as error:
            raise SourceForbiddenError(
                f"There are no credentials to read {mask(uri)}.",
                hint="Give the service account access, or set FLYTE_AWS_ACCESS_KEY_ID and "
                "FLYTE_AWS_SECRET_ACCESS_KEY.",
            ) from error
        except (BotoCoreError, HTTPClientError) as error:
            raise lost_error(uri, error) from error


def _address(uri: str) -> dict[str, str]:
    """Return the parameters for `s3://bucket/key`.

    The bucket may be the ARN of an access point, and the key may end with `?versionId=…`.
    """
    rest = uri.partition("://")[2]
    access_point = _ACCESS_POINT.fullmatch(rest)
    bucket, key = access_point.groups() if access_point else rest.partition("/")[::2]
    key, _, version = key.partition("?versionId=")
    return {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}


def _blocks(body: Any, uri: str, *, checked: bool = False) -> Iterator[Block]:
    """Yield the body of an answer.

    Args:
        body: botocore's streaming body.
        uri: The object's address, for errors.
        checked: Whether to verify the store's checksum at the end.
    """
    from http.client import HTTPException

    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    try:
        if checked:
            while block := body.read(BLOCK_BYTES):
                yield block
        else:
            yield from body_blocks(body._raw_stream)
    except (BotoCoreError, HTTPError, HTTPException, OSError) as error:
        raise lost_error(uri, error) from error
    finally:
        body.close()


def _total(answer: Mapping[str, Any]) -> int:
    """Return the size of an object after a request for its first bytes."""
    # a store that ignores `Range` answers with the whole object, and without `Content-Range`
    total = answer.get("ContentRange", "").rpartition("/")[2]
    return int(total) if total.isdecimal() else int(answer["ContentLength"])


def _translated(response: Mapping[str, Any], uri: str) -> Exception:
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
    # the code decides: S3 answers RequestTimeout and ExpiredToken with 400
    if code in _BUSY:
        status = 503
    elif code in _FORBIDDEN:
        status = 403
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    retry_after = headers.get("retry-after")
    return error_for_status(status if status >= 400 else 500, uri, code, retry_after=retry_after)
