"""What can be wrong with figures that a judgement is asked of. Every message names the place and the cure."""


class EvidenceError(Exception):
    """Base of every error of this room."""


class BadFigures(EvidenceError):
    """Figures that are none: not finite, out of range, or arrays that disagree."""


class TooFewRounds(EvidenceError):
    """Fewer points of a learning curve than a forecast can stand on."""


class TooFewGroups(EvidenceError):
    """Too few groups for a bound that holds as often as it was asked to."""

    def __init__(self, n_groups: int, least: int, level: float) -> None:
        super().__init__(
            f"a bound that holds {level:.0%} of the time needs answers from {least} held-out groups, and there are "
            f"{n_groups}; annotate more of them, or ask for a lower level"
        )
