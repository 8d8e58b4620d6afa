"""edge-match: the command line. Turns flags into calls; decides nothing else.

Exit codes: matcher.errors.ExitCode.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from matcher.config import MatcherConfig
from matcher.errors import ExitCode

app = typer.Typer(
    name="edge-match",
    help="Takes the embeddings of many boxes and says who was seen where and when.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _edge_match() -> None:
    """Takes the embeddings of many boxes and says who was seen where and when."""


@app.command()
def serve(
    listen: Annotated[list[str] | None, typer.Option(help="HOST:PORT; may be repeated.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where ledger and keys lie.")] = None,
    metrics: Annotated[
        str | None, typer.Option(help="HOST:PORT of /metrics, /healthz, /readyz; '' for none.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Plain beyond loopback; warns at every start.")
    ] = False,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written when the server listens: a JSON object.")
    ] = None,
    exit_with_parent: Annotated[
        bool, typer.Option("--exit-with-parent", help="End when standard input closes.")
    ] = False,
) -> None:
    """Run the server until SIGTERM."""
    from matcher.server import MatcherServer
    from matcher.server import serve as run

    fields: dict[str, object] = {"tls": {"insecure": insecure}}
    if listen:
        fields["listen"] = tuple(listen)
    if data_dir is not None:
        fields["data_dir"] = data_dir
    if metrics is not None:
        fields["metrics"] = metrics
    config = MatcherConfig.model_validate(fields)

    def ready(server: MatcherServer) -> None:
        host = config.listen[0].rpartition(":")[0]
        text = json.dumps(
            {
                "event": "listening",
                "address": f"{host}:{server.ports[0]}",
                "ports": list(server.ports),
                "metrics_port": server.web_port,
                "ledger_id": server.ledger.ledger_id,
            }
        )
        print(text, flush=True)
        if ready_file is not None:
            part = ready_file.with_name(ready_file.name + ".part")
            part.write_text(text + "\n")
            part.rename(ready_file)

    raise typer.Exit(run(config, ready=ready, watch_stdin=exit_with_parent))


def main() -> None:
    """Entry point of the console script."""
    arguments = sys.argv[1:]
    if not arguments or (arguments[0].startswith("-") and arguments[0] != "--help"):
        arguments.insert(0, "serve")  # what most people want of a server
    app(arguments)


if __name__ == "__main__":
    main()
    sys.exit(ExitCode.DONE)
