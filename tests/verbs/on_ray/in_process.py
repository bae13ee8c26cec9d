"""A stand-in for the module `ray` whose actors are real workers in this process, one call after another."""

from contextlib import contextmanager
from types import SimpleNamespace

from recycle_cli.verbs.on_ray import driver


class InProcess:
    """Two nodes of two CPUs."""

    exceptions = SimpleNamespace(RayError=ConnectionError)

    def __init__(self):
        self.resources = []

    def remote(self, **options):
        return lambda worker: SimpleNamespace(options=lambda **asked: self._maker(worker, asked))

    def _maker(self, worker, asked):
        self.resources.append(asked)
        return SimpleNamespace(remote=lambda work: self._made(worker(work)))

    def _made(self, worker):
        def method(name):
            call = SimpleNamespace(remote=lambda *given: (getattr(worker, name), given, object()))
            return SimpleNamespace(remote=call.remote, options=lambda **group: call)

        return SimpleNamespace(**{name: method(name) for name in ("open", "fill", "records", "stop")})

    def wait(self, refs, *, num_returns, timeout):
        return refs[:1], refs[1:]

    def get(self, ref):
        function, given, _ = ref
        return function(*given)

    def kill(self, actor):
        pass

    def nodes(self):
        return [{"NodeID": f"{number}", "Alive": True, "Resources": {"CPU": 2.0}} for number in range(2)]

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: "0")


def in_place_of_ray(monkeypatch):
    """Let the driver find this in place of a cluster."""
    ray = InProcess()

    @contextmanager
    def joined(engine):
        yield ray

    monkeypatch.setattr(driver, "joined", joined)
    monkeypatch.setitem(__import__("sys").modules, "ray", ray)
    return ray
