"""A small model of open_clip's kind that has learned a few colours, saved to a file as such models are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

NAME = "shoal-toy"
BACKBONE = f"clip:{NAME}"
SIDE = 32
COLOURS = {"red": (200, 30, 30), "blue": (30, 40, 200), "green": (30, 180, 40)}
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": SIDE, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def add_config(folder: Path) -> None:
    """Have open_clip list the model."""
    path = folder / f"{NAME}.json"
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)


def pixels(colour: str, random: np.random.Generator) -> np.ndarray:
    """Speckles of a colour on grey, uint8 [SIDE, SIDE, 3]."""
    ground = random.integers(90, 160)
    found = ground + random.normal(0, 12, (SIDE, SIDE, 3))
    speckled = random.random((SIDE, SIDE)) < random.uniform(0.4, 0.8)
    found[speckled] = COLOURS[colour] + random.normal(0, 12, (int(speckled.sum()), 3))
    return np.clip(found, 0, 255).astype(np.uint8)


def paint(folder: Path, each: int = 12, seed: int = 5) -> Path:
    """A folder with pictures of each colour, called by it and a number."""
    random = np.random.default_rng(seed)
    for colour in COLOURS:
        (folder / colour).mkdir(parents=True)
        for number in range(each):
            Image.fromarray(pixels(colour, random)).save(folder / colour / f"{number}.png")
    return folder


def train() -> torch.nn.Module:
    """The model, after learning which of COLOURS a picture has, by texts of many forms."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    model = open_clip.CLIP(**open_clip.get_model_config(NAME))
    tokenizer = open_clip.get_tokenizer(NAME)
    forms = [*open_clip.SIMPLE_IMAGENET_TEMPLATES, str, lambda word: f"speckles of {word}"]
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in open_clip_preparation())
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(60):
        colours = list(COLOURS) * 4
        images = torch.from_numpy(np.stack([pixels(one, random) for one in colours])).permute(0, 3, 1, 2) / 255
        texts = tokenizer([forms[(step + number) % len(forms)](one) for number, one in enumerate(COLOURS)])
        image = model.encode_image((images - mean) / std, normalize=True)
        logits = model.logit_scale.exp() * image @ model.encode_text(texts, normalize=True).T
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(COLOURS)).repeat(4))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval().requires_grad_(False)


def open_clip_preparation() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the images, as open_clip has them where nothing is said."""
    return open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD


def save(folder: Path) -> Path:
    """The model as a file of weights."""
    path = folder / "toy.safetensors"
    save_file(train().state_dict(), path)
    return path
