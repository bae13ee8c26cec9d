"""What a store holds, as plain data that two stores can be compared by."""

from recycle_cli.store import Store


def contents(path) -> dict[bytes, tuple[bytes, dict[str, bytes]]]:
    """Key to digest and each cut's rows, byte for byte; asserts that nothing is stored twice."""
    store = Store.open(str(path))
    positions = store.positions()
    segments = store.segments
    assert sum(segment.summary.samples for segment in segments) == len(store), "a sample is stored twice"
    assert store.rows == store.lengths(positions).sum()
    digests = {}
    for segment in segments:
        for key, digest in zip(segment.keys, segment.digests, strict=True):
            digests[key.tobytes()] = digest.tobytes()
    return {
        key.tobytes(): (digests[key.tobytes()], {cut: store.read(cut, at).tobytes() for cut in store.recipe.cuts})
        for key, at in zip(store.keys(positions), positions.tolist(), strict=True)
    }
