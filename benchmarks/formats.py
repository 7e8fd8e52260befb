"""Compare the pixels that septa reads of each microscope format with those of another reader, and print a table.

Files of NIfTI and DICOM come with nibabel and pydicom; the others are written here, CZI by Zeiss' own library.

Run: pip install 'septa[formats]' SimpleITK pylibCZIrw readlif pyfive && python benchmarks/formats.py
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from septa.errors import InputError
from septa.images import read_image, read_info

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "images" / "formats"))
from writers import write_lif, write_nd2

Array = Any
STACK_TZCYX = np.random.default_rng(0).integers(0, 60000, (2, 3, 2, 64, 80)).astype(np.uint16)


def compare_czi(folder: Path) -> Iterator[tuple[str, Path, Array]]:
    library = importlib.import_module("pylibCZIrw.czi")
    path = folder / "stack.czi"
    with library.create_czi(str(path)) as file:
        for t, z, c in np.ndindex(2, 3, 2):
            for left in (0, 40):  # two tiles
                tile = np.ascontiguousarray(STACK_TZCYX[t, z, c][:, left : left + 40, None])
                file.write(tile, location=(left, 0), plane={"T": t, "Z": z, "C": c})
    with library.open_czi(str(path)) as file:
        planes = [file.read(plane={"T": t, "Z": z, "C": c})[..., 0] for t, z, c in np.ndindex(2, 3, 2)]
    yield "pylibCZIrw", path, np.stack(planes).reshape(6, 2, 64, 80)


def compare_lif(folder: Path) -> Iterator[tuple[str, Path, Array]]:
    path = folder / "stack.lif"
    write_lif(path, {"stack": ("TZCYX", STACK_TZCYX)})
    image = importlib.import_module("readlif.reader").LifFile(str(path)).get_image(0)
    planes = [np.asarray(image.get_frame(z=z, t=t, c=c)) for t, z, c in np.ndindex(2, 3, 2)]
    yield "readlif", path, np.stack(planes).reshape(6, 2, 64, 80)


def compare_nd2(folder: Path) -> Iterator[tuple[str, Path, Array]]:
    path = folder / "stack.nd2"
    write_nd2(path, "TZCYX", STACK_TZCYX)
    importlib.import_module("nd2")
    yield "(as written)", path, STACK_TZCYX.reshape(6, 2, 64, 80)


def read_with_itk(path: Path) -> Array:
    """Return pages, ``ICYX``, as SimpleITK reads them."""
    library = importlib.import_module("SimpleITK")
    image = library.ReadImage(str(path))
    values = library.GetArrayFromImage(image)
    channels = image.GetNumberOfComponentsPerPixel()
    values = values.reshape(-1, *values.shape[-3:]) if channels > 1 else values.reshape(-1, *values.shape[-2:], 1)
    return np.moveaxis(values, 3, 1)


def compare_nrrd(folder: Path) -> Iterator[tuple[str, Path, Array]]:
    for encoding in ("raw", "gzip"):
        path = folder / f"{encoding}.nrrd"
        importlib.import_module("nrrd").write(str(path), STACK_TZCYX[0, :, 0], {"encoding": encoding}, index_order="C")
        yield "SimpleITK", path, read_with_itk(path)


def compare_nifti(folder: Path) -> Iterator[tuple[str, Path, Array]]:
    data = Path(importlib.import_module("nibabel.testing").data_path)
    for name in ("anatomical.nii", "example4d.nii.gz", "functional.nii", "standard.nii.gz"):
        yield "SimpleITK", data / name, read_with_itk(data / name)


def compare_dicom(folder: Path) -> Iterator[tuple[str, Path, Array]]:
    find = importlib.import_module("pydicom.data").get_testdata_file
    for name in ("CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "rtdose.dcm"):
        path = Path(find(name, download=False))
        yield "SimpleITK", path, read_with_itk(path)


def compare_hdf5(folder: Path) -> Iterator[tuple[str, Path, Array]]:
    path = folder / "stack.h5"
    with importlib.import_module("h5py").File(path, "w") as file:
        data = file.create_dataset(
            "raw", data=STACK_TZCYX[:, :, 0].reshape(6, 64, 80), chunks=(1, 32, 32), compression="gzip"
        )
        data.attrs["element_size_um"] = [2.0, 0.5, 0.5]
    with importlib.import_module("pyfive").File(str(path)) as file:
        yield "pyfive", Path(f"{path}:/raw"), np.asarray(file["raw"][:])[:, None]


FORMATS: dict[str, Callable[[Path], Iterator[tuple[str, Path, Array]]]] = {
    "CZI": compare_czi,
    "LIF": compare_lif,
    "ND2": compare_nd2,
    "NRRD": compare_nrrd,
    "NIfTI": compare_nifti,
    "DICOM": compare_dicom,
    "HDF5": compare_hdf5,
}


def main() -> None:
    warnings.simplefilter("ignore")
    print("| format | file | other reader | pages | samples | samples that differ |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, compare in FORMATS.items():
            try:
                for reader, path, theirs in compare(Path(folder)):
                    mine = np.stack([read_image(path, page) for page in range(read_info(path).pages)])
                    differ = int((mine.astype(np.float64) != theirs.astype(np.float64)).sum())
                    print(f"| {name} | {path.name} | {reader} | {len(mine)} | {mine.size} | {differ} |")
            except ImportError as error:
                print(f"{name}: {error.name} is not installed", file=sys.stderr)
            except InputError as error:
                sys.exit(f"{name}: {error}")


if __name__ == "__main__":
    main()
