"""What a function's documentation says in one line: learned from the documentation of the installed Python, offline.

python examples/docstrings.py [FOLDER] [MINUTES]

A documentation's first line is taken away and written again from the rest. Ten minutes give lines that sound right and
often are not: a few thousand pairs and a million parameters; the score of the first sentence stands beside the model's.
"""

import ast
import json
import sys
import sysconfig
from pathlib import Path

import hanlin
from hanlin.train import recipe as recipes
from hanlin.verbs.train import learn


def pairs(root: Path) -> list[dict[str, str]]:
    """Return the rest of each documentation, and its first line."""
    found = {}
    for path in sorted(root.glob("*.py")) + sorted(root.glob("[a-r]*/*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                first, _, rest = (ast.get_docstring(node) or "").partition("\n")
                body = " ".join(rest.split())[:400]
                if 10 < len(first) < 100 and len(body) > 40:
                    found[body] = {"text": f"{node.name.replace('_', ' ')}: {body}", "summary": first.strip()}
    return list(found.values())


folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/docstrings")
minutes = float(sys.argv[2]) if len(sys.argv) > 2 else 10
folder.mkdir(parents=True, exist_ok=True)
rows = pairs(Path(sysconfig.get_path("stdlib")))
(folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
network = "{family: rnn, encoder: bidirectional, attention: bahdanau, copies: true, dim: 96, hidden: 192, layers: 1}"
(folder / "recipe.yaml").write_text(
    f"model: {network}\ntokenizer: {{vocab: 2000}}\n"
    "task: {name: summarize, limit: 32, no_repeat: 3, cut: true}\n"
    f"data: {{train: {folder}/rows.jsonl, valid_fraction: 0.05}}\noptimizer: {{name: adamw, rate: 2e-3}}\n"
    f"plan: {{minutes: {minutes}, rows: 16, context: 160}}\n"
)
print(f"{len(rows):,} pairs")
print(learn(recipes.load(f"{folder}/recipe.yaml"), folder / "run"))
asked = "Return a copy of the string with leading and trailing whitespace removed. If chars is given, remove those."
print(hanlin.load(str(folder / "run")).predict([asked])[0].text)
