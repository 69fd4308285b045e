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
from torch import Tensor, nn

from model.errors import CheckpointMismatch, CheckpointUnreadable

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


def write(path: Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any], file_format: str) -> None:
    """Write tensors and a JSON-able `content` as one file, atomically. The folder must exist."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": file_format, "digest": digest(plain), "content": json.dumps(content, allow_nan=False)}
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
            content, expected = _metadata(path, file.metadata() or {}, file_format)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointUnreadable(f"{path} is not a readable safetensors file ({error}); use another one") from error
    if digest(tensors) != expected:
        raise CheckpointUnreadable(f"{path} is damaged: its tensors do not match their digest; restore it from a copy")
    return tensors, content


def _metadata(path: Path, metadata: Mapping[str, str], file_format: str) -> tuple[dict[str, Any], str]:
    """Content and digest from the metadata of a file of the right format."""
    found = metadata.get("format")
    if found != file_format:
        raise CheckpointUnreadable(f"{path} is no {file_format} file (its format is {found!r}); use one saved by us")
    try:
        content = json.loads(metadata["content"])
        return dict(content), metadata["digest"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointUnreadable(f"the metadata of {path} is damaged ({error}); restore it from a copy") from error


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy the tensors into the module; every name and shape must fit. Raises CheckpointMismatch naming those not."""
    own = module.state_dict()
    problems = [
        *[f"missing {name}" for name in own if name not in tensors],
        *[f"unexpected {name}" for name in tensors if name not in own],
        *[
            f"{name} has shape {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own
            if name in tensors and tensors[name].shape != own[name].shape
        ],
    ]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointMismatch(
            f"{path} does not fit the network of its configuration: {'; '.join(problems[:8])}{more}; "
            "it was written by another version of the network, so train it anew"
        )
    module.load_state_dict(dict(tensors))
