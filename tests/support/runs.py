"""Small training runs, for the tests of training."""

import torch

from pneumonet.training.films import FilmSet
from pneumonet.training.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe(
    arch="test_efficientnet",
    epochs=4,
    sizes=((0, 48), (2, 64)),
    batch_size=16,
    learning_rate=5e-3,
    warmup_epochs=0.5,
    precision="float32",
    mixup=0.0,
    ema_decay=0.8,
)


def child_films(count: int, seed: int) -> FilmSet:
    """Films whose class a child could tell: dark, middle and bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    noise = torch.rand(count, 1, 224, 224, generator=generator) * 30
    return FilmSet((noise + 20 + labels.view(-1, 1, 1, 1) * 95).to(torch.uint8), labels)
