"""The options of `recycle serve`."""

from dataclasses import dataclass

from recycle_cli.settings.option import option, same
from recycle_cli.settings.reading import size
from recycle_cli.settings.verbs import PrecomputeSettings, PredictSettings


@dataclass(frozen=True)
class LimitSettings:
    """What one request may be, and how much may be in flight.

    max_requests  requests that are read, waited for or answered at the same time
    """

    max_requests: int = option(
        256, "Answer at most this many requests at the same time; further ones get 429 at once.", "Serving", minimum=1
    )
    max_body: int = option(
        8 * 2**20, "Refuse a request whose body is larger than this; 8MiB by default.", "Serving", parser=size
    )
    max_items: int = option(2048, "Refuse a request of more inputs than this.", "Serving", minimum=1)
    max_pixels: int = option(25_000_000, "Refuse an image of more pixels than this.", "Serving", minimum=4)
    body_seconds: float = option(
        30.0, "Give up on a request whose body has not come within this many seconds.", "Serving", minimum=0.1
    )


@dataclass(frozen=True)
class ServeSettings:
    """How a server answers, and whom.

    batch_tokens  padded tokens that are computed together; None for what suits the device
    parity_check  compare a few of the first hits with what the trunk gives now
    """

    host: str = option(
        "127.0.0.1",
        "Listen at this address. Any but that of this machine itself needs a key in RECYCLE_API_KEY.",
        "Serving",
        usual=True,
    )
    port: int = option(
        8080, "Listen at this port; 0 takes a free one.", "Serving", minimum=0, maximum=65535, usual=True
    )
    without_key: bool = option(
        False, "Let everybody who reaches the address ask, without a key, whatever the address.", "Serving"
    )
    accept_token_ids: bool = option(
        False,
        "Take numbers in `input` for token ids of the served model's own tokenizer, and decode them into a text.",
        "Serving",
    )
    debug_headers: bool = option(False, "Say in a header of each answer how many of its inputs were hits.", "Serving")
    write_back: bool = same(PredictSettings, "write_back")
    max_disk: int | None = same(
        PrecomputeSettings,
        "max_disk",
        help="Keep the store within this, such as 20GiB: the segments that were used least recently are removed.",
    )
    segment_bytes: int = same(PrecomputeSettings, "segment_bytes", default=32 * 2**20)
    seal_seconds: float = option(
        60.0,
        "Seal what is written back after this many seconds at the latest; a crash loses no more.",
        "Store",
        minimum=0.1,
    )
    tenants: bool = option(
        False,
        "Keep what is computed for one key of RECYCLE_API_KEY apart from what is computed for the others, so that "
        "nobody can measure what others have sent.",
        "Serving",
    )
    memory: int = option(
        64 * 2**20, "Keep the latest outputs in this much memory; 64MiB by default.", "Serving", parser=size, usual=True
    )
    drain_seconds: float = option(
        30.0, "When it is to end, wait at most this many seconds for requests in flight.", "Serving", minimum=0.0
    )
    batch_tokens: int | None = same(PrecomputeSettings, "batch_tokens")
    threshold: float = same(PredictSettings, "threshold")
    parity_check: bool = same(PredictSettings, "parity_check")
    limits: LimitSettings = LimitSettings()
