"""Every generator, one file each; this table is the order in which weights are tried, the more specific first."""

NETWORKS = {
    "esrgan": "upscale: residual-in-residual dense blocks; ESRGAN and Real-ESRGAN (2018, 2021)",
    "srgan": "upscale: residual blocks, pixel shuffle; SRGAN, SRResNet, MSRResNet (2016)",
    "compact": "upscale: a plain chain of convolutions at low resolution; SRVGGNetCompact (2021)",
}
"""Network name -> one line on it. The module of the same name holds its `SPEC`."""
