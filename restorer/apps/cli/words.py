"""Words of the command line that several commands take."""

from restorer.errors import UsageError

DIGITS = 9
"""Of a number that anyone means."""


def facts_of(pairs: list[str] | None) -> dict[str, str]:
    """["key=value"] -> {key: value}."""
    facts = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise UsageError(f"--fact takes key=value, such as activation=relu; got '{pair}'")
        facts[key] = value
    return facts


def strengths_of(pairs: list[str] | None) -> dict[int, float]:
    """["2=0.5"] -> {2: 0.5}."""
    strengths = {}
    for pair in pairs or []:
        number, _, value = pair.partition("=")
        try:
            strengths[int(number)] = float(value)
        except ValueError:
            raise UsageError(f"--face-strength takes NUMBER=STRENGTH, such as 2=0.5; got '{pair}'") from None
    return strengths


def tile_of(text: str) -> int | None:
    """ "auto" -> None, "64" -> 64."""
    if text == "auto":
        return None
    if not text.isdecimal() or len(text) > DIGITS:
        raise UsageError(f"tile takes auto, 0 or a number of pixels, got '{text[:20]}'")
    return int(text)
