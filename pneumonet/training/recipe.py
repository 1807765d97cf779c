"""What decides a training run's weights."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run's weights, beside the films.

    Attributes:
        init: Where the weights start: one of `INITS`, or the folder to go on from: a run's or a snapshot's member's.
        teachers: Folders of the runs whose mean answer a student follows, and the first one's feature maps; none for a
            teacher, which learns from the labels alone.
        sizes: (first epoch, side in pixels) pairs: progressive resizing.
        label_share: Weight of the label's loss in a distilled run; the teachers' has the rest.
        feature_weight: Weight of the distance between feature maps in a distilled run.
        ema_decay: Decay of the exponential moving average of the weights, which is what a run yields.
    """

    arch: str
    init: str = "random"
    teachers: tuple[str, ...] = ()
    epochs: int = 12
    sizes: tuple[tuple[int, int], ...] = ((0, 128),)
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    mixup: float = 0.2
    label_smoothing: float = 0.1
    label_share: float = 0.3
    feature_weight: float = 1.0
    drop_path: float = 0.0
    ema_decay: float = 0.995
    precision: str = "bfloat16"
    held_back_fold: int = 0
    seed: int = 2026

    def __post_init__(self) -> None:
        first_epochs = [first for first, _ in self.sizes]
        if not first_epochs or first_epochs[0] != 0 or first_epochs != sorted(set(first_epochs)):
            raise ValueError(f"expected sizes to start at epoch 0 and go up, got {self.sizes}")

    def size_at(self, epoch: int) -> int:
        """Return the side in pixels of the views of an epoch."""
        return [size for first, size in self.sizes if first <= epoch][-1]
