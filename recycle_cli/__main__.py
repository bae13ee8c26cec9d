"""`recycle` and `python -m recycle_cli`."""

from recycle_cli.cli.main import main

if __name__ == "__main__":
    main()
