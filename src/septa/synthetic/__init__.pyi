from .dataset import write_dataset as write_dataset
