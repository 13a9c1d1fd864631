"""What every entry script shares: one-line errors, truthful exit codes, honest --help.

Imports neither torch nor anything that does, so that a broken installation can be explained too.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import io
import itertools
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from types import FrameType
from typing import NoReturn, TextIO

from lib.runtime.environment import is_started_copy
from lib.runtime.shortages import shortage
from lib.runtime.text import fitted, one_line, printable

EXIT_OK, EXIT_PARTLY_FAILED, EXIT_USER_ERROR = 0, 1, 2

_BY_CTRL_C = "stopped by Ctrl-C"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# torch's own libraries are not CANN's: one of them is missed where torch_npu is for another torch.
_WITHOUT_CANN = re.compile(
    r"\blib(?!torch|c10)\S*\.so\S*: cannot open shared object|ASCEND_HOME_PATH"
)
_CONFIG_KEY = re.compile(r"--[A-Z][A-Z0-9]*(\.[A-Z0-9_]+)+")
_ELSEWHERE = {  # what other programs call an option, where no letters tell
    "lr": "learningrate baselr initiallr",
    "cards": "gpus npus ngpus numgpus nprocpernode",
    "deviceid": "gpu gpuid npu",
    "workers": "j numworkers loaders",
    "cfg": "config configfile yaml",
    "bs": "b batch",
    "out": "output outputdir savedir workdir saveto",
    "trainepochs": "epochs epoch numepochs maxepochs",
}
_ACCELERATORS_COLLIDE = "Two accelerators cannot be used"
SEE_DOCTOR = "python tools/doctor.py says what does not fit"
_WITHOUT_NPU = "set TORCH_DEVICE_BACKEND_AUTOLOAD=0 to do without the NPU"


class Stopped(Exception):
    """The work was stopped by a signal; `remark` says what was saved."""

    def __init__(self, signal_number: int, remark: str = ""):
        name = signal.Signals(signal_number).name
        super().__init__(f"stopped by {name}" + (f"; {remark}" if remark else ""))
        self.exit_code = 128 + signal_number


class PartlyFailed(Exception):
    """The work was done, but not all of it; the message says what is missing (exit code 1)."""


@contextmanager
def needing(command: str) -> Iterator[None]:
    """Raise ValueError that names a package which an import in the block lacks, and `command`."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: {command}") from None
    except ImportError as error:  # it is there and can't be loaded
        raise ValueError(f"{one_line(error)}: {command}") from None


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds each option's default to its help, but not where None stands for 'as the yaml says'."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class ArgumentParser(argparse.ArgumentParser):
    """argparse with defaults in --help and one `[Error]` line, exit code 2, for bad input.

    Options are written in full. An unknown one is told with the nearest there is; of one that is
    given twice the last counts, which is said.
    """

    def __init__(self, description: str | None):
        super().__init__(
            description=description, formatter_class=_HelpFormatter, allow_abbrev=False
        )

    def _parse_known_args(self, arg_strings, *others, **named):  # type: ignore[no-untyped-def]
        # The one place that all ways of parsing pass, with the words that are parsed.
        self._look_through(arg_strings)
        return super()._parse_known_args(arg_strings, *others, **named)

    def error(self, message: str) -> NoReturn:
        fail(f"{message} (--help lists every option)")

    def _look_through(self, words: Sequence[str]) -> None:
        """Leave with an error line for an unknown option; say which are given twice."""
        values: dict[str, str] = {}
        for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
            if word == "--":
                break
            name, equals, value = word.partition("=")
            action = self._option_string_actions.get(name)
            if action is None:
                # With a blank it is a text to argparse, such as the value of an option.
                if word.startswith("--") and " " not in word:
                    self.error(self._unknown(name, value))
                continue
            value = value if equals else following if action.nargs is None else ""
            if values.get(action.dest, value) != value and not is_started_copy():
                shown_before, shown_now = (printable(repr(v)) for v in (values[action.dest], value))
                print(
                    f"[Warning] {name} is given twice: {shown_now} counts, not {shown_before}",
                    file=sys.stderr,
                )
            values[action.dest] = value

    def _unknown(self, name: str, value: str) -> str:
        """Return what to say of an option that there is not."""
        said = f"unknown option {printable(name)}"
        if _CONFIG_KEY.fullmatch(name) and any(one.dest == "overrides" for one in self._actions):
            return f"{said}: config keys have no dashes, {name[2:]} {printable(value) or 'VALUE'}"
        nearest = nearest_option(name, list(self._option_string_actions))
        return f"{said}: did you mean {nearest}?" if nearest else said


def nearest_option(name: str, options: Sequence[str]) -> str:
    """Return which of the options was most likely meant, '' where none is near."""
    known = {_letters(option): option for option in options}
    letters = _letters(name)
    nearest = [here for here, others in _ELSEWHERE.items() if letters in others.split()]
    nearest += difflib.get_close_matches(letters, known, n=1)
    return next((known[one] for one in nearest if one in known), "")


def _letters(option: str) -> str:
    """Return an option without what spellings differ in: --Batch-Size as batchsize."""
    return re.sub(r"[-_]", "", option).lower()[:80]


def whole_number(text: str) -> int:
    """Return a number of the command line; int() alone would take 1_0 and digits of any script."""
    if not re.fullmatch(r"[-+]?[0-9]{1,100}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def fail(message: str, exit_code: int = EXIT_USER_ERROR) -> NoReturn:
    """Print one `[Error]` line on stderr and leave with `exit_code`."""
    with suppress(OSError):  # nobody hears it, and the exit code still tells
        line = f"[Error] {printable(' '.join(message.split()))}"
        print(fitted(line, sys.stderr), file=sys.stderr, flush=True)
    raise SystemExit(exit_code)


def say(*lines: str, file: TextIO | None = None) -> None:
    """Print lines, each of which stays one whatever the names in it hold; see `printable`.

    A terminal that is narrower gets them broken between words: see `fitted`.
    """
    for line in lines:
        shown = fitted(printable(line, keep="\t"), file or sys.stdout)
        print(shown, file=file, flush=True)


def lacks_cann(reason: str) -> bool:
    """Tell whether torch_npu cannot be loaded because CANN was not set up."""
    return _WITHOUT_CANN.search(reason) is not None


def accelerators_collide(reason: str) -> bool:
    """Tell whether torch_npu cannot be loaded because a CUDA device is visible too."""
    return _ACCELERATORS_COLLIDE in reason


def torch_npu_refusal(cause: BaseException) -> str:
    """Return one line: why torch_npu cannot be imported, and what mends that."""
    words = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
    reason = f"{type(cause).__name__}: {words}" if words else type(cause).__name__
    if isinstance(cause, ModuleNotFoundError) and cause.name == "torch_npu":
        advice = "install requirements_npu.txt, or take --device cuda or cpu"
    elif lacks_cann(reason):
        advice = (
            "run `source /usr/local/Ascend/cann/set_env.sh` (before CANN 8.5: "
            f"ascend-toolkit/set_env.sh) first, or {_WITHOUT_NPU}"
        )
    elif accelerators_collide(reason):
        advice = f"hide the CUDA devices (CUDA_VISIBLE_DEVICES=), or {_WITHOUT_NPU}"
    else:
        advice = _WITHOUT_NPU
    return f"torch_npu cannot be imported ({reason}); {advice}; {SEE_DOCTOR}"


class _Shown:
    """A stream of texts as they may be shown, whatever the names in them hold; see `printable`.

    Names should be made readable before: this keeps line ends, which lines need.
    """

    def __init__(self, stream: TextIO | None, name: str, *, keep: str):
        self._name, self._keep = name, keep
        self.failure: OSError | None = None  # what was printed isn't whole
        if stream is None:  # closed from the start
            stream = open(os.devnull, "w")  # noqa: SIM115  lives with the process
            self.failure = OSError(errno.EBADF, "it is closed", name)
        if isinstance(stream, io.TextIOWrapper):  # a file name may have bytes that are no text
            stream.reconfigure(errors="backslashreplace")
        self._stream = stream

    def write(self, text: str) -> int:
        with self._noting():
            return self._stream.write(printable(text, keep=self._keep))

    def flush(self) -> None:
        with self._noting():
            self._stream.flush()

    def finish(self) -> None:
        """Raise OSError where not all was printed."""
        self.flush()
        if self.failure is not None:
            raise self.failure

    def release(self) -> None:
        """Let the interpreter's own last flush not fail: it would change the exit code."""
        try:
            self._stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = OSError(error.errno, error.strerror, self._name)
            raise self.failure from None

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def end_imports_on_ctrl_c() -> None:
    """Let Ctrl-C end the imports of an entry script in one line; `run_script` takes over from here.

    No exception: libraries that are half imported make others of it, or crash.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_imports)


def _end_imports(number: int, frame: FrameType | None) -> NoReturn:
    with suppress(OSError):
        os.write(2, f"{_BY_CTRL_C}\n".encode())
    os._exit(128 + number)


@contextmanager
def _ctrl_c_noted() -> Iterator[list[int]]:
    """Yield a list that Ctrl-C lengthens: whatever leaves the block then is its consequence."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> NoReturn:
        noted.append(number)
        raise KeyboardInterrupt

    usual = (signal.default_int_handler, _end_imports)
    if signal.getsignal(signal.SIGINT) not in usual:  # ignored, as in a shell's background jobs
        yield noted
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run_script(main: Callable[[], int]) -> NoReturn:
    """Run an entry script's `main` and leave with its exit code.

    ValueError and OSError are the user's to mend: one line, exit code 2, or 1 for a disk that got
    full on the way and for an output that could not all be printed. What the machine lacks is one
    line too, exit code 1. A stop that was asked for is no error. Any other exception is a bug of
    ours and keeps its traceback.
    """
    out = _Shown(sys.stdout, "standard output", keep="\n\t")
    err = _Shown(sys.stderr, "standard error", keep="\n\t\r")  # a progress bar begins its line anew
    with redirect_stdout(out), redirect_stderr(err), _ctrl_c_noted() as interrupts:  # type: ignore[type-var]
        try:
            exit_code = _exit_code_of(main)
            out.finish()
        except SystemExit:
            raise
        except BaseException as error:
            if interrupts:
                _leave(_BY_CTRL_C, 128 + signal.SIGINT)
            if isinstance(error, BrokenPipeError) and error in (out.failure, err.failure):
                sys.exit(128 + signal.SIGPIPE)  # whoever read our output, `head` say, has gone
            _leave_after(error, is_of_output=error is out.failure)
            raise
        finally:
            out.release()
    sys.exit(exit_code)


def _exit_code_of(main: Callable[[], int]) -> int:
    """Call a script's `main`; `--help` leaves it by an exit that went well."""
    try:
        return main()
    except SystemExit as leaving:
        if leaving.code:
            raise
        return EXIT_OK


def _leave_after(error: BaseException, *, is_of_output: bool) -> None:
    """Leave with one line for what is no bug of ours."""
    if isinstance(error, Stopped):
        _leave(str(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        _leave(_BY_CTRL_C, 128 + signal.SIGINT)
    if isinstance(error, ValueError):
        fail(str(error))
    if isinstance(error, PartlyFailed):
        fail(str(error), EXIT_PARTLY_FAILED)
    is_of_npu = "torch_npu" in str(error) and "backend extension" in str(error)
    if isinstance(error, ImportError | RuntimeError) and is_of_npu:
        fail(torch_npu_refusal(error.__cause__ or error))
    lacking = shortage(error)
    if lacking is not None:
        fail(lacking, EXIT_PARTLY_FAILED)
    if isinstance(error, OSError):  # a path that is not there, not ours, of another kind, too long
        named = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        is_on_the_way = error.errno in _DISK_FULL or is_of_output
        if error.errno in _DISK_FULL and not error.filename:  # a semaphore, or an open file
            named += ": a disk is full, or /dev/shm (docker run --shm-size=8g)"
        fail(named, EXIT_PARTLY_FAILED if is_on_the_way else EXIT_USER_ERROR)


def _leave(line: str, exit_code: int) -> NoReturn:
    """Print a line on stderr that is no error, and leave with `exit_code`."""
    with suppress(OSError):
        print(printable(" ".join(line.split())), file=sys.stderr, flush=True)
    raise SystemExit(exit_code)
