"""Check the templates of mails: what they make, what they may read, and that they end."""

import itertools
import tracemalloc

import pytest

from millpond.tasks.email import sandbox
from millpond.tasks.email.contract import SendEmail
from millpond.tasks.email.templates import content_of
from millpond.tasks.errors import BadInput

#: What a template that follows calls x is long, and no more than a mail may hold.
BIG = "{% set x = 'a' * 900000 %}"


def mail(**changes) -> SendEmail:
    return SendEmail(**{"sender": "ann@example.org", "to": "bob@example.org", "text": "hello", **changes})


def text_of(source: str, folder=None, **values) -> str | None:
    return content_of(mail(text=source, context=values), folder=folder).text


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "templates"
    (root / "news").mkdir(parents=True)
    (root / "news" / "may.txt").write_text("Hello {{ name }}{% include 'foot.txt' %}")
    (root / "foot.txt").write_text(" -- us")
    (root / "both.txt").write_text("{{ name }}")
    (root / "both.html").write_text("<b>{{ name }}</b>")
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    return root


def test_without_context_nothing_is_a_template():
    """Braces in a plain mail are sent as they are."""
    content = content_of(mail(subject="{{ a }}", text="{{ b }}", html="{% c %}"), folder=None)
    assert (content.subject, content.text, content.html) == ("{{ a }}", "{{ b }}", "{% c %}")


def test_html_is_escaped_and_text_is_not():
    """A value with markup is text in HTML, and as it is in text and subject."""
    job = mail(
        subject="{{ n }}", text="{{ n }}", html="<b>{{ n }}</b>{{ n ~ '<' }}", context={"n": "<A & B>"}
    )
    content = content_of(job, folder=None)
    assert (content.subject, content.text) == ("<A & B>", "<A & B>")
    assert content.html == "<b>&lt;A &amp; B&gt;</b>&lt;A &amp; B&gt;&lt;"


def test_named_templates_come_from_the_folder(folder):
    """NAME.txt and NAME.html are used where they exist, with what they include."""
    one = content_of(mail(text=None, template="news/may", context={"name": "Bob"}), folder=folder)
    assert (one.text, one.html) == ("Hello Bob -- us", None)
    two = content_of(mail(text=None, template="both", context={"name": "<"}), folder=folder)
    assert (two.text, two.html) == ("<", "<b>&lt;</b>")


def test_changed_template_is_read_again(folder):
    """A template that was edited is used from the next mail on."""
    job = mail(text=None, template="both", context={"name": "Bob"})
    content_of(job, folder=folder)
    (folder / "both.txt").write_text("Dear {{ name }}")
    assert content_of(job, folder=folder).text == "Dear Bob"


@pytest.mark.parametrize("name", ["missing", "link"])
def test_template_outside_the_folder_is_not_found(folder, name):
    """A name that is not there, and a link that leads outside, are BadInput that says where was looked."""
    with pytest.raises(BadInput, match=f"neither {name}.txt nor {name}.html"):
        content_of(mail(text=None, template=name, context={}), folder=folder)


@pytest.mark.parametrize("path", ["../secret.txt", "link.txt", "/etc/passwd", "news/../../secret.txt"])
def test_include_does_not_leave_the_folder(folder, path):
    """A template includes nothing from outside its folder."""
    with pytest.raises(BadInput, match="includes"):
        text_of("{% include '" + path + "' %}", folder)


def test_named_template_without_a_folder_names_the_setting():
    """Where no folder is configured, the error says how to configure one."""
    with pytest.raises(BadInput, match="MILLPOND_SMTP__TEMPLATES"):
        content_of(mail(text=None, template="both"), folder=None)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("line\n{{ name", "line 2"),
        ("{{ nobody }}", "'nobody' is undefined"),
        ("{{ name.first.last }}", "no attribute"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% include 'x.txt' %}", "loader"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
)
def test_template_that_fails_is_bad_input(source, says):
    """A template's own mistake is one line that names the field and the mistake."""
    with pytest.raises(BadInput, match="the template of text") as caught:
        text_of(source, name="Bob")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ values.append(1) }}",
        "{{ self._TemplateReference__context }}",
        "{{ values.clear() }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ ''|attr('__class__') }}",
        "{{ lipsum() }}",
        "{% import 'os' as os %}",
    ],
)
def test_sandbox_holds(source):
    """A template reaches neither the interpreter nor its own values' insides, and changes nothing."""
    with pytest.raises(BadInput):
        text_of(source, values=[1])


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 1000000000 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'x'|center(1000000000) }}",
        "{{ range(1000000000) }}",
        "{{ ('a' * 99999)|replace('a', 'b' * 99999) }}",
        "{{ (['x' * 1000] * 100000)|join }}",
        "{{ 'x'|indent(1000000000, true) }}",
        "{{ ['x']|batch(1000000000, 'x')|list }}",
        "{% set n = namespace(s='xx') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{% set n = namespace(s='xx') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% set n = namespace(s=1) %}{% for i in v %}{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}",
        "{% macro f(n) %}{% set y = f(n-1) if n else 'x' %}{{ y }}{{ y }}{% endmacro %}{{ f(99) }}",
        "{% for i in range(100000) %}xxxxxxxxxxxxxxxxxxxxx{% endfor %}",
        "{{ [1]|tojson(indent=900000000) }}",
        "{{ '%900000000d'.encode() % 5 }}",
        "{{ (1).to_bytes(900000000, 'big')|length }}",
        "{{ ([range(99999)|list] * 99999)|sum(start=[])|length }}",
        "{{ 1|round(900000000, 'ceil') }}",
        BIG + "{{ [x] * 99999 }}",
        BIG + "{{ ([x] * 99999)|string|length }}",
        BIG + "{{ {}.fromkeys(range(99999), x)|tojson|length }}",
        BIG + "{{ {}.fromkeys(range(99999), x).values()|string|length }}",
        BIG + "{{ (" + "~".join("x" * 299) + ")|length }}",
        BIG + "{{ [" + "x[1:]," * 299 + "]|length }}",
        BIG + "{{ [" + "x.partition('b')," * 299 + "]|length }}",
        BIG + "{{ range(99999)|map(attribute='no', default=x)|map('upper')|list|length }}",
        BIG + "{{ ('http://a.b ' * 9999)|urlize(rel=x)|length }}",
        BIG + "{{ range(99999)|join(x)|length }}",
        BIG + "{% set n = namespace(v=[x] * 9999) %}{{ n }}",
        BIG + "{% macro m() %}{% for i in range(99999) %}{{ x }}{% endfor %}{% endmacro %}{{ m()|length }}",
        BIG + "{% filter length %}{% for i in range(99999) %}{{ x }}{% endfor %}{% endfilter %}",
        "{% filter length %}{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}{% endfilter %}",
        "{% set a = ('f' * 99999)|int(0, 16) %}{{ a * a > 1 }}",
        "{% set n = namespace(x=10) %}{% for i in v %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x > 1 }}",
    ],
    ids=itertools.count(),
)
def test_template_that_makes_too_much_is_stopped(source):
    """Text that would not fit a mail is never made, by whatever way a template multiplies it."""
    tracemalloc.start()
    try:
        with pytest.raises(BadInput):
            text_of(source, v=list(range(99)))
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024**2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
        "{% for a in v %}{% for b in v %}{% for c in v %}{% endfor %}{% endfor %}{% endfor %}",
    ],
)
def test_template_that_does_not_end_is_stopped(source, monkeypatch):
    """A template that goes on and on, making nothing, is stopped at its deadline."""
    monkeypatch.setattr(sandbox.rendered, "__kwdefaults__", {"seconds": 0.2})
    with pytest.raises(BadInput, match="too long"):
        text_of(source, v=list(range(1000)))


def test_loops_still_know_where_they_are():
    """The clock in a loop takes nothing from it: index, length, last, else and filters work."""
    inside = "{{ loop.index }}/{{ loop.length }} {{ k }}={{ v }}{{ '' if loop.last else ', ' }}"
    source = "{% for k, v in d.items() %}" + inside + "{% endfor %}"
    assert text_of(source, d={"a": 1, "b": 2}) == "1/2 a=1, 2/2 b=2"
    assert text_of("{% for x in [] %}{% else %}none{% endfor %}") == "none"
    assert text_of("{{ names|sort|join(', ')|upper|replace('A', 'b') }}", names=["c", "a"]) == "b, C"


def test_rendered_subject_is_bounded():
    """A subject that a template made too long is BadInput."""
    with pytest.raises(BadInput, match="subject"):
        content_of(mail(subject="{{ 'x' * 901 }}", context={}), folder=None)
