"""The figures against values by hand, naive loops and scikit-learn, and the report that holds them."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from pneumonet.calibration import expected_calibration_error
from pneumonet.evaluation import Answer, FilmError, bootstrap, build_report, score
from pneumonet.evaluation.failures import FAILURES, worst_failures
from pneumonet.evaluation.metrics import CAUSE_NOT_STATED, auroc, confusion_matrix, figures
from pneumonet.evaluation.reliability import reliability, selective_risk
from pneumonet.evaluation.table import as_text
from pneumonet.model import PneumoNet
from pneumonet.taxonomy import CLASS_NAMES, Risk

B, N, V = range(3)
# Six films by hand: answers B, N, B, V, N, V.
PROBABILITIES = np.array(
    [
        [0.80, 0.10, 0.10],
        [0.05, 0.90, 0.05],
        [0.60, 0.10, 0.30],
        [0.25, 0.15, 0.60],
        [0.10, 0.55, 0.35],
        [0.40, 0.10, 0.50],
    ]
)
LABELS = np.array([B, N, V, V, V, B])


def _random_films(n: int, seed: int, ties: bool = False) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 3)) + 1.2 * np.eye(3)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if ties:
        probabilities = (probabilities * 5).round() + 0.2
        probabilities /= probabilities.sum(1, keepdims=True)
    return probabilities, labels


class TestFailures:
    def _answer(self, file: str, patient: str, truth: int, *probabilities: float) -> Answer:
        return Answer(file, patient, truth, probabilities)

    def test_the_surest_wrong_answers_come_first_one_a_patient(self) -> None:
        answers = [
            self._answer("right.png", "a", B, 0.99, 0.0, 0.01),
            self._answer("wrong.png", "b", V, 0.7, 0.1, 0.2),
            self._answer("surer.png", "c", N, 0.1, 0.1, 0.8),
            self._answer("same child.png", "c", N, 0.75, 0.2, 0.05),
        ]
        assert worst_failures(answers) == [
            {"file": "surer.png", "truth": "NORMAL", "answer": "VIRAL_PNEUMONIA", "probability": 0.8,
             "probability_of_truth": 0.1},
            {"file": "wrong.png", "truth": "VIRAL_PNEUMONIA", "answer": "BACTERIAL_PNEUMONIA", "probability": 0.7,
             "probability_of_truth": 0.2},
        ]  # fmt: skip

    def test_a_set_of_films_without_causes_has_none(self) -> None:
        answers = [self._answer("a.png", "a", N, 0.9, 0.05, 0.05), self._answer("b", "b", CAUSE_NOT_STATED, 0, 1, 0)]
        assert worst_failures(answers) == []

    def test_there_are_no_more_than_a_reader_will_read(self) -> None:
        answers = [self._answer(f"{i}.png", f"p{i}", V, 0.7, 0.1, 0.2) for i in range(40)]
        assert len(worst_failures(answers)) == FAILURES


class TestScore:
    def test_figures_by_hand(self) -> None:
        result = score(PROBABILITIES, LABELS)
        assert result["accuracy"] == pytest.approx(3 / 6)
        assert result["per_class"]["BACTERIAL_PNEUMONIA"]["recall"] == pytest.approx(1 / 2)
        assert result["per_class"]["BACTERIAL_PNEUMONIA"]["precision"] == pytest.approx(1 / 2)
        assert result["per_class"]["NORMAL"]["recall"] == 1
        assert result["per_class"]["NORMAL"]["precision"] == pytest.approx(1 / 2)
        assert result["per_class"]["VIRAL_PNEUMONIA"]["recall"] == pytest.approx(1 / 3)
        # F1: B 2*1/(2+2), N 2*1/(1+2), V 2*1/(3+2).
        assert result["f1_macro"] == pytest.approx((1 / 2 + 2 / 3 + 2 / 5) / 3)
        # Pairs (bacterial, other): .80 wins 4 of 4, .40 wins 3 of 4 and loses to .60.
        assert result["per_class"]["BACTERIAL_PNEUMONIA"]["auroc"] == pytest.approx(7 / 8)
        assert result["binary"]["accuracy"] == pytest.approx(5 / 6)
        assert result["binary"]["sensitivity"] == pytest.approx(4 / 5)
        assert result["binary"]["specificity"] == 1
        assert result["binary"]["auroc"] == 1
        assert confusion_matrix(PROBABILITIES, LABELS) == [[1, 0, 1], [0, 1, 0], [1, 1, 1]]

    def test_calibration_errors_by_a_naive_loop(self) -> None:
        probabilities, labels = _random_films(200, seed=3)
        sick, top = 1 - probabilities[:, N], probabilities.max(1)
        result = score(probabilities, labels)
        for error, values, right in (
            (result["ece"], top, probabilities.argmax(1) == labels),
            (result["binary"]["ece"], sick, labels != N),
        ):
            # 200 films in 15 bins: the i-th lowest goes to bin 15 i / 200, rounded down.
            films = sorted(range(200), key=lambda i, values=values: values[i])
            expected = 0.0
            for b in range(15):
                inside = [film for place, film in enumerate(films) if 15 * place // 200 == b]
                assert len(inside) in (13, 14)
                expected += abs(sum(right[i] for i in inside) - sum(values[i] for i in inside)) / 200
            assert error == pytest.approx(expected, abs=1e-12)
        assert result["binary"]["brier"] == pytest.approx(sklearn_metrics.brier_score_loss(labels != N, sick))

    @pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
    def test_auroc_by_counting_pairs(self, ties: bool) -> None:
        probabilities, labels = _random_films(60, seed=4, ties=ties)
        scores, positive = probabilities[:, V], labels == V
        won = [(p > n) + (p == n) / 2 for p in scores[positive] for n in scores[~positive]]
        assert auroc(scores, positive, np.ones((1, 60)))[0] == pytest.approx(np.mean(won), abs=1e-12)

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
    def test_agrees_with_scikit_learn_and_with_calibration(self, seed: int, ties: bool) -> None:
        probabilities, labels = _random_films(150, seed, ties)
        answers, result = probabilities.argmax(1), score(probabilities, labels)
        precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(labels, answers)
        for index, name in enumerate(CLASS_NAMES):
            of_class = result["per_class"][name]
            assert of_class["precision"] == pytest.approx(precision[index])
            assert of_class["recall"] == pytest.approx(recall[index])
            assert of_class["f1"] == pytest.approx(f1[index])
        assert result["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, answers))
        assert result["f1_macro"] == pytest.approx(f1.mean())
        assert result["auroc_macro"] == pytest.approx(
            sklearn_metrics.roc_auc_score(labels, probabilities, multi_class="ovr")
        )
        assert result["binary"]["auroc"] == pytest.approx(
            sklearn_metrics.roc_auc_score(labels != N, 1 - probabilities[:, N])
        )
        assert result["ece"] == pytest.approx(expected_calibration_error(probabilities, labels))
        assert result["brier"] == pytest.approx(((probabilities - np.eye(3)[labels]) ** 2).sum() / len(labels))
        assert confusion_matrix(probabilities, labels) == sklearn_metrics.confusion_matrix(labels, answers).tolist()

    def test_weights_are_repeats(self) -> None:
        probabilities, labels = _random_films(40, seed=5)
        repeats = np.random.default_rng(5).integers(0, 4, 40)
        weighted = figures(probabilities, labels, repeats[None].astype(float))
        repeated = figures(
            probabilities.repeat(repeats, axis=0), labels.repeat(repeats), np.ones((1, int(repeats.sum())))
        )
        for name, row in weighted.items():
            if name.endswith("ece"):
                continue  # a resample keeps the bins of the films as they are; repeats would draw their own
            assert row[0] == pytest.approx(repeated[name][0], nan_ok=True), name

    def test_class_that_no_film_has_leaves_its_figures_open(self) -> None:
        kept = LABELS != N
        result = score(PROBABILITIES[kept], LABELS[kept])
        assert result["per_class"]["NORMAL"]["recall"] is None
        assert result["per_class"]["NORMAL"]["f1"] is None
        assert result["f1_macro"] is None
        assert result["auroc_macro"] is None
        assert result["binary"]["specificity"] is None
        assert result["accuracy"] == pytest.approx(2 / 5)

    def test_pneumonia_of_no_stated_cause_gives_binary_figures_only(self) -> None:
        labels = np.where(LABELS == N, N, CAUSE_NOT_STATED)
        result = score(PROBABILITIES, labels)
        assert result["binary"] == score(PROBABILITIES, LABELS)["binary"]
        for name in ("accuracy", "f1_macro", "auroc_macro", "ece", "brier"):
            assert result[name] is None
        assert set(result["per_class"]["NORMAL"].values()) == {None}


class TestBootstrap:
    def test_interval_holds_the_point_and_narrows_with_films(self) -> None:
        widths = []
        for n in (60, 600):
            probabilities, labels = _random_films(n, seed=6)
            low, high = bootstrap(probabilities, labels, [str(i) for i in range(n)])["accuracy"] or ()
            assert low < score(probabilities, labels)["accuracy"] < high
            widths.append(high - low)
        assert widths[1] < widths[0] / 2

    def test_agrees_with_the_normal_approximation_where_each_patient_has_one_film(self) -> None:
        probabilities, labels = _random_films(500, seed=7)
        low, high = bootstrap(probabilities, labels, [str(i) for i in range(500)], resamples=2000)["accuracy"] or ()
        accuracy = score(probabilities, labels)["accuracy"]
        assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(accuracy * (1 - accuracy) / 500), rel=0.1)

    def test_a_patients_films_move_together(self) -> None:
        probabilities, labels = _random_films(75, seed=8)
        alone = bootstrap(probabilities, labels, [str(i) for i in range(75)], seed=1)
        # 75 films in 15 bins, so that copies share their bin.
        # Nine copies of each film are no more evidence than one, as long as they are the same patient's.
        patients = [str(i) for i in range(75) for _ in range(9)]
        together = bootstrap(probabilities.repeat(9, 0), labels.repeat(9), patients, seed=1)
        for name, interval in alone.items():
            assert together[name] == pytest.approx(interval), name

    def test_seed_decides(self) -> None:
        probabilities, labels = _random_films(50, seed=9)
        patients = [str(i // 2) for i in range(50)]
        first = bootstrap(probabilities, labels, patients, resamples=50, seed=1)
        assert first == bootstrap(probabilities, labels, patients, resamples=50, seed=1)
        assert first != bootstrap(probabilities, labels, patients, resamples=50, seed=2)

    def test_blocks_do_not_change_the_draw(self, monkeypatch: pytest.MonkeyPatch) -> None:
        probabilities, labels = _random_films(50, seed=9)
        patients = [str(i // 2) for i in range(50)]
        whole = bootstrap(probabilities, labels, patients, resamples=50)
        monkeypatch.setattr("pneumonet.evaluation.metrics._BLOCK", 350)
        assert bootstrap(probabilities, labels, patients, resamples=50) == whole

    def test_one_patient_gives_no_interval(self) -> None:
        assert set(bootstrap(PROBABILITIES, LABELS, ["a"] * 6, resamples=10).values()) == {None}

    def test_resample_without_a_class_is_left_out_of_that_class(self) -> None:
        # The only normal film is one patient's: about a third of resamples lack it, none may turn up as nan.
        intervals = bootstrap(PROBABILITIES, LABELS, list("abcdef"), resamples=200)
        assert intervals["per_class.NORMAL.recall"] == [1.0, 1.0]
        assert np.isfinite(intervals["f1_macro"] or [np.nan]).all()


def _answer(probabilities: list[float], label: int, patient: str, **options: Any) -> Answer:
    members = {"convnext_tiny": tuple(probabilities), "efficientnetv2_s": (0.2, 0.5, 0.3)}
    return Answer(f"X/{patient}.png", patient, label, tuple(probabilities), members, **options)


class TestReport:
    def test_what_only_a_report_counts(self, tiny_model: PneumoNet) -> None:
        answers = [
            _answer([0.8, 0.1, 0.1], B, "a", prediction_set=(B,), risk=Risk.HIGH),
            _answer([0.1, 0.6, 0.3], V, "b", prediction_set=(N, V), risk=Risk.INDETERMINATE, refusals=("blank",)),
            _answer([0.1, 0.8, 0.1], V, "c", prediction_set=(N,), risk=Risk.NONE_DETECTED),
            _answer([0.1, 0.8, 0.1], N, "c", prediction_set=(N,), risk=Risk.NONE_DETECTED),
        ]
        config = tiny_model.snapshot.config
        report = build_report(answers, [FilmError("NORMAL/x.png", "empty_file")], config, resamples=20)
        coverage_of = {"BACTERIAL_PNEUMONIA": 1.0, "NORMAL": 1.0, "VIRAL_PNEUMONIA": 0.5}
        assert report["prediction_set"] == {
            "mean_size": 1.25, "coverage": 0.75, "coverage_of": coverage_of, "nominal_coverage": 0.9,
        }  # fmt: skip
        assert report["told_no_risk"] == {"pneumonia": pytest.approx(1 / 3, abs=1e-6), "normal": 1.0}
        assert report["indeterminate"] == 0.25
        assert report["decided_accuracy"] == pytest.approx(2 / 3, abs=1e-6)
        assert report["refused"] == {"share": 0.25, "count": 1, "reasons": {"blank": 1}}
        assert report["errors"] == [{"file": "NORMAL/x.png", "code": "empty_file"}]
        assert (report["n"], report["patients"]) == (4, 3)
        assert sum(b["n"] for b in report["reliability"]) == 4
        assert report["binary"]["confusion"] == {
            "true_positive": 1, "false_negative": 2, "false_positive": 0, "true_negative": 1,
        }  # fmt: skip

    def test_the_surest_films_are_judged_first(self) -> None:
        # By confidence: .9 right, .8 wrong, .6 right, .5 right.
        probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.3, 0.1, 0.6], [0.5, 0.3, 0.2]])
        curve = {row["coverage"]: row for row in selective_risk(probabilities, np.array([B, V, V, B]))}
        assert curve[0.3] == {"coverage": 0.3, "n": 1, "confidence": 0.9, "error": 0.0}
        assert curve[0.5] == {"coverage": 0.5, "n": 2, "confidence": 0.8, "error": 0.5}
        assert curve[1.0] == {"coverage": 1.0, "n": 4, "confidence": 0.5, "error": 0.25}

    def test_where_no_cause_is_stated_only_normal_or_pneumonia_is_judged(self) -> None:
        probabilities = np.array([[0.4, 0.2, 0.4], [0.1, 0.7, 0.2], [0.1, 0.5, 0.4]])
        labels = np.array([CAUSE_NOT_STATED, N, CAUSE_NOT_STATED])
        surest, *_, last = selective_risk(probabilities, labels)
        assert (surest["confidence"], surest["error"]) == (pytest.approx(0.8), 0.0)
        assert (last["n"], last["error"]) == (3, pytest.approx(1 / 3))
        assert [b["accuracy"] for b in reliability(probabilities, labels)] == [0.0, 1.0, 1.0]
        assert [b["confidence"] for b in reliability(probabilities, labels)] == pytest.approx([0.3, 0.5, 0.8])

    def test_best_weight_is_the_nearest_to_the_snapshots_of_the_best(self, tiny_model: PneumoNet) -> None:
        # The first member is always right and the second says normal: any weight that tips all three films will do.
        answers = [_answer([0.9, 0.05, 0.05], B, "a"), _answer([0.05, 0.05, 0.9], V, "b"), _answer([0, 1, 0], N, "c")]
        best = build_report(answers, [], tiny_model.snapshot.config, resamples=5)["best_weight"]
        assert best["member"] == "convnext_tiny"
        assert best["shipped"]["weight"] == 0.4
        assert best["by_accuracy"] == best["shipped"]
        assert best["by_nll"]["weight"] == 1.0


def test_text_puts_a_dash_where_a_figure_is_missing(tiny_model: PneumoNet) -> None:
    answers = [_answer([0.8, 0.1, 0.1], CAUSE_NOT_STATED, "a"), _answer([0.1, 0.8, 0.1], N, "b")]
    report = build_report(answers, [], tiny_model.snapshot.config, resamples=5)
    text = as_text(report | {"data": {"n": report["n_per_class"]}})
    line = next(line for line in text.splitlines() if line.startswith("macro F1"))
    assert line.split()[2:] == ["-", "-", "-"]
