"""The net of a recipe."""

from __future__ import annotations

from septa.errors import RecipeError
from septa.nets import UNet
from septa.recipe import Recipe


def build_net(recipe: Recipe, channels: int, outputs: int) -> UNet:
    """Build the net of a recipe, with new weights from the current state of PyTorch's random generator.

    Parameters
    ----------
    recipe
        Settings, of which the section ``net`` is used.
    channels
        Number of channels of the image.
    outputs
        Number of channels of the logits.

    Raises
    ------
    RecipeError
        The settings exclude each other.
    """
    try:
        return UNet(channels, outputs, **recipe.net.model_dump(exclude={"output", "pretrained"}))
    except ValueError as error:
        problem, _, hint = str(error).partition("; ")
        remedy = hint[:1].upper() + hint[1:] or "Change the setting"
        raise RecipeError("recipe", f"the net cannot be built, because {problem}", remedy) from None
