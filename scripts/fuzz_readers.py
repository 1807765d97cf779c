"""Throw damaged films at the readers: no crash, no error outside our own, none over a second or a gibibyte.

    python scripts/fuzz_readers.py --inputs 100000

Each input is a small valid film of one of the formats, mutated; seed and number decide it, so `--write NUMBER` makes
any of them again. Worker processes do the reading: one that dies names the input that it died of.
"""

import argparse
import collections
import io
import multiprocessing
import resource
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumonet.errors import PneumoNetError
from pneumonet.reading import read_radiograph
from scripts.fuzz_floods import floods

MOST_SECONDS: Final = 1.0
HANGING_SECONDS: Final = 30
MOST_BYTES: Final = 1 << 30
_BATCH: Final = 500
_LARGEST_DICOM: Final = 150_000
# Values at which sizes, counts and offsets break: nothing, one, the ends of each width.
_NUMBERS: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass
class Outcome:
    """What became of some inputs.

    Attributes:
        codes: How many ended as what: `read`, or an error's code.
        faults: (number, what is wrong) of each input that did not end as it should.
        slowest: Seconds of the slowest, on the processor.
        peak_bytes: Most memory that a process held, less what it held before.
    """

    codes: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)
    slowest: float = 0.0
    peak_bytes: int = 0

    def add(self, other: "Outcome") -> None:
        """Take another's inputs in."""
        self.codes += other.codes
        self.faults += other.faults
        self.slowest, self.peak_bytes = max(self.slowest, other.slowest), max(self.peak_bytes, other.peak_bytes)


@cache
def corpus() -> tuple[bytes, ...]:
    """Return small valid films of every format that is read, and what floods a reader."""
    y, x = np.mgrid[0:48, 0:64]
    grey = Image.fromarray(((np.hypot(y - 24, x - 30) * 5) % 256).astype(np.uint8))
    deep = Image.fromarray((np.hypot(y - 24, x - 30) * 900).astype(np.uint16))
    colour = Image.merge("RGB", (grey, grey.transpose(Image.Transpose.ROTATE_180), grey))
    floats = Image.fromarray(np.hypot(y, x).astype(np.float32))
    pages = {"save_all": True, "append_images": [grey, grey]}
    saved = [
        *((picture, "PNG", {}) for picture in (grey, deep, colour, grey.convert("1"), grey.convert("P"),
                                               grey.convert("LA"), colour.convert("RGBA"))),
        *((grey, "JPEG", options) for options in ({}, {"progressive": True}, {"quality": 20})),
        (colour, "JPEG", {}), (colour.convert("CMYK"), "JPEG", {}),
        *((picture, "TIFF", {"compression": how}) for picture in (grey, deep, colour)
          for how in (None, "tiff_lzw", "tiff_deflate", "packbits")),
        (floats, "TIFF", {}), (grey, "TIFF", pages),
        (grey, "WEBP", {}), (grey, "WEBP", {"lossless": True}), (colour, "WEBP", pages),
        (grey, "BMP", {}), (colour, "BMP", {}), (grey, "GIF", {}), (grey, "GIF", pages), (grey, "JPEG2000", {}),
    ]  # fmt: skip
    films = []
    for picture, file_format, options in saved:
        file = io.BytesIO()
        picture.save(file, file_format, **options)
        films.append(file.getvalue())
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    small = (path for path in sorted(folder.glob("*.dcm")) if path.stat().st_size <= _LARGEST_DICOM)
    return (*films, *floods().values(), *(path.read_bytes() for path in small))


def mutated(seed: int, number: int) -> bytes:
    """Return the input of a number."""
    rng = np.random.default_rng([seed, number])
    films = corpus()
    data = bytearray(films[int(rng.integers(len(films)))])
    for _ in range(int(rng.integers(1, 4))):
        if not data:
            break
        _mutate(data, films, rng)
    return bytes(data)


def _mutate(data: bytearray, films: Sequence[bytes], rng: np.random.Generator) -> None:
    # Headers decide much: three changes in ten fall on the first 512 bytes alone.
    reach = min(len(data), 512) if rng.random() < 0.3 else len(data)
    at = int(rng.integers(reach))
    span = int(rng.integers(1, 65))
    kind = int(rng.integers(7))
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        data[at] = int(rng.integers(256))
    elif kind == 2:
        width = int(rng.choice([2, 4]))
        value = int(rng.choice(_NUMBERS)) & ((1 << 8 * width) - 1)
        data[at : at + width] = value.to_bytes(width, "big" if rng.random() < 0.5 else "little")
    elif kind == 3:
        del data[at : at + span]
    elif kind == 4:
        data[at:at] = data[at : at + span] * int(rng.integers(1, 9))
    elif kind == 5:
        del data[at + 1 :]
    else:
        other = films[int(rng.integers(len(films)))]
        start = int(rng.integers(len(other)))
        data[at : at + span] = other[start : start + span]


def read_inputs(
    seed: int, numbers: Sequence[int], current: "multiprocessing.sharedctypes.Synchronized[int] | None" = None
) -> Outcome:
    """Read inputs one by one, in this process.

    Args:
        seed: As in `mutated`.
        numbers: Which.
        current: Told of each number before it is read.
    """
    outcome, before = Outcome(), _peak_bytes()
    for number in numbers:
        data = mutated(seed, number)
        if current is not None:
            current.value = number
            # By its default action, which ends the process: a decoder that hangs listens to nothing else.
            signal.alarm(HANGING_SECONDS)
        # Of this process: what else the machine does is no fault of a reader's.
        started = time.process_time()
        try:
            read_radiograph(data)
            outcome.codes["read"] += 1
        except PneumoNetError as error:
            outcome.codes[error.code] += 1
        except BaseException as error:
            outcome.codes["FAULT"] += 1
            outcome.faults.append((number, f"{type(error).__name__}: {error}"))
        seconds = time.process_time() - started
        outcome.slowest = max(outcome.slowest, seconds)
        if seconds > MOST_SECONDS:
            outcome.faults.append((number, f"took {seconds:.2f} s"))
        grown = _peak_bytes() - before
        if grown > MOST_BYTES:
            outcome.faults.append((number, f"{grown / 2**20:.0f} MiB held at most, by this or an earlier input"))
    signal.alarm(0)
    outcome.peak_bytes = _peak_bytes() - before
    return outcome


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _work(
    seed: int,
    numbers: Sequence[int],
    current: "multiprocessing.sharedctypes.Synchronized[int]",
    answers: "multiprocessing.SimpleQueue[Outcome]",
) -> None:
    warnings.simplefilter("ignore")
    for start in range(0, len(numbers), _BATCH):
        answers.put(read_inputs(seed, numbers[start : start + _BATCH], current))


def fuzz(seed: int, count: int, processes: int) -> Outcome:
    """Read `count` inputs in worker processes; a process that dies is a fault, and another goes on behind it."""
    whole = Outcome()
    waiting = [range(first, count, processes) for first in range(processes)]
    with tqdm(total=count, unit="input", mininterval=2) as progress:
        running = [_Worker(seed, numbers) for numbers in waiting]
        while running:
            for worker in list(running):
                is_alive = worker.process.is_alive()
                # Asked after the process was looked at: what a dead one has sent is all there.
                for outcome in worker.answers_so_far():
                    whole.add(outcome)
                    worker.told += sum(outcome.codes.values())
                    progress.update(sum(outcome.codes.values()))
                if is_alive:
                    continue
                running.remove(worker)
                if rest := worker.rest_after_death():
                    whole.faults.append((worker.current.value, f"the process died, code {worker.process.exitcode}"))
                    running.append(_Worker(seed, rest))
            time.sleep(0.1)
    return whole


class _Worker:
    """A process that reads some inputs."""

    def __init__(self, seed: int, numbers: Sequence[int]) -> None:
        self.numbers, self.told = numbers, 0
        self.current = multiprocessing.Value("q", -1)
        self.answers: multiprocessing.SimpleQueue[Outcome] = multiprocessing.SimpleQueue()
        self.process = multiprocessing.Process(target=_work, args=(seed, numbers, self.current, self.answers))
        self.process.start()

    def answers_so_far(self) -> Iterator[Outcome]:
        while not self.answers.empty():
            yield self.answers.get()

    def rest_after_death(self) -> list[int]:
        """What nobody was told of where the process died of an input, but for that; empty where it ended by itself."""
        if self.process.exitcode == 0:
            return []
        return [number for number in self.numbers[self.told :] if number != self.current.value]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code, 1 where an input did what none may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", type=int, metavar="NUMBER", help="write that input to standard output and stop")
    arguments = parser.parse_args(argv)
    if arguments.write is not None:
        sys.stdout.buffer.write(mutated(arguments.seed, arguments.write))
        return 0
    outcome = fuzz(arguments.seed, arguments.inputs, arguments.processes)
    for code, n in outcome.codes.most_common():
        print(f"{n:>8} {code}")
    print(f"slowest {outcome.slowest:.2f} s, most memory {outcome.peak_bytes / 2**20:.0f} MiB, seed {arguments.seed}")
    for number, what in outcome.faults:
        print(f"input {number}: {what}")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
