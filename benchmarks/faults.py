"""Do everything to a running Wardround that may happen to it, and count what it lost.

    python benchmarks/faults.py [--kills 50] [--seconds N] [--seed N] [--only WORDS]
        [--stack sqlite|postgres-redis|postgres-rabbitmq|all]

Two workers, two beats and an API work on a project of small images while workers are killed at every step, messages
vanish or come twice, the database is locked, the disk fills and Label Studio falls silent. After each fault the rounds
must end as if nothing had happened; the table says what was counted. The exit status is 1 when something was violated.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.faults.campaign import FAULTS, Tally, once
from tests.faults.cluster import Cluster, TooSlowError
from tests.faults.stacks import NAMES, NotHereError, small_disk, stack

COLUMNS = (
    "fault",
    "times",
    "rounds done",
    "re-claims",
    "lost annotations",
    "doubled rounds",
    "doubled predictions",
    "verdict",
)


def main() -> int:
    arguments = _arguments()
    # Ended politely, it takes its processes, databases and file systems with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    holds = True
    for name in NAMES if arguments.stack == "all" else (arguments.stack,):
        try:
            tallies = campaign(name, arguments.kills, arguments.seconds, arguments.seed, arguments.only)
        except NotHereError as error:
            print(f"!! SKIPPED: {name}: {error}", flush=True)
            continue
        _show(name, tallies)
        holds = holds and not any(tally.violations for tally in tallies)
    return 0 if holds else 1


def campaign(name: str, kills: int, seconds: float, seed: int, only: str) -> list[Tally]:
    """Faults on one stack: each once, then kills until there were so many, within the time; what they did."""
    rng = np.random.default_rng(seed)
    tallies = {fault: Tally(fault) for fault in FAULTS if only in fault}
    plan = deque(_plan(list(tallies), kills))
    ends_at = time.monotonic() + seconds
    # What comes after a violation would be judged for what it left, so a new cluster goes on.
    while plan and time.monotonic() < ends_at:
        _until_violated(name, plan, tallies, rng, ends_at)
    return list(tallies.values())


def _until_violated(
    name: str, plan: deque[str], tallies: dict[str, Tally], rng: np.random.Generator, ends_at: float
) -> None:
    """One cluster's share of the plan: all that is left, or what comes before a violation."""
    with ExitStack() as leaving:
        folder = Path(leaving.enter_context(tempfile.TemporaryDirectory(prefix="wardround-faults-")))
        data_dir = folder / "data"
        data_dir.mkdir()
        if not leaving.enter_context(small_disk(data_dir)):
            print("!! no file system of its own for the data: the disk will not be filled", flush=True)
        services = leaving.enter_context(stack(name, data_dir))
        cluster = leaving.enter_context(Cluster(folder, data_dir, services))
        cluster.wait_for("the first round", cluster.rounds)
        cluster.quiet()
        while plan and time.monotonic() < ends_at:
            if not _judge(cluster, tallies[plan.popleft()], rng):
                return


def _plan(faults: Sequence[str], kills: int) -> Iterator[str]:
    """Every fault once, then the kills in turn."""
    yield from faults
    deadly = [fault for fault in faults if "killed" in fault]
    for fault, _ in zip(cycle(deadly), range(kills - len(deadly)), strict=False):
        yield fault


def _judge(cluster: Cluster, tally: Tally, rng: np.random.Generator) -> bool:
    """Do one fault; False when it violated something now."""
    if tally.skipped:
        return True
    known, started = len(tally.violations), time.monotonic()
    try:
        once(cluster, tally.fault, rng, tally)
    except TooSlowError as error:
        tally.times += 1
        tally.violations.append(str(error).partition("\n")[0])
    new = tally.violations[known:]
    print(
        f"{time.monotonic() - started:4.0f} s  {tally.fault}: {'; '.join(new) or tally.skipped or 'holds'}", flush=True
    )
    if new:
        print(cluster.state(), flush=True)
    return not new


def _show(name: str, tallies: Sequence[Tally]) -> None:
    table = Table(*COLUMNS, title=f"faults on {name}")
    for tally in tallies:
        counts = (tally.times, tally.rounds_done, tally.reclaims, tally.lost_annotations)
        doubled = (tally.doubled_rounds, tally.doubled_predictions)
        verdict = tally.verdict if tally.times or tally.skipped else "not reached"
        table.add_row(tally.fault, *map(str, (*counts, *doubled)), verdict)
    Console(width=170).print(table)
    print(
        f"{name}: {sum(tally.times for tally in tallies)} faults, {sum(tally.rounds_done for tally in tallies)} rounds"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="faults that kill something, on each stack")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no new fault after so long, on each stack")
    parser.add_argument("--stack", choices=(*NAMES, "all"), default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="faults whose name holds this")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
