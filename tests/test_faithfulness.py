"""The measurements of saliency maps, against maps whose worth is known beforehand."""

from dataclasses import replace

import numpy as np
import pytest

from pneumonet.evaluation import faithfulness as faith
from pneumonet.finding import ENSEMBLE
from pneumonet.members import Member
from pneumonet.model import PneumoNet
from pneumonet.preprocessing import to_batch
from pneumonet.radiograph import Radiograph
from tests.support.films import phantom
from tests.support.snapshots import INPUT

SIDE = INPUT.size


@pytest.fixture(scope="module")
def film() -> Radiograph:
    return faith.squashed(Radiograph(phantom().astype(np.float32) / 255, "PNG"), SIDE)


class TestDeletionAndInsertion:
    @pytest.fixture
    def by_corner(self, tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch) -> PneumoNet:
        """A model whose first class is as likely as the upper left quarter is bright."""

        def answered(model: PneumoNet, films: list[Radiograph], *, saliency: bool = True) -> list:
            found = tiny_model.predict_batch(films, force=True, saliency=saliency)
            half = SIDE // 2
            shares = [float(film.pixels[:half, :half].mean()) for film in films]
            given = [{"BACTERIAL_PNEUMONIA": p, "NORMAL": 1 - p, "VIRAL_PNEUMONIA": 0.0} for p in shares]
            return [
                replace(finding, label="BACTERIAL_PNEUMONIA", probabilities=p, member_probabilities={"m": p})
                for finding, p in zip(found, given, strict=True)
            ]

        monkeypatch.setattr(faith, "answered", answered)
        return tiny_model

    def test_a_map_of_what_decides_beats_one_of_what_does_not(self, by_corner: PneumoNet) -> None:
        pixels = np.zeros((SIDE, SIDE), np.float32)
        pixels[8:40, 8:40] = 1
        bright = Radiograph(pixels, "PNG")
        right, wrong = np.zeros((2, 4, 4), np.float32)
        right[:2, :2], wrong[2:, 2:] = 1, 1
        finding = faith.answered(by_corner, [bright])[0]
        curves = {}
        for name, own in (("right", right), ("wrong", wrong)):
            saliency = {"m": {"BACTERIAL_PNEUMONIA": own}}
            one = replace(finding, saliency=saliency)
            curves[name] = faith.deletion_and_insertion(by_corner, bright, one, np.random.default_rng(0))["m"]["map"]
        assert curves["right"].deletion < curves["wrong"].deletion
        assert curves["right"].insertion > curves["wrong"].insertion

    def test_each_source_is_judged_by_its_own_probability_and_beside_both_others(
        self, tiny_model: PneumoNet, film: Radiograph
    ) -> None:
        finding = faith.answered(tiny_model, [film])[0]
        curves = faith.deletion_and_insertion(tiny_model, film, finding, np.random.default_rng(0))
        assert set(curves) == {ENSEMBLE, "convnext_tiny", "efficientnetv2_s"}
        for orders in curves.values():
            assert set(orders) == {"map", "random", "centre"}
            for curve in orders.values():
                assert 0 < curve.deletion < 1
                assert 0 < curve.insertion < 1


def test_energy_in_the_frame_of_known_maps() -> None:
    even = np.ones((5, 5), np.float32)
    assert faith.frame_energy(even, 100) == pytest.approx(1 - 0.8**2)
    middle = np.zeros((50, 50), np.float32)
    middle[20:30, 20:30] = 1
    assert faith.frame_energy(middle, 100) == pytest.approx(0)
    assert np.isnan(faith.frame_energy(np.zeros((4, 4), np.float32), 100))


def test_similarity_is_of_ranks() -> None:
    ramp = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert faith.similarity(ramp, ramp**3) == pytest.approx(1)
    assert faith.similarity(ramp, -ramp) == pytest.approx(-1)
    assert np.isnan(faith.similarity(ramp, np.ones((4, 4), np.float32)))


@pytest.mark.parametrize("head_only", [True, False])
def test_drawing_weights_anew_changes_them_and_leaves_the_model_s_own(
    tiny_model: PneumoNet, film: Radiograph, head_only: bool
) -> None:
    member = Member.load(tiny_model.snapshot.config.members[1], tiny_model.snapshot.path)
    before = {name: tensor.clone() for name, tensor in member.model.state_dict().items()}
    other = faith.randomised(member, head_only=head_only, seed=3).model.state_dict()
    assert all((tensor == before[name]).all() for name, tensor in member.model.state_dict().items())
    changed = {name for name, tensor in other.items() if not bool((tensor == before[name]).all())}
    head = {name for name in changed if name.startswith("classifier")}
    assert head
    assert (changed == head) is head_only
    batch = to_batch([film], INPUT)
    maps = [faith.map_of(faith.randomised(member, head_only=head_only, seed=s), batch, "NORMAL") for s in (3, 3, 4)]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def test_marks_lie_where_they_say_and_nothing_else_changes(film: Radiograph) -> None:
    marked = faith.marked(film)
    assert len(marked) == 12
    for name, (other, ink) in marked.items():
        assert ink.any()
        assert ink.mean() < 0.12
        np.testing.assert_array_equal(other.pixels[~ink], film.pixels[~ink])
        assert (other.pixels[ink] == 1).all()
        rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
        for word, place, end in (("upper", rows[-1], False), ("lower", rows[0], True)):
            assert word not in name or bool(place > SIDE / 2) is end
        for word, place, end in ((" left", columns[-1], False), (" right", columns[0], True)):
            assert word not in name or "PORTABLE" in name or bool(place > SIDE / 2) is end
        if "top" in name:
            assert rows[0] == 0
        if "bottom" in name:
            assert rows[-1] == SIDE - 1


def test_the_strongest_cell_is_on_ink_that_it_covers() -> None:
    ink = np.zeros((96, 96), dtype=bool)
    ink[2:6, 2:6] = True
    here, there = np.zeros((2, 3, 3), np.float32)
    here[0, 0], there[2, 2] = 1, 1
    assert faith.peak_on(here, ink)
    assert not faith.peak_on(there, ink)
    assert not faith.peak_on(np.zeros((3, 3), np.float32), ink)


def test_what_disturbs_a_film_is_small(film: Radiograph) -> None:
    others = faith.disturbed(film)
    moved = others["shift of 2 %"].pixels
    np.testing.assert_allclose(moved[10:, 10:], np.roll(film.pixels, (2, 2), (0, 1))[10:, 10:], atol=0.12)
    assert 0 < np.abs(others["JPEG 75"].pixels - film.pixels).mean() < 0.05


def test_a_summary_leaves_out_what_is_not_known() -> None:
    assert faith.summarised([1.0, float("nan"), 3.0]) == {"mean": 2.0, "low": 1.05, "high": 2.95, "n": 2}
    assert faith.summarised([float("nan")])["mean"] is None
