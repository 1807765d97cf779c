"""Marks of an archive: on a part of the films, where such marks are, and the lungs left to be seen."""

import numpy as np
import torch

from pneumonet.training.marks import leave_marks

GREY = 90


def _changed(count: int, seed: int) -> np.ndarray:
    """(count, 224, 224) bool: where marks changed flat grey films by more than JPEG does."""
    films = torch.full((count, 1, 224, 224), GREY, dtype=torch.uint8)
    marked = leave_marks(films, torch.Generator().manual_seed(seed))[:, 0]
    return ((marked.int() - GREY).abs() > 12).numpy()


def test_some_films_are_marked_and_some_are_not() -> None:
    marked = _changed(300, 1).any((1, 2)).mean()
    assert 0.25 < marked < 0.75


def test_marks_stay_out_of_the_middle_and_are_small() -> None:
    changed = _changed(300, 2)
    assert changed.mean((1, 2)).max() < 0.5
    # Words may run inwards from an edge; the very middle, where both lungs and the heart are, stays as it was.
    assert not changed[:, 90:134, 90:134].any()
    assert changed[:, :60].any()
    assert changed[:, -60:].any()


def test_the_films_given_are_not_changed_and_a_seed_draws_the_same_marks() -> None:
    films = torch.full((40, 1, 224, 224), GREY, dtype=torch.uint8)
    first, again, other = (leave_marks(films, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert (films == GREY).all()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_jpeg_artefacts_come_to_films_with_detail() -> None:
    detail = torch.randint(60, 120, (60, 1, 224, 224), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    change = (leave_marks(detail, torch.Generator().manual_seed(1)) != detail)[:, 0, 90:134, 90:134]
    share = (change.float().mean((1, 2)) > 0.3).float().mean()
    assert 0.1 < share < 0.6


def test_some_films_have_a_border_on_a_side_and_some_on_none() -> None:
    films = torch.full((300, 1, 224, 224), GREY, dtype=torch.uint8)
    marked = leave_marks(films, torch.Generator().manual_seed(3))[:, 0].int()
    for side in (marked[:, 0], marked[:, -1], marked[:, :, 0], marked[:, :, -1]):
        whole = ((side - GREY).abs() > 12).all(1).float().mean()
        assert 0.02 < whole < 0.2
