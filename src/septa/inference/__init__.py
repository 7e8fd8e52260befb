"""Inference: exact tiles, the tile loop and the engines that execute a net."""
