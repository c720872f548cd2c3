"""Thin doors to the library: they parse, call and translate errors, and touch no pixels."""
