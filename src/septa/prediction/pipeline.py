"""The three steps of a page: read it, run the net, write its files."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, ResourceError, SeptaError, unify_out_of_memory
from septa.images import (
    ImageInfo,
    encode_png,
    read_image,
    read_info,
    write_bytes,
    write_probabilities,
)
from septa.inference import Engine, compute_overhead, largest_difference, smallest_tile_for
from septa.labels import CLASSES, OVERLAYS, PROBABILITIES
from septa.model import Model, PredictionOptions
from septa.notices import Notices
from septa.objects import ObjectFiles
from septa.prediction.find import InputImage
from septa.prediction.options import EXACT, FailedFile, Options, SegmentedFile
from septa.prediction.output import compute_padding, draw_prediction, write_stack
from septa.prediction.pages import ComputedPage, DecodedPage, FailedPage, FileState, PageFile, ReadPage, link_pages
from septa.prediction.targets import Targets, check_axes, check_pages
from septa.prefetch import map_in_background, prefetch_items
from septa.runtime import find_memory_limit

_PNG_IDS = 65_535
"""Largest object id in a PNG file."""
_SHARE = 1 / 32
"""Share of the memory up to which the pixels and logits of a page are small.

Pages of several images are in memory at once, and finding objects takes several times as much.
"""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The three steps of a page: `read_pages`, `run_net` and `write_page`.

    Each step can run in a thread of its own, on one page after the other. An error in a step becomes a `FailedPage`,
    which passes the later steps, so that results have the order of the pages.

    Attributes
    ----------
    model, engine
        Model, and the engine that runs its net.
    options
        Output and options.
    files
        Writer of the files of objects.
    targets
        Names of the files, and the record of those that may be replaced.
    notices
        Receives what is assumed or suspected about the images.
    """

    model: Model
    options: Options
    files: ObjectFiles
    engine: Engine
    targets: Targets
    notices: Notices = field(default_factory=Notices)

    def segment_overlapped(self, images: Sequence[InputImage]) -> Generator[SegmentedFile | FailedFile, None, None]:
        """Segment files with the steps of successive pages in parallel.

        The last result has a ResourceError if the memory does not hold several pages at once.
        """
        with (
            closing(prefetch_items(self.read_pages(images))) as pages,
            closing(map_in_background(self.write_page, map(self.run_net, pages))) as results,
        ):
            yield from (result for result in results if result is not None)

    def segment_alone(self, image: InputImage) -> SegmentedFile | FailedFile:
        """Segment an image with nothing else in memory."""
        results = map(self.write_page, map(self.run_net, self.read_pages([image], alone=True)))
        return next(result for result in results if result is not None)

    # Step 1

    def read_pages(self, images: Sequence[InputImage], *, alone: bool = False) -> Iterator[ReadPage | FailedPage]:
        """Read the pages of images.

        It ends at a page that does not fit into memory or, unless ``alone``, takes a large share of the memory.
        """
        for image in images:
            file, path = PageFile(image), image.file
            try:
                info = read_info(path, image=image.number, max_pixels=self.options.max_pixels)
                if self.options.link:
                    check_axes(info)
                check_pages(info, self.targets.find_labels(info))
                if not alone and self._is_large(info):
                    raise MemoryError
                for number in range(info.pages):
                    if file.state is FileState.FAILED:
                        break
                    input_cyx = self.model.as_model_input(self._read(image, number), path, self.notices)
                    yield ReadPage(
                        file=file,
                        info=info,
                        number=number,
                        name=self.targets.name_page(info, number),
                        image_cyx=input_cyx,
                        factor=self.model.find_factor(input_cyx, path, self.notices),
                    )
            except (ResourceError, MemoryError) as error:
                yield FailedPage(file, error)
                return
            except SeptaError as error:
                yield FailedPage(file, error)

    def _read(self, image: InputImage, page: int) -> NDArray[Any]:
        limit, channels = self.options.max_pixels, self.model.channels
        return read_image(
            image.file, page, image=image.number, channels=channels, max_pixels=limit, notices=self.notices
        )

    def _is_large(self, info: ImageInfo) -> bool:
        bytes_per_pixel = info.channels * info.dtype.itemsize + 4 * self.model.net.out_channels
        return info.height * info.width * bytes_per_pixel > _SHARE * find_memory_limit()

    # Step 2

    def run_net(self, page: ReadPage | FailedPage) -> ReadPage | ComputedPage | FailedPage:
        """Compute the labels or the logits of a page; a page of a failed file is returned unchanged.

        Errors of the engine and of the model are raised, because they would occur with each file.
        """
        if isinstance(page, FailedPage) or page.file.state is FileState.FAILED:
            return page
        try:
            with unify_out_of_memory():
                return self._compute(page)
        except (SeptaError, MemoryError) as error:
            if isinstance(error, SeptaError) and error.where.startswith(("--engine", "model")):
                raise
            return FailedPage(page.file, error)

    def _compute(self, page: ReadPage) -> ComputedPage:
        options = PredictionOptions(
            tile=self.options.tile,
            device=self.options.device,
            tta=self.options.tta,
            engine=self.engine,
            factor=page.factor,
            sums=self.model.make_sums(),
        )
        named = self.options.engine, self.options.precision
        model, options = self.model.fit_size(page.image_cyx, options, page.file.path, self.notices, named=named)
        if model.task.tilewise and not (self.options.probabilities or self.options.certify):
            computed = ComputedPage(page, model, options.tile, labels_yx=model.compute_labels(page.image_cyx, options))
        else:
            computed = ComputedPage(page, model, options.tile, logits_kyx=model.compute_logits(page.image_cyx, options))
        model.report_unlike(page.image_cyx, options, page.file.path, self.notices)
        if self.options.certify:
            self._certify(computed, replace(options, sums=None))
        return computed

    def _certify(self, computed: ComputedPage, options: PredictionOptions) -> None:
        """Compare logits with those of the whole image, and raise InputError if they differ by more than `EXACT`."""
        page, model, logits_kyx = computed.page, computed.model, computed.logits_kyx
        assert logits_kyx is not None
        whole = max(model.recipe.data.resize or page.image_cyx.shape[1:]) + smallest_tile_for(model.net)
        expected_kyx = model.compute_logits(page.image_cyx, replace(options, tile=whole, fixed_tile=True))
        difference = largest_difference(expected_kyx, logits_kyx)
        page.file.difference = max(page.file.difference or 0.0, difference)
        if difference > EXACT:
            problem = f"tiles differ from the whole image by {difference:.3g}, more than {EXACT:g}"
            remedy = "Give a --tile as large as the image; only the norms batch and none make tiles exact"
            raise InputError(page.file.path, problem, remedy)

    # Step 3

    def write_page(self, page: ReadPage | ComputedPage | FailedPage) -> SegmentedFile | FailedFile | None:
        """Write the files of a page, and return the result of its file at the last page or when it fails."""
        file = page.file
        if file.state is FileState.FAILED:
            return None
        if isinstance(page, ComputedPage):
            try:
                with unify_out_of_memory():
                    return self._write(page)
            except ResourceError:  # a full disk concerns all other files too
                raise
            except (SeptaError, MemoryError) as error:
                page = FailedPage(file, error)
        assert isinstance(page, FailedPage)
        return page.close_file()

    def _write(self, computed: ComputedPage) -> SegmentedFile | None:
        task = computed.model.task
        page = computed.page
        logits_kyx = computed.logits_kyx
        if page.number == 0:
            self.files.begin(page.file.path, page.file.image.number)
        labels_yx = computed.labels_yx
        if labels_yx is None:
            assert logits_kyx is not None
            labels_yx = task.decode(logits_kyx)
        class_of_id = None if logits_kyx is None else task.classify(labels_yx, logits_kyx)
        table = None
        if logits_kyx is not None and self.options.objects.wanted:
            foreground_yx = task.probabilities(logits_kyx)[1]
            class_yx = None if class_of_id is None else class_of_id[labels_yx]
            labels_yx, table = self.files.measure(
                labels_yx, page.image_cyx, foreground_yx, page.info.calibration, class_yx
            )
        if class_of_id is not None:
            page.file.classes.append(self.model.labels.raw_values[class_of_id[labels_yx]])
        if self.options.probabilities and logits_kyx is not None:
            self._write_probabilities(page, task.probabilities(logits_kyx))
        decoded = DecodedPage(
            number=page.number,
            name=page.name,
            position=page.position,
            labels_yx=labels_yx,
            table=table,
            image_cyx=page.image_cyx,
        )
        last = page.number + 1 == page.info.pages
        for each in self._link(page.file, page.info, decoded, last=last):
            self._write_decoded(page.file, each)
        return self._close_file(computed) if last else None

    def _link(self, file: PageFile, info: ImageInfo, page: DecodedPage, *, last: bool) -> list[DecodedPage]:
        """Return the pages whose ids are final: each at once or, where objects are linked, all of them at the end."""
        if not self.options.link:
            return [page]
        if info.pages == 1:
            self.notices.add(file.path, "the image has a single page, so no objects are linked")
            return [page]
        file.waiting.append(replace(page, image_cyx=None))
        if not last:
            return []
        pages = link_pages(file.waiting, info)
        file.waiting = []
        file.linked = len({value for each in pages for value in np.unique(each.labels_yx).tolist()} - {0})
        return pages

    def _write_probabilities(self, page: ReadPage, probabilities_kyx: NDArray[np.float32]) -> None:
        target = self.options.output / PROBABILITIES / f"{page.name}.tif"
        guard = self.targets.written.guard(page.file.path)
        write_probabilities(target, probabilities_kyx, calibration=page.info.calibration, guard=guard)

    def _write_decoded(self, file: PageFile, page: DecodedPage) -> None:
        if page.table is not None:
            self.files.add(page.name, page.labels_yx, page.table, page.position)
        file.labels.append(self.model.as_written(page.labels_yx))
        if self.options.overlay:
            image_cyx = page.image_cyx
            if image_cyx is None:
                image_cyx = self.model.as_model_input(self._read(file.image, page.number), file.path, self.notices)
            picture_yxs = draw_prediction(self.model, image_cyx, page.labels_yx)
            target = self.options.output / OVERLAYS / f"{page.name}.png"
            write_bytes(target, encode_png(picture_yxs), guard=self.targets.written.guard(file.path))

    def _close_file(self, last: ComputedPage) -> SegmentedFile:
        """Write the labels of all pages of a file."""
        file, info, model = last.file, last.page.info, last.model
        target = self.targets.find_labels(info)
        if self.options.suffix is None and max(int(page.max(initial=0)) for page in file.labels) > _PNG_IDS:
            target = target.with_suffix(".tif")
        guard = self.targets.written.guard(file.path)
        write_stack(target, file.labels, info, guard)
        if file.classes:
            write_stack(self.options.output / CLASSES / target.name, file.classes, info, guard)
        self.files.commit(target)
        file.state = FileState.WRITTEN
        tiles = model.plan(info.height, info.width, last.tile)
        return SegmentedFile(
            path=file.path,
            labels=target,
            megapixels=info.pages * info.height * info.width / 1e6,
            tiles=len(tiles),
            overhead=compute_overhead(tiles),
            exact=model.net.exact_tiles,
            padding=compute_padding(model, info.height, info.width),
            difference=file.difference,
            linked=file.linked,
        )
