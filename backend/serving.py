"""Which model version answers, with its Segmenter loaded. Looked up at each use, so a promotion counts at once."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backend.files import Files
from backend.recent import Recent
from backend.store import Store, predictions
from backend.tables import ModelVersion

if TYPE_CHECKING:
    from model import ModelConfig, Segmenter, Source


RECENT_BYTES = 256_000_000
"""Of images and maps that a serving version may remember, in every process that answers people."""


@dataclass(frozen=True)
class Served:
    """A model version and its weights, ready to segment."""

    version: ModelVersion
    segmenter: Segmenter
    recent: Recent = field(default_factory=lambda: Recent(RECENT_BYTES), compare=False)
    """What it saw lately, for people who ask again and again about one image; gone when another version serves."""


class Serving:
    """Keeps one Segmenter a project in memory. Nothing is loaded before somebody needs a prediction."""

    def __init__(
        self, store: Store, files: Files, device: str, weights: str = "", tokenizer: str = "", precision: str = "fp32"
    ) -> None:
        self._store = store
        self._files = files
        self._device = device
        self._weights = weights
        self._tokenizer = tokenizer
        self._precision = precision
        self._loaded: dict[int, Served] = {}
        self._lock = threading.Lock()

    def version(self, project_id: int) -> ModelVersion | None:
        """The serving version, or None before the first one: an ordinary answer."""
        with self._store.read() as s:
            return predictions.serving(s, project_id)

    def current(self, project_id: int) -> Served | None:
        """The serving version with its weights."""
        version = self.version(project_id)
        return None if version is None else self.load(version)

    def load(self, version: ModelVersion) -> Served:
        """The given version with its weights; loads them once."""
        with self._lock:
            served = self._loaded.get(version.project_id)
            if served is None or served.version.id != version.id:
                served = Served(version, self._read(version))
                self._loaded[version.project_id] = served
            return served

    def _read(self, version: ModelVersion) -> Segmenter:
        from model import Segmenter  # torch takes seconds to import; /health and /setup must not wait for it

        checkpoint = self._files.checkpoint(version.checkpoint_sha256)
        return self._ready(Segmenter.load(checkpoint, device=self.device, source=self._source()))

    def create(self, config: ModelConfig, seed: int) -> Segmenter:
        """A new Segmenter for a project without a version; the backbone's weights come from the settings."""
        from model import Segmenter

        return self._ready(Segmenter.create(config, seed=seed, device=self.device, source=self._source()))

    def _source(self) -> Source:
        from model import Source

        return Source(self._weights or None, self._tokenizer or None)

    def _ready(self, segmenter: Segmenter) -> Segmenter:
        on_gpu = segmenter.device.type == "cuda"
        segmenter.precision = ("bf16" if on_gpu else "fp32") if self._precision == "auto" else self._precision
        return segmenter

    @property
    def device(self) -> str:
        """The torch device: `auto` takes the first GPU where there is one."""
        if self._device != "auto":
            return self._device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
