"""A program that is called as the Python object it was compiled from is.

    program = tw.compile(module, (x,));  out = program(x)      # the module's own arguments and
    results

Arguments are flattened and results rebuilt by the front end's calling convention; buffers that the
model writes (a torch module's running state) are kept from call to call.
"""

from __future__ import annotations

from tensorwright.ir.type import DataType
from tensorwright.runtime.program import Program


class BoundProgram(Program):
    """See the module's text. `convention` has `flatten`, `rebuild`, and for torch `state`,
    `writes`."""

    convention = None

    def bind_convention(self, convention) -> BoundProgram:
        self.convention = convention
        self.state = {s.param: s.initial for s in getattr(convention, "state", ())}
        return self

    def know(self, types: dict[str, DataType]) -> None:
        """Give values of the front end's own classes."""
        for t in types.values():
            if t.origin is not None:
                self._codec.makers[t.name] = t.origin.remake

    def __call__(self, *args, **named):
        """Call with the arguments of the model, or with inputs by name."""
        c, names = self.convention, [i.name for i in self.inputs if i.name not in self.state]
        if named and set(named) <= set(names):
            flat = list(self._bind(args, {**named, **self.state}))
        else:
            flat = [*c.flatten(args, named), *self.state.values()]
        results = super().__call__(*flat)
        results = results if isinstance(results, tuple) else (results,)
        for s in getattr(c, "state", ()):
            self.state[s.param] = results[s.result]
        for name, k in getattr(c, "writes", ()):
            flat[names.index(name)][...] = results[k]
        return c.rebuild(list(results))
