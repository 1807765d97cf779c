"""One training run: a backbone, from its start to its averaged weights, resumable after each epoch.

A teacher is trained by the labels alone. A student follows its teachers too (`pneumonet.training.distillation`).
"""

import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import nn
from tqdm import tqdm

from pneumonet.taxonomy import CLASS_NAMES
from pneumonet.training.augment import Mixup, augment, resized
from pneumonet.training.backbones import INITS, TimmModel, build_backbone, normalisation
from pneumonet.training.distillation import LEVELS, Distillation
from pneumonet.training.films import FilmSet
from pneumonet.training.recipe import Recipe
from pneumonet.training.run_folder import CHECKPOINT, HISTORY, RECIPE, load_start


@dataclass
class Evaluation:
    """Figures of one pass over the held-back films, in [0, 1]."""

    accuracy: float
    binary_accuracy: float
    recalls: list[float] = field(default_factory=list)


class Run:
    """A run in a folder: `recipe.json`, `history.jsonl`, and a checkpoint that each epoch replaces."""

    def __init__(self, recipe: Recipe, folder: Path, device: torch.device) -> None:
        """Build the model, and take up the folder's checkpoint where there is one.

        Raises:
            OSError: If the run to start from, or a teacher, is not there.
            ValueError: If the folder holds a run of another recipe; if the run to start from or a teacher was trained
                on the films held back here, is not finished (a teacher) or of another architecture (a start).
        """
        self.recipe, self.folder, self.device = recipe, folder, device
        torch.manual_seed(recipe.seed)
        self.model = self._build().to(device).to(memory_format=torch.channels_last)
        self.mean, self.std = (t.to(device) for t in normalisation(self.model))
        self.distillation: Distillation | None = None
        if recipe.teachers:
            folders = [Path(teacher) for teacher in recipe.teachers]
            self.distillation = Distillation.of_runs(folders, self.model, recipe.held_back_fold, device)
        self.optimizer = torch.optim.AdamW(self._parameter_groups(), lr=recipe.learning_rate)
        self.ema = ModelEmaV3(self.model, decay=recipe.ema_decay, use_warmup=True, warmup_power=0.75)
        self.epoch = self.step = 0
        self._claim_folder()
        self._resume()

    def fit(self, training: FilmSet, held_back: FilmSet) -> None:
        """Train to the recipe's last epoch, with a checkpoint and a line of history after each."""
        recipe = self.recipe
        counts = torch.bincount(training.labels, minlength=len(CLASS_NAMES)).float()
        # Square-root balance: full balance made the rarer classes swallow the borderline films.
        class_weights = (counts.mean() / counts).sqrt().to(self.device)
        steps = len(training) // recipe.batch_size
        if steps == 0:
            raise ValueError(f"expected at least {recipe.batch_size} films, one batch, got {len(training)}")
        while self.epoch < recipe.epochs:
            started = time.monotonic()
            generator = torch.Generator().manual_seed(recipe.seed * 1000 + self.epoch)
            # Dropout and stochastic depth draw from torch's own generator, which a checkpoint does not hold.
            torch.manual_seed(recipe.seed * 1000 + self.epoch)
            order = torch.randperm(len(training), generator=generator)
            self.model.train()
            losses = []
            bar = tqdm(range(steps), desc=f"{recipe.arch} {self.epoch + 1}/{recipe.epochs}", mininterval=5)
            for i in bar:
                batch = order[i * recipe.batch_size : (i + 1) * recipe.batch_size]
                self._set_learning_rate(steps)
                films = FilmSet(training.pixels[batch], training.labels[batch])
                losses.append(self._train_step(films, class_weights, generator))
                self.step += 1
                bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}")
            self.epoch += 1
            figures = self.evaluate(held_back)
            self._save(figures, sum(losses) / len(losses), time.monotonic() - started)

    @torch.no_grad()
    def evaluate(self, films: FilmSet) -> Evaluation:
        """Score the averaged weights at the size of the last epoch trained."""
        size = self.recipe.size_at(max(self.epoch - 1, 0))
        model = self.ema.module.eval()
        predicted = []
        for pixels in films.pixels.split(64):
            views = resized(pixels.float() / 255, size)
            predicted.append(self._logits(model, views.to(self.device)).argmax(1).cpu())
        labels, answers = films.labels, torch.cat(predicted)
        normal = CLASS_NAMES.index("NORMAL")
        return Evaluation(
            accuracy=(answers == labels).float().mean().item(),
            binary_accuracy=((answers == normal) == (labels == normal)).float().mean().item(),
            recalls=[(answers[labels == c] == c).float().mean().item() for c in range(len(CLASS_NAMES))],
        )

    def _build(self) -> TimmModel:
        recipe = self.recipe
        if recipe.init in INITS:
            return build_backbone(recipe.arch, recipe.init, recipe.drop_path)
        start = Path(recipe.init)
        if not start.is_dir():
            raise FileNotFoundError(f"expected {', '.join(INITS)} or a folder to start from, got {recipe.init}")
        started, arch, fold = load_start(start)
        if (arch, fold) != (recipe.arch, recipe.held_back_fold):
            raise ValueError(
                f"expected a {recipe.arch} that has not seen the films held back here, got {start.name}: "
                f"{arch}, fold {fold}"
            )
        model = build_backbone(recipe.arch, "random", recipe.drop_path)
        model.load_state_dict(started.state_dict())
        return model

    def _claim_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / RECIPE
        text = json.dumps(asdict(self.recipe), indent=2) + "\n"
        if path.exists() and path.read_text() != text:
            raise ValueError(f"expected an empty folder or a run of the same recipe, got another recipe in {path}")
        path.write_text(text)

    def _parameter_groups(self) -> list[dict[str, object]]:
        # Norms, biases and layer scales are not decayed, as is usual for both architectures.
        parameters = list(self.model.parameters())
        if self.distillation is not None:
            parameters += self.distillation.parameters()
        decayed = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        return [
            {"params": decayed, "weight_decay": self.recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]

    def _set_learning_rate(self, steps_per_epoch: int) -> None:
        recipe = self.recipe
        warmup = recipe.warmup_epochs * steps_per_epoch
        total = recipe.epochs * steps_per_epoch
        if self.step < warmup:
            share = (self.step + 1) / warmup
        else:
            share = 0.5 * (1 + math.cos(math.pi * (self.step - warmup) / max(1, total - warmup)))
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * max(share, 0.01)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16", cache_enabled=True
        )

    def _logits(self, model: TimmModel, views: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            logits: torch.Tensor = model((views - self.mean) / self.std)
        return logits.float()

    def _train_step(self, films: FilmSet, class_weights: torch.Tensor, generator: torch.Generator) -> float:
        recipe = self.recipe
        mix = Mixup(recipe.mixup, len(films), generator)
        size = recipe.size_at(self.epoch)
        drawn = max([size, *(teacher.size for teacher in self.distillation.teachers)]) if self.distillation else size
        views = mix(augment(films.pixels, drawn, generator)).to(self.device)
        targets = mix(F.one_hot(films.labels, len(CLASS_NAMES)).float()).to(self.device)
        weights = (targets * class_weights).sum(1)
        targets = targets * (1 - recipe.label_smoothing) + recipe.label_smoothing / len(CLASS_NAMES)
        loss = self._loss(views, size, targets, weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        self.optimizer.step()
        self.ema.update(self.model, step=self.step)
        return loss.item()

    def _loss(self, views: torch.Tensor, size: int, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        recipe = self.recipe
        with self._autocast():
            seen = (resized(views, size) - self.mean) / self.std
            features, maps = self.model.forward_intermediates(seen, indices=LEVELS)
            logits = self.model.forward_head(features)
        log_probabilities = F.log_softmax(logits.float(), 1)
        from_labels = -(targets * log_probabilities).sum(1)
        if self.distillation is None:
            return (from_labels * weights).mean()
        with self._autocast():
            teacher_probabilities, distance = self.distillation(maps, views)
        from_teachers = F.kl_div(log_probabilities, teacher_probabilities, reduction="none").sum(1)
        each = recipe.label_share * from_labels + (1 - recipe.label_share) * from_teachers
        loss: torch.Tensor = (each * weights).mean() + recipe.feature_weight * distance
        return loss

    def _save(self, figures: Evaluation, loss: float, seconds: float) -> None:
        line = {"epoch": self.epoch, "loss": round(loss, 4), "seconds": round(seconds, 1), **asdict(figures)}
        # The line first: one without its checkpoint is dropped on resuming, a checkpoint without its line is lost.
        with (self.folder / HISTORY).open("a") as history:
            history.write(json.dumps(line) + "\n")
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict(),
            "distillation": self.distillation.state_dict() if self.distillation else {},
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
        }
        partial = self.folder / (CHECKPOINT + ".partial")
        torch.save(state, partial)
        partial.replace(self.folder / CHECKPOINT)
        tqdm.write(json.dumps(line))

    def _resume(self) -> None:
        path, history = self.folder / CHECKPOINT, self.folder / HISTORY
        if not path.exists():
            history.unlink(missing_ok=True)
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.ema.module.load_state_dict(state["ema"])
        if self.distillation is not None:
            self.distillation.load_state_dict(state["distillation"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step = state["epoch"], state["step"]
        kept = history.read_text().splitlines()[: self.epoch]
        history.write_text("".join(line + "\n" for line in kept))
