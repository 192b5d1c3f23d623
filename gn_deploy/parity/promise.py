"""In what precision a runtime was to compute, as the model is written or as asked, and what it says it does."""

from dataclasses import dataclass, replace

from gn_deploy.rounding import FORMATS, coarser, finer


@dataclass(frozen=True, slots=True)
class Promise:
    """The precision that a runtime is judged by.

    1. ``asked`` is the precision that came with the runtime's name ("bfloat16" of "openvino:bf16"); then that is
    promised. "" promises the types in which the model is written.
    2. ``written`` are those types.
    3. ``admitted`` is a lower precision than promised, by the runtime's own account; "" when it tells of none.
    """

    asked: str = ""
    written: tuple[str, ...] = ()
    admitted: str = ""

    def heard(self, precision: str) -> "Promise":
        """The same with what a session reports, such as "bfloat16" or "float32+tf32"."""
        told = [dtype for dtype in precision.split("+") if dtype in FORMATS]
        written = self.written or tuple(dtype for dtype in told if dtype != "tf32")  # a module, an engine
        promise = replace(self, written=written)
        if self.asked and told and all(finer(dtype, self.asked) for dtype in told):  # no bfloat16 on this processor
            promise = replace(promise, asked="")  # better than promised: judged as what it is
        lower = [dtype for dtype in told if dtype not in written and finer(promise.precision, dtype)]
        return replace(promise, admitted=coarser(*lower) if lower else "")

    def within(self, written: str) -> "Promise":
        """The same for a part of the model that is written in a lower type than what goes in and comes out."""
        return replace(self, asked=coarser(self.asked, written)) if written else self

    @property
    def precision(self) -> str:
        """The one word for it: the coarsest of the types promised."""
        return coarser(self.asked, *self.written) if self.asked or self.written else "float32"
