"""Which image next: numpy in, positions out. No I/O, no torch, no ids, no logging."""

from strategies.errors import StrategyError
from strategies.registry import DEFAULT, Pool, Strategy, get, names
from strategies.selection import interleave

__all__ = ["DEFAULT", "Pool", "Strategy", "StrategyError", "get", "interleave", "names"]
