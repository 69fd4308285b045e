"""Selection by chance: the two controls that every strategy is compared with.

Every function returns (k,) intp, unique, in [0, n), k = min(size, n).
"""

import numpy as np

from strategies.checks import checked_size, checked_strata
from strategies.selection import interleave
from strategies.strata import EMPTY, round_robin

UNIFORM_SHARE = 1 / 3  # nnActive, "Random 66 % FG"


def random(n: int, size: int, rng: np.random.Generator, *, groups: np.ndarray | None = None) -> np.ndarray:
    """Uniform over groups: draw a group that has images left, then one of its images, without replacement.

    groups: (n,), the patient or video of each image. Without groups each image is one: uniform over images.
    A patient with three hundred frames is then no likelier to be met first than one with a single frame.
    """
    order = rng.permutation(n).astype(np.intp)
    checked_size(size)
    return order[:size] if groups is None else order[_by_arrival(np.asarray(groups)[order], rng)][:size]


def foreground_random(
    strata: np.ndarray, size: int, rng: np.random.Generator, *, groups: np.ndarray | None = None
) -> np.ndarray:
    """One third uniform, two thirds among images with predicted foreground, evenly over their classes.

    strata: (n,) whole numbers, the class of each image, -1 without foreground. Both parts draw uniformly over groups
    as `random` does. When foreground runs out, the rest follows by chance. nnActive (arXiv:2511.19183), the baseline
    that no uncertainty there beats reliably; with predicted in the place of true foreground, as nobody has the truth.
    """
    strata = checked_strata(strata)
    order = random(len(strata), len(strata), rng, groups=groups)
    size = min(checked_size(size), len(strata))
    n_uniform = round(UNIFORM_SHARE * size)
    uniform, others = order[:n_uniform], order[n_uniform:]
    foreground = others[strata[others] != EMPTY]
    foreground = foreground[round_robin(strata[foreground])]
    queue = interleave(foreground.tolist(), uniform.tolist(), UNIFORM_SHARE)
    return np.array([*queue, *others[strata[others] == EMPTY].tolist()], dtype=np.intp)[:size]


def _by_arrival(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An order of images that meets, at every step, each group that has images left with the same chance.

    Images of a group arrive as a Poisson process of rate 1, its images in the order given. Such processes have no
    memory, so whichever arrived so far, all groups not yet used up are equally likely to be next: no loop is needed.
    """
    _, group = np.unique(groups, return_inverse=True)
    together = np.argsort(group, kind="stable")
    gaps = rng.exponential(size=len(groups))
    clock = np.cumsum(gaps)
    first = np.flatnonzero(np.diff(group[together], prepend=-1))
    clock -= np.repeat(clock[first] - gaps[first], np.diff(first, append=len(groups)))
    return together[np.argsort(clock, kind="stable")]
