"""Formats of microscopes and of medicine, which optional packages read: CZI, ND2, LIF, NRRD, NIfTI, DICOM and HDF5."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
