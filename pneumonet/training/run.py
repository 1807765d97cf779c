"""One training run: a backbone, from its start to its averaged weights, resumable after each epoch.

A teacher is trained by the labels alone. A student is distilled from teachers that see the very same view
(Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", CVPR 2022): its logits follow the
teachers' mean probabilities, and its pooled features, through a linear projection, the first teacher's.
"""

import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import nn
from tqdm import tqdm

from pneumonet.taxonomy import CLASS_NAMES
from pneumonet.training.augment import augment
from pneumonet.training.backbones import TimmModel, build_backbone, normalisation
from pneumonet.training.films import FilmSet
from pneumonet.training.recipe import Recipe

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.jsonl"
RECIPE = "recipe.json"


@dataclass
class Evaluation:
    """Figures of one pass over the held-back films, in [0, 1]."""

    accuracy: float
    binary_accuracy: float
    recalls: list[float] = field(default_factory=list)


def load_averaged(folder: Path) -> tuple[TimmModel, dict[str, Any]]:
    """Return a run's backbone with its averaged weights, on the CPU, and the run's recipe."""
    recipe = json.loads((folder / RECIPE).read_text())
    model = build_backbone(recipe["arch"], "random")
    state = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
    model.load_state_dict(state["ema"])
    return model.eval(), recipe


class Teacher:
    """A trained run that answers with probabilities and pooled features for a view."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.model, self.recipe = load_averaged(folder)
        self.model.requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        self.mean, self.std = (t.to(device) for t in normalisation(self.model))

    @torch.no_grad()
    def answer(self, views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return probabilities (N, 3) and pooled features (N, C) of views (N, 1, S, S) in [0, 1]."""
        with torch.autocast(views.device.type, torch.bfloat16):
            features = self.model.forward_features((views - self.mean) / self.std)
            pooled = self.model.forward_head(features, pre_logits=True)
            logits = self.model.get_classifier()(pooled)
        return logits.float().softmax(1), pooled.float()


class Run:
    """A run in a folder: `recipe.json`, `history.jsonl`, and a checkpoint that each epoch replaces."""

    def __init__(self, recipe: Recipe, folder: Path, device: torch.device) -> None:
        """Build the model, and take up the folder's checkpoint where there is one.

        Raises:
            ValueError: If the folder holds a run of another recipe.
        """
        self.recipe, self.folder, self.device = recipe, folder, device
        folder.mkdir(parents=True, exist_ok=True)
        self._claim_folder()
        torch.manual_seed(recipe.seed)
        self.model = (
            build_backbone(recipe.arch, recipe.init, recipe.drop_path).to(device).to(memory_format=torch.channels_last)
        )
        self.mean, self.std = (t.to(device) for t in normalisation(self.model))
        self.teachers = [self._teacher(Path(path)) for path in recipe.teachers]
        self.projection: nn.Module = nn.Identity()
        if self.teachers:
            self.projection = nn.Linear(self.model.num_features, self.teachers[0].model.head_hidden_size).to(device)
        self.optimizer = torch.optim.AdamW(self._parameter_groups(), lr=recipe.learning_rate)
        self.ema = ModelEmaV3(self.model, decay=recipe.ema_decay, use_warmup=True, warmup_power=0.75)
        self.epoch = self.step = 0
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
                losses.append(
                    self._train_step(training.pixels[batch], training.labels[batch], class_weights, generator)
                )
                self.step += 1
                bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}")
            self.epoch += 1
            figures = self.evaluate(held_back)
            self._save(figures, sum(losses) / len(losses), time.monotonic() - started)

    @torch.no_grad()
    def evaluate(self, films: FilmSet) -> Evaluation:
        """Score the averaged weights at the size of the last epoch trained."""
        size = self.recipe.evaluation_size or self.recipe.size_at(max(self.epoch - 1, 0))
        model = self.ema.module.eval()
        predicted = []
        for pixels in films.pixels.split(64):
            views = F.interpolate(
                pixels.float() / 255, (size, size), mode="bilinear", antialias=True, align_corners=False
            )
            predicted.append(self._logits(model, views.to(self.device)).argmax(1).cpu())
        labels, answers = films.labels, torch.cat(predicted)
        normal = CLASS_NAMES.index("NORMAL")
        return Evaluation(
            accuracy=(answers == labels).float().mean().item(),
            binary_accuracy=((answers == normal) == (labels == normal)).float().mean().item(),
            recalls=[(answers[labels == c] == c).float().mean().item() for c in range(len(CLASS_NAMES))],
        )

    def _teacher(self, folder: Path) -> Teacher:
        teacher = Teacher(folder, self.device)
        if teacher.recipe["held_back_fold"] != self.recipe.held_back_fold:
            raise ValueError(f"expected a teacher that has not seen the films held back here, got {folder.name}")
        finished = len((folder / HISTORY).read_text().splitlines())
        if finished < teacher.recipe["epochs"]:
            raise ValueError(f"expected a finished teacher, got {folder.name} after {finished} epochs")
        return teacher

    def _claim_folder(self) -> None:
        path = self.folder / RECIPE
        text = json.dumps(asdict(self.recipe), indent=2) + "\n"
        if path.exists() and path.read_text() != text:
            raise ValueError(f"expected an empty folder or a run of the same recipe, got another recipe in {path}")
        path.write_text(text)

    def _parameter_groups(self) -> list[dict[str, object]]:
        # Norms, biases and layer scales are not decayed, as is usual for both architectures.
        named = [*self.model.named_parameters(), *self.projection.named_parameters()]
        decayed = [p for _, p in named if p.ndim > 1]
        others = [p for _, p in named if p.ndim <= 1]
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

    def _train_step(
        self, pixels: torch.Tensor, labels: torch.Tensor, class_weights: torch.Tensor, generator: torch.Generator
    ) -> float:
        recipe = self.recipe
        size = recipe.size_at(self.epoch)
        views = augment(pixels, recipe.teacher_size if self.teachers else size, generator).to(self.device)
        targets = F.one_hot(labels, len(CLASS_NAMES)).float().to(self.device)
        views, targets = _mixup(views, targets, recipe.mixup, generator)
        weights = (targets * class_weights).sum(1)
        targets = targets * (1 - recipe.label_smoothing) + recipe.label_smoothing / len(CLASS_NAMES)
        if self.teachers:
            loss = self._distillation_loss(views, size, targets, weights)
        else:
            loss = (F.cross_entropy(self._logits(self.model, views), targets, reduction="none") * weights).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        self.optimizer.step()
        self.ema.update(self.model, step=self.step)
        return loss.item()

    def _distillation_loss(
        self, views: torch.Tensor, size: int, targets: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        recipe = self.recipe
        answers = [teacher.answer(views) for teacher in self.teachers]
        taught = torch.stack([probabilities for probabilities, _ in answers]).mean(0)
        if views.shape[-1] != size:
            views = F.interpolate(views, (size, size), mode="bilinear", antialias=True, align_corners=False)
        with self._autocast():
            features = self.model.forward_features((views - self.mean) / self.std)
            logits = self.model.forward_head(features)
            projected = self.projection(features.mean((2, 3)))
        log_probabilities = F.log_softmax(logits.float(), 1)
        from_labels = -(targets * log_probabilities).sum(1)
        from_teachers = F.kl_div(log_probabilities, taught, reduction="none").sum(1)
        distance = 1 - F.cosine_similarity(projected.float(), answers[0][1])
        loss = recipe.label_share * from_labels + (1 - recipe.label_share) * from_teachers
        return (loss * weights).mean() + recipe.feature_weight * distance.mean()

    def _save(self, figures: Evaluation, loss: float, seconds: float) -> None:
        line = {"epoch": self.epoch, "loss": round(loss, 4), "seconds": round(seconds, 1), **asdict(figures)}
        # The line first: one without its checkpoint is dropped on resuming, a checkpoint without its line is lost.
        with (self.folder / HISTORY).open("a") as history:
            history.write(json.dumps(line) + "\n")
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict(),
            "projection": self.projection.state_dict(),
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
        self.projection.load_state_dict(state["projection"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step = state["epoch"], state["step"]
        kept = history.read_text().splitlines()[: self.epoch]
        history.write_text("".join(line + "\n" for line in kept))


def _mixup(
    views: torch.Tensor, targets: torch.Tensor, alpha: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each film of a batch with another (Zhang et al., "mixup", ICLR 2018)."""
    if alpha <= 0:
        return views, targets
    # torch's Beta takes no generator, so the draw comes from a numpy one that is seeded from ours.
    seed = int(torch.randint(0, 2**31 - 1, (1,), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    other = torch.randperm(len(views), generator=generator)
    return views * share + views[other] * (1 - share), targets * share + targets[other] * (1 - share)
