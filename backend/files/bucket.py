"""The store that several machines share: a mounted folder, or whatever fsspec knows, such as S3."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from backend.errors import BadSettings, StoreUnreachable, WardroundError
from backend.files.folder import NAME, NEW, Folder, Kind

# Stores in which an object appears whole or not at all; in the others it appears by being renamed.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "memory"}
# What waits is tried again anyway, and a webhook has no time for the default of five attempts with pauses.
_OPTIONS = {name: {"config_kwargs": {"retries": {"total_max_attempts": 2}}} for name in ("s3", "s3a")}
_SECRETS = (re.compile(r"//\S*@"), re.compile(r"\?\S*"))  # a password, a signature
_LONGEST_REASON = 300


class Bucket:
    """Files by kind and name below a URL. Its methods raise what fsspec and its plug-ins raise: use `answering`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._protocol = url.partition("://")[0]
        self._is_atomic = self._protocol in _OBJECT_STORES
        self._connected: tuple[int, Any, str] | None = None

    def has(self, kind: Kind, sha256: str) -> bool:
        system, key = self._key(kind, sha256)
        try:
            system.info(key)  # `exists` would answer False when nobody answers
        except FileNotFoundError:
            return False
        return True

    def read(self, kind: Kind, sha256: str) -> bytes | None:
        """The bytes, whatever they are; None when there are none."""
        system, key = self._key(kind, sha256)
        try:
            return bytes(system.cat_file(key))
        except FileNotFoundError:
            self._require_bucket(system, key.partition("/")[0])
            return None

    def _require_bucket(self, system: Any, name: str) -> None:
        # Where the whole bucket is missing no file is known to be, and waiting for it is better than giving up.
        try:
            if self._is_atomic:
                system.info(name)
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no bucket {name}") from None

    def write(self, kind: Kind, sha256: str, content: bytes) -> None:
        system, key = self._key(kind, sha256)
        if self._is_atomic:
            system.pipe_file(key, content)
            return
        folder = key.rpartition("/")[0]
        fresh = f"{folder}/{NEW}{os.urandom(8).hex()}"
        system.makedirs(folder, exist_ok=True)
        system.pipe_file(fresh, content)
        system.mv(fresh, key)

    def remove(self, kind: Kind, sha256: str) -> None:
        system, key = self._key(kind, sha256)
        with contextlib.suppress(FileNotFoundError):
            system.rm_file(key)

    def names(self, kind: Kind) -> set[str]:
        """The names of all files of a kind."""
        system, root = self._connection()
        try:
            found = system.find(f"{root}/{kind}")
        except FileNotFoundError:
            return set()
        return {name for name in (key.rpartition("/")[2] for key in found) if NAME.fullmatch(name)}

    def _key(self, kind: Kind, sha256: str) -> tuple[Any, str]:
        system, root = self._connection()
        return system, f"{root}/{kind}/{sha256[:2]}/{sha256}"

    def _connection(self) -> tuple[Any, str]:
        if self._connected is None or self._connected[0] != os.getpid():  # no connection survives a fork
            system, root = import_module("fsspec.core").url_to_fs(
                self._url, skip_instance_cache=True, use_listings_cache=False, **_OPTIONS.get(self._protocol, {})
            )
            self._connected = os.getpid(), system, root.rstrip("/")
        return self._connected[1:]


def open_store(url: str) -> Folder | Bucket:
    """The store of WARDROUND_FILES_URL; BadSettings when there is no such kind of store. Nothing is asked of it yet."""
    protocol, separator, rest = url.partition("://")
    if protocol == "file" and rest.startswith("/"):
        return Folder(Path(rest), shared=True)
    if protocol == "file" or not separator or not rest:
        raise BadSettings("WARDROUND_FILES_URL must be file:///folder, s3://bucket/prefix or another URL of a store")
    try:
        import_module("fsspec").get_filesystem_class(protocol)
    except ImportError as error:
        cure = "run pip install 'wardround[s3]'" if protocol in ("s3", "s3a") else str(error)
        raise BadSettings(f"WARDROUND_FILES_URL: stores of {protocol}:// need one more package: {cure}") from error
    except ValueError as error:
        raise BadSettings(f"WARDROUND_FILES_URL: stores of {protocol}:// are not known to fsspec") from error
    return Bucket(url)


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Whatever asks the store inside: what it raises is StoreUnreachable, in words without a secret."""
    try:
        yield
    except WardroundError:
        raise
    except Exception as error:  # each plug-in of fsspec has errors of its own
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        for secret in _SECRETS:
            reason = secret.sub("…", reason)
        raise StoreUnreachable(
            f"the store of WARDROUND_FILES_URL cannot be used ({reason[:_LONGEST_REASON]}); what waits goes on by "
            "itself once it answers"
        ) from error
