"""torchvision's models: their names, what they are for, how they are built without a download, what they take.

torchvision is imported when it is first asked for something: that takes as long as importing PyTorch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

VisionTask = Literal["classification", "segmentation", "detection", "video", "optical flow", "quantizable"]
Shape = tuple[int, ...]

_TASK_OF_PACKAGE: Mapping[str, VisionTask] = MappingProxyType(
    {
        "segmentation": "segmentation",
        "detection": "detection",
        "video": "video",
        "optical_flow": "optical flow",
        "quantization": "quantizable",
    }
)
_SIZE = 224
_SIZES = {"inception_v3": 299, "quantized_inception_v3": 299}
_CLIP_SIZES = {"r3d_18": 112, "mc3_18": 112, "r2plus1d_18": 112}
_FRAMES = 16
_DETECTION_SIZE = 320
_FLOW_SIZE = 128  # the smallest that leaves something to look up on all levels of its pyramid
_KEYPOINTS = 17
# torchvision warns where this is left open; its initialisation by truncated normals takes seconds, and none on meta.
_EXPLICIT_INIT = frozenset({"googlenet", "inception_v3", "quantized_googlenet", "quantized_inception_v3"})


def _models() -> Any:
    import torchvision.models

    return torchvision.models


@cache
def names() -> tuple[str, ...]:
    """Every builder that torchvision registers."""
    return tuple(_models().list_models())


def task_of(name: str) -> VisionTask:
    """What a model is for; the ones made ready for quantisation are a kind of their own."""
    package = _models().get_model_builder(name).__module__.split(".")[2]
    return _TASK_OF_PACKAGE.get(package, "classification")


def builder(name: str, device: str) -> Callable[..., nn.Module]:
    """A builder without weights, neither for the model nor for its backbone, in floating point."""
    build = _models().get_model_builder(name)
    parameters = inspect.signature(build).parameters
    fixed: dict[str, Any] = {key: None for key in ("weights", "weights_backbone") if key in parameters}
    if "quantize" in parameters:
        fixed["quantize"] = False
    if name in _EXPLICIT_INIT:
        fixed["init_weights"] = device != "meta"
    return partial(build, **fixed)


def usual_shape(name: str, args: Mapping[str, Any]) -> Shape | None:
    """The usual shape of one input without the batch; None where the inputs are more than one tensor.

    Args:
        name: a name of torchvision's.
        args: the builder's arguments, of which ``image_size`` is heard.
    """
    task = task_of(name)
    if task in ("detection", "optical flow"):
        return None
    size = args.get("image_size", _SIZES.get(name, _SIZE))
    if task == "video":
        size = _CLIP_SIZES.get(name, _SIZE)
        return (3, _FRAMES, size, size)
    return (3, size, size)


def usual_inputs(name: str) -> tuple[Any, ...] | None:
    """Inputs, smaller than usual, of models that take more than one tensor; None for the others.

    Detectors take a list of images and one of targets (which they read in training mode only), RAFT two images.
    """
    task = task_of(name)
    generator = torch.Generator().manual_seed(0)
    if task == "optical flow":
        return tuple(torch.rand(1, 3, _FLOW_SIZE, _FLOW_SIZE, generator=generator) for _ in range(2))
    if task == "detection":
        image = torch.rand(3, _DETECTION_SIZE, _DETECTION_SIZE, generator=generator)
        return [image], [_target(name)]
    return None


def _target(name: str) -> dict[str, Tensor]:
    """Two boxes, and what else the losses of this detector read."""
    size = _DETECTION_SIZE
    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.7], [0.3, 0.4, 0.9, 0.9]]) * size
    target = {"boxes": boxes, "labels": torch.ones(2, dtype=torch.int64)}
    if name.startswith("maskrcnn"):
        target["masks"] = torch.zeros(2, size, size, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(target["masks"], boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
    if name.startswith("keypointrcnn"):
        inside = torch.rand(2, _KEYPOINTS, 2, generator=torch.Generator().manual_seed(1))
        points = boxes[:, None, :2] + inside * (boxes[:, None, 2:] - boxes[:, None, :2])
        target["keypoints"] = torch.cat([points, torch.ones(2, _KEYPOINTS, 1)], dim=-1)
    return target


def small_case(name: str) -> tuple[dict[str, Any], Shape | None]:
    """Arguments and an input shape that make a model cheap to try and its outputs telling.

    Detectors get small images and no threshold on scores, as nothing that is random passes one.
    """
    task = task_of(name)
    if task == "detection":
        ssd = name.startswith("ssd")
        fixed: dict[str, Any] = {} if ssd else {"min_size": _DETECTION_SIZE, "max_size": _DETECTION_SIZE}
        if "rcnn" in name:
            few = {"box_score_thresh": -1.0, "box_detections_per_img": 10, "rpn_post_nms_top_n_test": 50}
            return {**fixed, **few, "rpn_score_thresh": -1.0}, None
        return {**fixed, "score_thresh": -1.0, "detections_per_img": 10}, None
    if name.startswith(("swin3d", *_CLIP_SIZES)):
        return {}, (3, 8, 112, 112)
    return {}, None


def count_params(name: str) -> int:
    """How many parameters a model of the usual size has, as torchvision says; 0 where it does not."""
    weights = list(_models().get_model_weights(name))
    return min((int(w.meta.get("num_params", 0)) for w in weights), default=0)  # more: weights for larger images
