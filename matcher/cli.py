"""edge-match: the command line. Turns flags into calls, and errors into messages and exit codes.

Exit codes: matcher.errors.ExitCode (0 done or drained, 2 usage or configuration, 5 the server
cannot be reached or refuses us, 6 the ledger is unusable, 70 our own fault).
"""

from __future__ import annotations

import os
import sys

# Two cores: a matrix product of association must not take the core that ingest runs on.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer

from matcher import certs as certificates
from matcher import cli_admin, cli_certs, cli_maps, cli_read
from matcher.cli_common import Insecure, TlsCa, TlsCert, TlsKey
from matcher.config import MatcherConfig
from matcher.errors import ExitCode, LedgerUnusable, MatcherError
from matcher.settings import SettingsError, load
from reid import SOFTWARE, logs
from reid.tls import TlsError

if TYPE_CHECKING:
    from matcher.server import MatcherServer

app = typer.Typer(
    name="edge-match",
    help="Takes the embeddings of many boxes and says who was seen where and when.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_certs.app, name="certs")
app.add_typer(cli_maps.app, name="maps")


@app.callback(invoke_without_command=True)
def _edge_match(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Takes the embeddings of many boxes and says who was seen where and when."""
    if version:
        print(SOFTWARE)
        raise typer.Exit


@app.command()
def serve(
    listen: Annotated[
        list[str] | None,
        typer.Option(help="HOST:PORT, default 127.0.0.1:7443; may be repeated. Port 0: free."),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the ledger lies.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file.")] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of /metrics, /healthz, /readyz; 'off' for none."),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(help="Folder of site maps, followed as it changes; default off."),
    ] = None,
    log: Annotated[str | None, typer.Option(help="text or json.")] = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    insecure: Insecure = False,
    max_rate: Annotated[
        float | None,
        typer.Option(help="Sightings per second a box may send, mean over a minute; 0: no limit."),
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written when the server listens: one JSON object.")
    ] = None,
    exit_with_parent: Annotated[
        bool, typer.Option("--exit-with-parent", help="End when standard input closes.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show the configuration and exit.")
    ] = False,
) -> None:
    """Run the server until SIGTERM (the default command).

    Prints one line of JSON when it listens: {"event": "listening", "address", "ports", ...}.
    """
    from matcher.native_log import NativeLog
    from matcher.run import serve as run

    flags: dict[str, Any] = {
        "listen": tuple(listen) if listen else None,
        "data_dir": data_dir,
        "metrics": "" if metrics == "off" else metrics,
        "maps": maps,
        "log": log,
        "tls.ca": tls_ca,
        "tls.cert": tls_cert,
        "tls.key": tls_key,
        "tls.insecure": insecure or None,
        "limits.sightings_per_s": max_rate,
    }

    def reread() -> MatcherConfig:
        return load(file=config, flags=flags, environment=os.environ)

    settings = reread()
    if ready_file is not None and not ready_file.absolute().parent.is_dir():
        raise SettingsError(f"--ready-file {ready_file}: its folder does not exist")
    if print_config:
        print(settings.model_dump_json(indent=2))
        return
    native = NativeLog()  # before gRPC's first use: it explains refused handshakes
    try:
        logs.configure(settings.log)
        code = run(
            settings,
            ready=lambda server: _ready(settings, server, ready_file),
            reread=reread,
            watch_stdin=exit_with_parent,
        )
    finally:
        native.close()
    raise typer.Exit(code)


def _ready(settings: MatcherConfig, server: MatcherServer, ready_file: Path | None) -> None:
    host = settings.listen[0].rpartition(":")[0]
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


cli_read.register(app)
cli_admin.register(app)


def _say(error: BaseException) -> None:
    print(f"edge-match: {logs.mask(str(error))}", file=sys.stderr, flush=True)


def _run(work: Callable[[], None]) -> int:
    """Errors become one message and an exit code."""
    from matcher.client import ClientError
    from matcher.errors import NotAllowed
    from matcher.export import ExportError
    from matcher.listener import AddressInUse

    try:
        work()
    except (SettingsError, TlsError, certificates.CertsError, ExportError) as error:
        _say(error)
        return ExitCode.USAGE
    except (AddressInUse, NotAllowed) as error:
        _say(error)
        return ExitCode.USAGE
    except ClientError as error:
        _say(error)
        return ExitCode.REFUSED
    except LedgerUnusable as error:
        _say(error)
        return ExitCode.LEDGER
    except MatcherError as error:
        _say(error)
        return ExitCode.FAULT
    except KeyboardInterrupt:
        return ExitCode.DONE
    except BrokenPipeError:
        # The reader of our output (head, less) has what it wants.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.FAULT
    except Exception:  # noqa: BLE001  # said, and the process ends
        structlog.get_logger("edge-match").exception("a fault of ours; please report it")
        return ExitCode.FAULT
    return ExitCode.DONE


def main() -> None:
    """Entry point of the console script."""
    arguments = sys.argv[1:]
    if not arguments or (
        arguments[0].startswith("-") and arguments[0] not in ("--help", "--version")
    ):
        arguments.insert(0, "serve")  # what most people want of a server
    logs.configure("text")
    sys.exit(_run(lambda: app(arguments)))


if __name__ == "__main__":
    main()
