"""Documentation, messages, comments and names do not contain phrases that are hard to understand."""

import re
import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[2]
SUFFIXES = (".md", ".py", ".html", ".js", ".css", ".toml", "Makefile", "Dockerfile.serve", "Dockerfile.train")

# Regular expressions, with the better word; a space also matches a line break.
PHRASES = {
    r"(goes|go|went|going) on (from|where|with|after)": "resume, continue",
    r"something goes on": "status",
    r"mend(ed|s)?": "fix, correct",
    r"(what|all that|nothing) is said": "name the subject",
    r"is said (of|about|in|to)": "name the subject",
    r"said of": "about",
    r"our fault": "internal error",
    r"passed over": "ignored, skipped",
    r"nobody('s)?": "name who or what",
    r"whoever": "name who or what",
    r"(does|do) not count": "ignored, excluded, not finished",
    r"what is left of": "the remaining ...",
    r"has none of its own|have none of their own": "has no ...",
    r"has no \w+ of its own": "has no ...",
    r"(is|are|in|with) \w+ of (its|their) own": "separate",
    r"by (itself|themselves|oneself)": "alone, automatically",
    r"shall": "must, or the present tense",
    r"likewise": "also, in the same way",
    r"in the manner of": "like",
    r"stands? for the": "selects, means, represents",
    r"is no (number|array|option|setting)": "is not a ...",
    r"where there is (none|no)": "without",
    r"(comes?|came) to (its|their) end": "is complete, ends",
    r"taken for (one|the|an?)": "treated as",
    r"what leaves the choice": "if several are allowed",
    r"with what to do about it": "with advice",
    r"they decide together": "averaged",
    r"looked up whether": "checks that",
    r"show_life": "heartbeat",
    r"give_back": "requeue",
    r"hear|hears|heard": "receive",
    r"LANES": "MAX_PREDICTION_THREADS",
    r"MOMENT": "name what the delay is for",
    r"Fitted": "BestEpoch",
}
GAP = r"[\s\"'#/*]+"  # between two words: blanks, or a line break with quotes or comment characters around it
PATTERNS = {re.compile(rf"\b({phrase.replace(' ', GAP)})\b"): better for phrase, better in PHRASES.items()}


def find_phrases(text: str) -> list[tuple[int, str, str]]:
    """Line number, phrase and better words for each unwanted phrase."""
    return [
        (text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), better)
        for pattern, better in PATTERNS.items()
        for match in pattern.finditer(text)
    ]


def test_no_file_contains_an_unwanted_phrase() -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True)
    paths = [name for name in listing.stdout.splitlines() if name.endswith(SUFFIXES)]
    checked = [name for name in paths if not name.startswith("tests/") and name != "CHANGELOG.md"]
    assert len(checked) > 100
    found = [
        f"{name}:{line}: {phrase!r}; better: {better}"
        for name in checked
        if (PROJECT / name).is_file()
        for line, phrase, better in sorted(find_phrases((PROJECT / name).read_text(encoding="utf-8")))
    ]
    assert not found, "\n".join(found)


def test_a_phrase_is_found_across_a_line_break() -> None:
    text = """def resume():\n    # A job that starts goes\n    # on from the checkpoint.\n"""
    assert find_phrases(text) == [(2, "goes # on from", "resume, continue")]
    assert find_phrases('raise UserError("the input has to be mended")\n')[0][:2] == (1, "mended")
    assert not find_phrases("The model is trained on several machines and resumes from a checkpoint.")
