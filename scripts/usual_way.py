"""What PneumoNet is measured against: the same two backbones, run as the field's tutorials run them.

torchvision's models, Pillow, torchvision's transforms and the grad-cam package; one heatmap, of EfficientNet alone.
Weights are random: they cost the same time as trained ones.
"""

import base64
import io
import json

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
        image = Image.open(io.BytesIO(data)).convert("RGB")
        batch = self.transform(image).unsqueeze(0)
        probabilities = self.classify(batch)
        cam = self.explain(batch, int(probabilities.argmax()))
        small = np.asarray(image.resize((self.size, self.size)), dtype=np.float32) / 255
        picture = io.BytesIO()
        Image.fromarray(show_cam_on_image(small, cam, use_rgb=True)).save(picture, format="PNG")
        return json.dumps(
            {
                "prediction": CLASSES[int(probabilities.argmax())],
                "probabilities": dict(zip(CLASSES, probabilities.tolist(), strict=True)),
                "gradcam_image": "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode(),
            }
        )

    def classify_and_explain(self, batch: np.ndarray) -> np.ndarray:
        """Return the likeliest class's heatmap of a batch (1, 3, size, size): what the models alone cost."""
        tensor = torch.from_numpy(batch)
        return self.explain(tensor, int(self.classify(tensor).argmax()))

    def classify(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the first film's probabilities (3,)."""
        with torch.no_grad():
            first, second = self.convnext(batch).softmax(1), self.efficientnet(batch).softmax(1)
        probabilities: torch.Tensor = (0.4 * first + 0.6 * second)[0]
        return probabilities

    def explain(self, batch: torch.Tensor, target: int) -> np.ndarray:
        """Return a class's heatmap (size, size) in [0, 1] by EfficientNet."""
        with GradCAM(model=self.efficientnet, target_layers=[self.efficientnet.features[-1]]) as cam:
            heatmap: np.ndarray = cam(input_tensor=batch, targets=[ClassifierOutputTarget(target)])[0]
        return heatmap
