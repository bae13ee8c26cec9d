"""Measure what a store of many segments costs: listing, opening, look-ups and the plan of a gc, in a folder and in a
bucket on an S3 server on loopback.

    python experiments/scale.py [--segments 1000 10000 100000] [--samples 100] [--folder DIR] [--latency 0.0]

The segments are simulated: real ones of the format, each with `--samples` samples of one row of one number, so that
what is measured is the cost of a segment and not of its rows. 100,000 of them take 4 GB and a million inodes in
`--folder`. The S3 server serves the same files (listings of at most 1,000 names, as S3's) and counts the requests;
`--latency` lets it wait so many seconds before each answer. Every measurement is made by a process of its own. Prints a
JSON object each.
"""

import argparse
import bisect
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import numpy as np

from recycle_cli.errors import RecycleError
from recycle_cli.recipe import Recipe
from recycle_cli.store import EncodedRows, Store, gc
from recycle_cli.store.files import write_file
from recycle_cli.store.layout import dumps, sealed
from recycle_cli.store.liveness import unique_id
from recycle_cli.store.places import open_place

RECIPE = Recipe("text", {"model_type": "synthetic"}, {"pooled": "0" * 32}, "none")
PAGE = 1000
LOOKED_UP = 10_000
"""Keys looked up, each in a segment of its own, if there are so many."""

LINKS = 20_000
"""Segments that share files: ext4 has at most 65,000 names for one."""


def content(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random keys and digests: two arrays (count, 16) uint8."""
    both = np.frombuffer(np.random.default_rng(seed).bytes(32 * count), np.uint8).reshape(count, 32)
    return np.ascontiguousarray(both[:, :16]), np.ascontiguousarray(both[:, 16:])


def make(path: str, first: int, last: int, samples: int) -> float:
    """Write the segments `first` to `last`, and return the seconds that it took.

    Some are written as any are; the others have keys and digests of their own, and share the files that are the same.
    """
    began = time.perf_counter()
    store = Store.create_or_open(path, RECIPE, {})
    rows = {"pooled": EncodedRows(np.zeros((samples, 1), "<f2"))}
    for seed in range(first, last):
        if (seed - first) % LINKS == 0:
            before = set(Path(path, "segments").iterdir())
            with store.writer() as writer:
                writer.append(*content(seed, samples), np.ones(samples, np.int64), rows)
            (pattern,) = set(Path(path, "segments").iterdir()) - before
            document = json.loads((pattern / "zarr.json").read_text())
        else:
            alike(pattern, document, content(seed, samples))
    return time.perf_counter() - began


def alike(pattern: Path, document: dict[str, Any], arrays: tuple[np.ndarray, np.ndarray]) -> None:
    """Write a segment with these keys and digests, and otherwise as the pattern."""
    folder = pattern.with_name(unique_id())
    own = {f"{name}/c.0.0": array for name, array in zip(("keys", "digests"), arrays, strict=True)}
    record = document["attributes"]["recycle"]
    files = dict(record["files"])
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name in own:
            files[name] = write_file(folder / name, own[name])
        else:
            os.link(pattern / name, folder / name)
    told = {name: value for name, value in record.items() if name != "seal"} | {"files": files}
    write_file(folder / "zarr.json", dumps(sealed(document | {"attributes": {"recycle": told}})))


def timed(call: Any) -> tuple[float, Any]:
    """Seconds and the result; of a failure, which this is to find, its message."""
    began = time.perf_counter()
    try:
        found = call()
    except (RecycleError, OSError) as error:
        found = f"{type(error).__name__}: {error}"[:300]
    return time.perf_counter() - began, found


def resident() -> int:
    """The most bytes that this process has had in memory."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) << 10


def measure(what: str, path: str, segments: int, samples: int) -> dict[str, Any]:
    """One measurement, in a process that has done nothing else."""
    if what == "list":
        seconds, names = timed(open_place(path).segment_names)
        return {"seconds": seconds, "segments": len(names)}
    if what == "gc":
        seconds, found = timed(lambda: gc(path, dry_run=True))
        return {"seconds": seconds, "found": found if isinstance(found, str) else found["removed"]}
    if what == "index":
        for index in Path(path, "index").glob("2*"):
            shutil.rmtree(index)
    seconds, store = timed(lambda: Store.open(path, RECIPE))
    report: dict[str, Any] = {"seconds": seconds, "bytes_in_memory": resident()}
    if isinstance(store, str):
        return report | {"failed": store}
    report["samples"] = len(store)
    if what == "lookup":
        first = [content(seed, samples) for seed in range(segments)[:: max(1, segments // LOOKED_UP)]]
        own, digests = (np.concatenate([pair[which][:1] for pair in first]) for which in (0, 1))
        order = np.random.default_rng(0).permutation(len(own))
        seconds, found = timed(lambda: int((store.lookup(own[order], digests[order]) >= 0).sum()))
        report |= {"lookup_seconds": seconds, "looked_up": len(own), "found": found}
    if what == "refresh":
        report["refresh_seconds"], _ = timed(store.refresh)
    return report | {"bytes_in_memory": resident()}


def apart(what: str, path: str, options: argparse.Namespace, segments: int, **environment: str) -> dict[str, Any]:
    """A measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, path, "--segments", str(segments)]
    done = subprocess.run(
        [*command, "--samples", str(options.samples)], stdout=subprocess.PIPE, text=True, env=os.environ | environment
    )
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"failed": done.returncode}
    return {"what": what, "segments": segments, **found}


class S3(BaseHTTPRequestHandler):
    """A bucket that can be read: the files of a folder. Answers GET, HEAD and ListObjectsV2."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # so that an answer is one packet, and waits for no acknowledgement
    folder: Path
    names: list[str]
    latency: float
    requests: Counter[str]

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        """The size of an object."""
        self._object(send=False)

    def do_GET(self) -> None:
        """An object, a part of one, or a page of names."""
        if "list-type" in parse_qs(urlsplit(self.path).query):
            self._page({name: value[0] for name, value in parse_qs(urlsplit(self.path).query).items()})
        else:
            self._object(send=True)

    def _object(self, *, send: bool) -> None:
        self._count("GET" if send else "HEAD")
        path = self.folder / unquote(urlsplit(self.path).path).split("/", 2)[2]
        if not path.is_file():
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", send=send)
            return
        data = path.read_bytes()
        start, _, stop = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if start:
            part = data[int(start) : int(stop) + 1]
            self._answer(206, part, send=send, total=len(data), at=int(start))
        else:
            self._answer(200, data, send=send)

    def _page(self, query: dict[str, str]) -> None:
        self._count("LIST")
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        at = bisect.bisect_right(self.names, query["continuation-token"]) if "continuation-token" in query else 0
        at = max(at, bisect.bisect_left(self.names, prefix))
        found, folders, last = [], [], ""
        while at < len(self.names) and self.names[at].startswith(prefix) and len(found) + len(folders) < PAGE:
            name = self.names[at]
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folder = prefix + rest.split(delimiter)[0] + delimiter
                folders.append(folder)
                last = folder + "\U0010ffff"
                at = bisect.bisect_right(self.names, last)
            else:
                found.append(name)
                last, at = name, at + 1
        more = at < len(self.names) and self.names[at].startswith(prefix)
        body = "".join(
            f"<Contents><Key>{escape(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>x</ETag><Size>{(self.folder / name).stat().st_size}</Size></Contents>"
            for name in found
        )
        body += "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in folders)
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
        page = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{body}</ListBucketResult>"
        self._answer(200, page.encode(), send=True)

    def _count(self, kind: str) -> None:
        type(self).requests[kind] += 1
        if self.latency:
            time.sleep(self.latency)

    def _answer(self, status: int, data: bytes, *, send: bool, total: int | None = None, at: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("ETag", '"x"')
        if total is not None:
            self.send_header("Content-Range", f"bytes {at}-{at + len(data) - 1}/{total}")
        self.end_headers()
        if send:
            self.wfile.write(data)


def bucket(path: str, latency: float) -> tuple[ThreadingHTTPServer, dict[str, str]]:
    """Serve the store in a folder as s3://bucket. Returns the server, and the environment that finds it."""
    names = sorted(str(Path(parent, file).relative_to(path)) for parent, _, files in os.walk(path) for file in files)
    S3.folder, S3.names, S3.latency, S3.requests = Path(path), names, latency, Counter()
    server = ThreadingHTTPServer(("127.0.0.1", 0), S3)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    return server, keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}


def main() -> None:
    """Grow one store from size to size, and measure each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--folder-alone", action="store_true", help="leave the bucket out")
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--keep", action="store_true", help="leave the store in --folder, and go on with it")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure, options.segments[0], options.samples)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = f"{options.folder if options.keep else folder}/many.zarr"
        held = len(list(Path(path, "segments").glob("2*"))) if Path(path).exists() else 0
        for segments in options.segments:
            seconds = make(path, held, segments, options.samples)
            made = {"what": "make", "segments": segments, "added": max(0, segments - held), "seconds": seconds}
            print(json.dumps(made), flush=True)
            held = max(held, segments)
            for what in ("list", "index", "open", "lookup", "refresh", "gc"):
                print(json.dumps({"place": "folder", **apart(what, path, options, segments)}), flush=True)
            if options.folder_alone:
                continue
            server, environment = bucket(path, options.latency)
            for what in ("list", "lookup", "refresh"):
                S3.requests.clear()
                found = apart(what, "s3://bucket", options, segments, **environment)
                print(json.dumps({"place": "bucket", **found, "requests": dict(S3.requests)}), flush=True)
            server.shutdown()


if __name__ == "__main__":
    main()
