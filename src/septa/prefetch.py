"""Iterators that work in a thread of their own, before or after the caller's work on the same item."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_END: Any = object()


def prefetch_items(items: Iterable[Item]) -> Generator[Item, None, None]:
    """Yield the same items; a thread fetches the next item while the caller works on the current one.

    At most one item is fetched ahead, and no reference is kept to an item that the caller has finished. An error in
    fetching an item is raised in place of that item. Closing the iterator waits for the item that is being fetched and
    ends the thread.

    Examples
    --------
    >>> list(prefetch_items("abc"))
    ['a', 'b', 'c']
    """
    source = iter(items)
    with ThreadPoolExecutor(1, "septa-prefetch") as reader:
        ahead: Future[Item] = reader.submit(next, source, _END)
        while (item := ahead.result()) is not _END:
            ahead = reader.submit(next, source, _END)
            yield item
            del item


def map_in_background(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """Yield the results of a function in the order of its items; a thread computes them.

    While the thread works on one item, the caller's thread fetches the next. Work on an item starts after the previous
    item's result was yielded and the caller has asked for the next one. Errors are raised in the order of the items: an
    error in the work on an item comes before an error in fetching the next item. Closing the iterator waits for the
    work that is under way and ends the thread.

    Examples
    --------
    >>> list(map_in_background(str.upper, "abc"))
    ['A', 'B', 'C']
    """
    source = iter(items)
    with ThreadPoolExecutor(1, "septa-background") as worker:
        pending: Future[Result] | None = None
        fetch_error: Exception | None = None
        while True:
            try:
                item = next(source, _END)
            except Exception as error:  # raised below, after the result of the previous item
                item = _END
                fetch_error = error
            if pending is not None:
                yield pending.result()
            if fetch_error is not None:
                raise fetch_error
            if item is _END:
                return
            pending = worker.submit(work, item)
            del item


def map_ahead(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Generator[Result, None, None]:
    """Yield the results of a function in the order of its items, computed by some threads ahead of their use.

    At most ``threads`` results are computed or wait. With one thread, the caller's own computes each when it is due.
    Closing the iterator waits for the work that is under way.

    Examples
    --------
    >>> list(map_ahead(str.upper, "abcd", 2))
    ['A', 'B', 'C', 'D']
    """
    if threads == 1:
        yield from map(work, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, "septa-ahead") as pool:
        try:
            for item in items:
                if len(pending) == threads:
                    yield pending.popleft().result()
                pending.append(pool.submit(work, item))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
