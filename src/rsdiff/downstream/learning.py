"""The network that looks: trained on crops of HR, the same for all inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.data.durable import write_tensors
from rsdiff.data.seeding import derived_seed, keyed_generator
from rsdiff.data.source import ImageSource, Window
from rsdiff.downstream.options import DownstreamOptions
from rsdiff.networks.recognition import ObjectNetwork, SceneNetwork


def classes_of(source: ImageSource) -> list[str]:
    """Return the class folders of a split; raises UserError where some images lie in one and some in none."""
    labels = [label_of(source, index) for index in range(len(source))]
    classes = sorted(set(labels) - {""})
    if classes and "" in labels:
        raise UserError(
            f"{source.name(labels.index(''))} lies in no class folder and other images do; put it into one, or take it out of the data."
        )
    return classes


def label_of(source: ImageSource, index: int) -> str:
    """Return the class folder of an image, '' where it lies in none."""
    return str(dict(source.meta(index).labels).get("class", ""))


def train_network(
    train: ImageSource, options: DownstreamOptions, seed: int, device: torch.device, path: Path, progress: Callable[[int, int], None]
) -> nn.Module:
    """Return a network trained on crops of HR to find objects, or to recognise classes, by what the data have.

    path      where its weights are kept; those of an earlier process of the same run are taken
    progress  called with the steps done and in all
    Raises UserError for data without HR, or with neither masks nor classes.
    """
    if "hr" not in train.gives:
        raise UserError("these data have no HR images, on which the network is trained; choose data that have.")
    labels = classes_of(train)
    if "change_mask" not in train.gives and len(labels) < 2:
        raise UserError(
            "these data have neither masks of objects nor classes in folders; give masks (dataset=paired dataset.lr_folder= "
            "dataset.mask_folder=DIR, or dataset=synthetic dataset.mask=buildings) or a folder per class (dataset=folder)."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "recognition"))
        if "change_mask" in train.gives:
            network: nn.Module = ObjectNetwork(train.bands, options.width)
        else:
            network = SceneNetwork(train.bands, len(labels), options.width)
    network.to(device)
    if path.exists():
        network.load_state_dict(load_file(path))
    else:
        optimiser = torch.optim.AdamW(network.parameters(), lr=options.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.learning_rate, total_steps=options.steps)
        groups = groups_of(train, labels)
        for step in range(options.steps):
            images, targets = (part.to(device) for part in crops(train, groups, options, seed, step))
            optimiser.zero_grad()
            loss = F.cross_entropy(network(images), targets) if targets.ndim == 1 else masked_loss(network(images), targets)
            loss.backward()
            optimiser.step()
            schedule.step()
            progress(step + 1, options.steps)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, network.state_dict())
    return network.eval()


def masked_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of cross entropy and Dice loss of a mask: the one for its edges, the other for few small objects."""
    shares = torch.sigmoid(logits)
    overlap = 2 * (shares * targets).sum() / (shares.sum() + targets.sum() + 1)
    return F.binary_cross_entropy_with_logits(logits, targets) + 1 - overlap


def crops(source: ImageSource, groups: Sequence[Sequence[int]], options: DownstreamOptions, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Return a batch of HR crops (B, C, p, p), flipped at random, with masks (B, 1, p, p) or class numbers (B,).

    groups  numbers of the images of every class, see `groups_of`: classes are drawn equally often, however many images each has
    """
    generator = keyed_generator(seed, "recognition", step)
    images, targets = [], []
    for number in torch.randint(len(groups), (options.batch,), generator=generator).tolist():
        index = groups[number][int(torch.randint(len(groups[number]), (), generator=generator))]
        H, W = source.size(index)
        side = min(options.patch, H, W)
        top, left = (int(torch.randint(length - side + 1, (), generator=generator)) for length in (H, W))
        sample = source.read(index, Window(top, left, side, side))
        axes = [axis for axis in (-2, -1) if torch.rand((), generator=generator) < 0.5]
        assert sample.hr is not None
        images.append(sample.hr.flip(axes))
        if sample.change_mask is not None:
            targets.append((sample.change_mask > 0).float().flip(axes))
        else:
            targets.append(torch.tensor(number))
    smallest = min(image.shape[-1] for image in images)
    cut = [image[..., :smallest, :smallest] for image in images]
    return torch.stack(cut), torch.stack([target[..., :smallest, :smallest] if target.ndim else target for target in targets])


def groups_of(source: ImageSource, labels: Sequence[str]) -> list[list[int]]:
    """Return the numbers of the images of every class, or of all images in one group where objects are searched."""
    if "change_mask" in source.gives:
        return [list(range(len(source)))]
    groups: dict[str, list[int]] = {label: [] for label in labels}
    for index in range(len(source)):
        groups[label_of(source, index)].append(index)
    return list(groups.values())
