"""A queue before threads: bounded in length and in time, and a place is kept by whoever is inside."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from pneumonet.errors import BusyError, TookTooLongError
from pneumonet.reading.decoding import CALLER, Caller, check_caller
from pneumonet.web.turns import Turns


@pytest.fixture
def go() -> Iterator[threading.Event]:
    """What the work waits for."""
    event = threading.Event()
    yield event
    event.set()


async def _until(is_so: Callable[[], object]) -> None:
    async def look() -> None:
        while not is_so():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), 30)


async def _settled(task: Awaitable[object]) -> BaseException | object:
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    return outcome


def test_each_gets_its_own_answer_in_turn() -> None:
    async def ask() -> list[int]:
        turns = Turns(2, 10, 60)
        return await asyncio.gather(*(turns.run(lambda i=i: i) for i in range(10)))  # type: ignore[misc]

    assert asyncio.run(ask()) == list(range(10))


def test_beyond_the_most_it_is_full_until_one_leaves(go: threading.Event) -> None:
    async def ask() -> None:
        turns = Turns(1, 2, 60)
        asked = [asyncio.create_task(turns.run(lambda: go.wait(30))) for _ in range(2)]
        await _until(lambda: turns.present == 2)
        with pytest.raises(BusyError, match="queue is full") as refused:
            await turns.run(lambda: True)
        assert refused.value.retry_after_seconds
        go.set()
        assert await asyncio.gather(*asked) == [True, True]
        assert await turns.run(lambda: "free")
        assert turns.present == 0

    asyncio.run(ask())


def test_who_waits_too_long_is_told_and_leaves() -> None:
    async def ask() -> None:
        turns = Turns(1, 2, 0)
        with pytest.raises(TookTooLongError, match="within 0 s"):
            await turns.run(lambda: True)
        await _until(lambda: turns.present == 0)

    asyncio.run(ask())


def test_a_deadline_weighs_more_than_the_time_of_one_s_own(go: threading.Event) -> None:
    async def ask() -> None:
        turns = Turns(1, 2, 3600)
        with pytest.raises(TookTooLongError):
            await turns.run(lambda: go.wait(30), deadline=time.monotonic() + 0.1)
        go.set()
        assert await turns.run(lambda: "in time", deadline=time.monotonic() + 3600)

    asyncio.run(ask())


def test_the_oldest_piece_is_told_although_nobody_waits_for_it(go: threading.Event) -> None:
    async def ask() -> None:
        turns = Turns(2, 4, 60)
        assert turns.oldest_seconds == 0
        first = asyncio.create_task(turns.run(lambda: go.wait(30)))
        await _until(lambda: turns.oldest_seconds > 0)
        first.cancel()
        await _settled(first)
        before = turns.oldest_seconds
        second = asyncio.create_task(turns.run(lambda: go.wait(30)))
        third = asyncio.create_task(turns.run(lambda: True))
        await _until(lambda: turns.present == 3)
        assert turns.oldest_seconds > before > 0
        go.set()
        await asyncio.gather(second, third)
        await _until(lambda: turns.present == 0)
        assert turns.oldest_seconds == 0

    asyncio.run(ask())


def test_who_hangs_up_while_waiting_leaves_and_who_is_inside_keeps_the_place(go: threading.Event) -> None:
    async def ask() -> None:
        turns, inside = Turns(1, 3, 60), threading.Event()

        def stuck() -> None:
            inside.set()
            go.wait(30)

        first = asyncio.create_task(turns.run(stuck))
        await _until(inside.is_set)
        second = asyncio.create_task(turns.run(lambda: True))
        await _until(lambda: turns.present == 2)
        second.cancel()
        assert isinstance(await _settled(second), asyncio.CancelledError)
        await _until(lambda: turns.present == 1)
        first.cancel()
        assert isinstance(await _settled(first), asyncio.CancelledError)
        # Its thread runs on, so nobody else may begin.
        third = asyncio.create_task(turns.run(lambda: "third"))
        await _until(lambda: turns.present == 2)
        assert not third.done()
        go.set()
        assert await third == "third"
        await _until(lambda: turns.present == 0)

    asyncio.run(ask())


def test_a_thread_sees_until_when_its_caller_waits_and_that_they_have_left(go: threading.Event) -> None:
    async def ask() -> None:
        turns, seen = Turns(1, 2, 60), list[Caller]()

        def look() -> bool:
            caller = CALLER.get()
            assert caller is not None
            seen.append(caller)
            go.wait(30)
            check_caller()
            return True

        before = time.monotonic()
        asked = asyncio.create_task(turns.run(look, deadline=before + 30))
        await _until(lambda: seen)
        assert (seen[0].has_left, round(seen[0].deadline - before)) == (False, 30)
        turn = next(task for task in asyncio.all_tasks() if task.get_coro().__name__ == "_turn")  # type: ignore[union-attr]
        asked.cancel()
        await _settled(asked)
        assert seen[0].has_left
        go.set()
        assert isinstance(await _settled(turn), TookTooLongError)
        # Who comes next is another.
        assert await turns.run(look)
        assert 59 < seen[1].deadline - before < 120

    asyncio.run(ask())


def test_what_fails_is_told_and_frees_its_place() -> None:
    async def ask() -> None:
        turns = Turns(1, 1, 60)
        with pytest.raises(ZeroDivisionError):
            await turns.run(lambda: 1 // 0)
        assert await turns.run(lambda: True)

    asyncio.run(ask())
