"""`python -m simulation DATA`: compare query strategies on a labelled folder, with a perfect oracle."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import strategies
from model import ModelConfig, ModelError, TrainConfig
from simulation import crew, report, results, sheet
from simulation.dataset import Pair, fewer, fingerprint, read_folder
from simulation.errors import BadPlan, SimulationError
from simulation.fitting import require_fitting
from simulation.learner import Maker
from simulation.loop import ALL, Plan, Record, check, held_out_split

EPILOG = """\
DATA is a folder with pairs.csv (columns id, image, mask, group, prompt) and the files it names, or a folder with
images/ and masks/ and --prompt. `wardround simulate` takes a connected project or an export of one as well.
Writes into --out: results.csv (a row per round), report.md with its figures, what each strategy asked for, and a file
per arm (strategy and seed). Called again with the same --out and settings it goes on where it stopped, and strategies
and seeds can be added.
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
    add(
        "--strategies", type=_names, default="random,foreground_random,entropy,hybrid", metavar="A,B",
        help=f"query strategies out of {known}; or all",
    )  # fmt: skip
    add("--rounds", type=int, default=8, help="queries after the seed set; each curve has one point more")
    add("--query-size", type=int, default=10, help="labels asked for per round")
    add("--seed-size", type=int, default=10, help="labels of round 0, drawn at random")
    add("--seeds", type=int, default=5, help="repetitions, with seeds 0, 1, ...; fewer than 5 prove nothing")
    add("--random-share", type=float, default=0.1, help="of each query, drawn by chance as production does")
    add("--held-out-share", type=float, default=0.25, help="of the images, whole groups, only ever evaluated on")
    add("--max-held-out", type=int, help="evaluate on at most so many of them")
    add("--max-pool", type=int, help="let the strategies choose among at most so many images")
    add("--prompt", help="text for every image, in place of the table's")
    add("--max-steps", type=int, default=400, help="optimiser steps per training, the same in every arm and round")
    add("--batch-size", type=int, default=8, help="images per optimiser step")
    add(
        "--time-limit-seconds",
        type=float,
        help="stop a training early (such arms are not comparable;\nthe report says so)",
    )
    add("--backbone", default="tiny", help="towers of the model")
    add("--image-size-px", type=int, help="side of the model frame; the backbone's own if not given")
    add("--n-draws", type=int, default=4, help="stochastic passes per image, for scores and evaluation")
    add("--device", default="cpu", help="where the model runs: cpu, cuda, ...")
    add("--jobs", type=int, default=0, help="arms at a time; 0: one a processor core, or one on a GPU")
    add("--skip-all-labels", action="store_true", help="do not train on the whole pool for comparison")
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
    except KeyboardInterrupt:
        print(f"simulation: interrupted; the same command goes on from what {options.out} holds", file=sys.stderr)
        return 130
    print(f"report: {path}")
    return 0


def simulate(options: argparse.Namespace, make_learner: crew.MakeLearner | None = None) -> Path:
    """Run every round that is not done yet and write the report. Returns its path.

    make_learner: the model to simulate with, MedCLIPSeg unless another is given. What can be refused is refused before
    the first training.
    """
    arms = _arms(options)
    plan = Plan(options.rounds, options.query_size, options.seed_size, options.held_out_share, options.random_share)
    pool, held_out = held_out_split(read_folder(options.data, options.prompt), plan.held_out_share)
    pool, held_out = fewer(pool, options.max_pool), fewer(held_out, options.max_held_out)
    check(plan, len(pool))
    job = crew.Job(plan, pool, held_out, options.out, make_learner or _medclipseg(options), threads=_threads(options))
    settings = _settings(options, pool, held_out)
    results.keep_settings(options.out, settings)
    if make_learner is None:
        require_fitting([*pool, *held_out])
    _run(job, arms, _n_processes(options))
    return _write(
        options.out, [record for arm in arms for record in results.load_arm(options.out, *arm)], job, settings
    )


def _run(job: crew.Job, arms: Sequence[tuple[str, int]], n_processes: int) -> None:
    totals = {arm: 1 if arm[0] == ALL else job.plan.rounds + 1 for arm in arms}
    done = {arm: len(results.load_arm(job.out, *arm)) for arm in arms}
    # Where nothing is left to do, no process has to load a model to find that out.
    unfinished = [arm for arm in arms if done[arm] < totals[arm]]
    with _progress() as progress:
        bar = progress.add_task("rounds", total=sum(totals.values()), completed=sum(done.values()))
        for record in crew.run(job, unfinished, n_processes):
            progress.console.print(_line(record))
            progress.advance(bar)


def _write(out: Path, records: Sequence[Record], job: crew.Job, settings: dict[str, Any]) -> Path:
    results.write_table(out, records)
    sheet.write(out, records, job.pool)
    groups = {pair.id: pair.group for pair in job.held_out}
    return report.write(out, records, groups, settings)


def _arms(options: argparse.Namespace) -> list[tuple[str, int]]:
    """Seed by seed, so that an interrupted run has whole seeds to show, beginning with what all labels give."""
    names = strategies.names() if options.strategies == ["all"] else options.strategies
    if options.seeds < 1 or not names:
        raise BadPlan("there is nothing to run; give at least one strategy and one seed")
    wanted = ([] if options.skip_all_labels else [ALL]) + [strategies.get(name).name for name in names]
    return [(name, seed) for seed in range(options.seeds) for name in wanted]


def _medclipseg(options: argparse.Namespace) -> crew.MakeLearner:
    config = ModelConfig(backbone=options.backbone, image_size_px=options.image_size_px)
    training = TrainConfig(
        max_steps=options.max_steps, batch_size=options.batch_size, time_limit_seconds=options.time_limit_seconds
    )
    make = Maker(config, training, options.n_draws, options.device)
    from model import backbones  # named here, since torch need not be loaded for --help

    backbones.get(config.backbone)
    return make


def _on_cpu(options: argparse.Namespace) -> bool:
    return str(options.device) == "cpu"


def _n_processes(options: argparse.Namespace) -> int:
    if options.jobs:
        return int(options.jobs)
    return (os.cpu_count() or 1) if _on_cpu(options) else 1


def _threads(options: argparse.Namespace) -> int:
    """Several processes with many threads each would only wait for one another."""
    return 1 if _on_cpu(options) and _n_processes(options) > 1 else 0


def _settings(options: argparse.Namespace, pool: Sequence[Pair], held_out: Sequence[Pair]) -> dict[str, Any]:
    """What must be equal for rows to stand in one table; strategies and seeds may be added later."""
    varying = {"data", "strategies", "seeds", "out", "jobs", "skip_all_labels"}
    settings = {name: value for name, value in vars(options).items() if name not in varying}
    return settings | {
        "pool_images": len(pool),
        "pool_groups": len({pair.group for pair in pool}),
        "held_out_images": len(held_out),
        "held_out_groups": len({pair.group for pair in held_out}),
        "data_sha256": fingerprint([*pool, *held_out]),
    }


def _names(text: str) -> list[str]:
    # Each once and in the order given: an arm named twice is still one arm.
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    return Progress(*columns, console=Console(stderr=True))


def _line(record: Record) -> str:
    outcome = record.outcome
    where = f"{outcome.strategy}, seed {outcome.seed}, round {outcome.round}: {outcome.n_labels} labels"
    return f"{where}, Dice {outcome.dice:.3f}, NSD {outcome.nsd:.3f}, {outcome.steps} steps, {outcome.seconds:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
