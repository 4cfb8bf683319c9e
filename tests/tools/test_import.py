import subprocess
import sys

import pytest

import tensorwright as tw


def fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_few_names():
    assert len(tw.__all__) <= 20 and set(tw.__all__) <= set(dir(tw))


def test_every_name_is_there():
    for name in tw.__all__:
        assert getattr(tw, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'compil'"):
        _ = tw.compil


def test_importing_loads_nothing():
    loaded = "[m for m in sys.modules if m.startswith('tensorwright.') or m == 'numpy']"
    assert fresh(f"import sys, tensorwright; print({loaded})") == "[]\n"


def test_loading_needs_no_compiler():
    found = fresh(
        "import sys, tensorwright as tw; tw.load\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('llvmlite', 'onnx', 'torch', 'rich')"
        " or m.startswith(('tensorwright.ir', 'tensorwright.driver', 'tensorwright.tools'))])"
    )
    assert found == "[]\n"


@pytest.mark.parametrize("code", ["import tensorwright", "import tensorwright.tools.cli"])
def test_imports_are_quick(code):
    text = f"import time; t = time.process_time(); {code}; print(time.process_time() - t)"
    assert min(float(fresh(text)) for _ in range(3)) < 0.3
