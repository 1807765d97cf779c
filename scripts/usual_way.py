"""What PneumoNet is measured against: the same two backbones, run as the field's tutorials run them.

torchvision's models, Pillow, torchvision's transforms and the grad-cam package; one heatmap, of EfficientNet alone.
Weights are random: they cost the same time as trained ones.

    python scripts/usual_way.py 192 FILM < /dev/null     # start, answer one film, say so; ends with its input
"""

import base64
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchvision import models, transforms

CLASSES = ["BACTERIAL_PNEUMONIA", "NORMAL", "VIRAL_PNEUMONIA"]


class UsualWay:
    """Both models loaded, in float32, on the CPU."""

    def __init__(self, size: int) -> None:
        """Build the models.

        Args:
            size: Side of their input in pixels.
        """
        self.size = size
        self.convnext = models.convnext_tiny()
        self.convnext.classifier[2] = nn.Linear(768, 3)
        self.efficientnet = models.efficientnet_v2_s()
        self.efficientnet.classifier[1] = nn.Linear(1280, 3)
        self.convnext.eval()
        self.efficientnet.eval()
        self.transform = transforms.Compose(
            [
                transforms.Resize((size, size)),
                transforms.ToTensor(),
                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def answer(self, data: bytes) -> str:
        """Return a whole request's JSON, heatmap included, of a film's bytes."""
        image = self.read(data)
        batch = self.transform(image).unsqueeze(0)
        probabilities = self.classify(batch)[0]
        best = int(probabilities.argmax())
        cam = self.explain(batch, [best])[0]
        small = np.asarray(image.resize((self.size, self.size)), dtype=np.float32) / 255
        picture = io.BytesIO()
        Image.fromarray(show_cam_on_image(small, cam, use_rgb=True)).save(picture, format="PNG")
        return json.dumps(
            {
                "prediction": CLASSES[best],
                "probabilities": dict(zip(CLASSES, probabilities.tolist(), strict=True)),
                "gradcam_image": "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode(),
            }
        )

    def read(self, data: bytes) -> Image.Image:
        """Return a film's pixels."""
        return Image.open(io.BytesIO(data)).convert("RGB")

    def explained(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return the likeliest class's heatmap of each film read before, (N, size, size): what the models cost."""
        batch = torch.stack([self.transform(image) for image in images])
        return self.explain(batch, self.classify(batch).argmax(1).tolist())

    def classify(self, batch: torch.Tensor) -> torch.Tensor:
        """Return each film's probabilities (N, 3)."""
        with torch.no_grad():
            first, second = self.convnext(batch).softmax(1), self.efficientnet(batch).softmax(1)
        probabilities: torch.Tensor = 0.4 * first + 0.6 * second
        return probabilities

    def explain(self, batch: torch.Tensor, targets: Sequence[int]) -> np.ndarray:
        """Return the heatmap of each film's target class (N, size, size) in [0, 1] by EfficientNet."""
        with GradCAM(model=self.efficientnet, target_layers=[self.efficientnet.features[-1]]) as cam:
            heatmaps: np.ndarray = cam(
                input_tensor=batch, targets=[ClassifierOutputTarget(target) for target in targets]
            )
        return heatmaps


if __name__ == "__main__":
    UsualWay(int(sys.argv[1])).answer(Path(sys.argv[2]).read_bytes())
    print("answered", flush=True)
    # Whoever measures looks at the memory before this ends.
    sys.stdin.read()
