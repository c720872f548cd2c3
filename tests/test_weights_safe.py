"""What a safetensors header may say: names of a sensible length that are text, or one line of refusal."""

import json

import pytest
import torch
from hostile import save_raw_safetensors
from some_weights import refusal

from restorer.weights.read import read_checkpoint
from restorer.weights.safe import write_safetensors
from restorer.weights.tensors import NAME_LIMIT

ROW = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'


def header_of(name, metadata=None):
    """A header with one tensor, as JSON spells it: what is no ASCII is escaped."""
    told = "" if metadata is None else f'"__metadata__":{json.dumps(metadata)},'
    return f"{{{told}{json.dumps(name)}:{ROW}}}"


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (header_of("a" * (NAME_LIMIT + 1)), "has a name of 1,001 letters"),
        (header_of("a." * 2**19), "has a name of 1,048,576 letters"),
        (header_of("body.\ud800.weight"), "'body.\\ud800.weight' in its header is no text"),
        (header_of("a", {"\udfff": "x"}), "'\\udfff' in its header is no text"),
        (header_of("a", {"format": "pt\ud83d"}), "'pt\\ud83d' in its header is no text"),
        (header_of("a", {"k" * 2000: "x"}), "has a name of 2,000 letters"),
        (header_of("a").replace("F32", "\\ud800"), "in its header is no text"),
        (header_of("a", {"restorer.facts": "{}", "restorer.sha256": '{"\\ud800": "x"}'}), "in its header is no text"),
        (header_of("a", {"restorer.facts": '{"\\ud800": 1}', "restorer.sha256": "{}"}), "its hashes do not fit"),
    ],
    ids=[
        "long",
        "endless",
        "half-letter",
        "metadata-name",
        "metadata-text",
        "long-metadata",
        "kind",
        "hashes",
        "facts",
    ],
)
def test_a_name_that_is_endless_or_no_text_is_refused_in_one_line(tmp_path, header, told):
    message = refusal(save_raw_safetensors(tmp_path / "a.safetensors", header, bytes(8)))
    assert told in message
    assert message.isprintable() and len(message) < 300
    message.encode()


@pytest.mark.parametrize("name", ["a" * NAME_LIMIT, "größe.0.weight", "\U0001f333.weight"])
def test_names_of_any_letters_are_read(tmp_path, name):
    """Also those that JSON spells as two halves, which stand for one letter together."""
    path = save_raw_safetensors(tmp_path / "a.safetensors", header_of(name, {"note": "\U0001f333"}), bytes(8))
    assert list(read_checkpoint(path).weights) == [name]


def test_facts_hold_paths_that_are_no_text(tmp_path):
    """Folders may be named so, and a run notes where its pictures are."""
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"a": torch.zeros(2)}, {"data": "/foto/caf\udce9"})
    assert read_checkpoint(path).facts["data"] == "/foto/caf\udce9"
