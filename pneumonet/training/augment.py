"""Augmentation of a whole batch at once: what may differ between two films of the same chest.

The published set lets a model read the class from habits of the archive (contrast, sharpness, crop, aspect, borders,
letters), so each of these is drawn at random. No left-right flip: it moves the heart to the wrong side.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from pneumonet.training.marks import leave_marks


def augment(pixels: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Draw one augmented view of each film.

    Args:
        pixels: (N, 1, H, W) uint8.
        size: Side of the square views in pixels.
        generator: Source of every random number.

    Returns:
        (N, 1, size, size) float32 in [0, 1].
    """
    films = leave_marks(pixels, generator).float() / 255
    views = F.grid_sample(films, _random_grid(films, generator), mode="bilinear", align_corners=False)
    views = _random_rescaling(views, generator)
    views = _random_tone(views, generator)
    views = _random_grain(views, generator)
    views = _random_erasing(views, generator)
    return resized(views, size).clamp(0, 1)


def resized(views: torch.Tensor, size: int) -> torch.Tensor:
    """Return views (N, 1, H, W) at another side, by the antialiased bilinear filter that serving uses."""
    if views.shape[-2:] == (size, size):
        return views
    return F.interpolate(views, (size, size), mode="bilinear", antialias=True, align_corners=False)


class Mixup:
    """One batch's mixture: each film with another, all by the same share (Zhang et al., "mixup", ICLR 2018)."""

    def __init__(self, alpha: float, count: int, generator: torch.Generator) -> None:
        """Draw the share from Beta(alpha, alpha), none at alpha 0, and the partners of `count` films."""
        self.share = 1.0
        if alpha > 0:
            # torch's Beta takes no generator, so the draw comes from a numpy one that is seeded from ours.
            seed = int(torch.randint(0, 2**31 - 1, (1,), generator=generator))
            self.share = float(np.random.default_rng(seed).beta(alpha, alpha))
        self.other = torch.randperm(count, generator=generator)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return (count, ...) values, mixed."""
        return values if self.share == 1 else values * self.share + values[self.other] * (1 - self.share)


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _random_grid(films: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Sampling grid of a random rotation, zoom, aspect, shear and shift."""
    n = len(films)
    angle = _uniform(n, -12, 12, generator) * math.pi / 180
    zoom = torch.exp(_uniform(n, math.log(0.72), math.log(1.15), generator))
    aspect = torch.exp(_uniform(n, math.log(0.77), math.log(1.3), generator))
    shear = _uniform(n, -0.08, 0.08, generator)
    scale_x, scale_y = zoom * aspect.sqrt(), zoom / aspect.sqrt()
    # The shift may reach the film's edge but not far past it: a wide black border is rare in real films.
    shift_x = _uniform(n, -1, 1, generator) * ((1 - scale_x).clamp(min=0) + 0.06)
    shift_y = _uniform(n, -1, 1, generator) * ((1 - scale_y).clamp(min=0) + 0.06)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([scale_x * cos, -scale_y * sin + shear, shift_x], 1),
            torch.stack([scale_x * sin, scale_y * cos, shift_y], 1),
        ],
        1,
    )
    return F.affine_grid(theta, list(films.shape), align_corners=False)


def _random_rescaling(views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Stretch a third of the films between two of their own quantiles: how 12 or 16 bits are brought to 8.

    Black level and contrast are then the exporter's choice and say nothing about the child.
    """
    n = len(views)
    # Every fourth row and column place the quantiles well enough, at a sixteenth of the sorting.
    ranked = views[:, 0, ::4, ::4].flatten(1).sort(1).values
    last = ranked.shape[1] - 1
    low = (_uniform(n, 0, 0.03, generator) * last).long()
    high = (_uniform(n, 0.97, 1, generator) * last).long()
    chosen = (torch.rand(n, generator=generator) < 0.33).view(-1, 1, 1, 1)
    black = ranked.gather(1, low[:, None]).view(-1, 1, 1, 1)
    white = ranked.gather(1, high[:, None]).view(-1, 1, 1, 1)
    stretched = ((views - black) / (white - black).clamp(min=1 / 255)).clamp(0, 1)
    return torch.where(chosen, stretched, views)


def _random_tone(views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Gamma, window and level: how the film was exposed and exported."""
    n = len(views)
    gamma = torch.exp(_uniform(n, -0.4, 0.4, generator)).view(-1, 1, 1, 1)
    contrast = torch.exp(_uniform(n, -0.35, 0.35, generator)).view(-1, 1, 1, 1)
    level = _uniform(n, -0.12, 0.12, generator).view(-1, 1, 1, 1)
    views = views.clamp(1e-4, 1) ** gamma
    mean = views.mean((2, 3), keepdim=True)
    return ((views - mean) * contrast + mean + level).clamp(0, 1)


def _random_grain(views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Blur or sharpen by a smaller copy, and add noise: resampling, the scanner and the detector.

    The set's normal films come from larger files and are the sharper: the card's table of groups shows it.
    """
    n = len(views)
    side = views.shape[-1]
    blurred = F.interpolate(views, size=(side // 2, side // 2), mode="bilinear", antialias=True, align_corners=False)
    blurred = F.interpolate(blurred, size=(side, side), mode="bilinear", align_corners=False)
    share = _for_some(_uniform(n, -0.8, 1, generator), 0.6, generator)
    views = views + (blurred - views) * share
    amount = _for_some(_uniform(n, 0, 0.04, generator), 0.33, generator)
    return (views + torch.randn(views.shape, generator=generator) * amount).clamp(0, 1)


def _for_some(values: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Keep a value for a share of the films, 0 for the others; shaped to multiply views."""
    return (values * (torch.rand(len(values), generator=generator) < share)).view(-1, 1, 1, 1)


def _random_erasing(views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Cover one rectangle with one grey in a quarter of the films: no single mark or border may carry the answer."""
    n, _, height, width = views.shape
    chosen = torch.rand(n, generator=generator) < 0.25
    half_y = _uniform(n, 0.05, 0.15, generator) * height
    half_x = _uniform(n, 0.05, 0.15, generator) * width
    y = torch.rand(n, generator=generator) * height
    x = torch.rand(n, generator=generator) * width
    rows = (torch.arange(height).view(1, -1) - y.view(-1, 1)).abs() < half_y.view(-1, 1)
    columns = (torch.arange(width).view(1, -1) - x.view(-1, 1)).abs() < half_x.view(-1, 1)
    mask = rows.view(n, 1, height, 1) & columns.view(n, 1, 1, width) & chosen.view(-1, 1, 1, 1)
    grey = torch.rand(n, generator=generator).view(-1, 1, 1, 1)
    return torch.where(mask, grey, views)
