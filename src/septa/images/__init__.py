"""Bytes to arrays and back: one decoder, one atomic writer, normalisation and pictures for people."""
