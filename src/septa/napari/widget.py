"""The widget of the plugin: choose a model, segment the current layer, save corrected labels as a training pair."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox, Container, FileEdit, Label, ProgressBar, PushButton, SpinBox
from qtpy.QtCore import QTimer

from septa.errors import InputError, SeptaError
from septa.inference import ENGINES
from septa.napari.background import BackgroundWork
from septa.napari.pairs import save_pair
from septa.napari.results import chosen_models, open_results
from septa.napari.segmentation import (
    PARTS,
    LayerImage,
    Segmentation,
    SegmentSettings,
    find_window,
    list_models,
    segment_layer,
)

if TYPE_CHECKING:
    import napari

_POLL_MS = 100
_AUTOMATIC = "automatic"
_MOST_TILE = 8192


class SegmentWidget(Container):  # type: ignore[misc]
    """Widget that segments image layers.

    Parameters
    ----------
    viewer
        Viewer whose layers are segmented; napari gives it.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__(labels=True)
        self._viewer = viewer
        self._job: BackgroundWork | None = None
        self._image: LayerImage | None = None
        self.model = ComboBox(label="model", choices=self._list_models, tooltip="What the model finds")
        self.own_model = FileEdit(label="own model", filter="*.septa", nullable=True, value=None)
        self.part = ComboBox(label="segment", choices=PARTS, value=PARTS[0])
        self.engine = ComboBox(label="engine", choices=(_AUTOMATIC, *ENGINES), value=_AUTOMATIC)
        self.tile = SpinBox(label="tile (0: auto)", min=0, max=_MOST_TILE, step=64, value=0)
        self.measure = ComboBox(label="measure", choices=("basic", "full"), value="basic")
        self.start = PushButton(text="Segment")
        self.stop = PushButton(text="Cancel", enabled=False)
        self.progress = ProgressBar(min=0, max=1000, value=0, label="progress")
        self.message = Label(value="", label="")
        self.message.native.setWordWrap(True)
        self.open = FileEdit(label="open labels", nullable=True, value=None)
        self.folder = FileEdit(label="training folder", mode="d", nullable=True, value=None)
        self.save = PushButton(text="Save as training pair")
        buttons = Container(widgets=[self.start, self.stop], layout="horizontal", labels=False)
        self.extend([self.model, self.own_model, self.part, self.engine, self.tile, self.measure, buttons])
        self.extend([self.progress, self.message, self.open, self.folder, self.save])
        self.own_model.changed.connect(self._choose_own_model)
        self.open.changed.connect(self._open)
        self.start.clicked.connect(self.segment)
        self.stop.clicked.connect(self.cancel)
        self.save.clicked.connect(self.save_pair)
        self._timer = QTimer(self.native)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(self.poll)
        self._explain_model()
        self.model.changed.connect(self._explain_model)

    # --- segmenting -------------------------------------------------------------------------------------------------

    def segment(self) -> None:
        """Segment the current image layer, or the selected ones as the channels of one image."""
        if self._job is not None and self._job.running:
            return
        try:
            image, plane, corners = self._find_image()
            window = find_window(image, self.part.value, plane, corners)
            if self.model.value is None:
                raise InputError("", "no model is chosen", "Choose a model file as own model")
        except SeptaError as error:
            self._show(str(error))
            return
        engine = None if self.engine.value == _AUTOMATIC else self.engine.value
        settings = SegmentSettings(
            model=self.model.value, engine=engine, tile=self.tile.value or None, measure=(self.measure.value,)
        )
        self._image = image
        self._job = BackgroundWork()
        self._job.start(partial(segment_layer, image, window, settings))
        self.start.enabled, self.stop.enabled = False, True
        self._timer.start()

    def cancel(self) -> None:
        """Stop the segmentation after the tile that is computed now."""
        if self._job is not None:
            self._job.cancel()
            self._show("stopping after this tile")

    def poll(self) -> None:
        """Show the progress, and the labels when they are done."""
        job = self._job
        if job is None:
            return
        self.progress.value = round(1000 * job.share)
        if job.running:
            self._show(job.text)
            return
        self._timer.stop()
        self._job = None
        self.start.enabled, self.stop.enabled = True, False
        self.progress.value = 1000 if job.result is not None else 0
        if job.result is not None:
            self._add_labels(job.result)
            self._show("\n".join((job.text, *job.result.lines)))
        else:
            self._show("cancelled" if job.cancelled else job.error)

    def _add_labels(self, result: Segmentation) -> None:
        image = self._image
        assert image is not None
        labels, begin = result.labels, result.begin
        place: dict[str, Any] = {}
        if image.scale:
            start = [at + first * step for at, first, step in zip(image.translate, begin, image.scale, strict=True)]
            place = {"scale": tuple(image.scale), "translate": tuple(start), "units": tuple(image.units) or None}
        self._viewer.add_labels(
            labels,
            name=result.name,
            features=result.features,
            metadata={"septa": {"begin": begin, "image": image.name}},
            **place,
        )

    def _find_image(self) -> tuple[LayerImage, tuple[int, ...], Any]:
        """Return the image of the chosen layers, the index of the plane that is shown, and the visible corners."""
        from napari.layers import Image

        chosen = [layer for layer in self._viewer.layers if layer in self._viewer.layers.selection]
        layers = [layer for layer in chosen if isinstance(layer, Image)]
        layers = layers or [layer for layer in self._viewer.layers if isinstance(layer, Image)][-1:]
        if not layers:
            raise InputError("", "no image is open", "Open an image, and select its layer")
        first = layers[0]
        image = LayerImage(
            name=first.name,
            channels=[layer.data[0] if layer.multiscale else layer.data for layer in layers],
            names=[layer.name for layer in layers] if len(layers) > 1 else (),
            rgb=bool(first.rgb),
            scale=tuple(map(float, first.scale)),
            translate=tuple(map(float, first.translate)),
            units=tuple(map(str, getattr(first, "units", ()))),
        )
        point = first.world_to_data(self._viewer.dims.point)
        sizes = image.shape[:-2]
        plane = tuple(int(np.clip(round(at), 0, size - 1)) for at, size in zip(point, sizes))
        corners = np.asarray(first.corner_pixels, float)
        if first.multiscale:
            corners = corners * np.asarray(first.downsample_factors[first.data_level])[: corners.shape[1]]
        return image, plane, corners

    # --- models, results, training pairs ----------------------------------------------------------------------------

    def _list_models(self, _: Any = None) -> list[str]:
        return [*list_models(), *chosen_models]

    def _choose_own_model(self, path: Path | None) -> None:
        if path is None or not path.is_file():
            return
        name = str(path)
        if name not in chosen_models:
            chosen_models.append(name)
        self.model.reset_choices()
        self.model.value = name

    def _explain_model(self) -> None:
        name = self.model.value
        self._show(list_models().get(name, name or ""))

    def _open(self, path: Path | None) -> None:
        if path is None or not path.exists():
            return
        try:
            for data, options, _ in open_results(path):
                self._viewer.add_labels(data, **options)
        except SeptaError as error:
            self._show(str(error))

    def save_pair(self) -> None:
        """Write the selected image and labels as a training pair."""
        from napari.layers import Labels

        chosen = [layer for layer in self._viewer.layers if isinstance(layer, Labels)]
        selected = [layer for layer in chosen if layer in self._viewer.layers.selection]
        labels = (selected or chosen)[-1:]
        try:
            if not labels or self.folder.value is None:
                raise InputError("", "a labels layer and a training folder are needed", "Choose both")
            image, plane, _ = self._find_image()
            own = labels[0].metadata.get("septa", {})
            if own.get("image") not in (None, image.name):
                image = self._find_named(own["image"]) or image
            begin = own.get("begin", (0,) * labels[0].ndim)
            data = labels[0].data[0] if labels[0].multiscale else labels[0].data
            files = save_pair(Path(self.folder.value), image, np.asarray(data), begin, plane)
            self._show(f"{files[0]} and {files[1].relative_to(files[1].parent.parent)} are written")
        except SeptaError as error:
            self._show(str(error))

    def _find_named(self, name: str) -> LayerImage | None:
        """Return the image that was segmented last, if it has a name."""
        return self._image if self._image is not None and self._image.name == name else None

    def _show(self, text: str) -> None:
        self.message.value = text
