"""Laws of what is remembered: made once, bounded, the least recently used goes first."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from backend.recent import Recent


def test_a_value_is_made_once_and_the_least_recently_used_goes_first():
    recent, made = Recent(limit_bytes=30), []

    def make(key: str) -> np.ndarray:
        made.append(key)
        return np.zeros(10, np.uint8)

    def get(key: str) -> np.ndarray:
        return recent.get(key, lambda: make(key))

    for key in "abcaad":  # d makes b go
        get(key)
    assert made == list("abcd")
    get("a"), get("c"), get("d")
    assert made == list("abcd")
    get("b")
    assert made == list("abcdb")
    assert recent.nbytes == 30


def test_what_is_larger_than_the_bound_is_given_but_not_kept():
    recent = Recent(limit_bytes=30)
    assert len(recent.get("large", lambda: np.zeros(31, np.uint8))) == 31
    assert recent.nbytes == 0


def test_what_could_not_be_made_is_tried_again():
    recent = Recent(limit_bytes=30)
    with pytest.raises(ZeroDivisionError):
        recent.get("a", lambda: np.zeros(1 // 0))
    assert len(recent.get("a", lambda: np.zeros(2, np.uint8))) == 2


def test_threads_that_ask_at_the_same_time_wait_for_one_making():
    recent, made = Recent(limit_bytes=30), []
    making, others_wait = threading.Event(), threading.Event()

    def make() -> np.ndarray:
        making.set()
        others_wait.wait(5)
        made.append(1)
        return np.zeros(3, np.uint8)

    threads = [threading.Thread(target=recent.get, args=("a", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert making.wait(5)
    assert recent.get("b", lambda: np.zeros(1, np.uint8)) is not None, "other keys do not wait"
    others_wait.set()
    for thread in threads:
        thread.join(10)
    assert made == [1]
