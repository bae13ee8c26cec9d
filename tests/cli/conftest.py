"""A command line without the code behind it."""

import sys
from types import SimpleNamespace

import pytest

from recycle_cli.cli.main import app


@pytest.fixture
def asked(monkeypatch):
    """What `recycle finetune` asks of the code behind it, for these arguments: the job, the model, and how to train
    (or the heads)."""

    def ask(*arguments):
        calls = []

        def note(*arguments):
            calls.append(arguments)
            raise SystemExit

        verb = SimpleNamespace(finetune=note, finetune_heads=note)
        monkeypatch.setitem(sys.modules, "recycle_cli.verbs.finetune", verb)
        monkeypatch.setattr("recycle_cli.cli.finetune.check_there", lambda sources: None)
        with pytest.raises(SystemExit):
            app(["finetune", *map(str, arguments)], standalone_mode=False)
        return calls[0]

    return ask
