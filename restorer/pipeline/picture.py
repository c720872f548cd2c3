"""Pictures in and out: the types, and the functions that read and write files.

`read_picture` turns a file into a Picture, upright and as deep as the file; `write_picture` turns it back, with its
profile, density and metadata. The work is in decode.py and encode.py.
"""

from restorer.pipeline.codecs.decode import read_frames, read_picture
from restorer.pipeline.codecs.encode import RowWriter, check_format, format_for, open_writer, write_picture
from restorer.pipeline.picture_types import PEAKS, Frame, Picture, PictureInfo, Pixels, SourceInfo

__all__ = [
    "PEAKS",
    "Frame",
    "Picture",
    "PictureInfo",
    "Pixels",
    "RowWriter",
    "SourceInfo",
    "check_format",
    "format_for",
    "open_writer",
    "read_frames",
    "read_picture",
    "write_picture",
]
