import json

import numpy as np

from mtdcli.terminal.console import emit, show, to_json


def test_json_is_strict_and_plain():
    value = {
        "a": np.float32(1.5),
        "b": np.arange(3),
        "c": float("nan"),
        "d": (1, None),
        "e": np.float64("inf"),
    }
    assert json.loads(to_json(value)) == {"a": 1.5, "b": [0, 1, 2], "c": None, "d": [1, None], "e": None}


def test_text_aligns_names_and_indents_nested_entries(capsys):
    emit({"name": "x", "sub": {"value": 0.123456789, "flag": True}}, as_json=False)
    assert capsys.readouterr().out == "name  x\nsub\n  value  0.12346\n  flag   yes\n"


def test_show_joins_sequences():
    assert show([1, 2.5, None]) == "1, 2.5, -"


def test_a_packed_array_is_not_poured_over_people():
    assert show("e" * 2000) == "... (2000 characters; --json has them)"
    assert show("words " * 100) == "words " * 100
    assert show("f" * 128) == "f" * 128
