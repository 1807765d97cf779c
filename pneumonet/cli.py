"""The shell's door: python -m pneumonet predict | batch | serve | pull | info."""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pneumonet import __version__
from pneumonet.errors import AdmissionError, ConfigError, PneumoNetError
from pneumonet.language import LANGUAGES, Language, language_named
from pneumonet.reports import FORMATS as REPORTS
from pneumonet.settings import Settings
from pneumonet.taxonomy import BACTERIAL, NORMAL, VIRAL

_CLASS_COLUMNS = ((BACTERIAL, "bacterial"), (NORMAL, "normal"), (VIRAL, "viral"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; progress goes to the log, on standard error.

    Returns:
        0 where everything went well, 1 where a file or the model failed, 2 where the arguments or settings are wrong.
    """
    arguments = _parser().parse_args(argv)
    try:
        settings = Settings.from_environment()
    except PneumoNetError as error:
        print(error.told, file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("pneumonet").setLevel(logging.INFO)
    try:
        return int(arguments.command(arguments, settings))
    except PneumoNetError as error:
        print(error.told, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader, `head` say, has what it wants; what Python would still flush at exit has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pneumonet", description="Chest X-ray pneumonia classification. Research use only, not a medical device."
    )
    parser.add_argument("--version", action="version", version=f"pneumonet {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    predict = commands.add_parser("predict", help="answer films")
    predict.add_argument("files", nargs="+", type=Path, metavar="FILE")
    predict.add_argument("--json", action="store_true", help="one JSON object a line")
    predict.add_argument("--overlay", type=Path, metavar="DIR", help="write each film's Grad-CAM overlay as PNG there")
    predict.add_argument(
        "--report", action="append", default=[], choices=REPORTS, help="write each film's report; may be said again"
    )
    predict.add_argument("--report-dir", type=Path, default=Path(), metavar="DIR", help="where; here by default")
    predict.add_argument("--force", action="store_true", help="answer films that admission refuses")
    predict.add_argument("--frame", type=int, help="frame of a film that has several, from 0")
    predict.add_argument(
        "--lang",
        default="en",
        metavar="TAG",
        help="language of sentences and reports, such as es or zh; English by default",
    )
    predict.set_defaults(command=_predict)

    batch = commands.add_parser("batch", help="answer many films into one Parquet file; started again, it goes on")
    batch.add_argument("source", metavar="SOURCE", help="a folder, a pattern, a CSV of paths, or a DICOM directory")
    batch.add_argument("--out", type=Path, required=True, metavar="PARQUET", help="the file to write, a row a film")
    batch.add_argument("--workers", type=int, metavar="N", help="processes; by default one for every two cores")
    batch.add_argument("--force", action="store_true", help="answer films that admission refuses")
    batch.add_argument(
        "--ray", nargs="?", const="local", metavar="ADDRESS", help="run on Ray: on this machine, or on a cluster"
    )
    batch.add_argument(
        "--labels",
        metavar="folders|CSV",
        help="print how good the answers are, refused films included, by the folders' names or a CSV of path,label",
    )
    batch.add_argument(
        "--film-seconds", type=int, default=120, metavar="S", help="how long one film may take; 120 by default"
    )
    batch.add_argument(
        "--stop-after",
        type=int,
        default=20,
        metavar="N",
        help="stop after N films in a row that fail for no fault of theirs; 20 by default, 0 for never",
    )
    batch.add_argument("--anew", action="store_true", help="throw away what an earlier run has answered")
    batch.set_defaults(command=_batch)

    serve = commands.add_parser("serve", help="serve the page and the HTTP routes")
    serve.set_defaults(command=_serve)

    pull = commands.add_parser("pull", help="pull and verify the snapshot that PNEUMONET_MODEL names")
    pull.set_defaults(command=_pull)

    info = commands.add_parser("info", help="say which model answers, as JSON")
    info.set_defaults(command=_info)
    return parser


def _predict(arguments: argparse.Namespace, settings: Settings) -> int:
    from pneumonet.model import PneumoNet

    language = language_named(arguments.lang)
    if language is None:
        raise ConfigError(f"There is no language {arguments.lang!r}.", hint=f"There are {', '.join(LANGUAGES)}.")
    arguments.language = language
    if arguments.overlay:
        _claim_overlays(arguments.overlay, arguments.files)
    for name in arguments.report:
        _claim_reports(arguments.report_dir, arguments.files, name)
    model = PneumoNet.from_pretrained(settings=settings)
    answers = (_answer(model, file, arguments) for file in arguments.files)
    failures = 0
    if not arguments.json:
        print(f"{'file':<32} {'answer':<20} {'confidence':>10}  {'bacterial':>9} {'normal':>7} {'viral':>7}  risk")
    for answer in answers:
        failures += "error" in answer
        print(json.dumps(answer) if arguments.json else _row(answer, language), flush=True)
    if not arguments.json:
        from pneumonet.finding import DISCLAIMER

        print(printable(" ".join(filter(None, (language(DISCLAIMER), language.review_notice)))))
    return 1 if failures else 0


def _claim_overlays(folder: Path, files: Sequence[Path]) -> None:
    _claim(folder, [_overlay_name(file) for file in files], "overlays")


def _claim_reports(folder: Path, files: Sequence[Path], name: str) -> None:
    _claim(folder, [_report_name(file, name) for file in files], "reports")


def _report_name(file: Path, name: str) -> str:
    return f"{file.stem}.report{REPORTS[name].suffix}"


def _claim(folder: Path, names: Sequence[str], what: str) -> None:
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"Several files would write {printable(min(twice))}.", hint="Answer them one by one.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"The folder for {what} cannot be made: {error.strerror}.") from error


def _overlay_name(file: Path) -> str:
    return f"{file.stem}.overlay.png"


def printable(text: str) -> str:
    """Return text for one line of any terminal: what it cannot show is escaped."""
    # Several languages have spaces that do not break, which Python counts among what cannot be printed.
    text = text.translate({0xA0: " ", 0x202F: " "})
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    encoding = sys.stdout.encoding or "ascii"
    return escaped.encode(encoding, "backslashreplace").decode(encoding)


def _answer(model: Any, file: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    from pneumonet.web.request_id import new_request_id

    started, request_id = time.perf_counter(), new_request_id()
    saliency = arguments.overlay is not None or bool(arguments.report)
    try:
        finding = model.predict(file, frame=arguments.frame, force=arguments.force, saliency=saliency)
    except PneumoNetError as error:
        if isinstance(error, AdmissionError):
            _write_reports(model, file, error, request_id, arguments)
        told = {"error": arguments.language(error.message), "code": error.code, "hint": arguments.language(error.hint)}
        return {"file": str(file), **told}
    if arguments.overlay:
        from pneumonet.rendering import overlay, png

        (arguments.overlay / _overlay_name(file)).write_bytes(png(overlay(finding)))
    _write_reports(model, file, finding, request_id, arguments)
    answer: dict[str, Any] = finding.answer(request_id, (time.perf_counter() - started) * 1000, arguments.language)
    return {"file": str(file), **answer, "gradcam_image": None}


def _write_reports(model: Any, file: Path, outcome: Any, request_id: str, arguments: argparse.Namespace) -> None:
    if not arguments.report:
        return
    from pneumonet.reading import read_bytes, read_radiograph
    from pneumonet.reports import render
    from pneumonet.reports.document import Report

    data = read_bytes(file, model.limits)
    refused = isinstance(outcome, AdmissionError)
    film = read_radiograph(data, frame=arguments.frame, limits=model.limits) if refused else outcome.film
    config, now = model.snapshot.config, datetime.now(timezone.utc)
    report = Report(outcome, film, data, model.info, config, request_id, now, arguments.language)
    for name in arguments.report:
        (arguments.report_dir / _report_name(file, name)).write_bytes(render(report, REPORTS[name]))


def _row(answer: dict[str, Any], language: Language) -> str:
    name = printable(Path(answer["file"]).name)
    name = name if len(name) <= 32 else name[:29] + "..."
    if "error" in answer:
        return f"{name:<32} {answer['code']}: {printable(answer['error'])}"
    shares = {short: answer["probabilities"][label] for label, short in _CLASS_COLUMNS}
    line = (
        f"{name:<32} {answer['prediction'].capitalize():<20} {answer['confidence']:>10}  "
        f"{shares['bacterial']:>9.3f} {shares['normal']:>7.3f} {shares['viral']:>7.3f}  "
        f"{printable(language(answer['risk_level']))}"
    )
    return "\n".join([line, *(f"  note: {printable(warning)}" for warning in answer["warnings"])])


def _batch(arguments: argparse.Namespace, settings: Settings) -> int:
    from pneumonet.batch import check_installed

    try:
        check_installed("pyarrow", "tqdm", *(["ray"] if arguments.ray else []))
        from pneumonet.batch.run import Batch, run_batch

        asked = {field.name: getattr(arguments, field.name) for field in fields(Batch)}
        told, to_retry = run_batch(Batch(**asked), settings)
        print(told)
    except ConfigError as error:
        print(error.told, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"Stopped. The same command{' without --anew' * arguments.anew} goes on from here.", file=sys.stderr)
        return 1
    return 1 if to_retry else 0


def _serve(arguments: argparse.Namespace, settings: Settings) -> int:
    from pneumonet.web.importing import imported_at_start

    with imported_at_start():
        from pneumonet.web.server import serve

    return int(serve(settings))


def _pull(arguments: argparse.Namespace, settings: Settings) -> int:
    from pneumonet.hub import open_snapshot

    snapshot = open_snapshot(settings.model, settings.revision)
    for warning in snapshot.warnings:
        print(warning, file=sys.stderr)
    print(f"{snapshot.path} is whole: version {snapshot.config.version}, revision {snapshot.revision}")
    return 0


def _info(arguments: argparse.Namespace, settings: Settings) -> int:
    from pneumonet.hub import open_snapshot

    snapshot = open_snapshot(settings.model, settings.revision)
    config = snapshot.config
    answer = {
        "pneumonet": __version__,
        "model": {"repo_id": snapshot.repo_id, "revision": snapshot.revision, "version": config.version},
        "input_size": config.input.size,
        "members": [
            {"architecture": m.architecture, "weight": m.weight, "temperature": m.temperature} for m in config.members
        ],
        "prediction_set_coverage": config.prediction_set.coverage,
    }
    print(json.dumps(answer, indent=2))
    return 0
