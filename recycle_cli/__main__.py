"""`recycle` and `python -m recycle_cli`."""

from recycle_cli.cli.main import main as run
from recycle_cli.runtime.threads import spin_less


def main() -> None:
    """Run the command line, in a process whose threads leave others room."""
    spin_less()
    run()


if __name__ == "__main__":
    main()
