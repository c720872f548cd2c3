"""Faces: find, align, restore, put back."""
