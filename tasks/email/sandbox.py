"""Run templates that somebody else wrote: Jinja2's sandbox, with a clock and a measure of what is made.

Every turn of a loop, call and include looks at the clock, and what multiplies text (`*`, `~`, `%`, padding)
is refused where it would make much. That ends accidents and simple abuse; whoever may send templates is still
trusted not to look for the one filter that was forgotten.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from threading import local
from types import CodeType
from typing import Any

from jinja2 import StrictUndefined, Template, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.loaders import BaseLoader
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

RENDER_SECONDS = 5.0
MAX_RENDERED_CHARACTERS = 1_000_000

#: Methods of text that make as much as their argument says.
_MULTIPLYING_METHODS = frozenset(
    [
        "center",
        "expandtabs",
        "format",
        "format_map",
        "join",
        "ljust",
        "replace",
        "rjust",
        "translate",
        "zfill",
    ]
)
#: Filters that do, or whose outcome is another one at each run, so that two deliveries would differ.
_DROPPED_FILTERS = ("batch", "center", "format", "indent", "pprint", "random", "slice", "wordwrap", "xmlattr")
_clock = local()


class TookTooLong(SecurityError):
    """Rendering went on past its deadline."""


class MadeTooMuch(SecurityError):
    """A template made more text than a mail may hold."""


def rendered(template: Template, values: Mapping[str, Any], *, seconds: float = RENDER_SECONDS) -> str:
    """Render within `seconds` and `MAX_RENDERED_CHARACTERS`; raise whatever the template raises."""
    _clock.deadline = time.monotonic() + seconds
    parts: list[str] = []
    length = 0
    for part in template.generate(values):
        _look_at_clock()
        parts.append(part)
        length += len(part)
        _measure(length)
    return "".join(parts)


class Sandbox(ImmutableSandboxedEnvironment):
    """Hold templates that see their values and nothing else; an undefined name is an error."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self, *, autoescape: bool, loader: BaseLoader | None) -> None:
        super().__init__(
            autoescape=autoescape,
            loader=loader,
            undefined=StrictUndefined,
            keep_trailing_newline=True,
            cache_size=200,
        )
        for name in _DROPPED_FILTERS:
            del self.filters[name]
        self.filters["_each"] = _each
        self.filters["_measured"] = _measured
        self.filters["join"] = _measured_join(self.filters["join"])
        self.filters["replace"] = _measured_replace(self.filters["replace"])
        del self.globals["lipsum"]

    def compile(  # type: ignore[override]
        self,
        source: str | nodes.Template,
        name: str | None = None,
        filename: str | None = None,
        raw: bool = False,
        defer_init: bool = False,
    ) -> str | CodeType:
        """Compile a template whose loops and joins have been given a clock and a measure."""
        tree = self.parse(source, name, filename) if isinstance(source, str) else source
        return super().compile(_Bounded().visit(tree), name, filename, raw, defer_init)  # type: ignore

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls, if there is time."""
        _look_at_clock()
        made = super().call(__context, __obj, *args, **kwargs)
        _measure(_length(made))
        return made

    def get_template(self, *args: Any, **kwargs: Any) -> Template:
        """Load what a template includes, if there is time."""
        _look_at_clock()
        return super().get_template(*args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse the methods of text that multiply it."""
        if isinstance(obj, str | bytes) and attr in _MULTIPLYING_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Leave `format` to `is_safe_attribute`, which refuses it: a width in it multiplies text."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute with numbers; refuse what would make huge ones, or much text."""
        if operator == "**":
            raise SecurityError("templates have no power operator")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("templates have no text formatting by %: use ~ to join")
        if operator == "+":
            _measure(_length(left) + _length(right))
        if operator == "*" and (_length(left) or _length(right)):
            _measure((_length(left) or _number(left)) * (_length(right) or _number(right)))
        return super().call_binop(context, operator, left, right)


class _Bounded(NodeTransformer):
    """Send every loop's items through `_each`, and every joined or captured text through `_measured`."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _filtered("_each", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered("_measured", node)

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.AssignBlock:
        self.generic_visit(node)
        node.filter = nodes.Filter(node.filter, "_measured", [], [], None, None, lineno=node.lineno)
        return node


def _filtered(name: str, node: Any) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


@pass_context
def _each(_context: Context, items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _look_at_clock()
        yield item


@pass_context
def _measured(_context: Context, text: Any) -> Any:
    _look_at_clock()
    _measure(_length(text))
    return text


def _measured_join(join: Any) -> Any:
    @pass_context
    def measured(context: Context, value: Iterable[Any], d: str = "", attribute: Any = None) -> Any:
        items = []
        length = 0
        for item in _each(context, value):
            length += _length(item) + _length(d)
            _measure(length)
            items.append(item)
        return join(context.eval_ctx, items, d, attribute)

    return measured


def _measured_replace(replace: Any) -> Any:
    @pass_context
    def measured(context: Context, s: str, old: str, new: str, count: int | None = None) -> Any:
        _measure(len(str(s)) * max(1, len(new)) if len(new) > len(old) else 0)
        return replace(context.eval_ctx, s, old, new, count)

    return measured


def _look_at_clock() -> None:
    if time.monotonic() > getattr(_clock, "deadline", float("inf")):
        raise TookTooLong("it ran for too long")


def _measure(length: float) -> None:
    if length > MAX_RENDERED_CHARACTERS:
        raise MadeTooMuch(f"it makes more than {MAX_RENDERED_CHARACTERS} characters")


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 1
