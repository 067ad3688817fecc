"""Every node knows the user's line that built it."""

from __future__ import annotations

import inspect
import threading

import numpy as np
import pytest

import graphc as gx
from graphc.ir import location
from graphc.ir.location import Location

X = gx.placeholder("x", (2, 3))


def line():
    return inspect.currentframe().f_back.f_lineno


def test_the_users_line_not_ours():
    y, here = gx.mean(gx.softmax(X * 1.25)), line()
    assert y.loc == Location(__file__, here)
    assert y.loc.text == "y, here = gx.mean(gx.softmax(X * 1.25)), line()"
    assert all(arg.loc == y.loc for arg in y.args)


def test_operators_and_arrays_count_as_the_users_line():
    y, here = np.float32(2) * -X[0] + 3.5, line()
    assert y.loc.line == here


def test_passes_build_on_behalf_of_others():
    y = gx.exp(X * 1.5)
    other = Location("model.py", 41)
    with location.at(other):
        z = gx.log(X + 7.5)
        with location.at(None):
            inner, here = gx.sin(X + 7.5), line()
    assert z.loc == other
    assert inner.loc.line == here
    assert y.loc != other
    with pytest.raises(ZeroDivisionError), location.at(other):
        _ = 1 / 0
    assert gx.cos(X + 8.5).loc != other


def test_the_override_belongs_to_one_thread():
    found = []
    with location.at(Location("model.py", 41)):
        thread = threading.Thread(target=lambda: found.append(gx.sqrt(X + 9.5).loc))
        thread.start()
        thread.join()
    assert found[0].file == __file__


def test_all_sites_are_kept_up_to_eight():
    first, a = gx.expm1(X + 2.5), line()
    again, b = gx.expm1(X + 2.5), line()
    assert first is again
    assert [site.line for site in first.sites] == [a, b]
    exec("\n".join(["again = gx.expm1(X + 2.5)"] * 12), {"gx": gx, "X": X})
    assert len(first.sites) == 8
    assert first.loc.line == a


def test_locations_print(tmp_path, monkeypatch):
    file = tmp_path / "model.py"
    file.write_text("import graphc\n\nh = norm(x)\n")
    monkeypatch.chdir(tmp_path)
    assert str(Location(str(file), 3)) == "model.py:3   h = norm(x)"
    assert str(Location(str(file), 99)) == "model.py:99"
    assert Location("<stdin>", 1).text == ""
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert Location(str(file), 3).short == f"{file}:3"
