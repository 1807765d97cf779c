"""How many films are decoded at once: so many pixels in the whole process, in the order that they came."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from pneumonet.errors import TookTooLongError, UnreadableImageError
from pneumonet.reading import ReadingLimits, dicom, raster, read_radiograph
from pneumonet.reading.decoding import CALLER, DECODING, Caller, DecodingLine
from pneumonet.settings import Settings
from scripts.fuzz_floods import tiff
from tests.reading.films import compressed, dataset, film, noise, phantom, saved

PIXELS = 60 * 100
WITHOUT_WAITING = ReadingLimits(max_pixels_at_once=PIXELS, waiting_seconds=0)
PATIENCE_SECONDS = 60

FILMS = {
    "PNG": saved(phantom(), "PNG"),
    "GIF": saved(phantom(), "GIF"),
    "TIFF": saved(phantom(), "TIFF"),
    "DICOM": film(),
    "JPEG in DICOM": compressed(dataset(phantom(), bits=8), JPEGBaseline8Bit),
    "RLE in DICOM": compressed(dataset(), RLELossless),
    "deflated DICOM": film(syntax=DeflatedExplicitVRLittleEndian),
}


class Gauge:
    """Counts who is inside at once, and lets nobody out before so many were in together."""

    def __init__(self, together: int) -> None:
        self.inside = self.most = 0
        self._lock, self._barrier = threading.Lock(), threading.Barrier(together)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def gauged(*arguments: Any) -> Any:
            with self._lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            self._barrier.wait(PATIENCE_SECONDS)
            try:
                return function(*arguments)
            finally:
                with self._lock:
                    self.inside -= 1

        return gauged


@pytest.mark.parametrize("together", [1, 2])
def test_so_many_large_films_are_decoded_at_once_whatever_their_kind(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    gauge = Gauge(together)
    monkeypatch.setattr(raster, "_load", gauge.around(raster._load))
    monkeypatch.setattr(dicom, "_decode", gauge.around(dicom._decode))
    kinds = ("PNG", "GIF", "TIFF", "DICOM", "JPEG in DICOM", "RLE in DICOM")
    limits = ReadingLimits(max_pixels_at_once=(together + 1) * PIXELS - 1, waiting_seconds=PATIENCE_SECONDS)
    with ThreadPoolExecutor(len(kinds)) as pool:
        films = list(pool.map(lambda kind: read_radiograph(FILMS[kind], limits=limits), kinds))
    assert gauge.most == together
    assert [radiograph.pixels.size for radiograph in films] == [PIXELS] * len(kinds)


@pytest.fixture
def occupied() -> Iterator[Callable[[int], None]]:
    """Another thread that holds a turn of so many pixels in the process's line, to the end of the test."""
    done, threads = threading.Event(), []

    def occupy(pixels: int) -> None:
        held = threading.Event()

        def hold() -> None:
            with DECODING.turn(pixels, ReadingLimits(max_pixels_at_once=10**9)):
                held.set()
                done.wait()

        threads.append(threading.Thread(target=hold))
        threads[-1].start()
        assert held.wait(PATIENCE_SECONDS)

    yield occupy
    done.set()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("kind", FILMS)
def test_a_film_that_waits_too_long_is_given_up_and_leaves_no_trace(occupied: Callable[[int], None], kind: str) -> None:
    occupied(PIXELS)
    for _ in range(2):
        with pytest.raises(TookTooLongError, match="within 0 s"):
            read_radiograph(FILMS[kind], limits=WITHOUT_WAITING)
    assert read_radiograph(FILMS[kind], limits=replace(WITHOUT_WAITING, max_pixels_at_once=10**9)).frames == 1


@pytest.mark.parametrize("kind", FILMS)
def test_a_film_of_more_than_may_be_decoded_at_once_is_decoded_alone(kind: str) -> None:
    limits = replace(WITHOUT_WAITING, max_pixels_at_once=1)
    assert read_radiograph(FILMS[kind], limits=limits).pixels.size == PIXELS


@pytest.mark.parametrize("damaged", [saved(noise(), "PNG")[:-999], film()[:-999], FILMS["deflated DICOM"][:-99]])
def test_a_film_that_cannot_be_decoded_gives_its_place_back(damaged: bytes) -> None:
    with pytest.raises(UnreadableImageError):
        read_radiograph(damaged)
    assert read_radiograph(FILMS["PNG"], limits=replace(WITHOUT_WAITING, max_pixels_at_once=1)).frames == 1


def test_what_a_tile_and_a_later_frame_take_is_counted(occupied: Callable[[int], None]) -> None:
    frames = saved(phantom(), "GIF", save_all=True, append_images=[Image.fromarray(noise(60, 100))])
    tile = tiff([(322, 4, 1, 96), (323, 4, 1, 64), (324, 4, 1, 8)], 8 + 96 * 64)
    occupied(1)
    limits = ReadingLimits(max_pixels=3 * PIXELS, max_pixels_at_once=2 * PIXELS, waiting_seconds=0)
    assert read_radiograph(frames, frame=0, limits=limits).frames == 2
    with pytest.raises(TookTooLongError):
        read_radiograph(frames, frame=1, limits=limits)
    with pytest.raises(TookTooLongError):
        read_radiograph(tile, limits=replace(limits, max_pixels_at_once=96 * 64))
    assert read_radiograph(tile, limits=replace(limits, max_pixels_at_once=96 * 64 + 1)).pixels.size == 64 * 48


class Queue:
    """A line whose threads enter one after another, and what they did in which order."""

    def __init__(self, most: int) -> None:
        self.line, self.order = DecodingLine(), list[str]()
        self._limits = ReadingLimits(max_pixels_at_once=most, waiting_seconds=PATIENCE_SECONDS)
        self._pool = ThreadPoolExecutor(8)

    def enter(
        self, name: str, pixels: int, until: threading.Event | None = None, caller: Caller | None = None
    ) -> "Future[None]":
        """Have a thread ask for a turn, and return when it has it or stands in line for it."""
        seen = len(self.line._waiting) + len(self.order)
        run = asked_by(caller).run if caller else copy_context().run
        future = self._pool.submit(run, self._turn, name, pixels, until)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self.line._waiting) + len(self.order) == seen and not future.done():
            assert time.monotonic() < deadline
        return future

    def _turn(self, name: str, pixels: int, until: threading.Event | None) -> None:
        with self.line.turn(pixels, self._limits):
            self.order.append(name)
            if until is not None:
                until.wait(PATIENCE_SECONDS)


def test_small_films_never_overtake_a_large_one() -> None:
    queue, first, second = Queue(100), threading.Event(), threading.Event()
    waiting = [queue.enter("first", 60, first), queue.enter("second", 10, second), queue.enter("large", 100)]
    waiting += [queue.enter(f"small {number}", 1) for number in range(3)]
    assert queue.order == ["first", "second"]
    first.set()
    waiting[0].result(PATIENCE_SECONDS)
    assert queue.order == ["first", "second"]
    second.set()
    for future in waiting:
        future.result(PATIENCE_SECONDS)
    assert queue.order[:3] == ["first", "second", "large"]
    assert sorted(queue.order[3:]) == ["small 0", "small 1", "small 2"]


def test_whoever_gives_up_makes_way_for_the_next() -> None:
    queue, until = Queue(100), threading.Event()
    first = queue.enter("first", 60, until)
    with pytest.raises(TookTooLongError), queue.line.turn(100, replace(queue._limits, waiting_seconds=0)):
        pass
    queue.enter("small", 40).result(PATIENCE_SECONDS)
    assert queue.order == ["first", "small"]
    until.set()
    first.result(PATIENCE_SECONDS)


def asked_by(caller: Caller) -> Context:
    context = copy_context()
    context.run(CALLER.set, caller)
    return context


def test_nobody_stands_in_line_longer_than_their_caller_waits() -> None:
    queue, until = Queue(100), threading.Event()
    queue.enter("first", 60, until)
    late = queue.enter("late", 100, caller=Caller(time.monotonic()))
    try:
        # Within a part of what the line itself would have let it wait.
        with pytest.raises(TookTooLongError):
            late.result(PATIENCE_SECONDS / 4)
    finally:
        until.set()
    assert queue.order == ["first"]


def test_whoever_has_left_is_passed_over_when_the_turn_comes() -> None:
    queue, until, caller = Queue(100), threading.Event(), Caller(time.monotonic() + PATIENCE_SECONDS)
    queue.enter("first", 60, until)
    left = queue.enter("left", 100, caller=caller)
    last = queue.enter("last", 100)
    caller.has_left = True
    until.set()
    last.result(PATIENCE_SECONDS)
    with pytest.raises(TookTooLongError):
        left.result(PATIENCE_SECONDS)
    assert queue.order == ["first", "last"]
    with pytest.raises(TookTooLongError):
        asked_by(caller).run(read_radiograph, FILMS["PNG"])


def test_an_operator_s_settings_are_the_limits_of_reading() -> None:
    chosen = {"PNEUMONET_MAX_UPLOAD_MB": "3", "PNEUMONET_MAX_MEGAPIXELS": "8", "PNEUMONET_REQUEST_SECONDS": "9"}
    assert ReadingLimits.of(Settings()) == ReadingLimits()
    # As many as the largest film may have.
    assert ReadingLimits.of(Settings.from_environment(chosen)) == ReadingLimits(3_000_000, 8_000_000, 8_000_000, 9)
    settings = Settings.from_environment(chosen | {"PNEUMONET_DECODING_MEGAPIXELS": "80"})
    assert ReadingLimits.of(settings).max_pixels_at_once == 80_000_000
