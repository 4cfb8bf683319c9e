import base64
import gzip
import json
import re

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.errors import ArtifactError
from tests.tools.modules import DIGITS, mlp


def data_of(path):
    text = path.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return text, json.loads(found[1])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    program = tw.compile(str(DIGITS))
    path = tmp_path_factory.mktemp("report") / "digits.html"
    return data_of(program.report(path, np.ones((2, 1, 8, 8), np.float32)))


def test_one_file_without_network(page):
    text, _ = page
    assert not re.search(r"\[\[[A-Z]+\]\]", text)
    links = set(re.findall(r"https?://[\w./]+", text))
    assert links <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(link|img|iframe)|@import|url\((?!#)", text)


def test_graphs(page):
    _, data = page
    for level in ("model", "kernels"):
        nodes = data["graphs"][level]
        ids = {n["id"] for n in nodes}
        assert all(a in ids and a < n["id"] for n in nodes for a in n["args"])
    called = [n for n in data["graphs"]["kernels"] if n["kernel"] is not None]
    assert called and all(n["label"] == data["kernels"][n["kernel"]]["name"] for n in called)
    assert any(len(n["ops"]) > 1 for n in called)


def test_kernels_are_measured_and_written_out(page):
    _, data = page
    used = [k for k in data["kernels"] if k["calls"]]
    assert used and sum(k["share"] for k in used) <= 1.0001
    for k in data["kernels"]:
        assert k["text"].startswith(("batch = sym", "@kernel", "n = sym"))
        assert "define" in gzip.decompress(base64.b64decode(k["llvm"])).decode()
        assert k["asm"]


def test_memory_and_time(page):
    _, data = page
    for a in data["memory"]["buffers"]:
        for b in data["memory"]["buffers"]:
            apart_in_time = a["last"] < b["first"] or b["last"] < a["first"]
            apart = (a["offset"] + a["size"] <= b["offset"]
                     or b["offset"] + b["size"] <= a["offset"])  # fmt: skip
            assert a is b or apart_in_time or apart
    ends = [s["end"] for s in data["timeline"]]
    assert ends == sorted(ends) and all(s["start"] < s["end"] for s in data["timeline"])


def test_a_model_and_no_native_text(tmp_path):
    from tensorwright.tools.report import write_report

    path = write_report(mlp(), tmp_path / "mlp.html", native=False, seconds=0.1)
    _, data = data_of(path)
    assert data["title"] == "main" and "asm" not in data["kernels"][0]


def test_errors(tmp_path):
    with pytest.raises(ArtifactError, match="cannot write"):
        tw.compile(mlp()).report(tmp_path / "no" / "page.html")
