"""Chance for inference: the same standard normal numbers for every image, other ones for each draw."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from model.network import Noise


class SharedNoise:
    """The noise of draw 0, 1, … for one seed. Draw k depends on the seed and k alone.

    Numbers are drawn on the CPU, so that every device sees the same, and remembered, because for the large backbones
    drawing them again for every pass would cost a GPU more than the pass itself.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed, self._device = seed, device
        self._generators: dict[int, torch.Generator] = {}
        self._drawn: dict[int, list[Tensor]] = {}

    def of(self, draws: range, n_rows: int) -> Noise:
        """Noise for one pass of len(draws) · n_rows rows, draw by draw; all rows of a draw see the same numbers."""
        calls = itertools.count()

        def noise(rows: int, width: int) -> Tensor:
            call = next(calls)
            return torch.stack([self._numbers(k, call, rows, width) for k in draws]).repeat_interleave(n_rows, 0)

        return noise

    def _numbers(self, k: int, call: int, rows: int, width: int) -> Tensor:
        """What draw k is given the call-th time it asks in a pass: (rows, width)."""
        drawn = self._drawn.setdefault(k, [])
        if call == len(drawn):
            if k not in self._generators:
                self._generators[k] = torch.Generator().manual_seed(_mix(self._seed, k))
            drawn.append(torch.randn(rows, width, generator=self._generators[k]).to(self._device))
        return drawn[call]


def _mix(seed: int, k: int) -> int:
    """One 63-bit seed out of two numbers, so that neighbouring seeds share no draw."""
    low, high = np.random.SeedSequence([seed, k]).generate_state(2, np.uint32)
    return (int(high) << 32 | int(low)) >> 1
