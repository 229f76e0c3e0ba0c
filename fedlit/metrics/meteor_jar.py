"""METEOR 1.5 by its own Java program, after Stanford's tokenizer: both are in the package pycocoevalcap.

Denkowski and Lavie, "Meteor Universal: Language Specific Translation Evaluation for Any Target Language", 2014. It is
run as the MS COCO caption evaluation and, with it, the script of the E2E NLG Challenge run it (`-l en -norm`), but for
what a score must not do here: wait for ever, leave a process behind, or read UTF-8 by the machine's locale. Without
torch, so that a missing program is told before anything is read.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from threading import Timer
from typing import IO

from fedlit.errors import UserError

TIMEOUT_S = 600.0
"""Of one evaluation; loading the table of paraphrases alone takes seconds."""
_START_TIMEOUT_S = 60.0
_PACKAGE = "pycocoevalcap"
_METEOR, _PARAPHRASES = "meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz"
_TOKENIZER = "tokenizer/stanford-corenlp-3.4.1.jar"
_JAVA = ("java", "-Xmx2G", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8")
# As the COCO evaluation drops them.
_PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
_SEPARATOR = "|||"

Pair = tuple[str, Sequence[str]]


def require_meteor() -> None:
    """Check that METEOR 1.5 can be computed.

    Raises:
        UserError: Java or the package is not there, or does not start, and what to do about it.
    """
    other = "or give data.scores without meteor_15"
    try:
        missing = [name for name in (_METEOR, _PARAPHRASES, _TOKENIZER) if not _file(name).is_file()]
    except PackageNotFoundError:
        missing = [_PACKAGE]
    if missing:
        raise UserError(
            f"data.scores has meteor_15, but {missing[0]} is not installed; pip install 'fedlit[meteor]', {other}"
        )
    if shutil.which("java") is None:
        raise UserError(f"data.scores has meteor_15, but there is no java; install a Java runtime, {other}")
    try:
        done = subprocess.run(["java", "-version"], capture_output=True, timeout=_START_TIMEOUT_S, check=False)
        problem = f"ends with code {done.returncode}" if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = f"does not run ({type(error).__name__})"
    if problem is not None:
        raise UserError(f"data.scores has meteor_15, but `java -version` {problem}; mend the Java runtime, {other}")


def corpus_score(pairs: Sequence[Pair]) -> float:
    """Return METEOR 1.5 of a corpus, in [0, 1], from texts and their references, at least one each.

    Raises:
        UserError: a Java program fails, or has not ended after `TIMEOUT_S`.
    """
    texts = [_one_line(text) for prediction, references in pairs for text in (prediction, *references)]
    tokens = iter(_tokenized(texts))
    lines = []
    for _, references in pairs:
        prediction = next(tokens)
        lines.append(f" {_SEPARATOR} ".join(["SCORE", *(next(tokens) for _ in references), prediction]))
    return _aligned(lines)


def _file(name: str) -> Path:
    """Return where a file of the package is; nothing of it is imported, and with it not pycocotools."""
    return Path(str(distribution(_PACKAGE).locate_file(f"{_PACKAGE}/{name}")))


def _one_line(text: str) -> str:
    """Return the text without what either program takes for the end of a text."""
    return " ".join(text.replace(_SEPARATOR, " ").replace("\0", " ").split())


def _tokenized(texts: Sequence[str]) -> list[str]:
    """Return lowered Penn Treebank tokens without punctuation, joined by spaces."""
    command = [*_JAVA, "-cp", str(_file(_TOKENIZER)), "edu.stanford.nlp.process.PTBTokenizer"]
    try:
        done = subprocess.run(
            [*command, "-preserveLines", "-lowerCase", "-encoding", "UTF-8"],
            input="".join(f"{text}\n" for text in texts),
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            start_new_session=True,  # a signal for the run is not one for the tokenizer
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failure("Stanford's tokenizer", type(error).__name__) from error
    lines = done.stdout.split("\n")[:-1]
    if done.returncode or len(lines) != len(texts):
        raise _failure("Stanford's tokenizer", done.stderr)
    return [" ".join(token for token in line.split() if token not in _PUNCTUATION) for line in lines]


def _aligned(lines: Sequence[str]) -> float:
    """Return the score of the corpus from lines of METEOR's protocol: each is answered by counts, EVAL by scores."""
    command = [*_JAVA, "-jar", str(_file(_METEOR)), "-", "-", "-stdio", "-l", "en", "-norm"]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as told:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=told,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise _failure("METEOR", type(error).__name__) from error
        assert process.stdin is not None
        assert process.stdout is not None
        watch = Timer(TIMEOUT_S, process.kill)
        watch.daemon = True
        watch.start()
        try:
            counts = [_answer(process.stdin, process.stdout, line) for line in lines]
            _answer(process.stdin, process.stdout, f" {_SEPARATOR} ".join(["EVAL", *counts]))
            for _ in counts[1:]:  # the score of each text
                process.stdout.readline()
            return float(process.stdout.readline())
        except (OSError, ValueError) as error:
            process.kill()
            process.wait()
            told.seek(0)
            raise _failure("METEOR", told.read() or str(error) or "no answer in time") from error
        finally:
            watch.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
            with suppress(OSError):  # what could not be written to a program that is gone
                process.stdin.close()


def _answer(requests: IO[str], answers: IO[str], line: str) -> str:
    """Return what the program answers to a line; ValueError for what are no numbers."""
    requests.write(f"{line}\n")
    requests.flush()
    answer = answers.readline().strip()
    for number in answer.split() or [""]:
        float(number)
    return answer


def _failure(program: str, why: str) -> UserError:
    fact = " ".join(why.split())[-160:] or "no answer"
    return UserError(
        f"meteor_15: {program} gave no score ({fact}); mend the Java runtime, or give data.scores without meteor_15"
    )
