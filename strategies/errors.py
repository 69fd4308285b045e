"""What can be wrong with what a strategy is given. Every message names the place and the cure."""


class StrategyError(Exception):
    """Base of every error of this room."""


class UnknownStrategy(StrategyError):
    """No strategy is registered under that name."""


class BadDraws(StrategyError):
    """Draws of one image that are not (N, h, w) probabilities."""


class BadScores(StrategyError):
    """Scores of a pool that cannot be ranked."""


class BadPool(StrategyError):
    """A pool whose arrays disagree, or that lacks what the strategy needs."""


class NotScored(StrategyError):
    """A score was asked of a strategy that ranks without one."""


class BadRequest(StrategyError):
    """A size or share that means nothing: negative, or not between 0 and 1."""
