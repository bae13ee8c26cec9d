"""The load table of `docs/serve.md`, by wrk: MiniLM with no store, and with its rows at 50% and at 100%.

    python experiments/serve_load.py prepare FOLDER              # texts, stores, requests
    python experiments/serve_load.py measure FOLDER [SECONDS]    # a line of JSON a measurement

Needs wrk and the packages `serve` and `minilm`. A request asks about one text of three questions of the sample data,
about 60 tokens. Outputs kept in memory are turned off, so that hits come from the map. `others` in FOLDER, a file of
JSON, may name further servers to set beside: {"name": ["command", ...]}, each with `--port PORT` behind it. All servers
are started together and take turns, so that other load slows all of them alike.
"""

import csv
import json
import os
import random
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

ROOT = Path(__file__).parents[1]
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
KNOWN, MOST_TOKENS = 1000, 256
STORES = {"half": ("50%", ()), "whole": ("100%", ()), "pooled": ("100%", ("mean",))}
SHARES, CONNECTIONS, TURNS = (0, 50, 90, 100), (1, 8, 32), 2


def questions() -> list[str]:
    """The texts of the sample data."""
    found = []
    for name in ("train", "test"):
        with (ROOT / "sample_data" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            found += [row["text"] for row in csv.DictReader(file)]
    return found


def prepare(folder: Path) -> None:
    """Write the texts that the stores hold, the stores, and for each share of hits the requests in Lua."""
    from recycle_cli.settings import CorpusSettings, ModelSettings, PrecomputeSettings
    from recycle_cli.verbs.precompute import precompute

    folder.mkdir(parents=True, exist_ok=True)
    draw, every = random.Random(0), questions()
    known = [" ".join(draw.choices(every, k=3)) for _ in range(KNOWN)]
    with (folder / "known.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in known)])
    data, model = CorpusSettings((str(folder / "known.csv"),)), ModelSettings(MINILM, None, MOST_TOKENS)
    for name, (cut, pool) in STORES.items():
        precompute(data, str(folder / name), model, PrecomputeSettings((cut,), pool=pool))
    bodies = ",".join(f"[==[{json.dumps(body(text))}]==]" for text in known)
    bases = ",".join(f"[==[{json.dumps(text)[1:-1]}]==]" for text in known)
    begun = '{"model": "minilm", "encoding_format": "base64", "input": "'
    new = f"""'{begun}' .. base[math.random(#base)] .. seed .. n .. '"}}'"""
    for share in SHARES:
        (folder / f"hits{share}.lua").write_text(
            f"local known, base, n = {{{bodies}}}, {{{bases}}}, 0\n"
            "math.randomseed(os.time())\nlocal seed = math.random(1000000000)\n"
            'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
            "function request()\n  n = n + 1\n"
            f"  local body = known[math.random(#known)]\n  if math.random() * 100 >= {share} then body = {new} end\n"
            "  return wrk.format(nil, nil, nil, body)\nend\n",
            encoding="utf-8",
        )


def body(text: str) -> dict[str, Any]:
    """A request for a text's embedding."""
    return {"model": "minilm", "encoding_format": "base64", "input": text}


def servers(folder: Path) -> dict[str, list[str]]:
    """The commands of all servers, without their ports."""
    ours = [sys.executable, "-m", "recycle_cli", "serve", f"minilm={MINILM}", "--memory", "1", "--quiet"]
    found = {"none": [*ours, "--max-length", str(MOST_TOKENS)]}
    found |= {name: [*ours, "--store", str(folder / name)] for name in STORES}
    others = folder / "others"
    return found | (json.loads(others.read_text(encoding="utf-8")) if others.exists() else {})


def started(command: list[str], port: int, log: Path) -> subprocess.Popen[bytes]:
    """Start a server, and wait until it embeds."""
    with log.open("wb") as file:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=file, stderr=file)
    asked = Request(f"http://127.0.0.1:{port}/v1/embeddings", json.dumps(body("a")).encode())
    asked.add_header("Content-Type", "application/json")
    while True:
        try:
            build_opener(ProxyHandler({})).open(asked, timeout=10)
            return process
        except OSError:
            if process.poll() is not None:
                raise SystemExit(f"{log}: {log.read_text(errors='replace')[-500:]}") from None
            time.sleep(0.3)


def wrk(port: int, script: Path, connections: int, seconds: float) -> dict[str, Any]:
    """Requests a second, median and 99th percentile, and whatever went wrong."""
    options = ["-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "60s", "--latency", "-s", str(script)]
    said = subprocess.run(
        ["wrk", *options, f"http://127.0.0.1:{port}/v1/embeddings"], capture_output=True, text=True, check=True
    ).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    percentiles = dict(re.findall(r"(50|99)%\s+([\d.]+[a-z]+)", said))
    wrong = re.search(r"Non-2xx.*|Socket errors.*", said)
    assert rate is not None, said
    return {
        "requests_per_second": float(rate[1]),
        "p50": percentiles["50"],
        "p99": percentiles["99"],
        "wrong": wrong and wrong[0],
    }


def measure(folder: Path, seconds: float) -> None:
    """Measure all servers in turn, at each share of hits and each number of connections."""
    with ExitStack() as stack:
        ports = {}
        for number, (name, command) in enumerate(servers(folder).items()):
            port = ports[name] = 8400 + number
            process = started(command, port, folder / f"{name}.log")
            stack.callback(process.wait)
            stack.callback(process.terminate)
            wrk(port, folder / "hits0.lua", 2, 1)
        for share in SHARES:
            for connections in CONNECTIONS:
                for turn in range(TURNS):
                    for name, port in ports.items():
                        if share and name not in STORES:
                            continue
                        found = wrk(port, folder / f"hits{share}.lua", connections, seconds)
                        about = {"server": name, "hits": share, "connections": connections, "turn": turn}
                        print(json.dumps({**about, **found, "load": round(os.getloadavg()[0], 1)}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]))
    else:
        measure(Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 5.0)
