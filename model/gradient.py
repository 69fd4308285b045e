"""The gradient of one batch, in as many pieces as memory asks for and on as many processes as there are.

Dice and cross-entropy are means over images, so their pieces add up. The contrast compares every image with every
text of the batch: a first look without gradient gathers the features of all pieces, then each piece is compared with
all of them, its own features alive. The sum of the pieces' gradients is that of the undivided batch up to rounding
(with dropout in the towers, up to which units it drops).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from model import batches, distributed
from model.batches import Batch
from model.config import TrainConfig
from model.losses import bce_loss, contrast, dice_loss, mean_patch, row_dice_loss
from model.segmenter import Segmenter

T = TypeVar("T")
DICE = {"image": dice_loss, "row": row_dice_loss}


class MemoryShort(Exception):
    """The pieces are too large for the memory of at least one process; nothing was learnt."""


@dataclass(frozen=True)
class Features:
    """What the contrast needs of n images and their prompts: images (n, E), text (n, E)."""

    images: Tensor
    text: Tensor


@dataclass(frozen=True)
class View:
    """What the network makes of some rows of a batch: logits (n, 1, S, S) and features, all float32."""

    logits: Tensor
    features: Features


class Looker:
    """The network in training, ready to look at rows of the batch of one step (from 0)."""

    def __init__(self, segmenter: Segmenter, batch: Batch, config: TrainConfig, step: int) -> None:
        self.segmenter, self.batch, self.config, self.step = segmenter, batch, config, step

    def look(self, rows: slice) -> View:
        """One draw for each of these rows. The noise of a row, not its dropout, is the same in any division."""
        config, segmenter, device = self.config, self.segmenter, self.segmenter.device
        seed = batches.torch_seed(config.seed, batches.NOISE, self.step)
        noise = batches.noise(seed, rows, len(self.batch), device)
        images, tokens = self.batch.images[rows], segmenter.tokenise(self.batch.prompts[rows])
        dropout_seed = batches.torch_seed(config.seed, batches.DROPOUT, self.step, rows.start)
        with _chance(dropout_seed, config.tower_dropout, device), autocast(config.precision, device):
            output = segmenter.network(segmenter.normalise(images), tokens, noise)
        features = Features(mean_patch(output.patches.float()), output.text.float())
        return View(output.logits.float()[:, None], features)


def batch_gradient(looker: Looker, micro_batch_size: int) -> float:
    """Leave the gradient of the batch's loss in the parameters, the same in every process; returns the loss.

    At most micro_batch_size images go through the network at once. Raises MemoryShort.
    """
    device = looker.segmenter.device
    n_rows = len(looker.batch)
    own, weight = _own_rows(n_rows)
    pieces = [slice(at, min(at + micro_batch_size, own.stop)) for at in range(own.start, own.stop, micro_batch_size)]
    alive, features = _together(lambda: _first_look(looker, pieces), device)
    whole = _gather(features, own, n_rows, weight) if looker.config.contrastive_weight else None
    parts, contrast_loss = _together(lambda: _learn(looker, pieces, alive, whole, weight), device)
    _add_up_gradients(looker.segmenter.network)
    return float(distributed.add_up(parts)) + contrast_loss


def _own_rows(n_rows: int) -> tuple[slice, float]:
    """This process's rows of the batch, and their weight. With no row left, one row counts for nothing."""
    rank, world = distributed.rank(), distributed.world_size()
    own = slice(rank * n_rows // world, (rank + 1) * n_rows // world)
    return (own, 1.0) if own.stop > own.start else (slice(0, 1), 0.0)


def _first_look(looker: Looker, pieces: list[slice]) -> tuple[View | None, list[Features]]:
    """The features of every piece. A single piece is looked at once for all, and its view keeps its gradient."""
    if len(pieces) == 1:
        view = looker.look(pieces[0])
        return view, [view.features]
    if not looker.config.contrastive_weight:
        return None, []
    with torch.no_grad():
        return None, [looker.look(piece).features for piece in pieces]


def _gather(features: list[Features], own: slice, n_rows: int, weight: float) -> Features:
    """The features of the whole batch, from all pieces of all processes, without gradient."""
    return Features(
        _spread(torch.cat([f.images for f in features]).detach(), own, n_rows, weight),
        _spread(torch.cat([f.text for f in features]).detach(), own, n_rows, weight),
    )


def _spread(rows: Tensor, own: slice, n_rows: int, weight: float) -> Tensor:
    """(n, E) of this process → (n_rows, E) of all."""
    whole = rows.new_zeros(n_rows, rows.shape[1])
    whole[own] = weight * rows
    return distributed.add_up(whole)


def _learn(
    looker: Looker, pieces: list[slice], alive: View | None, whole: Features | None, weight: float
) -> tuple[Tensor, float]:
    """Add the gradient of every piece; returns the Dice and cross-entropy of these rows, and the batch's contrast."""
    config = looker.config
    looker.segmenter.network.zero_grad()
    total = torch.zeros((), device=looker.segmenter.device)
    contrast_loss = torch.zeros_like(total)
    for rows in pieces:
        seen = alive or looker.look(rows)
        masks = looker.batch.masks[rows]
        dice, bce = DICE[config.dice](seen.logits, masks), bce_loss(seen.logits, masks)
        share = weight * len(masks) / len(looker.batch)
        loss = share * (config.dice_weight * dice + config.bce_weight * bce)
        total += loss.detach()
        if whole is not None:
            contrast_loss = config.contrastive_weight * _contrast(seen.features, rows, whole, looker)
            loss = loss + weight * contrast_loss
        loss.backward()  # type: ignore[no-untyped-call]
    return total, float(contrast_loss.detach())


def _contrast(live: Features, rows: slice, whole: Features, looker: Looker) -> Tensor:
    """The contrast of the whole batch, in which only the features of these rows carry a gradient."""
    images = torch.cat([whole.images[: rows.start], live.images, whole.images[rows.stop :]])
    text = torch.cat([whole.text[: rows.start], live.text, whole.text[rows.stop :]])
    return contrast(images, text, looker.segmenter.config.temperature)


def _add_up_gradients(network: torch.nn.Module) -> None:
    """Over all processes, in one message."""
    if distributed.world_size() == 1:
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    total = distributed.add_up(torch.cat([g.flatten() for g in gradients]))
    summed = torch.split(total, [g.numel() for g in gradients])
    for gradient, values in zip(gradients, summed, strict=True):
        gradient.copy_(values.view_as(gradient))


def _together(attempt: Callable[[], T], device: torch.device) -> T:
    """What `attempt` returns; where memory does not suffice in one process, all of them raise MemoryShort."""
    done: list[T] = []
    try:
        done.append(attempt())
    except (RuntimeError, MemoryError) as error:
        if not _is_memory_short(error):
            raise
    if distributed.any_of(not done, device):
        raise MemoryShort
    return done[0]


def _is_memory_short(error: Exception) -> bool:
    """Of a GPU, or of the machine: PyTorch's allocator on the CPU has no error of its own."""
    named = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return named or "can't allocate memory" in str(error) or "not enough memory" in str(error)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """How a pass through the network calculates: bfloat16 where asked for, or where "auto" finds a GPU that has it."""
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    wanted = precision == "bf16" or (precision == "auto" and has_bf16)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted)


@contextlib.contextmanager
def _chance(seed: int, wanted: bool, device: torch.device) -> Iterator[None]:
    """Dropout draws from PyTorch's own generator: seeded for this pass, and put back as it was."""
    if not wanted:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
