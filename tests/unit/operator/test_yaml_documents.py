"""Whatever the text, reading it ends soon: with plain values, or with a sentence that names a line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynalign_operator.runfile.run_file import RunFileError, read_objective
from dynalign_operator.runfile.yaml_documents import OBJECTIVE_LIMITS, MalformedYamlError, YamlLimits, read_documents

LAUGHS = "\n".join(["a0: &a0 {k: 1}", *(f"a{i}: &a{i} {{k: *a{i - 1}, j: *a{i - 1}}}" for i in range(1, 40))])
LAUGHS_OF_ONE_KEY = LAUGHS.replace("j:", "k:")
"""The same path again and again."""
LAUGHS_BY_MERGING = "\n".join(
    ["a0: &a0 {k: 1}", *(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 40))]
)
LONG = f"a: &a {'x' * 10_000}\nb: [{', '.join(['*a'] * 1000)}]"

SOMEWHERE = 0
"""A line that depends on the order in which aliases are counted."""

REFUSED = {
    "!!set": ("x: 1\na: !!set {b}", 2, "has the tag !!set"),
    "!!binary": ("a: !!binary aGk=", 1, "has the tag !!binary"),
    "!!timestamp": ("a: !!timestamp 2020-01-01", 1, "has the tag !!timestamp"),
    "!!omap": ("a: !!omap [b: c]", 1, "has the tag !!omap"),
    "a tag of Python": ("a: !!python/object:os.system x", 1, "has the tag !!python/object:os.system"),
    "a tag of one's own": ("a: !mine x", 1, "has the tag !mine"),
    "a tag at a key": ("!!binary a: x", 1, "has the tag !!binary"),
    "!!bool x": ("a: !!bool x", 1, "does not fit its value"),
    "!!int x": ("a: !!int x", 1, "does not fit its value"),
    "!!float x": ("a: !!float x", 1, "does not fit its value"),
    "!!seq of a mapping": ("a: !!seq {b: c}", 1, "does not fit its value"),
    "a merge that is none": ("a: !!merge x", 1, "has the tag !!merge"),
    "beyond Unicode": ('\n\na: "\\UFFFFFFFF"', 3, "an escape that is no character"),
    "just beyond Unicode": ('a: "\\U00110000"', 1, "an escape that is no character"),
    "half a character": ('b: 1\na: "x\\ud800"', 2, "half a character"),
    "halves in the wrong order": ('a: "\\udc00\\ud800"', 1, "half a character"),
    "half a character in a key": ('"\\ud800": x', 1, "half a character"),
    "half a character in the text": ("a: 1\nb: \ud800", 2, "the character U+D800"),
    "control character": ('a: "\\x07"', 1, "the control character U+0007"),
    "C1": ('a: "\\x9b31m"', 1, "the control character U+009B"),
    "control character in the text": ("a: 1\n\nb: \x07", 3, "the character U+0007"),
    "5000 digits": ("b: 1\na: " + "9" * 5000, 2, "is a number of 5000 characters"),
    "5000 digits of a fraction": ("a: 0." + "9" * 5000, 1, "is a number of 5002 characters"),
    "1200 brackets": ("a: " + "[" * 1200, 1, "nests deeper than 64 levels"),
    "1200 mappings": ("a: " + "{a: " * 1200, 1, "nests deeper than 64 levels"),
    "a deep block": ("\n".join("  " * depth + "a:" for depth in range(200)), 64, "nests deeper than 64 levels"),
    "laughs": (LAUGHS, SOMEWHERE, "has more than 100000 values"),
    "laughs of one key": (LAUGHS_OF_ONE_KEY, SOMEWHERE, "has more than 100000 values"),
    "laughs by merging": (LAUGHS_BY_MERGING, SOMEWHERE, "has more than 100000 values"),
    "a long text a thousand times": (LONG, 1, "is larger than 1024 KiB, aliases written out"),
    "a long file": ("a: x\n" * 300_000, 209_716, "is larger than 1024 KiB"),
    "an anchor that contains itself": ("a: &a [*a]", 1, "an anchor that contains itself"),
    "a list for a key": ("? [a]\n: b", 1, "a list or a mapping for a key"),
}


@pytest.mark.parametrize(("text", "line", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(MalformedYamlError) as caught:
        read_documents(text, YamlLimits(kibibytes=1024))
    assert message in str(caught.value)
    assert caught.value.line is not None
    assert line in (caught.value.line, SOMEWHERE)


READ = {
    "tags that fit": ("a: !!str 5\nb: !!int '5'\nc: !!float 5\nd: !!bool 'yes'\ne: !!null ''", {"a": "5", "b": 5, "c": 5.0, "d": True, "e": None}),
    "halves as JSON escapes them": ('{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
    "anchors": ("a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),
    "merge keys": ("a: &x {c: 1, d: 2}\nb: {<<: *x, d: 3}", {"a": {"c": 1, "d": 2}, "b": {"c": 1, "d": 3}}),
    "keys are texts": ("1: a\nyes: b\n~: c", {"1": "a", "true": "b", "~": "c"}),
    "spaces of other scripts": ("a: \u00a0\u200d", {"a": "\u00a0\u200d"}),
}  # fmt: skip


@pytest.mark.parametrize(("text", "data"), READ.values(), ids=READ)
def test_read(text: str, data: object) -> None:
    (document,) = read_documents(text)
    assert document.data == data


def test_values_are_remembered_as_they_are_written() -> None:
    (document,) = read_documents("x: &x {a: no}\ny: {<<: *x, b: 1e5, c: ~, d: 'no', e: [on]}")
    assert document.written == {
        ("x", "a"): "no",
        ("y", "a"): "no",
        ("y", "b"): "1e5",
        ("y", "c"): "~",
        ("y", "e", 0): "on",
    }


@pytest.mark.parametrize("text", ["a: &a x\nb: *a", "a: " + "x" * 65_536, "a: [" + "x," * 11_000 + "]"])
def test_an_objective_may_cost_less(text: str) -> None:
    read_documents(text)
    with pytest.raises(MalformedYamlError):
        read_documents(text, OBJECTIVE_LIMITS)
    with pytest.raises(RunFileError, match=r"^ConfigMap mine(, line [0-9]+)?: the text (holds|is|has|uses)"):
        read_objective(text, "ConfigMap mine")


@given(st.text(max_size=60) | st.text(alphabet="{}[]:,-&*!<>|'\"#%@\\ \nab1~?", max_size=40))
@settings(max_examples=400)
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        read_documents(text, YamlLimits(kibibytes=1, values=50, depth=8))
    except MalformedYamlError as error:
        assert error.line is None or error.line >= 1  # noqa: PT017
