from __future__ import annotations

import os
import re

import pytest

import mnistlab
from tests.conftest import DISTS

pytestmark = pytest.mark.e2e


def test_plugins_lists_what_there_is_and_why_something_is_not(run_cli):
    shown = ("healthy", "import-error", "other-api", "observer", "marks")
    path = os.pathsep.join(str(DISTS / name) for name in shown)
    ran = run_cli("plugins", PYTHONPATH=path, MNISTLAB_DISABLE="marks_plugin", COLUMNS="200")
    assert ran.code == 0, ran.err
    rows = [re.split(" {2,}", line.strip()) for line in ran.out.splitlines()]
    assert rows[0] == ["kind", "name", "summary", "distribution", "version", "status"]
    version = mnistlab.__version__
    assert ["model", "vit", "Tiny vision transformer (Dosovitskiy 2021).", "mnistlab", version, "ok"] in rows
    assert ["model", "tiny-net", "A net for tests.", "healthy-plugin", "2.1", "ok"] in rows
    assert ["observer", "plugin", "observer", "1.0", "ok"] in rows
    assert ["-", "plugin", "named in MNISTLAB_DISABLE", "marks-plugin", "1.0", "disabled"] in rows
    reason = "ModuleNotFoundError: No module named 'a_package_that_is_nowhere'"
    assert ["-", "plugin", reason, "import-error", "1.0", "failed"] in rows
    reason = "written for mnistlab.v9; this mnistlab speaks mnistlab.v1"
    assert ["-", "plugin", reason, "other-api", "1.0", "other API"] in rows
