"""Weights of pretrained backbones: found on the hub or on disk, read without unpickling, fitted by name."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model.backbones.towers import RANDOM, Source
from model.errors import BackboneUnavailable, CheckpointMismatch, CheckpointUnreadable

HUB = "hf-hub:"
_WRAPPERS = ("state_dict", "model")
IGNORED_ENDINGS = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias", "logit_scale")
"""What files of other versions hold beside the weights of the towers; nothing here needs it."""

_SIZES = ("input_resolution", "context_length", "vocab_size")
"""OpenAI's own files keep these numbers among the weights."""


def locate(reference: str | Path, of: str) -> Path:
    """The local file of a reference: a path, `hf-hub:owner/name` or `hf-hub:owner/name/folder/file`.

    `of` names the backbone, for the error. Raises BackboneUnavailable.
    """
    if not str(reference).startswith(HUB):
        path = Path(reference).expanduser()
        if path.is_file():
            return path
        raise BackboneUnavailable(f"the weights of {of} are not at {path}; give the path of the downloaded file")
    owner, _, rest = str(reference).removeprefix(HUB).partition("/")
    name, _, file = rest.partition("/")
    from open_clip.pretrained import download_pretrained_from_hf

    try:
        return Path(download_pretrained_from_hf(f"{owner}/{name}", filename=file or None))
    except (OSError, ValueError, RuntimeError) as error:
        raise BackboneUnavailable(
            f"the weights of {of} could not be fetched from {reference} ({type(error).__name__}: {error}); "
            "check the network, or download the file and give its path"
        ) from error


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a torch file, unwrapped and without `module.` before their names.

    A torch file is read with weights_only, which runs no code. Raises CheckpointUnreadable.
    """
    if path.suffix == ".safetensors":
        try:
            return _unwrapped(load_file(path), path)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointUnreadable(f"{path} is not a readable safetensors file ({error})") from error
    return _unwrapped(read_torch(path), path)


def read_torch(path: Path) -> Any:
    """What a torch file holds, as long as that is tensors, numbers, text and containers of them.

    Raises CheckpointUnreadable.
    """
    if _is_torchscript(path):
        raise CheckpointUnreadable(
            f"{path} is a TorchScript archive, which holds code; take the same weights as a state dict or safetensors"
        )
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_archive(path))
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointUnreadable(
            f"{path} cannot be read as plain weights ({reason}); it is damaged, or holds more than tensors and numbers"
        ) from error


def _harmless() -> list[Any]:
    """What a checkpoint may hold beside tensors: a numpy number, as a best score is often saved."""
    import numpy as np
    from numpy._core.multiarray import scalar

    kinds = [type(np.dtype(name)) for name in ("float32", "float64", "int64")]
    return [np.dtype, scalar, (scalar, "numpy.core.multiarray.scalar"), *kinds]


def _is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except OSError:
        return False


def _is_torchscript(path: Path) -> bool:
    if not _is_archive(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise CheckpointUnreadable(f"{path} holds {type(content).__name__}, not a table of tensors")
    tensors = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise CheckpointUnreadable(f"{path} holds no tensors; give the file of a whole CLIP model")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def renamed(tensors: Mapping[str, Tensor], prefixes: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """The tensors under the names the towers give them; the first prefix that fits a name is exchanged.

    Names without a match stay, so that whoever loads them can complain of them; known extras are dropped.
    """
    pairs = tuple(prefixes)
    answer: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(IGNORED_ENDINGS) or name in _SIZES:
            continue
        old, new = next((pair for pair in pairs if name.startswith(pair[0])), ("", ""))
        answer[new + name.removeprefix(old)] = tensor
    return answer


def fit(module: nn.Module, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str, cure: str) -> None:
    """Copy the tensors into the module's `own` ones; every name and shape must fit, every number be finite.

    Raises CheckpointMismatch, which names what does not fit and ends with the cure.
    """
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
        raise CheckpointMismatch(f"{what} does not fit: {'; '.join(problems[:8])}{more}; {cure}")
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise CheckpointMismatch(f"{what} holds numbers that are not finite in {', '.join(broken[:4])}; {cure}")
    module.load_state_dict(dict(tensors), strict=False)  # what is missing are the parts that are not asked for


def fill(towers: nn.Module, name: str, source: Source, hub: str, prefixes: Iterable[tuple[str, str]]) -> None:
    """Give the towers of backbone `name` the weights that `source` names, those at `hub` where it names none.

    prefixes: what names in the file begin with, and what they begin with in the towers. Raises BackboneUnavailable,
    CheckpointUnreadable and CheckpointMismatch.
    """
    if source.weights == RANDOM:
        return
    path = locate(source.weights or hub, name)
    tensors = renamed(read_state(path), prefixes)
    fit(towers, towers.state_dict(), tensors, f"{path} as backbone {name}", f"give the weights of {name}")
