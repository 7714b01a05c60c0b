"""The page: a template of its own, filled by templates of whoever reports.

Such a template starts with `{% extends "page.html.jinja" %}` and fills the blocks `verdict` and
`body`. Values are escaped; only charts are markup. The page's policy forbids scripts and every
address, so that even markup which slipped through could fetch nothing.
"""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from proxy.protocol.page import words

_OURS = "proxy.protocol.page"


def page(package: str, template: str, **values: object) -> str:
    """The HTML of a template in the folder `templates` of a package, with these values."""
    loader = ChoiceLoader([PackageLoader(package), PackageLoader(_OURS)])
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        told=words.told, span=words.span, count=words.count, roughly=words.roughly
    )
    return environment.get_template(template).render(**values)
