"""Which of several processes that run one command says how it has failed: they would all say it, or none."""

import os
import time
from collections.abc import Callable

Speaker = Callable[[str, bool], str | None]

LATER = 3.0
"""Seconds that the others leave the first process to say what is wrong with the words of the command."""

_speaker: list[Speaker] = []


def speak_through(speaker: Speaker) -> None:
    """Let `speaker` decide from now on what this process says of a failure: it takes the message, and whether another
    process may have failed instead, and returns what is to be said; None for nothing."""
    _speaker[:] = [speaker]


def launched_as() -> int:
    """The number that a launcher has given this process among others, from 0; 0 without a launcher."""
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isdecimal() and "WORLD_SIZE" in os.environ else 0


def last_word(message: str, *, of_others: bool = False, of_words: bool = False) -> str | None:
    """What this process says of a failure; None if another one says it.

    of_others  it was interrupted, or could not reach the others, which may be because one of them has failed
    of_words   the words of the command alone are wrong, so that every process says so
    """
    if _speaker:
        return _speaker[-1](message, of_others)
    rank = launched_as()
    if not rank:
        return message
    if of_words:
        time.sleep(LATER)  # a launcher ends all processes when the first of them has ended
    return None if of_words or of_others else f"rank {rank}: {message}"
