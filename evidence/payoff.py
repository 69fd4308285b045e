"""Is active learning paying? The images that the strategy asked for against those that chance did, in plain words.

Every query carries a random arm, so each round holds its own control: the same model, the same annotators, images drawn
by chance from the same pool. Three things are compared, within rounds, so that a model that gets better does not count
for whichever arm was answered later:

- **dice** of pre-annotation and answer. Where it is lower, the model had more to learn. The random arm's own mean is
  the unbiased estimate of how good pre-annotations are; the strategy's is not, for it picks the bad ones on purpose.
- **seconds** an answer took: what is paid for it.
- **accepted**: the share of pre-annotations submitted as they were.

What this shows: whether the strategy finds images that the model does not know, and at what price. What it does not
show: that labels of such images make a better model than as many random ones. Harder is not the same as more useful (a
blurred image is hard and teaches nothing), and both arms train the same model, so nothing within one project can tell.
That takes a simulation on own data with masks (`python -m simulation`). Nor are answers the truth: whoever waves a bad
pre-annotation through makes it look good, in both arms. And chance draws from what the strategy has left over, so late
in a project the random arm is easier than the data were at first.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from evidence.comparison import LEVEL, MEASURES, Answers, Comparison, Estimate, compare, random_dice

__all__ = ["LEVEL", "Answers", "Comparison", "Estimate", "Paying", "Verdict", "compare", "judge", "random_dice"]

# Dice. Where the interval leaves no room for images harder by this much, the strategy is no better than chance at it.
WORTH = 0.03


class Verdict(enum.StrEnum):
    """What the Dice of pre-annotations says of the strategy's images."""

    harder = "harder"
    easier = "easier"
    no_sign = "no sign"
    unclear = "unclear"
    too_few = "too few"


@dataclass(frozen=True)
class Paying:
    """The verdict, sentences in plain words with the verdict's first, the comparisons by measure, and how good
    pre-annotations of random images are (None where too few are known).
    """

    verdict: Verdict
    words: tuple[str, ...]
    comparisons: Mapping[str, Comparison]
    random_dice: Estimate | None


def judge(answers: Answers, seed: int = 0) -> Paying:
    """Compare all measures and say what they mean. The seed is of the resampling alone."""
    found = {measure: compare(answers, measure, seed) for measure in MEASURES}
    verdict, quality = verdict_of(found["dice"]), random_dice(answers, seed)
    words = (
        _dice_in_words(found["dice"], verdict),
        _seconds_in_words(found["seconds"]),
        _accepted_in_words(found["accepted"]),
        f"pre-annotations of random images had a Dice of {quality.value:.2f} ({quality.low:.2f} to {quality.high:.2f})"
        if quality
        else None,
    )
    return Paying(verdict, tuple(each for each in words if each), found, quality)


def verdict_of(dice: Comparison) -> Verdict:
    """A lower Dice of the strategy's pre-annotations means harder images."""
    if dice.difference is None:
        return Verdict.too_few
    if dice.difference.high < 0:
        return Verdict.harder
    if dice.difference.low > 0:
        return Verdict.easier
    return Verdict.no_sign if dice.difference.low > -WORTH else Verdict.unclear


def _dice_in_words(found: Comparison, verdict: Verdict) -> str:
    if found.difference is None:
        return f"cannot tell yet: {found.why_not}"
    value, low, high = found.difference
    if verdict is Verdict.harder:
        return (
            f"the strategy's images were {-value:.2f} Dice harder than random ones ({-high:.2f} to {-low:.2f}): "
            "it finds what the model does not know"
        )
    if verdict is Verdict.easier:
        return (
            f"the strategy's images were {value:.2f} Dice easier than random ones ({low:.2f} to {high:.2f}): "
            "it asks for what the model knows already; another strategy may do better"
        )
    between = f"{-low:.2f} Dice harder and {high:.2f} easier"
    if verdict is Verdict.no_sign:
        return (
            f"no sign that it finds harder images than chance: the strategy's were between {between} than random ones"
        )
    return f"cannot tell yet: the strategy's images may be anything between {between} than random ones"


def _seconds_in_words(found: Comparison) -> str | None:
    if found.difference is None:
        return None
    value, low, high = found.difference
    if low <= 0 <= high:
        return f"each took about as long as a random one ({value:+.0f} s, {low:+.0f} to {high:+.0f})"
    return f"each took {abs(value):.0f} s {'longer' if value > 0 else 'less'} ({low:+.0f} to {high:+.0f})"


def _accepted_in_words(found: Comparison) -> str | None:
    if found.difference is None:
        return None
    value, low, high = (100 * each for each in found.difference)
    if low <= 0 <= high:
        return f"about as many of 100 were accepted as they were ({value:+.0f}, {low:+.0f} to {high:+.0f})"
    word = "more" if value > 0 else "fewer"
    return f"{abs(value):.0f} {word} of 100 were accepted as they were ({low:+.0f} to {high:+.0f})"
