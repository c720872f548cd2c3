"""The numbers of the TIFF and EXIF tags that are read, written or changed here."""

from enum import IntEnum


class Tag(IntEnum):
    """A tag's number, by name."""

    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIPS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_SIZES = 279
    ACROSS = 282
    DOWN = 283
    PLANAR = 284
    DENSITY_UNIT = 296
    PREDICTOR = 317
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILES = 324
    TILE_SIZES = 325
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    THUMBNAIL = 513
    THUMBNAIL_LENGTH = 514
    XMP = 700
    ICC = 34675
    EXIF = 34665
    GPS = 34853
    EXIF_WIDTH = 40962
    EXIF_HEIGHT = 40963
    INTEROPERABILITY = 40965


# what a TIFF's own directory says about the photograph rather than about the file's layout: description, maker,
# model, software, date, artist, host, ratings, copyright, and Windows' title, comment, author, keywords and subject
TELLING = frozenset(
    {270, 271, 272, 305, 306, 315, 316, 18246, 18249, 33432, Tag.EXIF, Tag.GPS, 40091, 40092, 40093, 40094, 40095}
)
POINTERS = frozenset({Tag.EXIF, Tag.GPS, Tag.INTEROPERABILITY})
