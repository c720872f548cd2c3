"""A picture's way through; begin reading at restore.py.

Importing this room costs no torch, so that a bad file is refused early.
"""
