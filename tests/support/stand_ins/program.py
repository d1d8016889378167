"""Programs that the pages name and the test has not got, or must not let loose. Started as `program.py NAME ARGUMENT ...`.

Each refuses to be used by a block whose mark does not name what it stands in for, and checks what can be checked: files,
build arguments, the order of steps. Everything else is started as it is. Standard library only: it runs for every command.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

REPOSITORY = Path(os.environ["DOCS_REPOSITORY"])
TOOLS = Path(os.environ["DOCS_TOOLS"])
NEEDS = os.environ["DOCS_NEEDS"].split(",")
NOTES = Path(os.environ["DOCS_NOTES"])
SCRIPTS = Path(sys.executable).parent
WAIT = "60s"


def main(name: str, arguments: list[str]) -> None:
    program = PROGRAMS.get(name)
    if program is None:
        sys.exit(f"{name}: tests/support/stand_ins/program.py has nothing under this name")
    program(arguments)


def need(name: str) -> None:
    """Go on if the block's mark names this need; it is put down that it was used."""
    put_down("need", name)
    if name not in NEEDS:
        sys.exit(f"this command needs {name}: add `needs {name}` to the mark before its block")


def put_down(kind: str, text: str) -> None:
    with NOTES.open("a") as notes:
        notes.write(json.dumps([kind, text]) + "\n")


def noted(kind: str) -> list[str]:
    lines = NOTES.read_text().splitlines() if NOTES.exists() else []
    return [text for found, text in map(json.loads, lines) if found == kind]


def start(program: Path | str, *arguments: str) -> None:
    """Become this program."""
    sys.stdout.flush()
    os.execv(program, [str(program), *arguments])  # noqa: S606 - what the page says


def dynalign(arguments: list[str]) -> None:
    if arguments[:1] == ["ui"]:
        serve([*map(str, [SCRIPTS / "dynalign"]), *arguments, "--no-browser"])
    if "--rescore" in arguments:  # starts an engine
        need("time")
        at = arguments.index("--rescore")
        arguments = [*arguments[:at], *arguments[at + 2 :]]
    ask_warm_cli(["dynalign", *arguments])


def ask_warm_cli(arguments: list[str]) -> None:
    """Have the server of `support.warm_cli` run the command line, and end with its exit code.

    No kubelet answers for logs of a cluster's pods: the run is described instead.
    """
    if arguments[1:2] == ["logs"] and "KUBECONFIG" in os.environ:
        need("pods")
        named = [word for flag, word in pairwise(arguments[2:]) if flag == "-n"]
        arguments = [arguments[0], "describe", arguments[2], *(part for word in named for part in ("-n", word))]
    import socket

    request = json.dumps([arguments, str(Path.cwd()), dict(os.environ)]).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ["DOCS_CLI"])
        socket.send_fds(connection, [request], [0, 1, 2])
        answer = connection.makefile().readline()
    sys.exit(int(answer) if answer else 70)


def serve(command: list[str]) -> None:
    """Start the live page, read it once, and end it as Ctrl-C does."""
    from urllib.request import urlopen

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            sys.stdout.write(line)
            if (found := re.search(r"http://\S+", line)) is not None:
                with urlopen(found[0], timeout=60) as answer:
                    assert "<html" in answer.read().decode()
                process.send_signal(signal.SIGINT)
    sys.exit(process.returncode if process.returncode not in (0, 130, -signal.SIGINT) else 0)


def launcher(arguments: list[str]) -> None:
    need("installation")
    if arguments[0] == "run":
        arguments = arguments[1:]
    if arguments[0] == "dynalign":
        dynalign(arguments[1:])
    installer(arguments)


def installer(arguments: list[str]) -> None:
    """Options are checked by tests/unit/docs/test_commands.py."""
    need("registry" if arguments[0] == "publish" else "installation")
    if "-r" in arguments:
        assert Path(arguments[arguments.index("-r") + 1]).stat().st_size


def python(arguments: list[str]) -> None:
    if arguments[:2] == ["-m", "venv"]:
        need("installation")
        start(sys.executable, "-m", "venv", "--without-pip", *arguments[2:])
    need("time")
    source = REPOSITORY.joinpath(*arguments[1].split(".")).with_suffix(".py").read_text()
    for option in (argument for argument in arguments[2:] if argument.startswith("--")):
        assert f'"{option}"' in source, f"{shlex.join(arguments)}: there is no {option}"


def make(arguments: list[str]) -> None:
    need("time")
    subprocess.run(["/usr/bin/make", "-C", str(REPOSITORY), "-n", *arguments], stdout=subprocess.DEVNULL, check=True)


def docker(arguments: list[str]) -> None:
    need("Docker")
    if arguments[0] == "push":
        need("registry")
        assert arguments[1] in noted("image"), f"{arguments[1]} was not built before"
        return
    assert arguments[0] == "build"
    options = [
        (word, arguments[index + 1]) for index, word in enumerate(arguments) if word in ("-f", "-t", "--build-arg")
    ]
    (file,) = (Path(value) for option, value in options if option == "-f")
    context = arguments[-1]
    assert context == "-" or Path(context, file).is_file()
    declared = re.findall(r"^ARG (\w+)", (REPOSITORY / file).read_text(), re.MULTILINE)
    for option, value in options:
        if option == "--build-arg":
            assert value.partition("=")[0] in declared, f"{file} has no ARG {value}"
        elif option == "-t":
            put_down("image", value)


def kind(arguments: list[str]) -> None:
    need("Docker")
    if arguments[:2] == ["load", "docker-image"]:
        assert set(arguments[2:]) <= set(noted("image")), "an image was not built before"
    else:
        assert arguments == ["create", "cluster"]


def helm(arguments: list[str]) -> None:
    if arguments[0] == "test":
        need("pods")
        test = ["template", arguments[1], "charts/dynalign", "--show-only", "templates/tests/ready.yaml"]
        start(TOOLS / "helm", *test)
    if "--wait" in arguments:
        need("pods")
        arguments.remove("--wait")
    start(TOOLS / "helm", *arguments, "--dry-run=server")


def kubectl(arguments: list[str]) -> None:
    real = [str(TOOLS / "kubectl"), *arguments]
    if arguments[0] == "dynalign":
        ask_warm_cli(["kubectl-dynalign", *arguments[1:]])
    if arguments[0] in ("logs", "exec"):
        need("pods")
        asked = [word for word in arguments[1:] if "/" in word or word == "look"]
        what = asked[:1] if arguments[0] == "logs" else ["pod", *asked[:1]]
        start(real[0], "get", "-n", arguments[arguments.index("-n") + 1], *what)
    if "--watch" in arguments:
        with subprocess.Popen(real, stdout=subprocess.PIPE, text=True) as process:
            line = process.stdout.readline() if process.stdout else ""
            sys.stdout.write(line or sys.exit("nothing was printed"))
            process.terminate()
        return
    if arguments[0] == "wait" and "--for=condition=Stalled" in arguments:  # of a run that does well
        arguments = [*arguments[:2], "--for=condition=Stalled=False"]
    start(real[0], *(re.sub(r"^--timeout=.*", f"--timeout={WAIT}", word) for word in arguments))


def up(_: list[str]) -> None:
    need("pods")
    sys.stdout.write(f"export KUBECONFIG={os.environ['KUBECONFIG']}\n")


def down(_: list[str]) -> None:
    need("pods")


def images(arguments: list[str]) -> None:
    need("pods")
    script = (REPOSITORY / "tests/cluster/images.sh").read_text()
    assert re.search(rf"^\s*{arguments[0]}\)", script, re.MULTILINE), f"images.sh has no {arguments[0]}"
    if arguments[0] == "build" and arguments[1] != "NAME":
        assert Path(arguments[2]).is_file()
        assert Path(arguments[3]).is_dir()


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "dynalign": dynalign,
    "uvx": launcher,
    "pipx": launcher,
    "pip": installer,
    "uv": installer,
    "python": python,
    "python3": python,
    "make": make,
    "docker": docker,
    "kind": kind,
    "helm": helm,
    "kubectl": kubectl,
    "up.sh": up,
    "down.sh": down,
    "images.sh": images,
}

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
