"""Work in threads keeps its order, its bounds and its errors."""

import threading

import pytest

from recycle_cli.runtime.overlap import background, prefetch


def test_prefetch_gives_the_same_items_in_order():
    assert list(prefetch(range(100), depth=3)) == list(range(100))


def test_prefetch_raises_the_producers_error_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("broken")

    stream = prefetch(items())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="broken"):
        next(stream)


def test_prefetch_runs_at_most_depth_ahead_and_stops_when_left():
    made = []

    def items():
        for number in range(1000):
            made.append(number)
            yield number

    stream = prefetch(items(), depth=2)
    next(stream)
    stream.close()
    assert len(made) <= 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("recycle-prefetch")]


def test_a_stream_of_streams_ends_all_its_threads_when_left():
    inner = []

    def items():
        inner.append(prefetch(iter(range(1000))))
        yield from inner[0]

    stream = prefetch(items())
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("recycle-prefetch")]
    assert next(inner[0], None) is None


def test_background_works_in_order_and_waits_at_the_end():
    done = []
    with background(done.append, depth=2) as put:
        for number in range(50):
            put(number)
    assert done == list(range(50))


def test_background_drops_what_follows_a_failure_and_raises_it():
    done = []

    def work(number):
        if number == 3:
            raise ValueError("three")
        done.append(number)

    def put_all():
        with background(work, depth=2) as put:
            for number in range(50):
                put(number)

    with pytest.raises(ValueError, match="three"):
        put_all()
    assert done == [0, 1, 2]
