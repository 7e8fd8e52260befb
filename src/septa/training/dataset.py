"""The samples of a folder as a `torch.utils.data.Dataset`, for training loops of one's own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data as torch_data

from septa import runtime
from septa.data import Sampler
from septa.errors import InputError, SeptaWarning
from septa.images import MAX_PIXELS
from septa.model import Model, build_net
from septa.nets import UNet
from septa.recipe import Recipe
from septa.tasks import Task
from septa.training.plan import TrainingRequest, plan_recipe
from septa.training.setup import choose_task, prepare_samples

SPLITS = ("train", "validation")


class SampleTensors(TypedDict):
    """One sample of a `Dataset`, which `torch.utils.data.DataLoader` joins to batches.

    Attributes
    ----------
    image
        Normalised image ``(C, Y, X)``, float32.
    target
        Target ``(Y, X)``, int64 or float32; ``(2, Y, X)`` if objects have classes.
    weights
        Weight of each pixel ``(Y, X)``, float32; absent if the recipe has no weight map.
    name
        Name of the image.
    """

    image: Tensor
    target: Tensor
    weights: NotRequired[Tensor]
    name: str


class Dataset(torch_data.Dataset[SampleTensors]):
    """Samples of a folder of images and labels, as a training of septa sees them.

    ``split="train"``: random patches, augmented as the recipe says. An epoch has each image once, or images of a rare
    style oftener (``sampling.balance``). A sample is a function of the seed, the epoch and its index, so that any
    number of loader processes gives the same samples.

    ``split="validation"``: the images that are held out, whole and unchanged, each with its target. They may differ in
    size, which needs ``batch_size=1``.

    Parameters
    ----------
    data
        Folder of images and labels; see `septa.train`.
    recipe
        Recipe, or the path of one; by default the one that `septa.train` would choose for new weights.
    split
        ``train`` or ``validation``.
    images, labels
        Globs for data in an unknown layout.
    overrides
        ``section.key=value`` assignments that change the recipe.
    max_pixels
        Largest image that is decoded, in pixels.

    Attributes
    ----------
    recipe : Recipe
        Resolved recipe.
    task : septa.tasks.Task
        Task: its `encode` made the targets, and its `decode` and `score` finish a prediction.
    normalization : septa.images.Normalization
        Constants of the training images.
    in_channels, out_channels : int
        Channels of the images, and those of the logits that the targets are for.

    Raises
    ------
    InputError, RecipeError
        The data cannot be trained on, or a setting is wrong.

    Examples
    --------
    >>> samples = Dataset("cells", overrides=["sampling.patch=[64, 64]"])  # doctest: +SKIP
    >>> loader = torch.utils.data.DataLoader(samples, batch_size=4, shuffle=True)  # doctest: +SKIP
    >>> net = samples.make_net()  # doctest: +SKIP
    >>> for batch in loader:  # doctest: +SKIP
    ...     loss = samples.loss(net(batch["image"]), batch)
    """

    def __init__(
        self,
        data: str | os.PathLike[str],
        recipe: Recipe | str | os.PathLike[str] | None = None,
        *,
        split: Literal["train", "validation"] = "train",
        images: str | None = None,
        labels: str | None = None,
        overrides: Sequence[str] = (),
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if split not in SPLITS:
            raise InputError("split", f"the split must be train or validation, got {split!r}", "Give one of them")
        # The check of the data is repeated for the other split, so both name the same images.
        request = TrainingRequest(
            data=Path(data),
            output=Path("dataset.septa"),
            images=images,
            labels=labels,
            recipe=Recipe.load(recipe) if isinstance(recipe, str | os.PathLike) else recipe,
            overrides=tuple(overrides),
            device="cpu",
            max_pixels=max_pixels,
        )
        check, choice = plan_recipe(request, resumed=True)
        for problem in check.problems:
            warnings.warn(f"warning: {problem}", SeptaWarning, stacklevel=2)
        assert check.fingerprint is not None
        self.split = split
        self.recipe = choice.recipe
        self.task: Task
        self.task, facts = choose_task(check, choice)
        self.in_channels = check.fingerprint.channels
        self.out_channels = self.task.outputs
        self._epoch = 0
        with torch.device("meta"):
            net = build_net(self.recipe, self.in_channels, self.out_channels)
        memory = runtime.find_memory_limit() // 4
        samples = prepare_samples(check, choice, net, self.task, facts, memory=memory)
        self._samples: Sampler = samples.sampler
        self._validation = samples.validation
        self._class_weights_k = samples.class_weights_k
        self.normalization = self._samples.normalization

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images of this split."""
        examples = self._samples.examples if self.split == "train" else self._validation
        return tuple(pair.name for pair in examples.pairs)

    def __len__(self) -> int:
        """Return the number of samples in an epoch."""
        return self._samples.epoch if self.split == "train" else len(self._validation)

    def __getitem__(self, index: int) -> SampleTensors:
        """Return a sample.

        Raises
        ------
        IndexError
            There is no sample of this index.
        InputError
            A file can no longer be read.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} samples, got index {index}")
        index %= len(self)
        if self.split == "validation":
            return self._read_whole(index)
        sample = self._samples.sample(self._epoch * len(self) + index)
        return _as_tensors(sample.image_cyx, sample.target_yx, sample.weights_yx, sample.name)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, of the samples that follow; call it before each epoch's loader is iterated.

        Raises
        ------
        ValueError
            The epoch is below 0.
        """
        if epoch < 0:
            raise ValueError(f"an epoch is counted from 0, got {epoch}")
        self._epoch = epoch

    def make_net(self) -> UNet:
        """Build the net of the recipe, with new weights."""
        return build_net(self.recipe, self.in_channels, self.out_channels)

    def make_model(self, net: UNet) -> Model:
        """Make a model of a net of `make_net` that was trained on these samples, to segment, evaluate and save."""
        return Model(
            net=net,
            channels=self.in_channels,
            labels=self._samples.examples.labels,
            normalization=self.normalization,
            recipe=self.recipe,
            decoding=self.task.decoding,
        )

    def loss(self, logits_bkyx: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Compute the recipe's loss of a batch, a scalar.

        Parameters
        ----------
        logits_bkyx
            Logits ``(B, K, Y, X)`` of the images of the batch.
        batch
            Batch of samples, as a `torch.utils.data.DataLoader` joins them; on any device.
        """
        weights_byx = batch.get("weights")
        class_weights_k = None
        if weights_byx is None and self._class_weights_k is not None:  # a weight map contains the class weights
            class_weights_k = torch.from_numpy(self._class_weights_k).to(logits_bkyx.device)
        device = logits_bkyx.device
        return self.task.loss(
            logits_bkyx.float(),
            batch["target"].to(device),
            self.recipe.loss,
            class_weights_k=class_weights_k,
            weights_byx=None if weights_byx is None else weights_byx.to(device),
        )

    def _read_whole(self, index: int) -> SampleTensors:
        example = self._validation[index]
        image_cyx = self.normalization.resolve(example.image_cyx).apply(example.image_cyx)
        target_yx, weights_yx = self._samples.encode(example.labels_yx, class_of_id=example.class_of_id)
        return _as_tensors(image_cyx, target_yx, weights_yx, self._validation.pairs[index].name)


def _as_tensors(
    image_cyx: NDArray[np.float32], target_yx: NDArray[Any], weights_yx: NDArray[np.float32] | None, name: str
) -> SampleTensors:
    target = torch.from_numpy(np.ascontiguousarray(target_yx))
    sample = SampleTensors(
        image=torch.from_numpy(np.ascontiguousarray(image_cyx)),
        target=target if target.is_floating_point() else target.long(),
        name=name,
    )
    if weights_yx is not None:
        sample["weights"] = torch.from_numpy(np.ascontiguousarray(weights_yx))
    return sample
