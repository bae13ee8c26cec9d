"""All failures that a user can cause, as one tree. The command line turns each into one line and an exit code.

RecycleError                1
  WorkerError               1   work that workers on a cluster did not finish: their processes ended again and again
  UsageError                2   an option or a combination of options that cannot work
  DataError                 3   the corpus or the labels do not suit the task
    ModelError              3   a model that cannot be found, loaded or cut
  StoreError                4   a store or a RUN that is damaged, foreign or made with other settings
    MismatchError           4   the recipe is not the one asked for; the message names the field that differs
    DamageError             4   bytes that differ from what was sealed
    GoneError               4   a segment that was removed since the store was opened
  MissingError              5   samples whose activations are not in the store
  BarError                  6   a bar set by the user was not met
  RankError                 8   one of the processes that train together has ended
  StorageError              4   the disk is full, read-only or unreachable
    UnreadError             7   parts of a store could not be read, so that nobody knows whether they are whole
"""

from typing import Any


class RecycleError(Exception):
    """An expected failure. The message names the value, what was expected and the remedy, in one line."""

    exit_code = 1


class WorkerError(RecycleError):
    """Work that workers on a cluster did not finish, since their processes ended again and again."""


class UsageError(RecycleError):
    """An option or a combination of options that cannot work."""

    exit_code = 2


class DataError(RecycleError):
    """Input data that the task cannot use."""

    exit_code = 3


class ModelError(DataError):
    """A model that cannot be found, loaded or cut."""


class StoreError(RecycleError):
    """A path that holds no store or RUN, or one that cannot be used."""

    exit_code = 4


class MismatchError(StoreError):
    """A store made with another recipe; the message names the field that differs."""


class DamageError(StoreError):
    """Stored bytes that differ from what was sealed."""


class GoneError(StoreError):
    """A segment that `gc` or `verify --repair` removed since the store was opened; `Store.refresh` recovers."""


class StorageError(StoreError):
    """The disk is full, read-only or unreachable."""


class UnreadError(StorageError):
    """Parts of a store that could not be read: they count as neither sound nor damaged."""

    exit_code = 7


class MissingError(RecycleError):
    """Activations that the store does not hold."""

    exit_code = 5


class BarError(RecycleError):
    """A bar set by the user was not met. `report`: that of the command, which has done its work nevertheless."""

    exit_code = 6

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class RankError(RecycleError):
    """One of the processes that train together has ended, so that the others cannot go on."""

    exit_code = 8


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM. It is no Exception, so that no handler between the signal and the command line swallows it.

    A command that knows what it has finished raises it again with a message.
    """

    exit_code = 130


class PipeClosed(BaseException):
    """Whoever read stdout has ended, as `head` does when it has enough: no failure, and nobody is left to be told."""

    exit_code = 141
