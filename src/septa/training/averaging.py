"""The mean of the weights before and after a fine-tuning, which forgets less of what the parent knows."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from septa.training.job import TrainingJob
from septa.training.state import TrainingState
from septa.training.validate import validate

_OBJECTS = 4
"""Number of objects that the fine-tuned weights must find more than the mean on the validation images."""


def load_weights(job: TrainingJob, state: TrainingState) -> float | None:
    """Load the weights of the model into the net of ``state``: the best ones, or their mean with those of the parent.

    Few images teach a net little and make it forget much, and few validation images do not show what. The mean of both
    weights keeps most of both [1]_. So it is taken unless the fine-tuned weights find more objects on the validation
    images than luck would. It is scored only if all outputs are those of the parent.

    Parameters
    ----------
    job
        Job, whose checkpoints hold the weights.
    state
        State after the last step.

    Returns
    -------
    float or None
        Validation score of the mean, if that is loaded.

    References
    ----------
    .. [1] Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (arXiv 2109.01903).
    """
    assert state.best is not None
    net = state.inference_net
    best = job.checkpoints.load_best(int(state.best["step"]))
    first = job.checkpoints.load_first() if job.scores_parent and state.best["step"] else None
    if first is None:
        net.load_state_dict(best)
        return None
    net.load_state_dict(_average(first, best))
    score = validate(job.make_model(state), job.validation, job.device, class_weights_k=job.class_weights_k).score
    if score >= state.best["score"] - _OBJECTS * job.gain_of_one_object:
        return score
    net.load_state_dict(best)
    return None


def _average(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the mean of two states of a net; counts are those of the second."""
    floats = {name for name, tensor in second.items() if tensor.is_floating_point()}
    return {name: tensor.lerp(first[name], 0.5) if name in floats else tensor for name, tensor in second.items()}
