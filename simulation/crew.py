"""All arms of a simulation, several at a time: each in one process, each kept round by round so that it can go on."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import strategies
from simulation import results
from simulation.dataset import Pair
from simulation.learner import SharedStart
from simulation.loop import ALL, Arm, Learner, Plan, Record, with_all_labels

MakeLearner = Callable[[], Learner[Any]]


@dataclass(frozen=True)
class Job:
    """What every arm of a simulation has in common. make_learner is called once a process."""

    plan: Plan
    pool: Sequence[Pair]
    held_out: Sequence[Pair]
    out: Path
    make_learner: MakeLearner
    threads: int = 0


def run(job: Job, arms: Sequence[tuple[str, int]], n_processes: int) -> Iterator[Record]:
    """Each newly finished round of the arms (strategy or ALL, seed), in the order in which they finish."""
    if n_processes == 1 or len(arms) < 2:
        learner = _learner(job)
        for strategy, seed in arms:
            yield from run_arm(job, learner, strategy, seed)
        return
    yield from _in_processes(job, arms, n_processes)


def run_arm(job: Job, learner: Learner[Any], strategy: str, seed: int) -> Iterator[Record]:
    """The rounds of one arm that its file does not hold yet, each kept there before it is told."""
    done = results.load_arm(job.out, strategy, seed)
    for record in _rounds(job, learner, strategy, seed, done):
        done.append(record)
        results.save_arm(job.out, done)
        yield record


def _rounds(job: Job, learner: Learner[Any], strategy: str, seed: int, done: Sequence[Record]) -> Iterator[Record]:
    if strategy != ALL:
        yield from Arm(strategies.get(strategy), seed, job.plan, learner, job.pool, job.held_out).run(done)
    elif not done:
        yield with_all_labels(learner, seed, job.pool, job.held_out)


def _learner(job: Job) -> Learner[Any]:
    return SharedStart(job.make_learner(), job.plan.seed_size)


def _in_processes(job: Job, arms: Sequence[tuple[str, int]], n_processes: int) -> Iterator[Record]:
    # Started anew rather than forked: torch does not survive a fork.
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(n_processes, context, initializer=_begin, initargs=(job,)) as pool,
    ):
        news: queue.Queue[Record] = manager.Queue()
        running: set[Future[None]] = {pool.submit(_work, strategy, seed, news) for strategy, seed in arms}
        try:
            while running:
                done, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                yield from _drained(news)
                for future in done:
                    future.result()
            yield from _drained(news)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _drained(news: queue.Queue[Record]) -> Iterator[Record]:
    while not news.empty():
        yield news.get()


_state: dict[str, Any] = {}  # of a process of the pool: what every arm has in common, and its learner


def _begin(job: Job) -> None:
    if job.threads:
        import torch

        torch.set_num_threads(job.threads)
    _state.update(job=job, learner=_learner(job))


def _work(strategy: str, seed: int, news: queue.Queue[Record]) -> None:
    parent = multiprocessing.parent_process()
    for record in run_arm(_state["job"], _state["learner"], strategy, seed):
        if parent is not None and not parent.is_alive():
            return  # it was killed, and nobody else would stop us for hours
        news.put(record)
