"""`recycle` and `python -m recycle_cli`."""

from recycle_cli.runtime.signals import end_on_signals
from recycle_cli.runtime.streams import open_streams
from recycle_cli.runtime.threads import leave_room


def main() -> None:
    """Run the command line, in a process whose threads leave others room."""
    end_on_signals()
    open_streams()
    leave_room()
    # Not at the top: importing takes a while, in which a signal may come.
    from recycle_cli.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
