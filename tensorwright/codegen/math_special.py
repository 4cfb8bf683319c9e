"""erf, erfc, lgamma and digamma."""

from tensorwright.codegen.math_core import absolute, at_most, format_of, horner, with_sign_of
from tensorwright.codegen.math_tables import ERF_CENTER, ERF_END
from tensorwright.ir.expr import Expr


def erf(x: Expr) -> Expr:
    """x P(|x| - c), degree 16 on |x| <= 3.84, where erf reaches 1; one form, no division.

    c lies right of the middle: that balances the rounding errors of both ends.
    """
    F = format_of(x)
    a = at_most(absolute(x), ERF_END)
    return with_sign_of(a * horner(F.tables["erf"], a - ERF_CENTER), x)
