"""The torch modules that an engine runs: one network, or several for one image, giving rows of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn import functional as F

WITHOUT_TOP = ("default", "best")  # features of networks that have neither a classifier nor a map that is known


class Encoder(nn.Module):
    """A timm model, or the image tower of one of open_clip's, that gives one row of features an image.

    Input: float32 [n, 3, size, size], normalised. Output: float32 [n, dim]:
    `default` the pooled last map, `map` the last map flattened in the order height, width, channel (the order of
    the Keras networks of the transfer project), `logits` the classifier's output, `probabilities` its softmax, and
    `best` the pooled features averaged over the image and its mirror image, of a `Together` those of all its networks.
    """

    def __init__(self, model: nn.Module, features: str) -> None:
        super().__init__()
        self.model = model
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        if self.features == "map":
            last: Tensor = self.model.forward_features(images)  # type: ignore[operator]
            if last.ndim == 4 and getattr(self.model, "output_fmt", "NCHW") != "NHWC":
                last = last.permute(0, 2, 3, 1)  # [n, c, h, w] -> [n, h, w, c]
            return last.flatten(1)
        out: Tensor = self.model(images)
        if self.features == "best" and not isinstance(self.model, Together):
            out = (out + self.model(images.flip(-1))) / 2
        return out.softmax(dim=1) if self.features == "probabilities" else out


class Together(nn.Module):
    """Several networks for one image, given at the size of the last one's input.

    Output: float32 [n, sum of dims], each network's pooled features, averaged over the image and its mirror image and
    then made of unit length: what differs between networks differs by their training, not by the images.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.dim = 0
        for member in members:
            self.dim += int(member.num_features)  # type: ignore[arg-type]
        self.sizes = [int(resolve_model_data_config(member)["input_size"][1]) for member in members]

    def forward(self, images: Tensor) -> Tensor:
        rows = []
        for member, size in zip(self.members, self.sizes, strict=True):
            view = images if size == self.sizes[-1] else F.interpolate(images, (size, size), mode="bilinear")
            rows.append(F.normalize(member(view) + member(view.flip(-1))))
        return torch.cat(rows, dim=1)
