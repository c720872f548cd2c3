"""Published weights that translate: CycleGAN's and pix2pix's, each for one way between two kinds of picture."""

from functools import partial

from restorer.weights.record import Record

_SERVER = "http://efrosgans.eecs.berkeley.edu"
_published = partial(
    Record,
    scale=1,
    licence="unknown (their program is BSD-2-Clause); for research",
    source="https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix",
)

_WAYS = (
    ("cyclegan", "apple2orange", "orange2apple", "apples become oranges"),
    ("cyclegan", "orange2apple", "apple2orange", "oranges become apples"),
    ("cyclegan", "summer2winter_yosemite", "winter2summer_yosemite", "landscapes in summer become those in winter"),
    ("cyclegan", "winter2summer_yosemite", "summer2winter_yosemite", "landscapes in winter become those in summer"),
    ("cyclegan", "horse2zebra", "zebra2horse", "horses become zebras"),
    ("cyclegan", "zebra2horse", "horse2zebra", "zebras become horses"),
    ("cyclegan", "monet2photo", "", "paintings by Monet become photos"),
    ("cyclegan", "style_monet", "", "photos become paintings, as by Monet"),
    ("cyclegan", "style_cezanne", "", "photos become paintings, as by Cezanne"),
    ("cyclegan", "style_ukiyoe", "", "photos become Japanese prints (ukiyo-e)"),
    ("cyclegan", "style_vangogh", "", "photos become paintings, as by Van Gogh"),
    ("cyclegan", "sat2map", "map2sat", "photos from above become street maps"),
    ("cyclegan", "map2sat", "sat2map", "street maps become photos from above"),
    ("cyclegan", "cityscapes_photo2label", "cityscapes_label2photo", "photos of streets become label maps"),
    ("cyclegan", "cityscapes_label2photo", "cityscapes_photo2label", "label maps become photos of streets"),
    ("cyclegan", "facades_photo2label", "facades_label2photo", "photos of facades become label maps"),
    ("cyclegan", "facades_label2photo", "facades_photo2label", "label maps become photos of facades"),
    ("cyclegan", "iphone2dslr_flower", "", "photos of flowers get a blurred background"),
    ("pix2pix", "edges2shoes", "", "outlines become shoes"),
    ("pix2pix", "sat2map", "map2sat", "photos from above become street maps; learnt from pairs"),
    ("pix2pix", "map2sat", "sat2map", "street maps become photos from above; learnt from pairs"),
    ("pix2pix", "facades_label2photo", "", "label maps become photos of facades; learnt from pairs"),
    ("pix2pix", "day2night", "", "photos by day become photos by night"),
)
"""(family, published name, that of the same family for the way back or "", what becomes of what)."""
_FOLDERS = {"cyclegan": "cyclegan/pretrained_models", "pix2pix": "pix2pix/models-pytorch"}
_TWICE = {"sat2map", "map2sat", "facades_label2photo"}
"""Names that both families have: none of them can mean one model."""

TRANSLATIONS: tuple[Record, ...] = tuple(
    _published(
        name="-".join([family, *published.split("_")]),
        network=family,
        file=f"{'-'.join([family, *published.split('_')])}.pth",
        url=f"{_SERVER}/{_FOLDERS[family]}/{published}.pth",
        summary=summary,
        aliases=() if published in _TWICE else (published,),
        opposite="-".join([family, *back.split("_")]) if back else None,
    )
    for family, published, back, summary in _WAYS
)


def opposite(name: str) -> str | None:
    """The model that translates the other way, by any name of this one; None where none was published.

    >>> opposite("cyclegan-horse2zebra"), opposite("style_monet")
    ('cyclegan-zebra2horse', None)
    """
    known = {known: record for record in TRANSLATIONS for known in (record.name, *record.aliases)}
    record = known.get(name.lower())
    return None if record is None else record.opposite
