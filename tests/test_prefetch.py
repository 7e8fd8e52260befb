"""Tests of iterators with a thread: they work ahead by one item, keep the order, and leave no thread."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from septa.prefetch import map_in_background, prefetch_items

WAIT_S = 30


class Thing:
    def __init__(self, number: int) -> None:
        self.number = number


def test_only_the_next_item_is_fetched_while_the_caller_works() -> None:
    started = [threading.Event() for _ in range(50)]
    done = [threading.Event() for _ in range(50)]

    def items() -> Iterator[int]:
        for number in range(50):
            assert number < 2 or done[number - 2].is_set()
            started[number].set()
            yield number

    for number in prefetch_items(items()):
        assert started[min(number + 1, 49)].wait(WAIT_S)
        done[number].set()
    assert done[49].is_set()


def test_one_item_is_computed_while_the_next_is_fetched() -> None:
    asked = [threading.Event() for _ in range(51)]
    done = [threading.Event() for _ in range(50)]
    asked[50].set()

    def items() -> Iterator[int]:
        for number in range(50):
            assert threading.current_thread() is threading.main_thread()
            assert number < 2 or done[number - 2].is_set()
            asked[number].set()
            yield number

    def work(number: int) -> int:
        assert asked[number + 1].wait(WAIT_S)
        done[number].set()
        return -number

    assert list(map_in_background(work, items())) == [-number for number in range(50)]


def test_work_starts_after_the_previous_result_is_taken() -> None:
    started: list[int] = []
    for number in map_in_background(lambda number: started.append(number) or number, range(9)):  # type: ignore[func-returns-value]
        assert started == list(range(number + 1))


def test_errors_are_raised_in_the_order_of_the_items() -> None:
    def items() -> Iterator[int]:
        yield from (4, 2, 0)
        raise OSError

    fetched = prefetch_items(items())
    assert [next(fetched) for _ in range(3)] == [4, 2, 0]
    with pytest.raises(OSError):
        next(fetched)
    results = map_in_background(lambda number: 8 // number, items())
    assert [next(results), next(results)] == [2, 4]
    with pytest.raises(ZeroDivisionError):  # by the last item; fetching one more has failed by now, too
        next(results)
    results = map_in_background(abs, items())
    assert [next(results) for _ in range(3)] == [4, 2, 0]
    with pytest.raises(OSError):
        next(results)


def test_finished_items_are_freed() -> None:
    alive: list[weakref.ref[Thing]] = []

    def items() -> Iterator[Thing]:
        for number in range(6):
            gc.collect()
            assert sum(made() is not None for made in alive) <= 2  # the caller's item, and the one that is computed
            thing = Thing(number)
            alive.append(weakref.ref(thing))
            yield thing
            del thing

    assert list(map_in_background(lambda thing: thing.number, items())) == list(range(6))
    for thing in prefetch_items(iter([Thing(0)])):
        kept = weakref.ref(thing)
        del thing
    assert kept() is None


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_no_thread_is_left(taken: int) -> None:
    threads = threading.active_count()
    for items in (prefetch_items(range(9)), map_in_background(str, range(9))):
        assert len([next(items) for _ in range(taken)]) == taken
        items.close()
        assert threading.active_count() == threads
