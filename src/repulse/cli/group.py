"""The command line: commands are loaded when they are asked for, since their settings bring PyTorch with them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from repulse.common.allocator import keep_memory
from repulse.common.errors import RepulseError
from repulse.common.plugins import add_plugins, load_plugins
from repulse.version import __version__

# A command is a file of this folder that calls it `command`, and its line here.
COMMANDS = {
    "certify": "Prove within which radius answers cannot change.",
    "demo": "The whole story on handwritten digits, in a minute.",
    "evaluate": "Attack a model, and say which number to quote.",
    "export": "Write a model as ONNX, TorchScript, PT2 or safetensors.",
    "predict": "Classify image files, and say what is proved.",
    "prototypes": "Make class prototypes, and measure how far apart they are.",
    "push": "Share a model, with a card, on the Hugging Face Hub.",
    "report": "Write a page about one run, or about several.",
    "reproduce": "Remake the paper's comparison beside its rivals.",
    "train": "Train a classifier on class prototypes.",
    "zoo": "List the checkpoints that come with the package.",
}


class CommandGroup(click.Group):
    """A group whose commands are imported when they run; the list of them is not."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, or None."""
        if cmd_name not in COMMANDS:
            return None
        load_plugins()
        module = importlib.import_module(f"repulse.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """One line per command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="repulse")
def cli() -> None:
    """Robust classifiers from repulsive class prototypes, and an honest measure of how robust a classifier is."""


# Stand-ins, so that names can be listed, completed and suggested.
cli.commands = {name: click.Command(name, short_help=text) for name, text in COMMANDS.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0: done. 2: a mistake the user can mend. 3: a bar was missed (`--fail-under`, `--fail-on`). 4: a certificate was
    broken. 130: interrupted.
    """
    # Before any work starts: convolutions are then some 1.2 times as fast on a CPU.
    keep_memory()
    try:
        cli.main(
            args=_without_plugins(sys.argv[1:] if argv is None else argv), prog_name="repulse", standalone_mode=False
        )
    except RepulseError as error:
        return _fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "repulse"
        return _fail(f"{error.format_message().rstrip('.')}; see {command} --help")
    except click.ClickException as error:
        return _fail(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        said = "the same command goes on with it (train: go on with --resume)"
        click.echo(f"interrupted: what was finished is kept; {said}", err=True)
        return 130
    return 0


def _without_plugins(argv: Sequence[str]) -> list[str]:
    """The arguments without `--plugin FILE`, which may stand anywhere: what a command takes depends on plugins."""
    files, rest, words = [], [], iter(argv)
    for word in words:
        flag, equals, file = word.partition("=")
        if flag != "--plugin":
            rest.append(word)
        else:
            files.append(file if equals else next(words, ""))
    add_plugins(files)
    return rest


def _fail(message: str, code: int = 2) -> int:
    click.echo(f"repulse: error: {' '.join(message.split())}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
