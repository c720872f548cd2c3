"""Options that the commands on pictures share: one alias each, so that a word means the same everywhere."""

from typing import Annotated

import typer

from restorer.pipeline.settings import DIRECTIONS, ENGINE_KINDS, PRECISIONS

SIZE, RUN, LOOK, FACES, FILES, SAY = "Output size", "How it runs", "Look", "Faces", "Files", "What is said"

Inputs = Annotated[list[str], typer.Argument(help="Pictures, folders, or - for standard input.")]
Out = Annotated[str, typer.Option("--out", "-o", help="A file with a picture's suffix, a folder, or -.")]
Model = Annotated[str, typer.Option(help="A name of `restorer models list`, or a weights file.")]
Scale = Annotated[float | None, typer.Option(help="Output side over input side.", rich_help_panel=SIZE)]
Width = Annotated[int | None, typer.Option(help="Output width in pixels.", rich_help_panel=SIZE)]
Height = Annotated[int | None, typer.Option(help="Output height in pixels.", rich_help_panel=SIZE)]
LongSide = Annotated[int | None, typer.Option(help="The longer output side.", rich_help_panel=SIZE)]
Megapixels = Annotated[float | None, typer.Option(help="Output area.", rich_help_panel=SIZE)]
MaxMegapixelsIn = Annotated[float, typer.Option(help="Larger inputs are refused.", rich_help_panel=SIZE)]
MaxMegapixelsOut = Annotated[float, typer.Option(help="Larger outputs too.", rich_help_panel=SIZE)]
TileSide = Annotated[str, typer.Option(help="auto, 0 (whole picture) or a side.", rich_help_panel=RUN)]
Precision = Annotated[str, typer.Option(help=f"{', '.join(PRECISIONS)}.", rich_help_panel=RUN)]
EngineKind = Annotated[str, typer.Option(help=f"{', '.join(ENGINE_KINDS)}.", rich_help_panel=RUN)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, cuda:all, mps ...", rich_help_panel=RUN)]
Fact = Annotated[list[str] | None, typer.Option(help="key=value the weights do not say.", rich_help_panel=RUN)]
Strength = Annotated[float, typer.Option(help="1 all network, 0 plain resample.", rich_help_panel=LOOK)]
Denoise = Annotated[float | None, typer.Option(help="0 keeps noise, 1 removes it.", rich_help_panel=LOOK)]
KeepColour = Annotated[bool, typer.Option("--keep-colour", help="Hold the input's colours.", rich_help_panel=LOOK)]
Wrap = Annotated[bool, typer.Option("--wrap", help="Seamless texture: borders touch.", rich_help_panel=LOOK)]
TranslationModel = Annotated[str, typer.Option("--model", help="A name of `restorer models list`, or a weights file.")]
Direction = Annotated[str, typer.Option(help=f"{' or '.join(DIRECTIONS)}: the model's opposite.")]
Pair = Annotated[
    bool, typer.Option("--pair", help="Inputs are two pictures side by side, a | b.", rich_help_panel=LOOK)
]
Palette = Annotated[str, typer.Option(help="File of the colours of label maps.", rich_help_panel=LOOK)]
Noise = Annotated[int | None, typer.Option(help="Seed, for networks with dropout.", rich_help_panel=LOOK)]
TranslationStrength = Annotated[
    float, typer.Option("--strength", help="1 all network, 0 the input.", rich_help_panel=LOOK)
]
BandOrTile = Annotated[str, typer.Option("--tile", help="auto, 0 (in one go) or rows at once.", rich_help_panel=RUN)]
FaceModel = Annotated[str, typer.Option(help="Restore faces too, by this model.", rich_help_panel=FACES)]
Aligned = Annotated[bool, typer.Option("--aligned", help="Pictures are cut faces already.", rich_help_panel=FACES)]
FacesStrength = Annotated[float, typer.Option(help="1 restored faces, 0 untouched ones.", rich_help_panel=LOOK)]
Background = Annotated[str, typer.Option(help="Model for the rest, or none.", rich_help_panel=LOOK)]
Only = Annotated[str, typer.Option(help="all, largest, centre, or numbers: 1,3.", rich_help_panel=FACES)]
MinFace = Annotated[float, typer.Option(help="Smaller faces stay as they are.", rich_help_panel=FACES)]
MaxFace = Annotated[float | None, typer.Option(help="Larger ones too; in pixels.", rich_help_panel=FACES)]
Confidence = Annotated[float | None, typer.Option(help="Least score of a face.", rich_help_panel=FACES)]
DetectorName = Annotated[str, typer.Option(help="auto, a detector's name or a file.", rich_help_panel=FACES)]
Parser = Annotated[str, typer.Option(help="What outlines a face: auto, none, ...", rich_help_panel=FACES)]
Identity = Annotated[str, typer.Option(help="A network that compares faces.", rich_help_panel=FACES)]
FaceStrength = Annotated[list[str] | None, typer.Option(help="NUMBER=STRENGTH of single faces.", rich_help_panel=FACES)]
OwnColours = Annotated[bool, typer.Option("--own-colours", help="Keep the network's colours.", rich_help_panel=FACES)]
SaveCrops = Annotated[str, typer.Option(help="Folder for faces before and after.", rich_help_panel=FACES)]
Compare = Annotated[bool, typer.Option("--compare", help="A sheet of before and after.", rich_help_panel=FACES)]
Sidecar = Annotated[bool, typer.Option("--sidecar", help="A .faces.json beside each.", rich_help_panel=FACES)]
Suffix = Annotated[str, typer.Option(help="Added to every output's stem.", rich_help_panel=FILES)]
Format = Annotated[str | None, typer.Option(help="png, jpeg, webp, tiff or avif.", rich_help_panel=FILES)]
Quality = Annotated[int | None, typer.Option(help="1-100 for JPEG, WebP, AVIF.", rich_help_panel=FILES)]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Sub-folders too.", rich_help_panel=FILES)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make everything anew.", rich_help_panel=FILES)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done.", rich_help_panel=SAY)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.", rich_help_panel=SAY)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.", rich_help_panel=SAY)]
