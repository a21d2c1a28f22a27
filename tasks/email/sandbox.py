"""Run templates that somebody else wrote: Jinja2's sandbox, held to a budget (budget.py).

Every turn of a loop, call, filter and include looks at the clock; whatever multiplies text is measured before
it is made, or counted after. Whoever may send templates is still trusted not to look for the one way that was
forgotten.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from types import CodeType
from typing import Any

from jinja2 import StrictUndefined, Template, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.loaders import BaseLoader
from jinja2.runtime import Context, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from millpond.tasks.email.budget import (
    RENDER_SECONDS,
    begin,
    bounded,
    charge,
    look_at_clock,
    made,
    measure,
    number,
)

#: Methods of text that make as much as their argument says, or what is no text.
_REFUSED_METHODS = frozenset(
    [
        "center",
        "encode",
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
_MOST_DIGITS = 15


def rendered(template: Template, values: Mapping[str, Any], *, seconds: float = RENDER_SECONDS) -> str:
    """Render within `seconds` and the budget; raise whatever the template raises."""
    begin(seconds)
    parts: list[str] = []
    length = 0
    for part in template.generate(values):
        look_at_clock()
        parts.append(part)
        length += len(part)
        measure(length)
    return "".join(parts)


class Sandbox(ImmutableSandboxedEnvironment):
    """Hold templates that see their values and nothing else; an undefined name is an error."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self, *, autoescape: bool, loader: BaseLoader | None) -> None:
        super().__init__(
            autoescape=autoescape,
            loader=loader,
            undefined=StrictUndefined,
            finalize=_finalized,
            keep_trailing_newline=True,
            cache_size=200,
        )
        for name in _DROPPED_FILTERS:
            del self.filters[name]
        own = {"join": _join, "replace": _replace, "round": _round, "sum": _sum, "tojson": _tojson}
        own["urlize"] = _urlize
        changed = {name: change(self.filters[name]) for name, change in own.items()}
        self.filters = {name: _guarded(function) for name, function in {**self.filters, **changed}.items()}
        self.filters |= {"_each": _each, "_joined": _joined, "_made": _made}
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
        look_at_clock()
        return made(super().call(__context, __obj, *args, **kwargs))

    def get_template(self, *args: Any, **kwargs: Any) -> Template:
        """Load what a template includes, if there is time."""
        look_at_clock()
        return super().get_template(*args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse the methods of text that multiply it, and all of numbers."""
        if isinstance(obj, str | bytes) and attr in _REFUSED_METHODS:
            return False
        if isinstance(obj, int | float) and callable(value):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Leave `format` to `is_safe_attribute`, which refuses it: a width in it multiplies text."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute with numbers; refuse what would make huge ones, or much text."""
        number(left), number(right)
        if operator == "**":
            raise SecurityError("templates have no power operator")
        if operator == "%" and isinstance(left, str | bytes):
            raise SecurityError("templates have no text formatting by %: use ~ to join")
        if operator == "+":
            _about_to_make(_length(left) + _length(right))
        if operator == "*" and (_length(left) or _length(right)):
            _about_to_make((_length(left) or _factor(left)) * (_length(right) or _factor(right)))
        return super().call_binop(context, operator, left, right)


class _Bounded(NodeTransformer):
    """Send every loop's items, and every text that is joined, captured or cut, through a filter that counts.

    What stands between the tags of a loop is counted at each turn.
    """

    def visit_For(self, node: nodes.For) -> nodes.For:
        cost = sum(len(each.data) for each in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        node.iter = _filtered("_each", node.iter, nodes.Const(cost))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered("_joined", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filtered("_made", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.AssignBlock:
        self.generic_visit(node)
        node.filter = nodes.Filter(node.filter, "_made", [], [], None, None, lineno=node.lineno)
        return node


def _filtered(name: str, node: Any, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)


def _guarded(function: Callable[..., Any]) -> Any:
    """Return a filter that runs while there is time, on values within bounds, and counts its outcome."""
    passed = getattr(getattr(function, "jinja_pass_arg", None), "name", None)

    @pass_context
    @wraps(function)
    def guard(context: Context, *args: Any, **kwargs: Any) -> Any:
        look_at_clock()
        bounded(*args, *kwargs.values())
        own = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        return made(function(*([own[passed]] if passed else []), *args, **kwargs))

    return guard


@pass_context
def _each(_context: Context, items: Iterable[Any], cost: int) -> Iterator[Any]:
    for item in items:
        look_at_clock()
        charge(cost)
        yield item


@pass_context
def _made(_context: Context, value: Any) -> Any:
    look_at_clock()
    measure(_length(value))
    return made(value)


@pass_context
def _joined(context: Context, parts: list[Any]) -> str:
    """Do what `~` does; some of its parts may be long already."""
    look_at_clock()
    _about_to_make(sum(_text_length(part) for part in parts))
    return markup_join(parts) if context.eval_ctx.autoescape else str_join(parts)


def _finalized(value: Any) -> Any:
    """Count what is put out, into the mail or into a text that a template keeps."""
    charge(_text_length(value))
    return value


def _join(join: Any) -> Any:
    @pass_context
    def joined(context: Context, value: Iterable[Any], d: str = "", attribute: Any = None) -> Any:
        items, length = [], 0
        for item in value:
            look_at_clock()
            length += bounded(item) + len(str(d))
            measure(length)
            items.append(item)
        return join(context.eval_ctx, items, d, attribute)

    return joined


def _replace(replace: Any) -> Any:
    @pass_context
    def replaced(context: Context, s: str, old: str, new: str, count: int | None = None) -> Any:
        measure(len(str(s)) * max(1, len(str(new))) if len(str(new)) > len(str(old)) else 0)
        return replace(context.eval_ctx, s, old, new, count)

    return replaced


def _round(round_: Any) -> Any:
    def rounded(value: float, precision: int = 0, method: str = "common") -> Any:
        if abs(precision) > _MOST_DIGITS:
            raise SecurityError(f"templates round to {_MOST_DIGITS} digits at most")
        return round_(value, precision, method)

    return rounded


def _sum(sum_: Any) -> Any:
    @pass_context
    def summed(context: Context, values: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
        if not isinstance(start, int | float):
            raise SecurityError("templates sum up numbers only")
        return sum_(context.environment, values, attribute, start)

    return summed


def _tojson(tojson: Any) -> Any:
    @pass_context
    def written(context: Context, value: Any) -> Any:
        return tojson(context.eval_ctx, value)

    return written


def _urlize(urlize: Any) -> Any:
    @pass_context
    def linked(
        context: Context, value: str, trim_url_limit: int | None = None, nofollow: bool = False
    ) -> Any:
        return urlize(context.eval_ctx, value, trim_url_limit, nofollow)

    return linked


def _about_to_make(length: float) -> None:
    measure(length)
    charge(int(length))


def _text_length(value: Any) -> int:
    """Return how long a value is as text, at least; anything but text must be within bounds."""
    return len(value) if isinstance(value, str) else bounded(value)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _factor(value: Any) -> float:
    return value if isinstance(value, int | float) else 1
