"""Ten minutes of mixed load on `recycle serve --write-back`, every answer checked, with a kill -9 and a restart.

    python experiments/serve_abuse.py FOLDER [SECONDS]

Needs locust and the packages `serve` and `minilm`. FOLDER gets the store, the server's log and its memory; the last
lines say what was asked, what was wrong, how the memory went and what `verify` found. Exit 1 if anything was wrong.
"""

import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()

import gevent
import numpy as np
from locust import FastHttpUser, constant, task
from locust.env import Environment

ROOT = Path(__file__).parents[1]
PORT = 8351
URL = f"http://127.0.0.1:{PORT}"
HEAD = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
USERS = 12


def texts() -> list[str]:
    """The texts of the sample data."""
    found = []
    for name in ("train", "test"):
        with (ROOT / "sample_data" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            found += [row["text"] for row in csv.DictReader(file)]
    return found


class Truth:
    """What each text's vector is, and the counts of what was asked."""

    vectors: dict[str, np.ndarray] = {}  # noqa: RUF012 - of the process
    texts: list[str] = []  # noqa: RUF012
    counts: dict[str, int] = {}  # noqa: RUF012
    wrong: list[str] = []  # noqa: RUF012
    down = True

    @classmethod
    def count(cls, name: str) -> None:
        cls.counts[name] = cls.counts.get(name, 0) + 1

    @classmethod
    def check(cls, asked: list[str], answer: bytes) -> None:
        """Compare an answer with the truth."""
        data = json.loads(answer)["data"]
        if [one["index"] for one in data] != list(range(len(asked))):
            cls.wrong.append(f"places {[one['index'] for one in data]}")
        for text, one in zip(asked, data, strict=True):
            cosine = float(np.dot(cls.vectors[text], np.array(one["embedding"], np.float32)))
            if not cosine >= 0.9999:
                cls.wrong.append(f"cosine {cosine} of {text[:40]!r}")


class Client(FastHttpUser):
    """One client, who asks one thing after another."""

    host = URL
    wait_time = constant(0.01)
    connection_timeout = network_timeout = 60.0

    def ask(self, body: bytes, name: str, allowed: tuple[int, ...], asked: list[str] | None = None) -> None:
        """Ask, and check the status and the vectors. While the server is down nothing is expected."""
        headers = {"Content-Type": "application/json"}
        down = Truth.down
        with self.client.post("/v1/embeddings", data=body, headers=headers, name=name, catch_response=True) as answer:
            answer.success()
            Truth.count(f"{name} {answer.status_code}")
            if answer.status_code == 0 or answer.status_code in (429, 503):
                if answer.status_code == 0 and not (down or Truth.down):
                    Truth.count("refused")
                gevent.sleep(0.05)
            elif answer.status_code not in allowed:
                Truth.wrong.append(f"{name}: status {answer.status_code} {answer.text[:100]!r}")
            elif answer.status_code == 200 and asked is not None:
                Truth.check(asked, answer.content)

    def some(self, most: int) -> list[str]:
        return random.choices(Truth.texts, k=random.randint(1, most))

    def body(self, asked: list[str], **more: object) -> bytes:
        return json.dumps({"model": "minilm", "input": asked, "encoding_format": "float", **more}).encode()

    @task(20)
    def embeddings(self) -> None:
        """A few texts, hits and misses."""
        asked = self.some(4)
        self.ask(self.body(asked), "embed", (200,), asked)

    @task(2)
    def many(self) -> None:
        """More texts than a batch takes."""
        asked = self.some(60)
        self.ask(self.body(asked), "many", (200,), asked)

    @task(2)
    def broken(self) -> None:
        """No JSON, or other JSON."""
        bad = random.choice(
            [b"{", b"[" * 5000, b"\xff\xfe", b'{"model":"minilm"}', b'{"model":1,"input":"a"}', b"null", b""]
        )
        self.ask(bad, "broken", (400,))

    @task(1)
    def oversized(self) -> None:
        """More bytes than are taken."""
        self.ask(self.body(["a" * 300_000]), "oversized", (413,))

    @task(2)
    def hang_up(self) -> None:
        """A request whose client does not wait for the answer, or leaves in the middle of the body."""
        body = self.body([f"{text} {random.random()}" for text in self.some(8)])
        sent = body if random.random() < 0.5 else body[: len(body) // 2]
        try:
            with socket.create_connection(("127.0.0.1", PORT), timeout=5) as wire:
                wire.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + sent)
                gevent.sleep(random.random() * 0.05)
            Truth.count("hung up")
        except OSError:
            gevent.sleep(0.1)

    @task(1)
    def slow(self) -> None:
        """A body that comes byte by byte."""
        asked = self.some(1)
        body = self.body(asked)
        try:
            with socket.create_connection(("127.0.0.1", PORT), timeout=30) as wire:
                wire.sendall(f"{HEAD}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode())
                step = max(1, len(body) // 10)
                for start in range(0, len(body), step):
                    wire.sendall(body[start : start + step])
                    gevent.sleep(0.05)
                answer = b""
                while part := wire.recv(65536):
                    answer += part
            head, _, content = answer.partition(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 200"):
                Truth.check(asked, content)
                Truth.count("slow 200")
        except OSError:
            gevent.sleep(0.1)


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the server, and wait until it answers."""
    options = ["--write-back", "--seal-seconds", "5", "--max-body", "200KB", "--memory", "256KB", "--port", str(PORT)]
    log = (folder / "server.log").open("ab")
    command = [
        sys.executable,
        "-m",
        "recycle_cli",
        "serve",
        "minilm=all-MiniLM-L6-v2",
        "--store",
        str(folder / "store"),
    ]
    process = subprocess.Popen([*command, *options], stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    while subprocess.run(["curl", "-sf", "--noproxy", "*", f"{URL}/health"], capture_output=True).returncode:
        if process.poll() is not None:
            raise SystemExit(f"the server has ended: {(folder / 'server.log').read_text()[-2000:]}")
        gevent.sleep(0.3)
    Truth.down = False
    return process


def resident(pid: int) -> int:
    """Bytes of memory that a process alone takes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def main(folder: Path, seconds: float) -> int:
    """Load, kill, restart, load, and look at what is left."""
    from recycle_cli.keys import Sample, keys_of
    from recycle_cli.models import NamedModel
    from recycle_cli.scorer import open_embedder
    from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings, PredictSettings
    from recycle_cli.store import Store, verify
    from recycle_cli.trunk.stream import trunk_batches
    from recycle_cli.verbs.precompute import precompute

    folder.mkdir(parents=True, exist_ok=True)
    every = texts()
    Truth.texts = every
    with (folder / "held.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in every[: len(every) // 2])])
    model = ModelSettings("all-MiniLM-L6-v2", None, 256)
    data = CorpusSettings((str(folder / "held.csv"),))
    precompute(data, str(folder / "store"), model, PrecomputeSettings(("50%",)))
    scorer = open_embedder(None, NamedModel(model), PredictSettings())
    samples = [Sample(str(number), {"text": text}) for number, text in enumerate(every)]
    for batch in trunk_batches(samples, scorer.preprocessor, 2048):
        window = scorer.find([samples[place] for place in batch.members.tolist()])
        (outputs,) = scorer.from_inputs(batch, window).values()
        for place, vector in zip(batch.members.tolist(), scorer.first.task.vectors(outputs).numpy(), strict=True):
            Truth.vectors[every[place]] = vector
    process = start(folder)
    environment = Environment(user_classes=[Client])
    runner = environment.create_local_runner()
    runner.start(USERS, spawn_rate=USERS)
    began, memory, sealed_before_kill, killed = time.monotonic(), [], 0, False
    while (passed := time.monotonic() - began) < seconds:
        gevent.sleep(5)
        memory.append((round(passed), killed, resident(process.pid)))
        if not killed and passed > seconds / 2:
            sealed_before_kill = len(Store.open(str(folder / "store")))
            Truth.down = True
            process.send_signal(signal.SIGKILL)
            process.wait()
            after = len(Store.open(str(folder / "store")))
            Truth.count(f"samples sealed before the kill {sealed_before_kill}, after it {after}")
            if after < sealed_before_kill:
                Truth.wrong.append("samples were lost that had been sealed")
            process, killed = start(folder), True
    runner.quit()
    Truth.down = True
    process.send_signal(signal.SIGTERM)
    code = process.wait(60)
    if code:
        Truth.wrong.append(f"SIGTERM: exit code {code}")
    found = verify(str(folder / "store"))
    keys, digests = keys_of(samples)
    held = int((Store.open(str(folder / "store")).lookup(keys, digests) >= 0).sum())
    for name, count in sorted(Truth.counts.items()):
        print(f"{name}: {count}")
    for again in (False, True):
        own = [size for _, killed_before, size in memory if killed_before == again]
        some = [size >> 20 for size in own[:: max(1, len(own) // 8)]]
        print(f"memory, MiB, {'after' if again else 'before'} the restart: {some}")
    print(f"verify: {found}")
    print(f"texts in the store: {held} of {len(set(every))}")
    print(f"wrong: {len(Truth.wrong)} {Truth.wrong[:5]}")
    (folder / "memory.json").write_text(json.dumps(memory))
    return 1 if Truth.wrong or found["damaged"] else 0


if __name__ == "__main__":
    threading.stack_size(1 << 20)
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 600.0))
