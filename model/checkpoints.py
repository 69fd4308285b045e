"""Weights on disk: one safetensors file, its configuration and card as JSON in the metadata. Nothing is ever unpickled.

A file is written beside its place, flushed and renamed, so that a crash leaves the old file or the new one. On
reading, a digest over all tensors shows damage that the format itself would not notice.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model.backbones.files import fit
from model.errors import CheckpointUnreadable
from model.network import Network

CHECKPOINT_FORMAT = "wardround-checkpoint-1"
STATE_FORMAT = "wardround-training-state-1"


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _seal(tensors: Mapping[str, Tensor], text: str) -> str:
    """The digest of a whole file: its tensors and the text beside them."""
    return hashlib.sha256(f"{digest(tensors)} {text}".encode()).hexdigest()


def write(path: Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any], file_format: str) -> None:
    """Write tensors and a JSON-able `content` as one file, atomically. The folder must exist."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(content, allow_nan=False)
    metadata = {"format": file_format, "digest": _seal(plain, text), "content": text}
    data = save(plain, metadata)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path, file_format: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the content of a file that `write` made. Raises CheckpointUnreadable."""
    try:
        with safe_open(path, framework="pt") as file:
            text, expected = _metadata(path, file.metadata() or {}, file_format)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointUnreadable(f"{path} is not a readable safetensors file ({error}); use another one") from error
    if _seal(tensors, text) != expected:
        raise CheckpointUnreadable(f"{path} is damaged: its content does not match its digest; restore it from a copy")
    return tensors, dict(json.loads(text))


def describe(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself: configuration, card, digest of its tensors and SHA-256 of the whole file.

    The tensors are verified on the way. Raises CheckpointUnreadable.
    """
    tensors, content = read(path, CHECKPOINT_FORMAT)
    n_numbers = sum(tensor.numel() for tensor in tensors.values())
    return {**content, "digest": digest(tensors), "sha256": file_sha256(path), "n_numbers": n_numbers}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _metadata(path: Path, metadata: Mapping[str, str], file_format: str) -> tuple[str, str]:
    """Content, still as text, and digest from the metadata of a file of the right format."""
    found = metadata.get("format")
    if found != file_format:
        raise CheckpointUnreadable(f"{path} is no {file_format} file (its format is {found!r}); use one saved by us")
    if "content" not in metadata or "digest" not in metadata:
        raise CheckpointUnreadable(f"the metadata of {path} is incomplete; restore it from a copy")
    return metadata["content"], metadata["digest"]


def load_into(network: Network, tensors: Mapping[str, Tensor], origin: Path | str) -> None:
    """Copy the tensors into the network's own parts; every name and shape must fit, every number be finite.

    Raises CheckpointMismatch naming those that do not.
    """
    cure = "it was written by another version of the network or over another backbone, so train it anew"
    fit(network, network.own_parts(), tensors, f"{origin} for the network of its configuration", cure)
