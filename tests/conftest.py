"""Options of the test suite, and what holds in all of it."""

import functools

import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the expected parts of golden files"
    )


@pytest.fixture(scope="session", autouse=True)
def no_known_programs():
    """Every model is compiled, in processes of its own too; tests of known programs say so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TW_CACHE_PROGRAMS", "0")
        yield


@pytest.fixture(scope="session", autouse=True)
def promised_forms():
    """No kernel has a form whose rule then fails: fusion relies on it."""
    from tensorwright.schedule import rules

    @functools.wraps(rules.refused)
    def fail(k, e):
        raise AssertionError(f"the form of {k.name} was read wrongly: {e.message}") from e

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "refused", fail)
        yield


@pytest.fixture(scope="session", autouse=True)
def proved_plans():
    """Every memory plan made by any test is proved right."""
    from tensorwright.driver import build
    from tensorwright.memory.overlap import verify_plan

    def plan(k, make=build.plan_memory):
        planned = make(k)
        verify_plan(planned)
        return planned

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "plan_memory", plan)
        yield
