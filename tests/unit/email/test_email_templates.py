"""Templates of mails render values, read only their folder, and end within their limits."""

import itertools
import re
import resource
import time

import psutil
import pytest

from millpond.tasks.email import template_engine
from millpond.tasks.email.contract import SendEmail
from millpond.tasks.email.template_process import TemplateProcess
from millpond.tasks.email.templates import render_content
from millpond.tasks.errors import BadInput, RetryLater
from tests.harness.peak_memory import peak_mb

#: The value x of the templates below is long, and no more than a mail may hold.
BIG = "{% set x = 'a' * 900000 %}"


def make_mail(**changes) -> SendEmail:
    return SendEmail(**{"sender": "ann@example.org", "to": "bob@example.org", "text": "hello", **changes})


def render_text(source: str, folder=None, **values) -> str | None:
    return render_content(make_mail(text=source, context=values), folder=folder).text


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
    content = render_content(make_mail(subject="{{ a }}", text="{{ b }}", html="{% c %}"), folder=None)
    assert (content.subject, content.text, content.html) == ("{{ a }}", "{{ b }}", "{% c %}")


def test_html_is_escaped_and_text_is_not():
    """A value with markup is text in HTML, and as it is in text and subject."""
    job = make_mail(
        subject="{{ n }}", text="{{ n }}", html="<b>{{ n }}</b>{{ n ~ '<' }}", context={"n": "<A & B>"}
    )
    content = render_content(job, folder=None)
    assert (content.subject, content.text) == ("<A & B>", "<A & B>")
    assert content.html == "<b>&lt;A &amp; B&gt;</b>&lt;A &amp; B&gt;&lt;"


def test_named_templates_come_from_the_folder(folder):
    """NAME.txt and NAME.html are used where they exist, with their includes."""
    one = render_content(make_mail(text=None, template="news/may", context={"name": "Bob"}), folder=folder)
    assert (one.text, one.html) == ("Hello Bob -- us", None)
    two = render_content(make_mail(text=None, template="both", context={"name": "<"}), folder=folder)
    assert (two.text, two.html) == ("<", "<b>&lt;</b>")


def test_changed_template_is_read_again(folder):
    """A template that was edited is used from the next mail on."""
    job = make_mail(text=None, template="both", context={"name": "Bob"})
    render_content(job, folder=folder)
    (folder / "both.txt").write_text("Dear {{ name }}")
    assert render_content(job, folder=folder).text == "Dear Bob"


@pytest.mark.parametrize("name", ["missing", "link"])
def test_template_outside_the_folder_is_not_found(folder, name):
    """A missing template and a link out of the folder are BadInput, with the files that were searched."""
    with pytest.raises(BadInput, match=f"neither {name}.txt nor {name}.html"):
        render_content(make_mail(text=None, template=name, context={}), folder=folder)


@pytest.mark.parametrize("path", ["../secret.txt", "link.txt", "/etc/passwd", "news/../../secret.txt"])
def test_include_does_not_leave_the_folder(folder, path):
    """A template includes nothing from outside its folder."""
    with pytest.raises(BadInput, match="include"):
        render_text("{% include '" + path + "' %}", folder)


def test_named_template_without_a_folder_names_the_setting():
    """Without a folder of templates, the error names the setting."""
    with pytest.raises(BadInput, match="MILLPOND_SMTP__TEMPLATES"):
        render_content(make_mail(text=None, template="both"), folder=None)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("line\n{{ name", "line 2: unexpected end of input"),
        ("{{ nobody }}", "line 1: `nobody` is undefined"),
        ("{{ name.first.last }}", "`name.first` is undefined"),
        ("{{ 1 / 0 }}", "unable to calculate 1 / 0"),
        ("{{ name|nofilter }}", "filter nofilter is unknown"),
        ("{% include 'x.txt' %}", "MILLPOND_SMTP__TEMPLATES names no folder"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
)
def test_template_that_fails_is_bad_input(source, says):
    """The error for a bad template is one line with the field, the line and the fault."""
    with pytest.raises(BadInput, match="the template of text") as caught:
        render_text(source, name="Bob")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fault_of_an_included_file_names_the_file(folder):
    """The error for an included file names that file and its line."""
    (folder / "foot.txt").write_text("\n{{ nobody }}")
    with pytest.raises(BadInput, match=r"of foot\.txt line 2: .*`nobody` is undefined"):
        render_content(make_mail(text=None, template="news/may", context={"name": "Bob"}), folder=folder)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ values.__class__ }}",
        "{{ values.append.__self__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ ''|attr('__class__') }}",
        "{{ values|attr('__class__') }}",
        "{{ values|map(attribute='__class__')|first }}",
        "{{ lipsum() }}",
        "{{ debug() }}",
        "{% import 'os' as os %}",
    ],
)
def test_template_reaches_no_interpreter(source):
    """A template cannot access Python's attributes of its values."""
    with pytest.raises(BadInput, match=r"undefined|is unknown|names no folder"):
        render_text(source, values=[1])


def test_template_changes_nothing_of_its_mail():
    """A template cannot change the values of its mail."""
    job = make_mail(subject="{{ values.clear() }}", text="{{ values }}", context={"values": [1]})
    assert (render_content(job, folder=None).text, job.context) == ("[1]", {"values": [1]})


def test_values_pass_whole():
    """Large numbers, text in any script and nested values are rendered without loss."""
    values = {"n": 10**60, "m": -(2**100), "f": 0.1, "d": {"k": [True, None, "ü€"]}, "self": 1, "name": "x"}
    assert render_text("{{ n }} {{ m }} {{ f }} {{ d.k }} {{ name }}", **values) == (
        f"{10**60} {-(2**100)} 0.1 [True, None, 'ü€'] x"
    )


FUEL = "too many operations or makes too much text"
MEMORY = "over 256 MiB"
SLOW = "over 1.5 s"
TOO_LONG = "more than 1000000 characters"
RECURSION = "recursion limit"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ 'x' * 1000000000 }}", FUEL),
        ("{{ 'x' * 1000001 }}", TOO_LONG),
        ("{{ 10 ** 10 ** 10 }}", "unable to calculate"),
        ("{{ '%1000000000d'|format(1) }}", FUEL),
        ("{{ '{:1000000000}'.format(1) }}", MEMORY),
        ("{{ range(1000000000) }}", "too many elements"),
        ("{{ range(100000)|map('string')|list|length and range(99999)|list * 99999 }}", "too large"),
        ("{{ ('a' * 99999)|replace('a', 'b' * 99999) }}", FUEL),
        ("{{ (['x' * 1000] * 100000)|join }}", FUEL),
        ("{{ 'x'|indent(1000000000, true) }}", FUEL),
        ("{{ ['x']|batch(1000000000, 'x')|list }}", FUEL),
        ("{% set n = namespace(s='xx') %}{% for i in v %}{% set n.s = n.s ~ n.s %}{% endfor %}", FUEL),
        ("{% set n = namespace(s='xx') %}{% for i in v %}{% set n.s = n.s + n.s %}{% endfor %}", FUEL),
        ("{% set n = namespace(s=[1]) %}{% for i in v %}{% set n.s = n.s + n.s %}{% endfor %}", SLOW),
        (
            "{% set n=namespace(s=1) %}{% for i in v %}{% set n.s %}{{ n.s ~ n.s }}{% endset %}{% endfor %}",
            FUEL,
        ),
        ("{% set n = namespace(x=10) %}{% for i in v %}{% set n.x = n.x * n.x %}{% endfor %}", "calculate"),
        (
            "{% macro f(n) %}{% set y = f(n-1) if n else 1 %}{{ y ~ y }}{% endmacro %}{{ f(99) }}",
            RECURSION,
        ),
        ("{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}{% endmacro %}{{ f(25) }}", FUEL),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", FUEL),
        (
            "{% for a in v %}{% for b in v %}{% for c in v %}{% for d in v %}{% endfor %}"
            + "{% endfor %}" * 3,
            FUEL,
        ),
        ("{% for i in range(100000) %}" + "x" * 99 + "{% endfor %}", TOO_LONG),
        ("{{ [1]|tojson(indent=900000000) }}", MEMORY),
        (BIG + "{{ [x] * 99999 }}", MEMORY),
        (BIG + "{{ ([x] * 99999)|string|length }}", MEMORY),
        (BIG + "{% set n = namespace(v=[x] * 9999) %}{{ n }}", MEMORY),
        (BIG + "{{ (" + "~".join("x" * 299) + ")|length }}", FUEL),
        (BIG + "{{ [" + "x[1:]," * 299 + "]|length }}", FUEL),
        (BIG + "{{ range(99999)|join(x)|length }}", MEMORY),
        (BIG + "{{ x.split('a')|map('upper')|map('replace', '', x)|list|length }}", FUEL),
        (
            BIG + "{% macro m() %}{% for i in range(99999) %}{{ x }}{% endfor %}{% endmacro %}{{ m() }}",
            MEMORY,
        ),
        (BIG + "{% filter length %}{% for i in range(99999) %}{{ x }}{% endfor %}{% endfilter %}", FUEL),
        ("{% for i in range(99999) %}{% set y = comment|urlize %}{% endfor %}", FUEL),
        ("{% include 'own.txt' %}", RECURSION),
        ("{% include 'two.txt' %}", RECURSION),
        ("{{ a" + "~a" * 475_000 + " }}", MEMORY),
        ("{{ " + "(" * 475_000, RECURSION),
        ("{% if a %}" * 95_000, RECURSION),
    ],
    ids=itertools.count(),
)
def test_template_that_makes_too_much_is_stopped(source, says, folder):
    """Each way to multiply text or work ends soon, by the limit that is meant for it."""
    (folder / "own.txt").write_text("{% include 'own.txt' %}")
    (folder / "two.txt").write_text("{% for i in range(9) %}{% include 'two.txt' %}{% endfor %}")
    started = time.process_time(), seconds_of_children(), memory_of_this_process()
    with pytest.raises(BadInput, match=re.escape(says)):
        render_text(source, folder, v=list(range(99)), a="a", comment="(" * 63_000)
    assert time.process_time() - started[0] < 0.5
    assert seconds_of_children() - started[1] < 5
    assert memory_of_this_process() - started[2] < 32 * 1024**2


def seconds_of_children() -> float:
    """Return the processor time of all child processes so far, ended ones included, in seconds."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = [each.cpu_times() for each in psutil.Process().children()]
    return ended.ru_utime + ended.ru_stime + sum(each.user + each.system for each in running)


def memory_of_this_process() -> int:
    return psutil.Process().memory_info().rss


@pytest.mark.parametrize(
    ("source", "length"),
    [
        ("{{ comment|urlize }}", 63_000),
        ("{{ a }}" * 130_000, 130_000),
        ("{% if a %}x{% endif %}" * 43_000, 43_000),
        ("x" * 950_000, 950_000),
    ],
)
def test_large_template_is_quick_and_small(source, length, folder):
    """A large template that once took 95 s or 1.6 GB is rendered quickly, with little memory."""
    before = time.process_time()
    assert len(render_text(source, folder, a="a", comment="(" * 63_000)) == length
    [child] = [each for each in psutil.Process().children() if "template_engine" in each.cmdline()[-1]]
    assert time.process_time() - before < 1
    assert peak_mb(child.pid) < 128


def test_without_its_bounds_the_engine_is_not_stopped():
    """A template that runs out of fuel succeeds without that limit."""
    loop = "{% for i in range(2000) %}{% for j in range(2000) %}{% endfor %}{% endfor %}"
    request = {"name": "text", "source": loop, "values": [], "html": False, "folder": None}
    assert template_engine.answer_request(request)["kind"] == "OutOfFuel"
    assert template_engine.answer_request(request, fuel=None) == {"text": ""}


def test_rendering_goes_on_after_an_attack():
    """After a mail that broke the limits of the process, the next one is rendered."""
    with pytest.raises(BadInput, match=MEMORY):
        render_text("{{ '{:1000000000}'.format(1) }}")
    assert render_text("{{ n }}", n=1) == "1"


def test_interrupted_rendering_leaves_no_answer_to_the_next(monkeypatch):
    """After a time limit during a rendering, the next mail does not get the late reply."""
    process = TemplateProcess()

    def render(value):
        return process.render("text", "{{ n }}", {"n": value}, html=False, folder=None)

    assert render(1) == "1"
    with monkeypatch.context() as patched:
        patched.setattr(process._child.stdout, "readline", lambda: exec("raise TimeoutError"), raising=False)
        with pytest.raises(TimeoutError):
            render(2)
    assert render(3) == "3"
    process.stop()


def test_process_killed_from_outside_is_no_fault_of_the_mail(monkeypatch):
    """A rendering whose process is killed from outside is retried."""
    process = TemplateProcess()
    assert process.render("text", "{{ n }}", {"n": 1}, html=False, folder=None) == "1"
    running = process._child
    monkeypatch.setattr(process, "_start_if_needed", lambda: running.kill() or (running.wait() and running))
    with pytest.raises(RetryLater, match="killed"):
        process.render("text", "{{ n }}", {"n": 1}, html=False, folder=None)
    process.stop()


def test_filters_of_people():
    """`truncate` by position, `urlize` and `wordcount` do the same as Jinja's; links are escaped once."""
    assert render_text("{{ t|truncate(9) }}|{{ t|wordcount }}", t="hello world foo") == "hello...|3"
    html = render_content(
        make_mail(html="{{ t|urlize }}", context={"t": "<i> http://a.b/?c&d"}), folder=None
    ).html
    assert html == '&lt;i&gt; <a href="http://a.b/?c&amp;d" rel="noopener">http://a.b/?c&amp;d</a>'


def test_loops_still_know_where_they_are():
    """The variable `loop`, `else` of a loop, and filters work."""
    inside = "{{ loop.index }}/{{ loop.length }} {{ k }}={{ v }}{{ '' if loop.last else ', ' }}"
    source = "{% for k, v in d.items() %}" + inside + "{% endfor %}"
    assert render_text(source, d={"a": 1, "b": 2}) == "1/2 a=1, 2/2 b=2"
    assert render_text("{% for x in [] %}{% else %}none{% endfor %}") == "none"
    assert render_text("{{ names|sort|join(', ')|upper|replace('A', 'b') }}", names=["c", "a"]) == "b, C"


def test_rendered_subject_is_bounded():
    """A subject that a template made too long is BadInput."""
    with pytest.raises(BadInput, match="subject"):
        render_content(make_mail(subject="{{ 'x' * 901 }}", context={}), folder=None)
