"""What every process of test_training_distributed runs: torchrun … torchrun_program.py FOLDER."""

import dataclasses
import sys
from pathlib import Path

import torch

from model import Example, distributed, fine_tune
from model.network import Network
from tests.model.runs import SHORT, Stopped, small, weights

# A contrast heavy enough to matter, a rate so small that rounding stays rounding, and no clipping to hide a gradient
# of the wrong length.
SHARED = dataclasses.replace(
    SHORT, max_steps=4, batch_size=5, contrastive_weight=3.0, learning_rate=1e-4, max_gradient_norm=None
)
LEFT_OVER = dataclasses.replace(SHARED, short_batch="keep")  # 5 images, then 1: one process has none
TIMED = dataclasses.replace(SHARED, max_steps=50, time_limit_seconds=3.5)
WORDS = ("bright", "dark", "large")


def examples_in(folder):
    """The six discs somebody wrote there, told apart by their prompts."""
    return [
        Example(folder / f"image-{i}.png", folder / f"mask-{i}.png", f"a {WORDS[i % 3]} disc", f"g{i}")
        for i in range(6)
    ]


def every(seconds):
    """A clock that goes on by so many seconds whenever it is asked."""
    asked = iter(range(1000))
    return lambda: float(next(asked) * seconds)


def stopping(after):
    """A clock that ends the run the so-manieth time it is asked."""
    asked = iter(range(after))

    def clock():
        try:
            return float(next(asked))
        except StopIteration:
            raise Stopped from None

    return clock


def run_all(folder):
    """Name → weights of each training, and the validations of the first, where they are told."""
    examples, start, dice = examples_in(folder), small(), []
    shared = fine_tune(
        start, examples[:5], SHARED, validation=examples[3:], on_progress=lambda p: dice.append(p.validation_dice)
    )
    left_over = fine_tune(start, examples, LEFT_OVER)
    # The slower clock is not asked, or the processes would part.
    timed = fine_tune(start, examples, TIMED, clock=every(1 + distributed.rank()))
    answers = {"shared": shared, "left over": left_over, "timed": timed, "resumed": _resumed(folder, start, examples)}
    return {name: weights(answer) for name, answer in answers.items()}, dice


def _resumed(folder, start, examples):
    """Stopped in every process after the third step, then gone on with from what the first has written."""
    state = folder / f"state-of-{distributed.world_size()}"
    try:
        fine_tune(start, examples, SHARED, resume_from=state, clock=stopping(9))
    except Stopped:
        steps = []
        answer = fine_tune(start, examples, SHARED, resume_from=state, on_progress=lambda p: steps.append(p.step))
        assert distributed.rank() or steps[0] == 4, steps
        return answer
    raise AssertionError("the run was to be stopped")


def short_of_memory(folder):
    """Only the last process cannot take two images at a time."""
    forward = Network.forward

    def limited(self, images, tokens, *others):
        if distributed.rank() and len(tokens) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images, tokens, *others)

    Network.forward = limited  # type: ignore[method-assign]
    sizes = []
    answer = fine_tune(small(), examples_in(folder), SHARED, on_progress=lambda p: sizes.append(p.micro_batch_size))
    Network.forward = forward  # type: ignore[method-assign]
    assert distributed.rank() or sizes[-1] == 1, sizes
    return weights(answer)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with distributed.join():
        learnt, dice = run_all(folder)
        learnt["short of memory"] = short_of_memory(folder)
        torch.save((learnt, dice), folder / f"learnt-{distributed.rank()}.pt")
