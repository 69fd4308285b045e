"""`python -m simulation DATA`: compare query strategies on a labelled folder, with a perfect oracle."""

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import strategies
from model import ModelConfig, ModelError, TrainConfig
from simulation import report, results
from simulation.dataset import Pair, read_pairs
from simulation.errors import BadPlan, SimulationError
from simulation.learner import MedClipSeg
from simulation.loop import Arm, Learner, Outcome, Plan, check, held_out_split

EPILOG = """\
DATA is a folder with pairs.csv (columns id, image, mask, group, prompt) and the files it names.
Writes results.csv (a row per round), report.md, learning_curve.svg and settings.json into --out. Called again with the
same --out and settings it goes on: arms (strategy and seed) that are complete there are not run again.
"""


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawTextHelpFormatter):
    """Keeps the lines of the epilog, and says each default."""


def parser() -> argparse.ArgumentParser:
    """The command line; every default is shown by --help."""
    result = argparse.ArgumentParser(
        prog="python -m simulation",
        description="Active learning with a perfect oracle, without Label Studio: train, evaluate, select, label.",
        epilog=EPILOG,
        formatter_class=_Help,
    )
    add = result.add_argument
    known = ", ".join(strategies.names())
    add("data", type=Path, metavar="DATA", help="labelled folder")
    add("--strategies", type=_names, default="random,entropy", metavar="A,B", help=f"query strategies out of {known}")
    add("--rounds", type=int, default=3, help="queries after the seed set; each curve has one point more")
    add("--query-size", type=int, default=10, help="labels asked for per round")
    add("--seed-size", type=int, default=10, help="labels of round 0, drawn at random")
    add("--seeds", type=int, default=2, help="repetitions, with seeds 0, 1, ...; 5 or more for a conclusion")
    add("--held-out-share", type=float, default=0.25, help="of the images, whole groups, only ever evaluated on")
    add("--max-steps", type=int, default=400, help="optimiser steps per training, the same in every arm and round")
    add(
        "--time-limit-seconds",
        type=float,
        help="stop a training early (such arms are not comparable;\nthe report says so)",
    )
    add("--backbone", default="tiny", help="towers of the model")
    add("--n-draws", type=int, default=8, help="stochastic passes per image when a pool is scored")
    add("--device", default="cpu", help="where the model runs: cpu, cuda, ...")
    add("--out", type=Path, default=Path("simulation-results"), help="folder for the results")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. Exit status 2 with one line on stderr for anything the caller can put right."""
    options = parser().parse_args(arguments)
    try:
        path = simulate(options)
    except (SimulationError, strategies.StrategyError, ModelError) as error:
        print(f"simulation: {error}", file=sys.stderr)
        return 2
    print(f"report: {path}")
    return 0


MakeLearner = Callable[[argparse.Namespace, Progress], Learner[Any]]


def simulate(options: argparse.Namespace, make_learner: MakeLearner | None = None) -> Path:
    """Run every arm that is not complete yet and write the report. Returns its path.

    make_learner: the model to simulate with, MedCLIPSeg unless another is given; it may add its own bar to the
    progress. What can be refused is refused before the first training.
    """
    arms = _arms(options)
    plan = Plan(options.rounds, options.query_size, options.seed_size, options.held_out_share)
    pool, held_out = held_out_split(read_pairs(options.data), plan.held_out_share)
    check(plan, len(pool))
    progress = _progress()
    learner = (make_learner or _medclipseg)(options, progress)
    settings = _settings(options, pool, held_out)
    results.keep_settings(options.out, settings)
    outcomes = results.complete(results.load(options.out), plan.rounds)
    done = {(outcome.strategy, outcome.seed) for outcome in outcomes}
    todo = [Arm(s, seed, plan, learner, pool, held_out) for s, seed in arms if (s.name, seed) not in done]
    with progress:
        for outcome in progress.track(_outcomes(todo), total=len(todo) * (plan.rounds + 1), description="rounds"):
            outcomes.append(outcome)
            results.save(options.out, outcomes)
            progress.console.print(_line(outcome))
    return report.write(options.out, outcomes, settings)


def _arms(options: argparse.Namespace) -> list[tuple[strategies.Strategy, int]]:
    if options.seeds < 1 or not options.strategies:
        raise BadPlan("there is nothing to run; give at least one strategy and one seed")
    return [(strategies.get(name), seed) for name in options.strategies for seed in range(options.seeds)]


def _outcomes(arms: Sequence[Arm[Any]]) -> Iterator[Outcome]:
    for arm in arms:
        yield from arm.run()


def _medclipseg(options: argparse.Namespace, progress: Progress) -> Learner[Any]:
    bar = progress.add_task("training", total=options.max_steps)
    return MedClipSeg(
        config=ModelConfig(backbone=options.backbone),
        training=TrainConfig(max_steps=options.max_steps, time_limit_seconds=options.time_limit_seconds),
        n_draws=options.n_draws,
        device=options.device,
        on_progress=lambda step: progress.update(bar, completed=step.step),
    )


def _settings(options: argparse.Namespace, pool: Sequence[Pair], held_out: Sequence[Pair]) -> dict[str, Any]:
    """What must be equal for rows to stand in one table; strategies and seeds may be added later."""
    varying = {"data", "strategies", "seeds", "out"}
    settings = {name: value for name, value in vars(options).items() if name not in varying}
    table = (options.data / "pairs.csv").read_bytes()
    return settings | {
        "pool_images": len(pool),
        "held_out_images": len(held_out),
        "held_out_groups": len({pair.group for pair in held_out}),
        "pairs_sha256": hashlib.sha256(table).hexdigest(),
    }


def _names(text: str) -> list[str]:
    # Each once and in the order given: an arm named twice is still one arm.
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


def _line(outcome: Outcome) -> str:
    where = f"{outcome.strategy}, seed {outcome.seed}, round {outcome.round}: {outcome.n_labels} labels"
    return f"{where}, Dice {outcome.dice:.3f}, NSD {outcome.nsd:.3f}, {outcome.steps} steps, {outcome.seconds:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
