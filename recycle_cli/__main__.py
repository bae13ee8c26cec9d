"""`recycle` and `python -m recycle_cli`."""

from recycle_cli.cli.main import main as run
from recycle_cli.runtime.threads import leave_room


def main() -> None:
    """Run the command line, in a process whose threads leave others room."""
    leave_room()
    run()


if __name__ == "__main__":
    main()
