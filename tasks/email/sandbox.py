"""Run untrusted templates: Jinja2's sandbox with a budget (render_budget.py).

Every turn of a loop, call, filter and include checks the time. An operation that multiplies text is checked
before it runs, or charged after. The senders of templates are still trusted not to look for a gap in this.
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

from millpond.tasks.email.render_budget import (
    RENDER_SECONDS,
    charge,
    charged,
    check_length,
    check_number,
    check_time,
    check_values,
    start,
)

#: Methods of text whose result grows with an argument, or is not text.
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
#: Filters of that sort, and filters with a random result, by which two deliveries would differ.
_DROPPED_FILTERS = ("batch", "center", "format", "indent", "pprint", "random", "slice", "wordwrap", "xmlattr")
_MOST_DIGITS = 15


def rendered(template: Template, values: Mapping[str, Any], *, seconds: float = RENDER_SECONDS) -> str:
    """Return the rendered text, within `seconds` and the budget; errors of the template are raised."""
    start(seconds)
    parts: list[str] = []
    length = 0
    for part in template.generate(values):
        check_time()
        parts.append(part)
        length += len(part)
        check_length(length)
    return "".join(parts)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of templates: they see their variables only, and an undefined name is an error."""

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
        """Compile a template with checks of the budget in its loops and joins."""
        tree = self.parse(source, name, filename) if isinstance(source, str) else source
        return super().compile(_Bounded().visit(tree), name, filename, raw, defer_init)  # type: ignore

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function of a template, within the time."""
        check_time()
        return charged(super().call(__context, __obj, *args, **kwargs))

    def get_template(self, *args: Any, **kwargs: Any) -> Template:
        """Load an included template, within the time."""
        check_time()
        return super().get_template(*args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return False for methods of text that multiply it, and for all methods of numbers."""
        if isinstance(obj, str | bytes) and attr in _REFUSED_METHODS:
            return False
        if isinstance(obj, int | float) and callable(value):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Do nothing: `is_safe_attribute` refuses `format`, since a width in it multiplies text."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute within bounds; refuse huge numbers and long texts."""
        check_number(left), check_number(right)
        if operator == "**":
            raise SecurityError("templates have no power operator")
        if operator == "%" and isinstance(left, str | bytes):
            raise SecurityError("templates have no text formatting by %: use ~ to join")
        if operator == "+":
            _charge_ahead(_length(left) + _length(right))
        if operator == "*" and (_length(left) or _length(right)):
            _charge_ahead((_length(left) or _factor(left)) * (_length(right) or _factor(right)))
        return super().call_binop(context, operator, left, right)


class _Bounded(NodeTransformer):
    """Puts a charging filter around the items of every loop, and every text that is joined, captured or cut.

    The literal text inside a loop is charged at each turn.
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
    """Return a filter that checks the time and its arguments, and charges its result."""
    passed = getattr(getattr(function, "jinja_pass_arg", None), "name", None)

    @pass_context
    @wraps(function)
    def guard(context: Context, *args: Any, **kwargs: Any) -> Any:
        check_time()
        check_values(*args, *kwargs.values())
        own = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        return charged(function(*([own[passed]] if passed else []), *args, **kwargs))

    return guard


@pass_context
def _each(_context: Context, items: Iterable[Any], cost: int) -> Iterator[Any]:
    for item in items:
        check_time()
        charge(cost)
        yield item


@pass_context
def _made(_context: Context, value: Any) -> Any:
    check_time()
    check_length(_length(value))
    return charged(value)


@pass_context
def _joined(context: Context, parts: list[Any]) -> str:
    """Join texts, as the operator `~`."""
    check_time()
    _charge_ahead(sum(_text_length(part) for part in parts))
    return markup_join(parts) if context.eval_ctx.autoescape else str_join(parts)


def _finalized(value: Any) -> Any:
    """Charge a value of the output, of the mail or of a captured text."""
    charge(_text_length(value))
    return value


def _join(join: Any) -> Any:
    @pass_context
    def joined(context: Context, value: Iterable[Any], d: str = "", attribute: Any = None) -> Any:
        items, length = [], 0
        for item in value:
            check_time()
            length += check_values(item) + len(str(d))
            check_length(length)
            items.append(item)
        return join(context.eval_ctx, items, d, attribute)

    return joined


def _replace(replace: Any) -> Any:
    @pass_context
    def replaced(context: Context, s: str, old: str, new: str, count: int | None = None) -> Any:
        check_length(len(str(s)) * max(1, len(str(new))) if len(str(new)) > len(str(old)) else 0)
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


def _charge_ahead(length: float) -> None:
    check_length(length)
    charge(int(length))


def _text_length(value: Any) -> int:
    """Return the least length of a value as text; a value of another type must be within bounds."""
    return len(value) if isinstance(value, str) else check_values(value)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _factor(value: Any) -> float:
    return value if isinstance(value, int | float) else 1
