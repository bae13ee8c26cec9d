"""The names of all figures, known before anything is measured: variants, their measures, and comparisons.

    VERB[.GROUP].VARIANT.MEASURE      finetune.store.samples_per_second, read.batch32.memmap.bytes_per_second
    VERB[.GROUP].time_vs_LIMIT        our time as a multiple of that of a limit that cannot be beaten; 1.0 is perfect
    VERB[.GROUP].speedup_vs_BASELINE  how many times as fast we are as a baseline that people use instead
    contention.NAME.beside_N.slowdown  our time beside N busy processes as a multiple of that alone

A group is a batch size of `read`, a cut other than the first, such as `at_100%`, or `lora`, which is training from the
store with the default LoRA on the head, or `ladder` and `pooled`, which are heads that read several states.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

READ_SIZES = {"single": 1, "batch32": 32, "batch256": 256}

ALL_BLOCKS = "100%"
"""The cut that `predict` always measures too: only the task layer is left in the head."""

_COMMON = ("seconds", "samples_per_second", "peak_memory_bytes")

PHASES = ("read", "advance", "write", "forward", "backward", "step")
"""The phases of a training whose seconds are told."""

MEASURES = {
    "precompute": (*_COMMON, "bytes"),
    "read": (*_COMMON, "bytes_per_second"),
    "finetune": (*_COMMON, "seconds_per_step", "epoch_seconds"),
    "predict": _COMMON,
    "serve": (*_COMMON, "p50_seconds", "p99_seconds"),
    "heads": _COMMON,
    "freezing": (
        *_COMMON,
        *(f"{phase}_seconds" for phase in PHASES),
        "evaluation_loss",
        "epochs",
    ),
    "ranks": (
        "seconds",
        "samples_per_second",
        "seconds_per_step",
        "gradient_bytes",
        "gradient_seconds",
        "output_bytes",
    ),
    "contention": ("seconds", "samples_per_second"),
}

PARALLEL = ("full", "frozen", "store", "kept")
"""Trainings by several processes: of the whole model, of what lies behind the first cut from the inputs and from a
store, and with layers that freeze and rows that are kept."""

FREEZING = ("full", "in_place", "kept", "static", "shorter")
"""Whole trainings: full, with layers that freeze in place, or with their rows kept, from a store at the first cut, and
full for no more seconds than those of `kept`."""

TRAINERS = ("trainer_full", "trainer_frozen", "map_trainer")
"""Baselines that use the Trainer of transformers."""

LORA = "finetune.lora.store"
"""Training from the store at the first cut, with LoRA on the head."""


OF_STATES = ("finetune.ladder.store", "finetune.pooled.store")
"""Training heads that read several states: a ladder over every second, and a linear one over vectors of all, which is
solved on all samples."""

CONTENDERS = ("precompute", "finetune", "predict")

OF_TRAINER = ("trainer_full", "map_trainer")
"""Baselines that contend as well."""

BUSY = {"alone": 0, "beside_1": 1, "beside_2": 2}
"""Busy processes beside a contender."""


@dataclass(frozen=True)
class Comparison:
    """A comparison of `ours` with `other`: a speed-up over a baseline, our time as a multiple of a limit's, or the
    slow-down of one and the same work.

    `beside` is work that can overlap with `other`, so that the limit is the slower of the two.
    """

    kind: str
    ours: str
    other: str
    beside: str | None = None

    @property
    def name(self) -> str:
        """The group of `ours`, the kind, and the last part of `other`, as in `finetune.speedup_vs_full`."""
        if self.kind == "slowdown":
            return f"{self.ours}.slowdown"
        if self.ours.startswith("ranks."):
            return f"{self.ours}.{self.kind}_vs_{self.other.rpartition('.')[2]}"
        if self.ours.startswith("contention."):
            return f"{self.ours}.{self.kind}_vs_{self.other.split('.')[1]}"
        other = self.other.rpartition(".")[2] if self.beside is None else "slower"
        return f"{group_of(self.ours)}.{self.kind}_vs_{other}"


@dataclass(frozen=True)
class Layout:
    """The variants and comparisons of one verb."""

    verb: str
    variants: tuple[str, ...]
    comparisons: tuple[Comparison, ...]

    def names(self) -> Iterator[str]:
        """Yield the names of all figures of this verb."""
        for variant in self.variants:
            yield from (f"{variant}.{measure}" for measure in MEASURES[self.verb])
        yield from (comparison.name for comparison in self.comparisons)


def group_of(name: str) -> str:
    """A name without its last part."""
    return name.rpartition(".")[0]


def prefix(verb: str, cut: str, cuts: Sequence[str]) -> str:
    """The group of the figures at a cut: only the verb for the first cut, so that names do not depend on it."""
    return verb if cut == cuts[0] else f"{verb}.at_{cut}"


def predict_cuts(cuts: Sequence[str]) -> tuple[str, ...]:
    """The cuts at which `predict` is measured."""
    return tuple(dict.fromkeys((*cuts, ALL_BLOCKS)))


def layout(verb: str, cuts: Sequence[str], *, images: bool = False, ranks: Sequence[int] = ()) -> Layout:
    """The layout of a verb at these cuts, named as the user named them, on texts or images, and by so many ranks."""
    if verb == "ranks":
        return _ranks(ranks)
    if verb == "precompute":
        return _precompute(cuts, images=images)
    return _LAYOUTS[verb](cuts)


def _precompute(cuts: Sequence[str], *, images: bool) -> Layout:
    variants, comparisons = ["precompute.decode"] if images else [], []
    for group in (prefix("precompute", cut, cuts) for cut in cuts):
        ours, trunk = f"{group}.recycle", f"{group}.bare_trunk"
        variants += [ours, trunk]
        comparisons.append(Comparison("time", ours, trunk))
        if images:
            comparisons += [
                Comparison("time", ours, "precompute.decode"),
                Comparison("time", ours, trunk, beside="precompute.decode"),
            ]
    variants.append("precompute.plain_loop")
    comparisons.append(Comparison("speedup", "precompute.recycle", "precompute.plain_loop"))
    return Layout("precompute", tuple(variants), tuple(comparisons))


def _read(cuts: Sequence[str]) -> Layout:
    variants, comparisons = [], []
    for size in READ_SIZES:
        ours, widened, memmap = (f"read.{size}.{name}" for name in ("store", "widened", "memmap"))
        variants += [ours, widened, memmap]
        comparisons += [Comparison("time", ours, memmap), Comparison("time", widened, ours)]
    return Layout("read", tuple(variants), tuple(comparisons))


def _finetune(cuts: Sequence[str]) -> Layout:
    variants, comparisons = [], []
    for group in (prefix("finetune", cut, cuts) for cut in cuts):
        variants += [f"{group}.store", f"{group}.bare_head", f"{group}.frozen"]
        comparisons += [
            Comparison("time", f"{group}.store", f"{group}.bare_head"),
            Comparison("speedup", f"{group}.store", "finetune.full"),
            Comparison("speedup", f"{group}.store", f"{group}.frozen"),
        ]
    variants += ["finetune.full", *(f"finetune.{name}" for name in TRAINERS)]
    comparisons += [Comparison("speedup", "finetune.store", f"finetune.{name}") for name in TRAINERS]
    variants += [LORA, *OF_STATES]
    ways = (LORA, *OF_STATES)
    comparisons += [Comparison("speedup", ours, f"finetune.{name}") for ours in ways for name in ("full", "store")]
    return Layout("finetune", tuple(variants), tuple(comparisons))


def _predict(cuts: Sequence[str]) -> Layout:
    variants, comparisons = ["predict.full"], []
    for group in (prefix("predict", cut, cuts) for cut in predict_cuts(cuts)):
        variants += [f"{group}.store", f"{group}.bare_head"]
        comparisons += [
            Comparison("time", f"{group}.store", f"{group}.bare_head"),
            Comparison("speedup", f"{group}.store", "predict.full"),
        ]
    return Layout("predict", tuple(variants), tuple(comparisons))


def _serve(cuts: Sequence[str]) -> Layout:
    ours = [f"{prefix('serve', cut, cuts)}.hits" for cut in predict_cuts(cuts)]
    comparisons = tuple(Comparison("speedup", one, "serve.no_store") for one in ours)
    return Layout("serve", ("serve.no_store", *ours), comparisons)


def _heads(cuts: Sequence[str]) -> Layout:
    variants, comparisons = [], []
    for group in (*(prefix("heads", cut, cuts) for cut in cuts), "heads.ladder", "heads.pooled"):
        variants += [f"{group}.together", f"{group}.apart"]
        comparisons.append(Comparison("speedup", f"{group}.together", f"{group}.apart"))
    return Layout("heads", tuple(variants), tuple(comparisons))


def _freezing(cuts: Sequence[str]) -> Layout:
    variants = tuple(f"freezing.{name}" for name in FREEZING)
    against = ("full", "in_place")
    comparisons = tuple(Comparison("speedup", "freezing.kept", f"freezing.{name}") for name in against)
    return Layout("freezing", variants, comparisons)


def _ranks(counts: Sequence[int]) -> Layout:
    variants = tuple(f"ranks.{count}.{way}" for count in counts for way in PARALLEL)
    comparisons = [
        Comparison("speedup", f"ranks.{count}.{way}", f"ranks.{count}.full")
        for count in counts
        for way in PARALLEL
        if way != "full"
    ]
    return Layout("ranks", variants, tuple(comparisons))


def _contention(cuts: Sequence[str]) -> Layout:
    names = (*CONTENDERS, *OF_TRAINER)
    variants = [f"contention.{name}.{group}" for name in names for group in BUSY]
    comparisons = [
        Comparison("slowdown", f"contention.{name}.{group}", f"contention.{name}.alone")
        for name in names
        for group, busy in BUSY.items()
        if busy
    ]
    comparisons += [
        Comparison("speedup", f"contention.finetune.{group}", f"contention.{name}.{group}")
        for name in OF_TRAINER
        for group in BUSY
    ]
    return Layout("contention", tuple(variants), tuple(comparisons))


_LAYOUTS = {
    "read": _read,
    "finetune": _finetune,
    "predict": _predict,
    "serve": _serve,
    "heads": _heads,
    "freezing": _freezing,
    "contention": _contention,
}
