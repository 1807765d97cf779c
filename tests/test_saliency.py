"""Grad-CAM against the grad-cam package, on the real architectures, and where the heat lies."""

import gc
import threading
import weakref

import numpy as np
import pytest
import timm
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from pneumonet.engines.torch import TorchEngine
from pneumonet.heads import Head
from pneumonet.members import Member
from pneumonet.saliency import grad_cam, lay_on_film, scaled
from pneumonet.snapshot import MemberConfig
from pneumonet.taxonomy import CLASS_NAMES

BACKBONES = {
    "convnext_tiny": MemberConfig("convnext_tiny", "ConvNeXt-Tiny", "convnext_tiny", 0.4, 1.0, "stages.3"),
    "efficientnetv2_s": MemberConfig("efficientnetv2_s", "EfficientNetV2-S", "tf_efficientnetv2_s", 0.6, 1.0, "bn2"),
}


def _lively(model: nn.Module) -> nn.Module:
    """Give random weights batch statistics, layer scales and a head that keep maps far from zero."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            parameter.data.fill_(0.5)
    head = model.get_classifier()
    head.weight.data = torch.randn(head.weight.shape, generator=generator) * 0.5
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        model.train()(torch.randn(8, 3, 96, 96, generator=generator))
    return model


@pytest.fixture(scope="module", params=BACKBONES)
def member(request: pytest.FixtureRequest) -> Member:
    torch.manual_seed(11)
    config = BACKBONES[request.param]
    return Member(config, _lively(timm.create_model(config.architecture, num_classes=3)))


def _features(member: Member, batch: torch.Tensor) -> np.ndarray:
    return TorchEngine([member]).features(batch.numpy())[member.config.name]


def _reference_maps(member: Member, batch: torch.Tensor, target_class: int) -> np.ndarray:
    """The package's maps (N, h, w) before it scales them, by a second pass with hooks."""

    model = member.model.requires_grad_(True)
    layer = model.get_submodule(member.config.target_layer)
    with GradCAM(model=model, target_layers=[layer]) as cam:
        targets = [ClassifierOutputTarget(target_class)] * len(batch)
        outputs = cam.activations_and_grads(batch.requires_grad_(True))
        model.zero_grad()
        sum(target(output) for target, output in zip(targets, outputs, strict=True)).backward()
        activations = cam.activations_and_grads.activations[0].cpu().numpy()
        gradients = cam.activations_and_grads.gradients[0].cpu().numpy()
        maps = cam.get_cam_image(batch, layer, targets, activations, gradients, eigen_smooth=False)
    model.requires_grad_(False).zero_grad(set_to_none=True)
    return np.maximum(maps, 0)


@pytest.mark.parametrize("count", [1, 5], ids=["batch-1", "batch-5"])
def test_every_class_equals_the_grad_cam_package(member: Member, count: int) -> None:
    batch = torch.randn(count, 3, 96, 128, generator=torch.Generator().manual_seed(5))
    ours = grad_cam(member.head(), _features(member, batch))
    assert ours.shape == (count, 3, 3, 4)
    assert ours.dtype == np.float32
    for target_class in range(len(CLASS_NAMES)):
        reference = _reference_maps(member, batch.clone(), target_class)
        assert reference.max() > 1e-3
        np.testing.assert_allclose(ours[:, target_class], reference, atol=1e-4)


@pytest.mark.parametrize("count", [1, 5], ids=["batch-1", "batch-5"])
def test_the_package_s_own_scaling_of_our_maps_is_its_answer(member: Member, count: int) -> None:
    batch = torch.randn(count, 3, 96, 96, generator=torch.Generator().manual_seed(6))
    ours = grad_cam(member.head(), _features(member, batch))
    model = member.model.requires_grad_(True)
    with GradCAM(model=model, target_layers=[model.get_submodule(member.config.target_layer)]) as cam:
        for target_class in range(len(CLASS_NAMES)):
            answer = cam(input_tensor=batch, targets=[ClassifierOutputTarget(target_class)] * count)
            # The package stretches each map from its minimum, twice: before and after making it larger.
            expected = scale_cam_image(scale_cam_image(ours[:, target_class], (96, 96)))
            np.testing.assert_allclose(expected, answer, atol=1e-4)
    model.requires_grad_(False).zero_grad(set_to_none=True)


def test_features_are_the_target_layer_s_output(member: Member) -> None:
    batch = torch.randn(2, 3, 64, 96)
    seen: list[torch.Tensor] = []
    handle = member.model.get_submodule(member.config.target_layer).register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    with torch.inference_mode():
        features = member.features(batch)
        whole = member.model(batch)
    handle.remove()
    head = member.head()
    assert features.shape[2:] == (2, 3)
    torch.testing.assert_close(seen[0], features)
    logits = head.logits(head.embed(features.numpy()))
    np.testing.assert_allclose(logits, whole.numpy(), rtol=1e-4, atol=1e-4)


def test_leaves_no_hook_no_gradient_and_no_memory_behind(member: Member) -> None:
    batch = torch.randn(1, 3, 64, 64)
    references = []
    for _ in range(5):
        features = _features(member, batch)
        grad_cam(member.head(), features)
        references.append(weakref.ref(features))
        del features
    gc.collect()
    assert all(reference() is None for reference in references)
    assert not member.model.training
    for module in member.model.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
    assert all(parameter.grad is None for parameter in member.model.parameters())


def test_two_threads_do_not_mix_their_maps(member: Member) -> None:
    batches = [torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]

    def maps_of(batch: torch.Tensor) -> np.ndarray:
        return grad_cam(member.head(), _features(member, batch))

    alone = [maps_of(batch) for batch in batches]
    together: list[np.ndarray | None] = [None] * 4

    def work(i: int) -> None:
        together[i] = maps_of(batches[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for expected, got in zip(alone, together, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_heat_lies_where_the_class_s_channel_is_active() -> None:
    # Class 1 answers to one channel, the other classes to nothing.
    weight = np.zeros((3, 4), dtype=np.float32)
    weight[1, 0] = 10
    features = np.zeros((1, 4, 5, 7), dtype=np.float32)
    features[0, 0, 1, 5] = 3.0
    features[0, 1, 4, 0] = 9.0
    maps = scaled(grad_cam(Head(weight, np.zeros(3, dtype=np.float32)), features))
    assert np.unravel_index(maps[0, 1].argmax(), (5, 7)) == (1, 5)
    assert maps[0, 1].max() == 1.0
    assert not maps[0, 0].any()


def test_a_map_of_zeros_stays_zeros() -> None:
    with np.errstate(all="raise"):
        assert not scaled(np.zeros((2, 3, 4, 4), dtype=np.float32)).any()


def test_an_even_map_is_not_stretched_to_noise() -> None:
    even = np.full((4, 4), 2.0, dtype=np.float32)
    assert (scaled(even) == 1).all()


@pytest.mark.parametrize(("height", "width"), [(300, 900), (900, 300), (64, 64)], ids=["wide", "tall", "square"])
@pytest.mark.parametrize("cell", [(0, 3), (2, 1), (3, 0)], ids=str)
def test_peak_lies_in_its_own_part_of_the_film(height: int, width: int, cell: tuple[int, int]) -> None:
    saliency_map = np.zeros((4, 4), dtype=np.float32)
    saliency_map[cell] = 1
    laid = lay_on_film(saliency_map, height, width)
    assert laid.shape == (height, width)
    y, x = np.unravel_index(laid.argmax(), laid.shape)
    assert cell[0] * height / 4 <= y < (cell[0] + 1) * height / 4
    assert cell[1] * width / 4 <= x < (cell[1] + 1) * width / 4
    assert laid.min() >= 0
    assert laid.max() <= 1
