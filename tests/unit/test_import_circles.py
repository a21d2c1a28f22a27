"""How the modules of Millpond import one another."""

from collections.abc import Iterator

import grimp


def circles(graph: grimp.ImportGraph) -> Iterator[frozenset[str]]:
    """Yield the strongly connected components of more than one module."""
    reach = {module: graph.find_downstream_modules(module) for module in graph.modules}
    found = set()
    for module, importers in reach.items():
        circle = frozenset({module} | {other for other in importers if module in reach[other]})
        if len(circle) > 1 and circle not in found:
            found.add(circle)
            yield circle


def test_no_modules_import_one_another_in_a_circle() -> None:
    """No module imports itself by way of others, not even for type checking or inside a function."""
    assert list(circles(grimp.build_graph("millpond"))) == []
