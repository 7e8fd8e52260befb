"""Work before and after the net in a thread each, while the net is at something else."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_END: Any = object()


def prefetch_items(items: Iterable[Item]) -> Generator[Item, None, None]:
    """The same items, of which a thread fetches the next one while the caller is at one.

    No more than one is fetched ahead, and none is held here that the caller is done with. What fetching one raises is
    raised in its place. Closing the iterator waits for what is being fetched, and no thread is left.

    Examples
    --------
    >>> list(prefetch_items("abc"))
    ['a', 'b', 'c']
    """
    source = iter(items)
    with ThreadPoolExecutor(1, "septa-ahead") as reader:
        ahead: Future[Item] = reader.submit(next, source, _END)
        while (item := ahead.result()) is not _END:
            ahead = reader.submit(next, source, _END)
            yield item
            del item


def map_in_background(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """Results of items in their order; a thread works on one while the caller's fetches the next one.

    No work is begun before that on the item before it was done, and its result taken. What fails is raised in its
    place: the work on an item before what fetching the next one raises. Closing the iterator waits for the work under
    way, and no thread is left.

    Examples
    --------
    >>> list(map_in_background(str.upper, "abc"))
    ['A', 'B', 'C']
    """
    source = iter(items)
    with ThreadPoolExecutor(1, "septa-behind") as worker:
        behind: Future[Result] | None = None
        failed: Exception | None = None
        while True:
            try:
                item = next(source, _END)
            except Exception as error:  # raised below, once it is its turn
                item, failed = _END, error
            if behind is not None:
                yield behind.result()
            if failed is not None:
                raise failed
            if item is _END:
                return
            behind = worker.submit(work, item)
            del item
