"""The road as a whole, on tiny backbones: what a finding holds and what it warns of."""

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pneumonet.errors import AdmissionError, EmptyFileError, PneumoNetError, TookTooLongError
from pneumonet.finding import DISCLAIMER, ENSEMBLE, Finding
from pneumonet.model import PneumoNet
from pneumonet.radiograph import Radiograph
from pneumonet.reading.decoding import CALLER, Caller
from pneumonet.snapshot import MemberConfig
from pneumonet.taxonomy import CLASS_NAMES, Risk
from tests.support.films import encoded, phantom
from tests.support.snapshots import write_tiny_snapshot


def _film(height: int = 200, width: int = 240, **attributes: object) -> Radiograph:
    return Radiograph(phantom(height, width).astype(np.float32) / 255, "PNG", **attributes)  # type: ignore[arg-type]


def test_a_finding_is_whole(tiny_model: PneumoNet) -> None:
    finding = tiny_model.predict(encoded(phantom()))
    assert list(finding.probabilities) == list(CLASS_NAMES)
    assert sum(finding.probabilities.values()) == pytest.approx(1)
    assert finding.confidence == max(finding.probabilities.values()) == finding.probabilities[finding.label]
    assert finding.prediction_set[0] == finding.label
    assert set(finding.saliency) == {ENSEMBLE, "convnext_tiny", "efficientnetv2_s"}
    for maps in finding.saliency.values():
        assert list(maps) == list(CLASS_NAMES)
        for saliency_map in maps.values():
            assert saliency_map.dtype == np.float32
            assert saliency_map.min() >= 0
            assert saliency_map.max() <= 1
    assert finding.model.revision.startswith("local-")
    assert set(finding.timings) == {"read", "forward", "admission", "saliency"}
    assert finding.to_dict()["disclaimer"] == DISCLAIMER


def test_the_ensemble_s_map_is_its_members_weighted_mean(tiny_model: PneumoNet) -> None:
    finding = tiny_model.predict(_film())
    for name in CLASS_NAMES:
        expected = 0.4 * finding.saliency["convnext_tiny"][name] + 0.6 * finding.saliency["efficientnetv2_s"][name]
        np.testing.assert_allclose(finding.saliency[ENSEMBLE][name], expected, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(120, 330), (330, 120)], ids=["wide", "tall"])
def test_maps_are_laid_on_the_film_s_own_pixels(tiny_model: PneumoNet, height: int, width: int) -> None:
    finding = tiny_model.predict(_film(height, width))
    assert finding.saliency_map().shape == (height, width)
    assert finding.saliency_map("NORMAL", "convnext_tiny").shape == (height, width)
    with pytest.raises(KeyError):
        finding.saliency_map("NORMAL", "resnet")


def test_a_constant_picture_is_refused_and_gives_no_nan_when_forced(tiny_model: PneumoNet) -> None:
    grey = Radiograph(np.full((100, 100), 0.5, dtype=np.float32), "PNG")
    with pytest.raises(AdmissionError) as refused:
        tiny_model.predict(grey)
    assert [reason.code for reason in refused.value.reasons] == ["blank"]
    with np.errstate(all="raise"):
        finding = tiny_model.predict(grey, force=True)
    assert not finding.admission.accepted
    assert any("refused" in warning for warning in finding.warnings)
    assert np.isfinite(list(finding.probabilities.values())).all()
    assert all(np.isfinite(m).all() for maps in finding.saliency.values() for m in maps.values())


def test_what_the_pixels_refuse_no_backbone_sees(tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_model.ensemble, "forward", lambda films: pytest.fail("a backbone ran"))
    with pytest.raises(AdmissionError):
        tiny_model.predict(Radiograph(np.zeros((100, 100), dtype=np.float32), "PNG"))


def test_a_film_that_nobody_waits_for_any_more_goes_through_no_backbone(
    tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_model.ensemble, "forward", lambda films: pytest.fail("a backbone ran"))
    caller, context = Caller(deadline=time.monotonic() + 60), copy_context()
    context.run(CALLER.set, caller)
    caller.has_left = True
    with pytest.raises(TookTooLongError):
        context.run(tiny_model.predict, _film())


def test_a_distant_picture_is_refused_with_its_reason(tmp_path: Path) -> None:
    write_tiny_snapshot(tmp_path, max_distance=1e-6)
    with pytest.raises(AdmissionError, match="trained on") as refused:
        PneumoNet.from_pretrained(tmp_path, device="cpu").predict(_film())
    assert refused.value.reasons[0].code == "unlike_chest_films"


@pytest.mark.parametrize(
    ("age", "warned"), [(3.0, False), (1.0, False), (5.9, False), (6.0, True), (45.0, True), (0.5, True), (None, False)]
)
def test_an_age_outside_the_training_s_is_warned_of_and_not_repeated(
    tiny_model: PneumoNet, age: float | None, warned: bool
) -> None:
    warnings = tiny_model.predict(_film(patient_age_years=age)).warnings
    about_age = [warning for warning in warnings if "age" in warning.split()]
    assert bool(about_age) is warned
    assert all("45" not in warning for warning in about_age)


def _always_answer(
    model: PneumoNet, config: MemberConfig, logits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = model.ensemble.heads[config.name]
    bias = np.array(logits, dtype=np.float32) * np.float32(config.temperature)
    monkeypatch.setitem(model.ensemble.heads, config.name, replace(head, weight=head.weight * 0, bias=bias))


def _answer_of(
    folder: Path, logits: tuple[list[float], list[float]], monkeypatch: pytest.MonkeyPatch, **options: float
) -> Finding:
    """The finding of a film whose members' logits are given, temperatures and all else real."""
    write_tiny_snapshot(folder, **options)  # type: ignore[arg-type]
    model = PneumoNet.from_pretrained(folder, device="cpu")
    for config, values in zip(model.ensemble.configs, logits, strict=True):
        _always_answer(model, config, values, monkeypatch)
    return model.predict(_film(), saliency=False)


def _logits(*probabilities: float) -> list[float]:
    return np.log(probabilities).tolist()


def test_backbones_that_name_two_classes_leave_the_risk_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The ensemble is sure of bacterial all the same: .4 * .48 + .6 * .97 = .774, so confidence is not what decides.
    finding = _answer_of(
        tmp_path, (_logits(0.48, 0.03, 0.49), _logits(0.97, 0.01, 0.02)), monkeypatch, max_total_variation=0.9
    )
    assert (finding.label, finding.confidence > 0.7) == ("BACTERIAL_PNEUMONIA", True)
    assert finding.risk is Risk.INDETERMINATE
    assert any("disagree" in warning for warning in finding.warnings)


@pytest.mark.parametrize(("limit", "risk"), [(0.31, Risk.HIGH), (0.29, Risk.INDETERMINATE)])
def test_backbones_far_apart_disagree_though_they_name_one_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, risk: Risk
) -> None:
    logits = _logits(0.68, 0.16, 0.16), _logits(0.98, 0.01, 0.01)
    finding = _answer_of(tmp_path, logits, monkeypatch, max_total_variation=limit)
    assert finding.confidence == pytest.approx(0.86)
    assert finding.risk is risk
    assert any("disagree" in warning for warning in finding.warnings) is (risk is Risk.INDETERMINATE)


@pytest.mark.parametrize(
    ("normal", "risk"), [(0.82, Risk.NONE_DETECTED), (0.75, Risk.INDETERMINATE)], ids=["normal alone", "viral open"]
)
def test_no_risk_needs_normal_alone_and_always_comes_with_its_caution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normal: float, risk: Risk
) -> None:
    answer = _logits(0.01, normal, 0.99 - normal)
    finding = _answer_of(tmp_path, (answer, answer), monkeypatch)
    assert finding.risk is risk
    assert any(warning.startswith("A normal answer does not rule out disease.") for warning in finding.warnings)


def test_other_answers_carry_no_caution_on_normal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = _logits(0.9, 0.05, 0.05)
    assert not any("normal answer" in w for w in _answer_of(tmp_path, (answer, answer), monkeypatch).warnings)


def test_a_film_answered_by_force_names_no_risk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = _logits(0.01, 0.98, 0.01)
    write_tiny_snapshot(tmp_path, max_distance=1e-6)
    model = PneumoNet.from_pretrained(tmp_path, device="cpu")
    for config in model.ensemble.configs:
        _always_answer(model, config, answer, monkeypatch)
    finding = model.predict(_film(), force=True, saliency=False)
    assert finding.confidence > 0.7
    assert finding.risk is Risk.INDETERMINATE


def test_a_batch_answers_as_its_films_alone_and_refusals_keep_their_place(tiny_model: PneumoNet) -> None:
    blank = Radiograph(np.zeros((100, 100), dtype=np.float32), "PNG")
    films = [_film(), blank, _film(300, 150)]
    answers = tiny_model.predict_batch(films)
    assert isinstance(answers[1], AdmissionError)
    for i in (0, 2):
        alone = tiny_model.predict(films[i])
        answer = answers[i]
        assert not isinstance(answer, AdmissionError)
        assert answer.label == alone.label
        assert answer.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        for name in CLASS_NAMES:
            np.testing.assert_allclose(answer.saliency[ENSEMBLE][name], alone.saliency[ENSEMBLE][name], atol=1e-3)
    assert tiny_model.predict_batch([]) == []


def test_without_saliency_the_answer_is_the_same(tiny_model: PneumoNet) -> None:
    plain, explained = tiny_model.predict(_film(), saliency=False), tiny_model.predict(_film())
    assert plain.saliency == {}
    assert plain.probabilities == explained.probabilities


def test_threads_share_one_model(tiny_model: PneumoNet) -> None:
    films = [_film(200 + 10 * i, 200) for i in range(6)]
    alone = [tiny_model.predict(film).to_dict()["probabilities"] for film in films]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda film: tiny_model.predict(film).to_dict()["probabilities"], films))
    assert together == alone


def test_input_errors_pass_through_with_their_code(tiny_model: PneumoNet) -> None:
    with pytest.raises(EmptyFileError):
        tiny_model.predict(b"")


def test_a_path_and_its_bytes_answer_alike(tiny_model: PneumoNet, tmp_path: Path) -> None:
    path = tmp_path / "film.PNG"
    path.write_bytes(encoded(phantom()))
    assert tiny_model.predict(path).to_dict() == tiny_model.predict(path.read_bytes()).to_dict()


def test_memory_stays_flat_over_many_films(tiny_model: PneumoNet) -> None:
    film = _film()
    tiny_model.predict(film)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(30):
        tiny_model.predict(film)
    gc.collect()
    assert len(gc.get_objects()) - before < 500


def test_every_snapshot_fault_is_a_pneumonet_error(tmp_path: Path) -> None:
    with pytest.raises(PneumoNetError, match="snapshot"):
        PneumoNet.from_pretrained(tmp_path / "nothing-here")
