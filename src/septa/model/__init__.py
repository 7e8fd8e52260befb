"""The model: net, task, normalisation, recipe and provenance in one file that is never unpickled.

::

    model      the model itself
    net        the net of a recipe
    input      images as a model takes them
    pages      the images in an array, and what is a list, a stack or a lazy array
    images     the prediction of many images
    lazy       the labels of an array that is read lazily
    result     what is found in one image
    card       a model in one line, and as a card in notebooks
    tiles      the tiles of an image: planned, run, and halved if the memory is short
    size       the size at which an image is segmented, so that its objects are not too large
    versions   rotated and mirrored versions of an image, over which probabilities are averaged
    unlike     the comparison of an image's features with those of the training images
    protocol   what these files need of a model
    options    the options that all predictions share
    half       weights in float16, for files of half the size
    precision  float32, or bfloat16 where that is fast and gives the same labels
    file       the bytes of a model file, and the check of everything that its header claims
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
