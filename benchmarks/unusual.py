"""Single operators in unusual sizes beside the peers: where a rule of a schedule is missing.

    python -m benchmarks.unusual --families conv,pool --peers ort

What the tables show is what `benchmarks.kernels` shows, whose rows are layers of well-known models.
"""

from benchmarks.kernels import Collection, run
from benchmarks.results import Result

UNUSUAL = Collection("benchmarks.unusual", "unusual")


def main(argv: list[str] | None = None) -> list[Result]:
    return run(UNUSUAL, __doc__, argv)


if __name__ == "__main__":
    main()
