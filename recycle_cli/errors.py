"""Every failure a user can cause, drawn as one tree; the command line turns each into one line and an exit code.

RecycleError                1
  UsageError                2   an option or a combination of options that cannot work
  DataError                 3   the corpus or the labels are not what the task needs
    ModelError              3   a model that cannot be found, loaded or cut
  StoreError                4   a store or a RUN that is damaged, foreign or made otherwise
    MismatchError           4   the fingerprint is not the one asked for; names the field that differs
    DamageError             4   bytes that are not what was sealed
    GoneError               4   a segment that was removed since the store was opened
  MissingError              5   samples whose activations are not in the store
  BarError                  6   a bar set by the user was not met
  StorageError              4   the disk is full, read-only or unreachable
"""


class RecycleError(Exception):
    """An expected failure. The message names the value, what was expected and the remedy, in one line."""

    exit_code = 1


class UsageError(RecycleError):
    """An option or a combination of options that cannot work."""

    exit_code = 2


class DataError(RecycleError):
    """Input data that the task cannot use."""

    exit_code = 3


class ModelError(DataError):
    """A model that cannot be found, loaded or cut."""


class StoreError(RecycleError):
    """A store or a RUN that is not one, or is not usable."""

    exit_code = 4


class MismatchError(StoreError):
    """A store made with another recipe; the message names the field that differs."""


class DamageError(StoreError):
    """Stored bytes that are not the sealed ones."""


class GoneError(StoreError):
    """A segment that `gc` or `verify --repair` removed since the store was opened; a refresh sees what is there now."""


class StorageError(StoreError):
    """The disk is full, read-only or unreachable."""


class MissingError(RecycleError):
    """Activations that the store does not hold."""

    exit_code = 5


class BarError(RecycleError):
    """A bar set by the user was not met."""

    exit_code = 6


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM. Not an Exception, so that nothing between the signal and the command line swallows it."""

    exit_code = 130
