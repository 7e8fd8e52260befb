"""Folders to training samples: pairing, checking, fingerprint, augmentation."""
