"""A short run of the fuzzer, and the fuzzer itself: a reader that misbehaves must not get past it."""

import os
import struct
from collections.abc import Callable

import pytest
from pydicom.uid import RLELossless

from pneumonet.errors import UnreadableImageError
from pneumonet.reading import read_radiograph
from scripts import fuzz_readers
from scripts.fuzz_floods import dicom, floods


@pytest.mark.filterwarnings("ignore")
def test_damaged_films_end_in_a_picture_or_in_an_error_of_ours() -> None:
    outcome = fuzz_readers.read_inputs(7, range(1000))
    assert outcome.faults == []
    # Neither all refused nor all read: the mutations reach behind the headers.
    assert 100 < outcome.codes["read"] < 900
    assert {"unreadable_image", "unsupported_format", "too_many_pixels"} <= set(outcome.codes)


def test_a_panic_in_a_decoder_written_in_rust_is_an_error_of_ours() -> None:
    # A first segment, the upper bytes of 128 values of 16 bits, of more values than that: an index out of its bounds.
    runs = struct.pack("<16I", 2, 64, 72, *[0] * 13) + b"\x81\1" * 5
    film = dicom(RLELossless, [runs], Rows=1, Columns=128, BitsAllocated=16, BitsStored=16, HighBit=15)
    with pytest.raises(UnreadableImageError) as told:
        read_radiograph(film)
    assert type(told.value.__cause__).__name__ == "PanicException"


def test_an_input_is_its_seed_and_number_s() -> None:
    assert fuzz_readers.mutated(1, 5) == fuzz_readers.mutated(1, 5)
    assert len({fuzz_readers.mutated(seed, number) for seed in (1, 2) for number in range(20)}) == 40


def test_the_corpus_holds_films_and_floods() -> None:
    assert set(floods().values()) <= set(fuzz_readers.corpus())
    assert len(fuzz_readers.corpus()) > 3 * len(floods())


def _raises(data: bytes) -> None:
    raise ZeroDivisionError


def _dawdles(data: bytes) -> None:
    started = fuzz_readers.time.process_time()
    while fuzz_readers.time.process_time() < started + 0.05:
        pass


@pytest.mark.parametrize(("reader", "words"), [(_raises, "ZeroDivisionError"), (_dawdles, "took 0.05 s")])
def test_a_reader_that_raises_or_dawdles_is_found(
    monkeypatch: pytest.MonkeyPatch, reader: Callable[[bytes], None], words: str
) -> None:
    monkeypatch.setattr(fuzz_readers, "read_radiograph", reader)
    monkeypatch.setattr(fuzz_readers, "MOST_SECONDS", 0.04)
    faults = fuzz_readers.read_inputs(1, range(3)).faults
    assert [number for number, what in faults if words.split()[0] in what] == [0, 1, 2]


def test_a_reader_that_kills_its_process_is_named_and_the_rest_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    fatal = fuzz_readers.mutated(3, 11)

    def reader(data: bytes) -> None:
        if data == fatal:
            os._exit(9)
        raise UnreadableImageError("no")

    monkeypatch.setattr(fuzz_readers, "read_radiograph", reader)
    monkeypatch.setattr(fuzz_readers, "_BATCH", 8)
    outcome = fuzz_readers.fuzz(3, 40, 1)
    assert outcome.faults == [(11, "the process died, code 9")]
    assert outcome.codes == {"unreadable_image": 39}


def test_a_reader_that_hangs_is_ended_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    target = fuzz_readers.mutated(1, 11)

    def reader(data: bytes) -> None:
        # As a native decoder would: it gives Python no turn to raise anything.
        while data == target:
            pass

    monkeypatch.setattr(fuzz_readers, "read_radiograph", reader)
    monkeypatch.setattr(fuzz_readers, "HANGING_SECONDS", 1)
    outcome = fuzz_readers.fuzz(1, 30, 1)
    assert outcome.faults == [(11, "the process died, code -14")]
