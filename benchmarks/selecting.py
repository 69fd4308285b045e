"""How long ranking a large pool takes and how much memory, against scikit-activeml in the same run.

Claim: a query of 500 out of 100,000 images with 512-d embeddings in at most 60 s and 2 GB on two CPU cores, by every
strategy that looks at embeddings; and no slower than scikit-activeml where it has the same strategy. Every measurement
is a process of its own, which builds the pool, selects once and reports seconds of the selection alone and the peak
memory of the whole process, pool included. On a machine that does other work at the same time, trust the seconds of
processor (all threads together) in brackets. The pool is made up: groups of twenty similar images around common themes.

scikit-activeml is no dependency of ours. To measure it too, put it in an environment by itself and name its python:

    python -m venv peer && peer/bin/pip install scikit-activeml
    python benchmarks/selecting.py --peer peer/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, LABELLED, IMAGES_PER_GROUP, THEMES = 512, 100, 20, 200
OURS = ("core_set", "typiclust", "badge", "hybrid, first query", "hybrid, later")
PEERS = ("core_set", "typiclust", "badge")
GOAL_SECONDS, GOAL_GB = 60.0, 2.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", default="1000,10000,100000", help="images in the pool (default: %(default)s)")
    parser.add_argument("--query-size", type=int, default=500, help="images asked for (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each; the median counts (default: 3)")
    parser.add_argument("--peer", metavar="PYTHON", help="python of an environment with scikit-activeml")
    parser.add_argument("--peer-limit", type=float, default=600, help="seconds it may take (default: %(default)s)")
    parser.add_argument("--one", nargs=3, metavar=("WHOSE", "STRATEGY", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        whose, name, n = options.one
        print(json.dumps(one(whose, name, int(n), options.query_size)))
        return
    print(f"query of {options.query_size}, {WIDTH}-d embeddings, {options.threads} threads\n")
    print(
        "| pool | strategy | seconds (CPU) | peak GB | scikit-activeml, seconds (CPU) | peak GB | theirs / ours (CPU) |"
    )
    print("|---|---|---|---|---|---|---|")
    missed = [line for n in map(int, options.pools.split(",")) for name in OURS for line in row(options, name, n)]
    if not options.peer:
        print("\nNOT MEASURED: scikit-activeml; name the python of an environment that has it with --peer")
    print("\n" + ("\n".join(missed) or f"every selection within {GOAL_SECONDS:.0f} s and {GOAL_GB:.0f} GB"))


def row(options: argparse.Namespace, name: str, n: int) -> list[str]:
    """Measure and print one line of the table; returns what misses a goal."""
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    # Taking turns, so that a busy moment of the machine meets both.
    for _ in range(options.repeats):
        ours += measured(options, sys.executable, "ours", name, n, None)
        if options.peer and name in PEERS:
            theirs += measured(options, options.peer, "theirs", name, n, options.peer_limit)
    seconds, processor, memory = (median(ours, what) for what in ("seconds", "processor", "gigabytes"))
    peer, ratio = "– | –", "–"
    if theirs:
        waited, worked, held = (median(theirs, what) for what in ("seconds", "processor", "gigabytes"))
        peer = f"{waited:.2f} ({worked:.2f}) | {held:.2f}"
        ratio = f"{waited / seconds:.1f} ({worked / processor:.1f})"
    elif options.peer and name in PEERS:
        peer = f"gave up after {options.peer_limit:.0f} s or for want of memory | –"
    print(f"| {n:,} | {name} | {seconds:.2f} ({processor:.2f}) | {memory:.2f} | {peer} | {ratio} |", flush=True)
    late = [f"MISSED: {name} of {n:,} took {seconds:.0f} s"] if seconds > GOAL_SECONDS else []
    return late + ([f"MISSED: {name} of {n:,} took {memory:.1f} GB"] if memory > GOAL_GB else [])


def median(found: list[dict[str, float]], what: str) -> float:
    """The middle one of the repetitions."""
    return statistics.median(answer[what] for answer in found)


def measured(
    options: argparse.Namespace, python: str, whose: str, name: str, n: int, limit: float | None
) -> list[dict[str, float]]:
    """One process; nothing when it ran out of time or memory."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads))
    threads["OMP_WAIT_POLICY"] = "PASSIVE"  # a waiting thread takes no processor from another program
    command = [python, __file__, "--query-size", str(options.query_size), "--one", whose, name, str(n)]
    environment = {**os.environ, **threads, "PYTHONPATH": str(Path(__file__).parents[1])}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return []
    if done.returncode == 0:
        return [json.loads(done.stdout)]
    if whose == "ours" or "MemoryError" not in done.stderr:
        sys.exit(f"{whose} {name} on {n} images failed:\n{done.stderr}")
    return []


def one(whose: str, name: str, n: int, size: int) -> dict[str, float]:
    """Seconds of one selection, and the peak memory of this process in GB."""
    pool = made_up(n)
    select = (ours if whose == "ours" else theirs)(name, pool, size)
    began, worked = time.perf_counter(), time.process_time()
    positions = select()
    seconds, processor = time.perf_counter() - began, time.process_time() - worked
    assert len(set(np.asarray(positions).tolist())) == min(size, n)
    # Kilobytes on Linux, bytes on macOS.
    unit = 1e9 if sys.platform == "darwin" else 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {"seconds": seconds, "processor": processor, "gigabytes": peak}


def made_up(n: int) -> dict[str, np.ndarray]:
    """A pool of n images in groups of similar ones, and some labelled."""
    rng = np.random.default_rng(0)
    themes = rng.normal(size=(THEMES, WIDTH)).astype(np.float32)
    groups = np.arange(n + LABELLED) // IMAGES_PER_GROUP
    of_group = themes[rng.integers(THEMES, size=groups[-1] + 1)]
    of_group += 0.7 * rng.normal(size=of_group.shape).astype(np.float32)
    rows = rng.standard_normal((n + LABELLED, WIDTH), dtype=np.float32)
    rows *= 0.3
    rows += of_group[groups]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return {
        "scores": rng.gamma(2.0, 0.1, size=n),
        "embeddings": rows[:n],
        "labelled_embeddings": rows[n:],
        "groups": groups[:n].astype(str),
        "strata": rng.integers(-1, 4, size=n),
    }


def ours(name: str, pool: dict[str, np.ndarray], size: int) -> Callable[[], np.ndarray]:
    """Our selection, ready to run."""
    import sklearn.cluster
    import sklearn.neighbors  # noqa: F401  loading the library is no part of the selection, here or there

    import strategies

    base, _, query = name.partition(", ")
    strategy, given = strategies.get(base), strategies.Pool(**pool)
    rng, round_number = np.random.default_rng(0), int(query == "later")
    return lambda: strategy.select(given, size, rng, round_number=round_number)


def theirs(name: str, pool: dict[str, np.ndarray], size: int) -> Callable[[], np.ndarray]:
    """scikit-activeml's, ready to run: labelled and unlabelled rows in one matrix, the labels of the latter missing."""
    from skactiveml.classifier import SklearnClassifier
    from skactiveml.pool import Badge, CoreSet, TypiClust
    from sklearn.linear_model import LogisticRegression

    rows = np.concatenate([pool["embeddings"], pool["labelled_embeddings"]])
    labels = np.full(len(rows), np.nan)
    labels[len(pool["embeddings"]) :] = np.arange(LABELLED) % 2
    arguments: dict[str, Any] = {"X": rows, "y": labels, "batch_size": size}
    if name != "badge":
        return lambda: {"core_set": CoreSet, "typiclust": TypiClust}[name](random_state=0).query(**arguments)
    # Its classifier is no part of the selection: fitted before the clock starts.
    fitted = SklearnClassifier(LogisticRegression(), classes=[0, 1]).fit(rows, labels)
    return lambda: Badge(random_state=0).query(clf=fitted, fit_clf=False, **arguments)


if __name__ == "__main__":
    main()
