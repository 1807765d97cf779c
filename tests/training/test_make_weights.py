"""The chain from films to weights: every command is one that its script takes, in an order that works."""

import importlib
import itertools
import sys
from pathlib import Path

import pytest

from scripts import make_weights, train, write_card

STAGES = make_weights.stages(Path("runs"), Path("data"), "9.9.9", cores=4)
COMMANDS = [command for stage in STAGES for command in stage]


def _of(script: str) -> list[list[str]]:
    return [command[1:] for command in COMMANDS if command[0] == f"scripts/{script}.py"]


def test_every_script_is_there() -> None:
    root = Path(make_weights.__file__).parents[1]
    assert all((root / command[0]).is_file() for command in COMMANDS)


def test_each_run_is_made_before_it_is_used_and_is_in_the_card() -> None:
    made: set[str] = set()
    for stage in STAGES:
        outputs = set()
        for command in stage:
            options = dict(itertools.pairwise(command))
            if command[0] == "scripts/train.py":
                arguments = train._parser().parse_args(command[1:])
                assert arguments.init in ("package", "random") or arguments.init in made
                assert made.issuperset(arguments.teacher)
                outputs.add(options["--out"])
        made |= outputs
    card = write_card._parser().parse_args(_of("write_card")[0])
    assert {str(folder) for folder, _ in card.run} == made
    assert {cores for _, cores in card.run} == {2}  # always two side by side


def test_the_card_is_given_the_figures_that_were_written() -> None:
    measured = [*_of("evaluate"), *_of("measure_admission"), *_of("measure_saliency")]
    written = {options[options.index("--json") + 1] for options in measured}
    card = write_card._parser().parse_args(_of("write_card")[0])
    given = (card.metrics, card.adult, card.original_size_parity, card.admission, card.saliency)
    assert {str(path) for path in given} == written
    # calibrate.py writes beside the runs.
    assert card.calibration == Path(_of("calibrate")[0][0]).parent / "calibration.json"


@pytest.mark.parametrize(
    "script", ["calibrate", "compare_engines", "evaluate", "measure_admission", "measure_saliency"]
)
def test_the_other_scripts_know_their_options(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"scripts.{script}")
    for options in _of(script):
        # argparse names every option that it does not know: this one alone may be among them.
        monkeypatch.setattr(sys, "argv", [script, *options, "--no-such-option"])
        with pytest.raises(SystemExit):
            module.main()
        error = capsys.readouterr().err
        assert "unrecognized arguments: --no-such-option\n" in error


def test_a_failed_step_stops_the_chain(tmp_path: Path) -> None:
    fails, writes = tmp_path / "fails.py", tmp_path / "writes.py"
    fails.write_text("raise SystemExit(3)")
    writes.write_text(f"open({str(tmp_path / 'done')!r}, 'w')")
    with pytest.raises(SystemExit, match=r"fails\.py"):
        make_weights.run([[str(fails)], [str(writes)]], side_by_side=True)
    # What went beside it is not torn down half way.
    assert (tmp_path / "done").exists()
    (tmp_path / "done").unlink()
    with pytest.raises(SystemExit, match=r"fails\.py"):
        make_weights.run([[str(fails)], [str(writes)]], side_by_side=False)
    assert not (tmp_path / "done").exists()
