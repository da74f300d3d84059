"""Personal data and evaluation rows in `prepare`: found in any process, replaced, told, and undone by one file."""

import json
import re
import stat
from pathlib import Path

import pytest
from corpora import chinese, content, english, prepare, texts, write

from hanlin.data import anonymize
from hanlin.data.anonymize import Mask, Vault, covered, find
from hanlin.data.pii.vault import START
from hanlin.data.pipeline import covering, parts, reading
from hanlin.data.tally import Document, Tally
from hanlin.errors import ConfigError, DataError

ANN, PHONE, ID = "ann.lee@corp-mail.org", "13812345678", "11010519491231002X"
SALT = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a corpus in several parts, with personal data in both languages, the same in many places."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts.cut, "__defaults__", (3000,))
    told = [english(n) + (f" Write to {ANN} now." if n % 3 == 0 else "") for n in range(40)]
    said = [chinese(n) + (f"电话{PHONE}，身份证号{ID}。" if n % 4 == 0 else "") for n in range(40)]
    write(tmp_path / "in" / "en.jsonl", told)
    write(tmp_path / "in" / "zh.jsonl", [*said, "太短"])
    Path("salt").write_bytes(SALT)
    return tmp_path


def everything(folder="out"):
    """Return all texts of all splits."""
    return "\n".join(texts(folder) + texts(folder, "valid"))


class TestAnonymize:
    """`--anonymize`."""

    @pytest.mark.parametrize("how", ["mask", "hash", "pseudonyms"])
    def test_nothing_personal_is_left_in_any_file(self, folder, how):
        """Guards against an address in the shards, in the tokenizer, or among the report's examples."""
        extra = {"mask": {}, "hash": {"salt": "salt"}, "pseudonyms": {"vault": "vault.json"}}[how]
        manifest = prepare(anonymize=how, clean=("length",), **extra)
        found = everything()
        for value in (ANN, PHONE, ID):
            assert value not in found
            assert not any(value.encode() in data for data in content("out").values())
        assert manifest.report["personal"]["how"] == how
        assert manifest.report["personal"]["found"]["email"] == 14
        assert manifest.report["personal"]["found"]["phone"] == 10
        assert manifest.report["changed"]["personal data"]["documents"] == 24
        assert ("[EMAIL]" in found) == (how == "mask")
        assert len(set(re.findall(r"\[EMAIL:\w+\]", found))) == (how == "hash")

    def test_examples_of_what_was_dropped_are_masked(self, folder):
        """Guards against a report that prints what the shards do not hold."""
        write(Path("in/short.jsonl"), [f"Mail {ANN}"])
        prepare(anonymize="mask", clean=("length",))
        report = json.loads(Path("out/report.json").read_text())
        assert any("[EMAIL]" in text for texts in report["excerpts"].values() for text in texts)
        assert ANN not in Path("out/report.html").read_text()

    def test_one_value_one_pseudonym_and_the_vault_gives_all_back(self, folder):
        """Guards against parts that disagree, and a vault that cannot undo what it did."""
        prepare("plain")
        prepare(anonymize="pseudonyms", vault="vault.json", salt="salt")
        vault = Vault.read(Path("vault.json"))
        assert sorted(vault.restore(text) for text in texts("out") + texts("out", "valid")) == sorted(
            texts("plain") + texts("plain", "valid")
        )
        assert everything().count(vault.pseudonym("email", ANN)) == 14
        assert stat.S_IMODE(Path("vault.json").stat().st_mode) == 0o600
        assert not list(Path("out").glob("*vault*"))

    def test_a_known_vault_is_gone_on_with(self, folder):
        """Guards against a second corpus in which the same person has another name."""
        prepare("one", anonymize="pseudonyms", vault="vault.json")
        before = Vault.read(Path("vault.json"))
        write(Path("in/more.jsonl"), [f"{english(99)} {ANN} and bob@new-firm.net"])
        prepare("two", anonymize="pseudonyms", vault="vault.json")
        after = Vault.read(Path("vault.json"))
        assert after.salt == before.salt
        assert len(after) == len(before) + 1
        assert everything("two").count(before.pseudonym("email", ANN)) == 15

    def test_what_looks_like_a_pseudonym_already(self, folder):
        """Guards against a text that comes back changed because it held another's pseudonym by chance."""
        prepare("one", anonymize="pseudonyms", vault="vault.json", salt="salt")
        fake = Vault.read(Path("vault.json")).pseudonym("phone", PHONE)
        spoken = f"{english(77)} {fake[:3]}-{fake[3:7]}-{fake[7:]} {fake}"
        write(Path("in/more.jsonl"), [spoken])
        prepare("two", anonymize="pseudonyms", vault="vault.json")
        vault = Vault.read(Path("vault.json"))
        restored = [vault.restore(text) for text in texts("two") + texts("two", "valid")]
        assert spoken in restored

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({"anonymize": "hash"}, "hash without a salt"),
            ({"anonymize": "hash", "salt": "nowhere"}, "nowhere: not readable"),
            ({"anonymize": "hash", "salt": "short"}, "salt: 3 bytes"),
            ({"anonymize": "pseudonyms"}, "pseudonyms without a vault"),
            ({"anonymize": "pseudonyms", "vault": "out/vault.json"}, "lies in the folder of the text"),
            ({"anonymize": "pseudonyms", "vault": "short"}, "short: not a vault"),
            ({"anonymize": "mask", "vault": "v"}, "a vault that nothing uses"),
            ({"anonymize": "mask", "salt": "salt"}, "a salt that nothing uses"),
            ({"against_remove": True}, "nothing to compare with"),
            ({"against": ("nowhere.jsonl",)}, "nowhere.jsonl: not readable"),
            ({"against": ("short",)}, "short"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, folder, changes, line):
        """Guards against hours of work before the refusal, and pseudonyms that nobody can undo."""
        Path("short").write_bytes(b"abc")
        with pytest.raises((ConfigError, DataError)) as caught:
            prepare(**changes)
        assert [each for each in caught.value.problems if line in each], caught.value.problems
        assert not Path("out").exists()


class TestAgainst:
    """`--against`."""

    @pytest.fixture
    def exam(self, folder):
        """Plant rows of two evaluation files in a few documents."""
        rows = [english(1000 + n, 30) for n in range(5)] + [chinese(1000 + n, 60) for n in range(5)]
        write(Path("exam.jsonl"), rows[:5])
        write(Path("klausur.jsonl"), rows[5:])
        planted = [f"{english(200 + n, 80)}\n{row}\n{english(300 + n, 80)}" for n, row in enumerate(rows)]
        write(Path("in/planted.jsonl"), [*planted, rows[0]])
        return rows

    def test_all_are_found_and_listed(self, exam):
        """Guards against a row that is missed, and a document that is called guilty."""
        manifest = prepare(against=("exam.jsonl", "klausur.jsonl"))
        found = manifest.report["against"]
        assert (found["documents"], found["rows"], found["removed"]) == (11, 10, False)
        assert set(found["files"]) == {"exam.jsonl", "klausur.jsonl"}
        listed = [json.loads(line) for line in Path("out/contaminated.jsonl").read_text().splitlines()]
        assert [each["document"] for each in listed] == [f"planted.jsonl:{n}" for n in range(1, 12)]
        assert listed[0]["rows"][0] == ["exam.jsonl:1", 1.0]
        assert exam[0] in everything()

    def test_removed_on_request(self, exam):
        """Guards against rows that stay, and documents that go with them."""
        manifest = prepare(against=("exam.jsonl", "klausur.jsonl"), against_remove=True)
        found = everything()
        assert not [row for row in exam if row in found]
        assert english(203, 80) in found
        assert manifest.report["dropped"]["in an evaluation file"]["count"] == 1
        assert manifest.report["changed"]["in an evaluation file"]["documents"] == 10
        assert manifest.report["read"] == manifest.report["kept"] + sum(
            each["count"] for each in manifest.report["dropped"].values()
        )

    def test_another_evaluation_file_begins_anew(self, exam, monkeypatch):
        """Guards against parts that were compared with what the file held before."""
        prepare("fresh", against=("klausur.jsonl",))
        with monkeypatch.context() as patch:
            patch.setattr(reading, "counted", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                prepare(against=("exam.jsonl",))
        prepare(against=("klausur.jsonl",))
        assert content("out") == content("fresh")


class TestSameForAll:
    """Who works, and how often it is stopped, makes no difference."""

    ALL = {"anonymize": "pseudonyms", "vault": "vault.json", "salt": "salt", "against": ("in/en.jsonl",), "near": 0.8}

    @pytest.mark.parametrize("stop", [1, 5, 9])
    def test_stopped_anywhere_and_gone_on(self, folder, monkeypatch, stop):
        """Guards against a vault of half the values, and parts covered with another one."""
        prepare("one", **self.ALL)
        kept = Path("vault.json").read_bytes()
        Path("vault.json").unlink()
        done = []
        for module, name in ((reading, "read"), (covering, "cover")):
            task = getattr(module, name)

            def counted(given, task=task, name=name):
                if len(done) == stop:
                    raise KeyboardInterrupt
                task(given)
                done.append(name)

            monkeypatch.setattr(module, name, counted)
        with pytest.raises(KeyboardInterrupt):
            prepare("two", **self.ALL)
        stop = None
        prepare("two", **self.ALL)
        assert content("one") == content("two")
        assert Path("vault.json").read_bytes() == kept

    @pytest.mark.multiprocess
    @pytest.mark.slow
    def test_processes(self, folder, monkeypatch):
        """Guards against results in the order in which processes end."""
        monkeypatch.setattr(parts, "SIZE", 2000)
        prepare("one", **self.ALL)
        kept = Path("vault.json").read_bytes()
        Path("vault.json").unlink()
        prepare("two", **self.ALL, workers=2)
        assert content("one") == content("two")
        assert Path("vault.json").read_bytes() == kept

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")  # Ray warns of itself
    def test_ray(self, folder):
        """Guards against a cluster that hides other things than one machine."""
        ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'hanlin[cluster]'")
        prepare("one", **self.ALL)
        Path("vault.json").unlink()
        try:
            prepare("two", **self.ALL, engine="ray", workers=2)
        finally:
            ray.shutdown()
        assert content("one") == content("two")


def test_the_work_folder_is_private(folder, monkeypatch):
    """Guards against others who read what is not hidden yet."""
    monkeypatch.setattr(reading, "counted", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(anonymize="mask")
    assert stat.S_IMODE(Path(".out.work").stat().st_mode) == 0o700


def test_a_vault_checks_that_it_can_undo_and_takes_marks_where_it_cannot():
    """Guards against neighbours that blur a pseudonym: the check, not luck, keeps the way back."""
    vault = Vault(SALT)
    vault.add("name", "X", "abc")
    vault.add("name", "Y", "abcd")
    text = "Xd"  # X's pseudonym and the d behind it spell Y's
    found = anonymize.replace(text, [anonymize.Span(0, 1, "name", "X")], vault)
    assert found.startswith("[NAME:")
    assert vault.restore(found) == text
    assert all(len(new) >= START for _, _, new in vault.pairs())
    with pytest.raises(DataError, match="stands for two values"):
        vault.add("name", "Z", "abc")


def test_a_document_without_personal_data_is_still_looked_at_by_a_vault():
    """Guards against a pseudonym that stood in a text by chance and comes back as somebody's name."""
    vault = Vault(SALT)
    fake = vault.pseudonym("email", ANN)
    document = Document(text=f"nothing but {fake}", source="a")
    after = covered(document, find("nothing"), vault, Tally())
    assert vault.restore(after.text) == document.text
    assert anonymize.Anonymizer(how=vault, kinds=["card"])(document).text == after.text
    assert covered(document, (), Mask(), None) is document
