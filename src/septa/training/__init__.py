"""Training: a folder of images and labels to a model."""
