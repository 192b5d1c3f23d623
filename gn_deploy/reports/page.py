"""Offline HTML pages from templates of this folder, in the style of report.html (needs jinja2, the extra [html])."""

from importlib.resources import files
from typing import Any

from gn_deploy.errors import UnavailableError


def page(template: str, **values: Any) -> str:
    """The page that ``template`` makes of ``values``; it places the style sheet where it says ``{{ style }}``.

    Raises UnavailableError when jinja2 is not installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError:
        raise UnavailableError(
            "report.html needs jinja2, which is not installed", "pip install 'gn-deploy[html]'"
        ) from None
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    made = environment.from_string(_text(template)).render(style=Markup(_style()), **values)
    return made.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate in a name has no UTF-8


def _style() -> str:
    return _text("template.html").partition("<style>")[2].partition("</style>")[0]


def _text(name: str) -> str:
    return files("gn_deploy.reports").joinpath(name).read_text("utf-8")
