"""A step of data-parallel training over slow networks: two ranks, each in a network namespace of its own.

    sudo python experiments/network.py train.jsonl --rates none,1gbit,100mbit

Every rank's interface is limited by a token bucket (`tc qdisc ... tbf`); `none` leaves it as fast as the kernel is. The
trainings are those of `recycle bench finetune --ranks 2`, on the first texts of the file: the whole model, what lies
behind the cut from the inputs and from a store, and with blocks that freeze and rows that are kept. Needs Linux, `ip`
and `tc`, and the rights to make namespaces. Prints one JSON object a rate and way of training.
"""

import argparse
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from recycle_cli.bench.layout import PARALLEL
from recycle_cli.bench.ranks import Launched, arguments_of, figures_of, launch, write_data
from recycle_cli.bench.subject import subject_of
from recycle_cli.settings import MINILM, BenchSettings, CorpusSettings, ModelSettings

BRIDGE, NETWORK = "recycle-net", "10.213.77"
_starts = count()


def run(*words: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(words, check=True, capture_output=True)


@contextmanager
def network(rate: str) -> Iterator[Launched]:
    """Two namespaces on a bridge, with this rate each way; removed at the end."""
    names, inners = ["recycle-0", "recycle-1"], []
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    try:
        run("ip", "addr", "add", f"{NETWORK}.254/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        for number, name in enumerate(names):
            run("ip", "netns", "add", name)
            start = next(_starts)  # the kernel takes a while to remove those of the last one
            outer, inner = f"rcl-{start}-out", f"rcl-{start}-in"
            inners.append(inner)
            run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner)
            run("ip", "link", "set", outer, "master", BRIDGE, "up")
            run("ip", "link", "set", inner, "netns", name)
            inside = ("ip", "netns", "exec", name)
            run(*inside, "ip", "addr", "add", f"{NETWORK}.{number + 1}/24", "dev", inner)
            run(*inside, "ip", "link", "set", inner, "up")
            run(*inside, "ip", "link", "set", "lo", "up")
            if rate != "none":
                run(
                    *inside,
                    "tc",
                    "qdisc",
                    "add",
                    "dev",
                    inner,
                    "root",
                    "tbf",
                    "rate",
                    rate,
                    "burst",
                    "256kb",
                    "latency",
                    "100ms",
                )
        before = [
            ("ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={inner}")
            for name, inner in zip(names, inners, strict=True)
        ]
        yield Launched(before, f"{NETWORK}.254")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--rates", default="none,1gbit,100mbit")
    parser.add_argument("--ways", default=",".join(PARALLEL))
    parser.add_argument("--model", default=MINILM)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--cut", default="50%")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--alone", action="store_true", help="measure one process, too")
    asked = parser.parse_args()
    settings = BenchSettings(
        cuts=(asked.cut,), batch_size=asked.batch_size, batches=asked.batches, epochs=asked.epochs, ranks=(2,)
    )
    corpus = CorpusSettings((asked.corpus,), limit=asked.batches * asked.batch_size)
    with TemporaryDirectory() as folder:
        subject = subject_of(corpus, ModelSettings(asked.model, None, asked.max_length), settings, Path(folder))
        data, output = Path(folder, "data.jsonl"), Path(folder, "run")
        write_data(subject, data)
        for _ in range(asked.repetitions):
            for rate in [*(["alone"] if asked.alone else []), *asked.rates.split(",")]:
                for way in asked.ways.split(","):
                    words = ["finetune", *arguments_of(way, str(data), subject), "--output", str(output)]
                    if rate == "alone":
                        report = launch(words, 1, 1)
                    else:
                        with network(rate) as between:
                            report = launch(words, 2, 1, between)
                    seconds, steps, sent = figures_of(output, report)
                    print(
                        json.dumps({"rate": rate, "way": way, "seconds_per_step": seconds / steps, **sent}), flush=True
                    )


if __name__ == "__main__":
    main()
