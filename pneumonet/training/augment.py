"""Augmentation of a whole batch at once: what may differ between two films of the same chest.

The published set lets a model read the class from habits of the archive (contrast, crop, aspect, borders), so each
of these is drawn at random. No left-right flip: it moves the heart to the wrong side.
"""

import math

import torch
import torch.nn.functional as F


def augment(pixels: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Draw one augmented view of each film.

    Args:
        pixels: (N, 1, H, W) uint8.
        size: Side of the square views in pixels.
        generator: Source of every random number.

    Returns:
        (N, 1, size, size) float32 in [0, 1].
    """
    films = pixels.float() / 255
    views = F.grid_sample(films, _random_grid(films, generator), mode="bilinear", align_corners=False)
    views = _random_tone(views, generator)
    views = _random_grain(views, generator)
    views = _random_erasing(views, generator)
    if views.shape[-1] != size:
        views = F.interpolate(views, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return views


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _random_grid(films: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Sampling grid of a random rotation, zoom, aspect, shear and shift."""
    n = len(films)
    angle = _uniform(n, -12, 12, generator) * math.pi / 180
    zoom = torch.exp(_uniform(n, math.log(0.75), math.log(1.12), generator))
    aspect = torch.exp(_uniform(n, math.log(0.85), math.log(1.18), generator))
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
    """Blur by a smaller copy and noise, each on a third of the films: resampling and detector habits."""
    n = len(views)
    side = views.shape[-1]
    blurred = F.interpolate(views, size=(side // 2, side // 2), mode="bilinear", antialias=True, align_corners=False)
    blurred = F.interpolate(blurred, size=(side, side), mode="bilinear", align_corners=False)
    share = torch.where(
        torch.rand(n, generator=generator) < 0.33, torch.rand(n, generator=generator), torch.zeros(n)
    ).view(-1, 1, 1, 1)
    views = views * (1 - share) + blurred * share
    amount = torch.where(
        torch.rand(n, generator=generator) < 0.33, _uniform(n, 0, 0.04, generator), torch.zeros(n)
    ).view(-1, 1, 1, 1)
    return (views + torch.randn(views.shape, generator=generator) * amount).clamp(0, 1)


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
