"""`python -m protocols`: the published protocols on data one has, beside the published figures."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import model
from protocols import data_efficiency, evaluation, out_of_distribution, results, runs, setups
from protocols.datasets import DESIGNS, SPLITS, Choice
from protocols.errors import ProtocolError
from protocols.results import Outcome
from protocols.runs import Job, Setup, Target, Trained, Training

EPILOG = """\
DATA, SOURCE and TARGET are folders of one data set each, in one of two layouts:
  the published one   {Train,Val,Test}_Folder/{img,label} and Prompts_Folder/*.xlsx (Image, Description, Ground Truth)
  pairs.csv           columns id, image, mask, group, prompt and, for --split published, published_split
Each model and each score is a file in --out. A command called again goes on where it was, also within a training, and
its report takes in everything that is there: add seeds, splits, prompts or data sets by calling it again.
On several GPUs: torchrun --nproc-per-node 4 -m protocols ...
"""


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawTextHelpFormatter):
    """Keeps the lines of the epilog, and says each default."""


T = TypeVar("T")


def parser() -> argparse.ArgumentParser:
    """The command line. The help of the whole names every option of every command."""
    result = argparse.ArgumentParser(
        prog="python -m protocols",
        description="The protocols of the MedCLIPSeg paper on data you have, beside the published figures.",
        formatter_class=_Help,
    )
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")
    each = []
    for name, text, add in (
        ("data-efficiency", "train on 10, 25, 50 and 100 percent of the images", _data_efficiency),
        ("out-of-distribution", "train on one data set, test on it and on others", _out_of_distribution),
        ("evaluate", "score a checkpoint you have, ours or a released .pth", _evaluate),
    ):
        command = commands.add_parser(name, help=text, description=text, epilog=EPILOG, formatter_class=_Help)
        add(command)
        each.append(command)
    result.epilog = EPILOG + "\n" + "".join(command.format_usage() for command in each)
    return result


def _data_efficiency(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("data", type=Path, nargs="+", metavar="DATA", help="folders to train and test on, each for itself")
    add("--percent", type=_several(_percent), default="10,25,50,100", metavar="P,Q", help="of the training images")
    _add_split(command, "both at once (published,grouped) show the leak")
    _add_training(command)
    _add_prompt(command)
    _add_scoring(command)


def _out_of_distribution(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", type=Path, metavar="SOURCE", help="folder to train and test on")
    command.add_argument("targets", type=Path, nargs="+", metavar="TARGET", help="folders to test on only")
    _add_split(command, "of source and targets")
    _add_training(command)
    _add_designs(command)
    _add_prompt(command)
    _add_scoring(command)


def _evaluate(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help=".safetensors of ours, or a released .pth")
    add("data", type=Path, nargs="+", metavar="DATA", help="folders whose test part is scored")
    _add_split(command, "the test part of which split; of a grouped one, that of seed 0")
    add("--backbone", default="unimedclip", help="of a released .pth; ours know their own")
    _add_weights(command)
    _add_designs(command)
    _add_prompt(command)
    _add_scoring(command)


def _add_split(command: argparse.ArgumentParser, text: str) -> None:
    known = _several(_one_of(SPLITS))
    text = f"published or grouped (no group straddles parts);\n{text}"
    command.add_argument("--split", type=known, default="published", metavar="SPLIT", help=text)


def _add_training(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--backbone", default="tiny", help="tiny, unimedclip, biomedclip, clip or pubmedclip")
    _add_weights(command)
    text = "corrected, or released: as the published code trains and reads images"
    add("--recipe", choices=setups.RECIPES, default="corrected", help=text)
    length = command.add_mutually_exclusive_group()
    text = f"passes over the training images (default: {setups.EPOCHS}, EUS 10, as published)"
    length.add_argument("--epochs", type=_positive, default=argparse.SUPPRESS, metavar="N", help=text)
    text = "optimiser steps instead, the same at every percentage"
    length.add_argument("--steps", type=_positive, default=argparse.SUPPRESS, metavar="N", help=text)
    text = "seconds per training at most; such a run does not repeat exactly"
    add("--time-limit", type=float, default=argparse.SUPPRESS, metavar="SECONDS", help=text)
    add("--seeds", type=_several(_seed), default="0", metavar="0,1", help="repetitions; 3 or more to see a spread")


def _add_weights(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    text = "of the backbone: a file, a hub id (hf-hub:owner/name), or random\n(default: where they are published)"
    add("--weights", default=argparse.SUPPRESS, help=text)
    text = "of the backbone: a folder or a hub id (default: as published)"
    add("--tokenizer", default=argparse.SUPPRESS, help=text)


def _add_designs(command: argparse.ArgumentParser) -> None:
    text = f"designs of the test prompts: {', '.join(DESIGNS)}"
    command.add_argument("--prompts", type=_several(_one_of(DESIGNS)), default="original", metavar="A,B", help=text)


def _add_prompt(command: argparse.ArgumentParser) -> None:
    text = 'one text instead of every prompt, as in "a polyp in a colonoscopy image"'
    command.add_argument("--prompt", default=argparse.SUPPRESS, metavar="TEXT", help=text)


def _add_scoring(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--n-draws", type=_draws, default=setups.N_DRAWS, help="passes per test image; 0 takes the mean path, in one")
    add("--device", default=argparse.SUPPRESS, help="cpu, cuda, ... (default: a GPU if there is one)")
    add("--out", type=Path, default=Path("protocol-results"), help="folder for models, scores and reports")


# ---- running ------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. Exit status 2 with one line on stderr for anything the caller can put right."""
    options = parser().parse_args(arguments)
    commands = {"data-efficiency": _run_data_efficiency, "out-of-distribution": _run_out_of_distribution}
    try:
        path = commands.get(options.command, _run_evaluate)(options)
    except (ProtocolError, model.ModelError) as error:
        print(f"protocols: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("protocols: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    if path is not None:
        print(f"report: {path}")
    return 0


def _run_data_efficiency(options: argparse.Namespace) -> Path | None:
    jobs = data_efficiency.jobs(options.data, options.percent, options.seeds, options.split, _prompt(options))
    return _train_and_score(jobs, options, data_efficiency.write)


def _run_out_of_distribution(options: argparse.Namespace) -> Path | None:
    jobs = [
        job
        for split in options.split
        for job in out_of_distribution.jobs(
            options.source, options.targets, options.seeds, split, options.prompts, _prompt(options)
        )
    ]
    return _train_and_score(jobs, options, out_of_distribution.write)


def _run_evaluate(options: argparse.Namespace) -> Path | None:
    from model import distributed

    with distributed.join() as device:
        setup = setups.for_checkpoint(options, device)
    given = evaluation.given(options.checkpoint, options.backbone, setup)
    targets = [
        Target(folder, Choice(split=split, design=design, prompt=_prompt(options)))
        for folder in options.data
        for split in options.split
        for design in options.prompts
    ]
    with _progress() as progress:
        _score(given, targets, setup, options.out, progress)
    return evaluation.write(options.out, results.outcomes(options.out))


def _train_and_score(
    jobs: Sequence[Job], options: argparse.Namespace, write: Callable[[Path, Sequence[Outcome]], Path]
) -> Path | None:
    """Every job that is not done, then the report; its path, or None in a process that only helped to train.

    Every folder is read before the first training, so that what can be refused is refused at once. Where several
    processes train together, all wait for each other while they do; scoring is left to one of them, afterwards.
    """
    from model import distributed

    with distributed.join() as device:
        training = setups.for_training(options, device)
        chief, alone = distributed.rank() == 0, distributed.world_size() == 1
        todo = [job for job in jobs if not runs.is_done(job, training, options.out)]
        with _progress(shown=chief) as progress:
            bar = progress.add_task("models", total=len(todo))
            for job in todo:
                trained = _train(job, training, options.out, progress, write=chief)
                if alone:
                    _score(trained, job.targets, training.setup, options.out, progress)
                progress.advance(bar)
    if not chief:
        return None
    if not alone:
        with _progress() as progress:
            for job in todo:
                trained = _train(job, training, options.out, progress)
                _score(trained, job.targets, training.setup, options.out, progress)
    return write(options.out, results.outcomes(options.out))


def _train(job: Job, training: Training, out: Path, progress: Progress, write: bool = True) -> Trained:
    bar = progress.add_task(f"training on {job.choice.percent} % of {job.source.name}", total=None)

    def hear(step: model.Progress) -> None:
        progress.update(bar, completed=step.step, total=step.max_steps)

    try:
        return runs.train(job, training, out, hear, write)
    finally:
        progress.remove_task(bar)


def _score(trained: Trained, targets: Sequence[Target], setup: Setup, out: Path, progress: Progress) -> None:
    bar = progress.add_task("scoring", total=len(targets))
    for outcome in runs.score(trained, targets, setup, out):
        progress.advance(bar)
        progress.console.print(_line(outcome), markup=False, highlight=False, soft_wrap=True)
    progress.remove_task(bar)


def _line(o: Outcome) -> str:
    took = f", {o.steps} steps, {o.seconds:.0f} s" if o.seconds is not None else ""
    trained = f"{o.source} {o.percent} % ({o.n_train} images{took}), " if o.source else ""
    where = f"{trained}seed {o.seed} → {o.data}, {o.split} split, {o.prompts} prompts, {o.n_test} images"
    return (
        f"{where}: DSC {100 * o.dice:.2f}, NSD as published {100 * o.nsd_released:.2f}, boundary NSD {100 * o.nsd:.2f}"
    )


def _progress(shown: bool = True) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown)


# ---- reading words ------------------------------------------------------------------------------------------------


def _prompt(options: argparse.Namespace) -> str | None:
    return getattr(options, "prompt", None)


def _several(convert: Callable[[str], T]) -> Callable[[str], list[T]]:
    """Each once and in the order given, out of a text with commas."""

    def read(text: str) -> list[T]:
        values = list(dict.fromkeys(convert(word.strip()) for word in text.split(",") if word.strip()))
        if not values:
            raise argparse.ArgumentTypeError("name at least one")
        return values

    return read


def _one_of(known: Sequence[str]) -> Callable[[str], str]:
    def read(word: str) -> str:
        if word not in known:
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return word

    return read


def _percent(word: str) -> int:
    return _whole(word, 1, 100)


def _seed(word: str) -> int:
    return _whole(word, 0, 2**31)


def _positive(word: str) -> int:
    return _whole(word, 1, 10**9)


def _draws(word: str) -> int:
    return _whole(word, 0, 10**4)


def _whole(word: str, low: int, high: int) -> int:
    if not word.isdecimal() or not low <= int(word) <= high:
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number from {low} to {high}")
    return int(word)


if __name__ == "__main__":
    sys.exit(main())
