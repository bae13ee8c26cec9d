"""Work out from measured slopes what stores of 10^8 to 10^10 samples take: the tables of docs/scale.md.

    python experiments/scale_on_paper.py [--gpu-dollars 2.5] [--flops 989e12] [--utilisation 0.3] [--month 23] ...

Every slope is an option with the figure that was measured (or, where it says so, assumed) as its default, so that the
tables can be made again with others. Prints Markdown.
"""

import argparse
from dataclasses import dataclass

SEGMENT = 256 * 2**20
LARGE = 4 * 2**30
KEY, FILES = 16, 11
"""Bytes of the index a key, and files of a segment of one cut in float16."""


@dataclass(frozen=True)
class Kind:
    """A kind of sample: bytes stored, and FLOPs of the trunk, each a sample."""

    name: str
    bytes: float
    flops: float


def text(width: int, blocks: int, row: int, rows: float) -> tuple[float, float]:
    """Bytes and FLOPs of a text of so many rows, each of `row` bytes, and the sample's own 40; blocks as BERT's."""
    products = 12 * width**2 + 2 * width * rows
    return rows * row + 40, 2 * products * blocks * rows


ROWS = 569_341 / 10_097
"""Tokens a text of SciCite under MiniLM's tokenizer."""

KINDS = [
    Kind("text, MiniLM at 50%, float16", *text(384, 3, 768, ROWS)),
    Kind("text, MiniLM at 50%, int4", *text(384, 3, 220, ROWS)),
    Kind("text, BERT-base at 50%, float16", *text(768, 6, 1536, ROWS)),
    Kind("text, MiniLM pooled (mean), float16", 768 + 40, text(384, 6, 768, ROWS)[1]),
    Kind("image, ResNet-50 at layer3, float16", 401_408 + 40, 8.2e9 * 0.80),
    Kind("image, ResNet-50 at layer3, int4", 1024 * 14 * 14 / 16 * 9 + 4 + 40, 8.2e9 * 0.80),
    Kind("image, ResNet-50 at 100%, float16", 4096 + 40, 8.2e9),
]


def human(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} EB"


def lasting(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.2g} s"


def table(head: list[str], rows: list[list[str]]) -> None:
    """Print a table in Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")
    print()


def corpora(o: argparse.Namespace) -> None:
    """What a corpus costs, by kind of sample."""
    rows = []
    for kind, samples in [(kind, 1e9 if kind.name.startswith("text") else 1e8) for kind in KINDS]:
        size = kind.bytes * samples
        trunk = kind.flops * samples / (o.flops * o.utilisation) / 3600
        reading = samples / (o.texts if kind.name.startswith("text") else o.images) / 3600
        writing = size / o.write_bytes / 3600
        hours = max(trunk, reading / o.cores, writing)
        rows.append(
            [
                kind.name,
                f"{samples:.0e}",
                human(size),
                f"{size / SEGMENT:,.0f}",
                f"{size / LARGE:,.0f}",
                f"{trunk:,.1f}",
                f"{reading / o.cores:,.1f}",
                f"{writing:,.1f}",
                f"{hours * o.gpu_dollars:,.0f}",
                f"{size / 1e12 * o.month:,.0f}",
                f"{size / SEGMENT * FILES * o.put_dollars:,.1f}",
            ]
        )
    sizes = ["segments of 256 MiB", "of 4 GiB"]
    hours = ["trunk, GPU hours", "tokenising or decoding, hours", "writing, hours"]
    costs = [*hours, "dollars (the longest of the three)", "dollars a month in a bucket", "dollars for its PUTs"]
    table(["sample", "samples", "bytes", *sizes, *costs], rows)


def growth(o: argparse.Namespace) -> None:
    """What the number of samples and of segments costs a store of texts of MiniLM at 50%."""
    rows: dict[str, list[str]] = {}
    for samples in (1e8, 1e9, 1e10):
        for size in (SEGMENT, LARGE):
            segments = KINDS[0].bytes * samples / size
            keys = samples * KEY
            told = {
                "samples": f"{samples:.0e}",
                "bytes a segment": "256 MiB" if size == SEGMENT else "4 GiB",
                "segments": f"{segments:,.0f}",
                "names listed in a folder": lasting(segments * o.list_seconds),
                "index in a folder, on the disk": human(keys),
                "making it once": lasting(samples * o.index_seconds + segments * o.segment_seconds),
                "memory for that": human(samples * o.index_memory + segments * o.segment_memory),
                "opening a folder with its index": lasting(0.01 + segments * o.open_seconds),
                "10^6 look-ups": lasting(1e6 / o.lookups),
                "maps to read all of it": f"{3 * segments:,.0f}",
                "listing a bucket at first": lasting(segments * FILES / 1000 * o.page_seconds),
                "a refresh there": lasting(segments / 1000 * o.page_seconds),
                "opening a bucket": lasting(
                    2 * segments * o.request_seconds / o.at_once + keys / o.bucket_bytes + samples * o.index_seconds
                ),
                "memory for that ": human(samples * o.index_memory + segments * o.segment_memory),
                "dollars for its GETs": f"{2 * segments * o.get_dollars:.2g}",
            }
            for name, value in told.items():
                rows.setdefault(name, []).append(value)
    (first, heads), *rest = rows.items()
    table([first, *heads], [[name, *values] for name, values in rest])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    slopes = {
        "flops": (989e12, "FLOP/s of the GPU: an H100's in bfloat16, dense"),
        "utilisation": (0.1, "share of them that a trunk reaches (assumed; no GPU was at hand)"),
        "texts": (5000.0, "texts a second that a core tokenises (SciCite, MiniLM's tokenizer; measured)"),
        "images": (300.0, "images a second that a core decodes and resizes (assumed)"),
        "cores": (16.0, "cores beside each GPU (assumed)"),
        "write-bytes": (2e9, "bytes a second that are written (assumed: an NVMe disk, or a bucket over 25 Gbit/s)"),
        "gpu-dollars": (2.5, "dollars an hour of that GPU (assumed)"),
        "month": (23.0, "dollars a month for a TB in a bucket (S3 Standard's list price)"),
        "put-dollars": (5e-6, "dollars a PUT (S3's list price)"),
        "get-dollars": (4e-7, "dollars a GET (S3's list price)"),
        "list-seconds": (8.3e-6, "seconds to list a segment in a folder (experiments/scale.py)"),
        "open-seconds": (2.1e-5, "seconds a segment to open a folder with its index (experiments/scale.py)"),
        "segment-seconds": (3.4e-3, "seconds a segment to index it, not in the cache (experiments/scale.py)"),
        "segment-memory": (3e3, "bytes a segment in memory (experiments/scale.py)"),
        "index-seconds": (5.7e-7, "seconds a key to index it (experiments/store_index.py)"),
        "index-memory": (53.0, "bytes a key in memory while it is indexed (experiments/scale.py)"),
        "lookups": (1.86e6, "look-ups a second among 10^8 keys (experiments/store_index.py)"),
        "page-seconds": (0.1, "seconds for a page of 1,000 names from a bucket (assumed)"),
        "request-seconds": (0.03, "seconds for a small object from a bucket (assumed)"),
        "at-once": (32.0, "requests at once"),
        "bucket-bytes": (500e6, "bytes a second from a bucket to one machine (assumed)"),
    }
    for name, (value, told) in slopes.items():
        parser.add_argument(f"--{name}", type=float, default=value, help=f"{told}; {value:g}")
    options = parser.parse_args()
    corpora(options)
    growth(options)


if __name__ == "__main__":
    main()
