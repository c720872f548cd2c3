"""Operations around the networks that a GPU does in one pass: each a reference that anyone can read, and its fast twin.

`gather_tiles`    pixels of a picture -> batch of tiles, mirrored at the borders
`to_bytes`        batch -> 8-bit pixels
`blend_tiles`     overlapping tiles -> one picture, of bytes or floats, feathered at the seams
`dense_block`     what a dense block does between its convolutions
`style`           what StyleGAN2 does after its convolutions
`upfirdn2d`       upsample, filter, downsample
`paste_face`      a face back onto the picture it was cut from

`choice` decides which of the two runs. Only the files in `device` import Triton, on first use.
"""
