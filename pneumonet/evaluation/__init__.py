"""How well the model answers: figures, their intervals by patient, and the report that holds them."""

from pneumonet.evaluation.answers import Answer, FilmError, answer_films
from pneumonet.evaluation.metrics import bootstrap, score
from pneumonet.evaluation.report import build_report

__all__ = ["Answer", "FilmError", "answer_films", "bootstrap", "build_report", "score"]
