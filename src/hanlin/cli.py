"""`hanlin <verb>`: one command is one file in verbs/; its Config becomes the options, its run() does the work.

    hanlin train recipe.yaml plan.steps=500 --output runs/x
           │     │           │              └ an option: a field of the verb's Config
           │     │           └ the rest, where the verb takes one: key=value
           │     └ a positional field
           └ src/hanlin/verbs/train.py, imported when it is called

Nothing here imports torch or pydantic, and `hanlin --help` imports no verb: it reads their first lines as text.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn, get_args

import click

from hanlin import registry
from hanlin.errors import HanlinError, Stopped, nearest, problem

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class Verbs(click.Group):
    """A group whose commands are the registered verbs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs' names."""
        return registry.names("verbs")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the verb's command, importing its file."""
        return command(cmd_name) if cmd_name in registry.names("verbs") else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest verb when there is none of this name."""
        known = registry.names("verbs")
        if args[0] not in known:
            allowed = f"verbs: {', '.join(known)}"
            raise HanlinError(problem("hanlin", f"no verb '{args[0]}'", allowed, nearest(args[0], known)))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each verb with the first line of its file."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, registry.summary("verbs", name)) for name in registry.names("verbs")])


def command(name: str) -> click.Command:
    """Return the click command made from a verb's Config: arguments, and an option for every other field."""
    module = registry.load("verbs", name)
    fields: Mapping[str, Any] = module.Config.model_fields
    positional: tuple[str, ...] = getattr(module, "POSITIONAL", ())
    rest: str | None = getattr(module, "REST", None)
    parameters: list[click.Parameter] = [
        click.Argument([each], required=fields[each].is_required(), metavar=each.upper()) for each in positional
    ]
    if rest:
        parameters.append(click.Argument([rest], nargs=-1, metavar="[KEY=VALUE]..."))
    parameters += [_option(each, field) for each, field in fields.items() if each not in (*positional, rest)]
    parameters.append(click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."))

    def callback(**given: Any) -> None:  # noqa: ANN401  # whatever the options hold
        from hanlin.config import parse

        given.pop("debug")
        told = {key: value for key, value in given.items() if value not in (None, (), False)}
        chosen = {fields[key].alias or key: _value(value, fields[key]) for key, value in told.items()}
        module.run(parse(module.Config, chosen))

    return click.Command(name, params=parameters, callback=callback, help=module.__doc__, context_settings=HELP)


def _option(name: str, field: Any) -> click.Option:  # noqa: ANN401  # pydantic's FieldInfo, unnamed to keep it unimported
    """Return the option for one field."""
    flag = "--" + (field.alias or name).replace("_", "-")
    text = field.description or ""
    if field.annotation is bool:
        return click.Option([flag, name], is_flag=True, help=text)
    many = tuple in (field.annotation, getattr(field.annotation, "__origin__", None))
    default = "" if field.is_required() or field.default in (None, "", ()) else f"  [{field.default}]"
    return click.Option([flag, name], multiple=many, required=field.is_required(), help=text + default)


def _value(text: Any, field: Any) -> Any:  # noqa: ANN401  # strings in, what the field takes out
    """Return a string as the number that the field wants, where it wants one; pydantic judges the result."""
    if not isinstance(text, str):
        return text
    types = {field.annotation, *get_args(field.annotation)}
    for number in (int, float):
        if number in types and str not in types:
            try:
                return number(text)
            except ValueError:
                continue
    return text


@click.command(cls=Verbs, context_settings=HELP, invoke_without_command=False)
@click.version_option(package_name="hanlin", message="hanlin %(version)s")
def hanlin() -> None:
    """From raw text to a language model you own, on your own machine.

    Start with `hanlin demo`: it learns the documentation on this machine, offline, in minutes.
    """


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 a problem, 130 or 143 stopped."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status; every problem becomes one line on standard error."""
    try:
        hanlin.main(arguments or ["--help"], prog_name="hanlin", standalone_mode=False)
    except HanlinError as error:
        if "--debug" in arguments:
            raise
        return _say(*error.problems)
    except click.ClickException as error:
        return _say(error.format_message())
    except Stopped as stopped:
        click.echo(f"{stopped}; the same command goes on", err=True)
        return stopped.code
    except (KeyboardInterrupt, click.Abort):
        click.echo("stopped", err=True)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _say(*problems: str) -> int:
    """Write one line a problem and return 1."""
    for each in problems:
        click.echo(f"error: {each}", err=True)
    return 1
