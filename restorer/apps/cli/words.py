"""Words of the command line that several commands take."""

from restorer.errors import UsageError


def facts_of(pairs: list[str]) -> dict[str, str]:
    """["key=value"] -> {key: value}."""
    facts = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise UsageError(f"--fact takes key=value, such as activation=relu; got '{pair}'")
        facts[key] = value
    return facts
