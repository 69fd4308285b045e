"""What can be wrong with figures that a judgement is asked of. Every message names the place and the cure."""


class EvidenceError(Exception):
    """Base of every error of this room."""


class BadFigures(EvidenceError):
    """Figures that are none: not finite, out of range, or arrays that disagree."""


class TooFewRounds(EvidenceError):
    """Fewer points of a learning curve than a forecast can stand on."""


class TooFewGroups(EvidenceError):
    """Fewer groups, which are what counts, than something needs."""

    def __init__(self, n_groups: int, least: int, what: str) -> None:
        super().__init__(f"{what} needs {least} annotated groups, and there are {n_groups}; annotate more of them")
