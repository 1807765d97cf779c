"""Views with their teachers' answers: what is stored is what the teachers saw and said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pneumonet.training.run_folder import load_averaged
from pneumonet.training.teacher import Teacher
from pneumonet.training.views import VIEWS, ViewSet, make_views
from tests.support.runs import CPU, child_films

FILMS = torch.tensor([5, 0, 17])


def _make(folder: Path, teachers: list[Teacher], rounds: int = 2, seed: int = 1) -> None:
    make_views(folder, child_films(96, 1), teachers, rounds=rounds, size=64, seed=seed, held_back_fold=0)


def test_a_lesson_is_what_the_teacher_says_of_the_view(views: Path, teacher: Path) -> None:
    pixels, lesson = ViewSet.open(views).take(0, FILMS)
    assert pixels.shape == (3, 1, 64, 64)
    # The teacher asked by hand, by another way through timm: its whole forward pass.
    model, _ = load_averaged(teacher)
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = model((pixels - mean) / std).softmax(1)
    # Stored pixels are rounded to 8 bits.
    torch.testing.assert_close(lesson.probabilities, expected, atol=0.02, rtol=0)


def test_several_teachers_are_averaged(teacher: Path, tmp_path: Path) -> None:
    flat = Teacher(teacher, CPU)
    flat.model.get_classifier().weight.data.zero_()
    flat.model.get_classifier().bias.data.zero_()
    _make(tmp_path / "one", [Teacher(teacher, CPU)])
    _make(tmp_path / "two", [Teacher(teacher, CPU), flat])
    one, two = (ViewSet.open(tmp_path / name).take(1, FILMS)[1] for name in ("one", "two"))
    torch.testing.assert_close(two.probabilities, (one.probabilities + 1 / 3) / 2)
    torch.testing.assert_close(two.maps, one.maps)


def test_each_round_is_other_views_and_comes_again_after_the_last(views: Path) -> None:
    opened = ViewSet.open(views)
    first, second, again = (opened.take(epoch, FILMS)[0] for epoch in (0, 1, 2))
    assert (first - second).abs().mean() > 0.01
    torch.testing.assert_close(first, again)


def test_maps_are_standardised_by_channel(views: Path) -> None:
    _, lesson = ViewSet.open(views).take(0, torch.arange(96))
    std, mean = torch.std_mean(lesson.maps, (0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-2, rtol=0)
    alive = std > 0.5
    assert alive.float().mean() > 0.5
    torch.testing.assert_close(std[alive], torch.ones_like(std[alive]), atol=1e-2, rtol=0)


def test_views_go_on_after_the_last_whole_round(views: Path, teacher: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(views, cut)
    about = json.loads((cut / VIEWS).read_text())
    (cut / VIEWS).write_text(json.dumps(about | {"done": 1}))
    pixels = np.load(cut / "pixels.npy", mmap_mode="r+")
    pixels[1] = 0
    pixels.flush()
    with pytest.raises(ValueError, match="1 of 2 rounds"):
        ViewSet.open(cut)
    _make(cut, [Teacher(teacher, CPU)])
    np.testing.assert_array_equal(np.load(cut / "pixels.npy"), np.load(views / "pixels.npy"))


def test_views_of_another_kind_are_not_mixed_in(views: Path, teacher: Path) -> None:
    with pytest.raises(ValueError, match="seed"):
        _make(views, [Teacher(teacher, CPU)], seed=2)


def test_a_teacher_that_saw_the_held_back_films_or_is_not_done_is_refused(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not seen"):
        make_views(tmp_path, child_films(96, 1), [Teacher(teacher, CPU)], 1, 64, 1, held_back_fold=3)
    half = tmp_path / "half"
    shutil.copytree(teacher, half)
    lines = (half / "history.jsonl").read_text().splitlines(keepends=True)
    (half / "history.jsonl").write_text("".join(lines[:2]))
    with pytest.raises(ValueError, match="finished teacher"):
        Teacher(half, CPU)
