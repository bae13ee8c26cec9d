"""Check every type and write docs/models.md; with types as arguments (`text:bert image:vit`), print their outcomes."""

import sys
from dataclasses import asdict

from tests.models.all_types.checkpoints import images
from tests.models.all_types.page import PAGE, written
from tests.models.all_types.sizes import ALL_TYPES, LONGEST
from tests.models.all_types.worker import Worker


def main() -> None:
    """See the module."""
    asked = [tuple(word.split(":")) for word in sys.argv[1:]]
    outcomes = []
    with Worker() as worker:
        for modality, kind in asked or ALL_TYPES:
            outcomes.append(worker.check(modality, kind))
            print(*(value for value in asdict(outcomes[-1]).values() if value), sep=" | ", flush=True)
    if not asked:
        PAGE.write_text(written(outcomes, LONGEST, len(images())), encoding="utf-8")


if __name__ == "__main__":
    main()
