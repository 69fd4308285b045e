"""`python -m pretraining FILE`: make the packaged weights of `tiny` again, in about an hour on one CPU thread."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from model import ModelConfig, Segmenter, Source
from model.checkpoints import describe
from pretraining.card import card
from pretraining.loop import Plan, pretrain


def main(arguments: list[str] | None = None) -> None:
    """Parse, learn, and write the weights with their card; now and then also on the way."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    plan = Plan(
        steps=options.steps,
        batch_size=options.batch_size,
        fresh=options.fresh,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    start = Segmenter.create(ModelConfig(), seed=plan.seed, source=Source(weights="random"))
    print(f"pretraining tiny: {json.dumps(asdict(plan))}, about {plan.n_scenes} scenes", flush=True)
    began, smooth = time.monotonic(), None
    for step, loss, current in pretrain(start, plan):
        smooth = loss if smooth is None else 0.99 * smooth + 0.01 * loss
        if step % options.report_every == 0:
            _report(step, plan, smooth, time.monotonic() - began)
        if step % options.keep_every == 0 or step == plan.steps:
            _write(current(), options.file, card(plan, step))


def _options(arguments: list[str] | None) -> Any:
    defaults = Plan()
    parser = argparse.ArgumentParser(prog="python -m pretraining", description=__doc__)
    parser.add_argument("file", type=Path, help="safetensors file to write; its card goes beside it as .json")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="steps of the whole run (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size, help="images a step (%(default)s)")
    parser.add_argument("--fresh", type=int, default=defaults.fresh, help="new scenes a step (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate, help="highest (%(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of weights, scenes and order (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch; more change the last digits (%(default)s)")
    parser.add_argument("--keep-every", type=int, default=500, help="steps between writings (%(default)s)")
    parser.add_argument("--report-every", type=int, default=50, help="steps between lines (%(default)s)")
    return parser.parse_args(arguments)


def _report(step: int, plan: Plan, loss: float, seconds: float) -> None:
    left = seconds / step * (plan.steps - step)
    print(f"step {step}/{plan.steps}  loss {loss:.4f}  {seconds:.0f} s  {left:.0f} s left", flush=True)


def _write(segmenter: Segmenter, file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    segmenter.save(file, content)
    told = describe(file)
    beside = content | {"config": told["config"], "digest": told["digest"], "sha256": told["sha256"]}
    file.with_suffix(".json").write_text(json.dumps(beside, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
