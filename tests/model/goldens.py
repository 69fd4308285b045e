"""The reference outputs in ../shared/goldens: weights that follow from a formula, inputs, noise and what came out."""

import csv
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "goldens"
USUAL_LOGIT_SCALE = float(np.log(1 / 0.07))


@dataclass(frozen=True)
class Golden:
    """One variant: the state dict in the released format, the outputs, and what is known of the run."""

    variant: str
    state: dict[str, torch.Tensor]
    outputs: dict[str, np.ndarray]
    meta: dict


def read(variant):
    """The golden of a variant; skips the test where the folder is absent."""
    folder = FOLDER / variant
    if not folder.is_dir():
        pytest.skip("the reference outputs (../shared/goldens) are not on this machine")
    meta = json.loads((folder / "meta.json").read_text())
    with np.load(folder / "golden.npz") as outputs:
        return Golden(variant, _state(folder, meta["aliases"]), dict(outputs), meta)


def _state(folder, aliases):
    first = {name: group[0] for group in aliases for name in group}
    state: dict[str, torch.Tensor] = {}
    with (folder / "state_dict_keys.tsv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            same = first.get(row["key"], row["key"])
            state[row["key"]] = state[same] if same in state else filled(same, _shape(row["shape"]), row["fill"])
    return state


def _shape(text):
    return tuple(int(side) for side in text.split(",") if side)


def filled(key, shape, fill):
    """The tensor that stands for `key`."""
    if fill == "kept":
        return torch.tensor(USUAL_LOGIT_SCALE) if key.endswith("logit_scale") else torch.arange(shape[-1])[None]
    z = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape, dtype=np.float32)
    if fill == "z/sqrt(fan_in)":
        z /= np.float32(np.sqrt(np.prod(shape[1:])))
    else:
        factor = {"1+0.05z": 0.05, "0.05z": 0.05, "0.02z": 0.02, "z": 1.0}[fill]
        z = np.float32(factor) * z + np.float32(fill.startswith("1+"))
    return torch.from_numpy(np.asarray(z, np.float32))


def image():
    """Two normalised images (2, 3, 224, 224)."""
    return torch.from_numpy(np.random.Generator(np.random.PCG64(7)).standard_normal((2, 3, 224, 224), np.float32))


def mask():
    """The masks (2, 224, 224) of the losses."""
    masks = torch.zeros(2, 224, 224)
    masks[0, 40:120, 60:160] = 1
    masks[1, 100:200, 20:90] = 1
    return masks


class RecordedNoise:
    """The noise of the reference run: draw i of shape (2, rows, width) comes from PCG64(base + i)."""

    def __init__(self, base):
        self.next = base
        self.shapes = []

    def __call__(self, rows, width):
        shape = (2, rows, width)
        self.shapes.append(list(shape))
        z = np.random.Generator(np.random.PCG64(self.next)).standard_normal(shape, dtype=np.float32)
        self.next += 1
        return torch.from_numpy(z)
