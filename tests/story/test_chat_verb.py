"""`hanlin chat` through a pipe: what is written to it, and what comes back."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
import serving
from serving import CONTEXT, TEMPLATE

from hanlin import bundle, cli
from hanlin.generate import decode
from hanlin.generate.sampling import Sampling

START, END = 259, 260
LIMIT = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return serving.chat(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture
def talk(folder, monkeypatch, capsys, tmp_path):
    """Return a function that types lines and returns what came back on both streams."""
    monkeypatch.chdir(tmp_path)

    def typed(*lines, words=("--temperature", "0", "--limit", str(LIMIT)), model=folder, code=0):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        assert cli.run(["chat", str(model), *words]) == code
        return capsys.readouterr()

    return typed


class Told:
    """The same conversation without the verb."""

    def __init__(self, folder, system=""):
        self.opened = bundle.read(folder)
        self.said = [("system", system)] if system else []

    def answer(self, line, limit=LIMIT):
        self.said.append(("user", line))
        ids = []
        for role, content in self.said:
            ids += [START, *(3 + byte for byte in f"{role}\n{content}".encode()), END, 3 + ord("\n")]
        ids += [START, *(3 + byte for byte in b"assistant\n")]
        sampling = Sampling(temperature=0, limit=limit)
        opened = self.opened
        found = decode.answers(
            opened.model, [ids], sampling, stop_ids=opened.stop_ids, tokenizer=opened.tokenizer
        )[0]  # fmt: skip
        self.said.append(("assistant", found.text))
        return found.text


def test_answers_follow_the_conversation(talk, folder):
    """Guards against history that is forgotten, doubled, or rendered by other rules than the template's."""
    told = Told(folder)
    expected = [told.answer(line) + "\n" for line in ("Hello", "你好")]
    said = talk("Hello", "", "   ", "你好")
    assert said.out == "".join(expected)
    assert "/reset" in said.err


def test_reset_system_and_exit(talk, folder):
    """Guards against a reset that keeps the past, instructions that are not the first message, an exit that goes on."""
    fresh, told = Told(folder), Told(folder, system="Be brief")
    expected = fresh.answer("Hello") + "\n" + told.answer("Hello") + "\n"
    said = talk("Hello", "/reset", "/system Be brief", "Hello", "/exit", "Hello")
    assert said.out == expected
    assert "forgotten" in said.err
    assert "instructions: Be brief" in said.err


def test_instructions_from_the_command_line(talk, folder):
    """Guards against --system that is not said, and /system without words that does not take it back."""
    told, bare = Told(folder, system="Be brief"), Told(folder)
    expected = told.answer("Hello") + "\n" + bare.answer("Hello") + "\n"
    words = ("--temperature", "0", "--limit", str(LIMIT), "--system", "Be brief")
    said = talk("Hello", "/reset", "/system", "Hello", words=words)
    assert said.out == expected
    assert "instructions: none" in said.err


def test_saved_conversations_can_be_learned_from(talk, folder, tmp_path):
    """Guards against a file that training on chats cannot read, or that lacks a side."""
    told = Told(folder, system="Be brief")
    told.answer("你好")
    said = talk("/system Be brief", "你好", "/save talk.jsonl", "/save", "/save talk.jsonl/x.jsonl")
    assert "wrote talk.jsonl: 3 messages" in said.err
    assert "error: " in said.err
    row = json.loads((tmp_path / "talk.jsonl").read_text(encoding="utf-8"))
    assert row == {"messages": [{"role": role, "content": content} for role, content in told.said]}


def test_unknown_commands_are_not_said_to_the_model(talk):
    """Guards against a typo that becomes a message."""
    said = talk("/rset", "/", "/save")
    assert said.out == ""
    assert said.err.count("/reset forgets the conversation") == 4


def test_a_seed_repeats_a_conversation(talk):
    """Guards against answers that nobody can get twice, and turns that all draw the same."""
    words = ("--limit", "12", "--temperature", "1", "--seed", "3")
    one, two = talk("a", "a", words=words).out, talk("a", "a", words=words).out
    assert one == two
    assert one != talk("a", "a", words=("--limit", "12", "--temperature", "1", "--seed", "4")).out


def test_a_full_context_leaves_the_oldest_out(talk, folder):
    """Guards against a conversation that ends with an error because it went on for long."""
    said = talk(*["x" * 20] * 4, "hello")
    told = Told(folder)
    assert said.out.count("\n") >= 5
    assert "the oldest exchange is left out" in said.err
    assert "error" not in said.err
    assert said.out.startswith(told.answer("x" * 20) + "\n")


def test_a_line_that_is_too_long_is_said_so(talk, folder):
    """Guards against a crash, and a conversation that cannot go on after it."""
    said = talk("x" * CONTEXT, "Hello")
    assert said.out == Told(folder).answer("Hello") + "\n"
    assert "error: conversation: " in said.err
    assert "say less, or /reset" in said.err


def test_a_model_without_a_template(talk, tmp_path):
    """Guards against a made-up template for a model that has never seen one."""
    serving.models(tmp_path, "bytes")
    said = talk("Hello", model=tmp_path / "bytes", code=1)
    assert said.out == ""
    assert "no chat template" in said.err
    (tmp_path / "mine.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    words = ("--temperature", "0", "--limit", "3", "--template", "mine.jinja")
    assert talk("Hello", model=tmp_path / "bytes", words=words).out.endswith("\n")
    assert "cannot be read" in talk("a", model=tmp_path / "bytes", words=("--template", "none.jinja"), code=1).err


def test_a_template_that_breaks_ends_no_conversation(talk, tmp_path):
    """Guards against a traceback in the middle of a talk."""
    (tmp_path / "bad.jinja").write_text(
        "{% if messages|length > 1 %}{{ raise_exception('no more') }}{% endif %}" + TEMPLATE
    )
    words = ("--temperature", "0", "--limit", "3", "--template", "bad.jinja")
    said = talk("Hello", "Hello", "/reset", "Hello", words=words)
    assert "no more" in said.err
    assert len(said.out.split("\n")) >= 3


@pytest.mark.multiprocess
def test_answers_stream_through_a_pipe(folder):
    """Guards against answers held back in a buffer until the program ends."""
    words = ["chat", str(folder), "--temperature", "0", "--limit", str(LIMIT)]
    with subprocess.Popen(
        [sys.executable, "-m", "hanlin", *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        expected = (Told(folder).answer("Hello") + "\n").encode()
        process.stdin.write(b"Hello\n")
        process.stdin.flush()
        assert process.stdout.read(len(expected)) == expected
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(20) == 0
