"""From the training films to the weights: split, augmentation, distillation. Needs no part of the served app."""
