"""Augmentation: range, seed, and that it never turns a film left to right."""

import numpy as np
import torch

from pneumonet.training.augment import Mixup, _random_rescaling, augment
from tests.support.films import phantom


def _batch(count: int) -> torch.Tensor:
    film = torch.from_numpy(phantom(224, 224, blob=(0.5, 0.12)))
    return film.expand(count, 1, 224, 224)


def test_views_are_of_the_size_asked_and_in_range() -> None:
    views = augment(_batch(6), 96, torch.Generator().manual_seed(1))
    assert views.shape == (6, 1, 96, 96)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1


def test_the_same_seed_draws_the_same_views_and_another_draws_others() -> None:
    first, again, other = (augment(_batch(4), 64, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    torch.testing.assert_close(first, again)
    assert (first - other).abs().mean() > 0.01


def test_films_of_a_batch_get_views_of_their_own() -> None:
    views = augment(_batch(2), 64, torch.Generator().manual_seed(1))
    assert (views[0] - views[1]).abs().mean() > 0.01


def test_left_stays_left() -> None:
    film = np.zeros((224, 224), dtype=np.uint8)
    film[:, :112] = 200
    views = augment(torch.from_numpy(film).expand(64, 1, 224, 224), 64, torch.Generator().manual_seed(3))
    left, right = views[..., :24].mean((1, 2, 3)), views[..., -24:].mean((1, 2, 3))
    assert (left > right).all()


def test_mixup_mixes_everything_of_a_film_with_the_same_other_film() -> None:
    mix = Mixup(0.4, 6, torch.Generator().manual_seed(2))
    number = torch.arange(6.0)
    assert 0 < mix.share < 1
    mixed = mix(number)
    torch.testing.assert_close(mixed, mix.share * number + (1 - mix.share) * mix.other.float())
    assert sorted(mix.other.tolist()) == list(range(6))
    # Pixels and labels of one batch go the same way.
    pixels = number.view(-1, 1, 1, 1).expand(6, 1, 4, 4)
    torch.testing.assert_close(mix(pixels)[:, 0, 0, 0], mixed)
    again = Mixup(0.4, 6, torch.Generator().manual_seed(2))
    torch.testing.assert_close(again(number), mixed)


def test_no_mixup_leaves_films_as_they_are() -> None:
    number = torch.arange(6.0)
    assert torch.equal(Mixup(0, 6, torch.Generator())(number), number)


def test_views_carry_marks_tones_and_grain() -> None:
    flat = torch.full((200, 1, 224, 224), 128, dtype=torch.uint8)
    views = augment(flat, 224, torch.Generator().manual_seed(4))[:, 0]
    middle = views[:, 96:128, 96:128]
    assert middle.mean((1, 2)).std() > 0.03  # exposure
    assert 0.1 < (middle.std((1, 2)) > 0.005).float().mean() < 0.7  # noise on some
    assert views.flatten(1).std(1).max() > 0.1  # borders and letters


def test_some_views_are_stretched_to_their_own_black_and_white_and_the_others_stay() -> None:
    films = (torch.rand(120, 1, 64, 64, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.4).clamp(0, 1)
    views = _random_rescaling(films, torch.Generator().manual_seed(2))
    stretched = (views != films).flatten(1).any(1)
    assert 0.2 < stretched.float().mean() < 0.5
    for film, view in zip(films[stretched], views[stretched], strict=True):
        assert view.min() == 0
        assert view.max() > 0.95
        # Tones keep their order: it is a window, not another picture.
        order = film.flatten().argsort()
        assert (view.flatten()[order].diff() >= 0).all()


def test_a_flat_view_is_stretched_to_numbers_all_the_same() -> None:
    flat = torch.full((30, 1, 64, 64), 0.5)
    assert torch.isfinite(_random_rescaling(flat, torch.Generator().manual_seed(1))).all()
