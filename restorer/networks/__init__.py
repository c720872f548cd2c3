"""Every generator, one file each; this table is the order in which weights are tried, the more specific first."""

NETWORKS = {
    "esrgan": "upscale: residual-in-residual dense blocks; ESRGAN and Real-ESRGAN (2018, 2021)",
    "srgan": "upscale: residual blocks, pixel shuffle; SRGAN, SRResNet, MSRResNet (2016)",
    "compact": "upscale: a plain chain of convolutions at low resolution; SRVGGNetCompact (2021)",
    "stylegan2": "generate: noise becomes a style that paints from a constant up (2019)",
    "retinaface": "detect: faces and five landmarks in one pass, over ResNet-50 or a quarter of MobileNet (2019)",
    "mtcnn": "detect: faces by three small networks, each looking closer: P-Net, R-Net, O-Net (2016)",
    "bisenet": "parse: what each pixel of a face belongs to, over ResNet-18 and the picture as a whole (2018)",
    "parsenet": "parse: what each pixel of an aligned face belongs to; PSFRGAN's (2020)",
    "arcface": "identity: whose face it is, 512 numbers of a grey face; ResNet-18 of GFPGAN's training (2018)",
    "pix2pix": "translate: a U-Net that doubles as memory; learnt from pairs of pictures (2016)",
    "cyclegan": "translate: residual blocks between mirrored edges; learnt from two heaps of pictures (2017)",
    "whitebox": "translate: photos to cartoons; a small U-Net that keeps to the photo's edges (2020)",
    "gfpgan": "face: a U-Net reads a damaged face, StyleGAN2 paints it anew (2021)",
}
"""Network name -> one line on it. The module of the same name holds its `SPEC`."""
