"""Records style.json: Markdown counts of made-up texts by the regular expressions of Arena-Hard-Auto v2
(utils/add_markdown_info.py), run by Python's re. Python 3.11.7. Tolerance: none, these are counts.

    python golden/statistics/style.py > golden/statistics/style.json
"""

import json
import random
import re

PIECES = [
    "# Title\n", "## Two\n", "###### six\n", "####### seven\n", "#none\n", " # indented\n", "#\n", "- item\n", "* star\n", "+ plus\n",
    "  - deep\n", "\t* tab\n", "-none\n", "1. one\n", "12. twelve\n", "3.none\n", " 4. deep\n", "-\n", "5.\n", "\n", "\n\n", "plain words ",
    "**bold** ", "__bold__ ", "***both*** ", "** ", "**a**b** ", "__a_b__ ", "**two\nlines** ", "```\n# code\n- code\n**x**\n```\n", "```open ",
    "`tick` ", "é ü 漢字 ", "\u00a0- nbsp\n", "end",
]


def counts(text):
    prose = re.sub(r"```[\s\S]*?```", "", text)
    return {
        "headers": sum(len(re.findall(r"^#{%d}\s" % k, prose, re.MULTILINE)) for k in range(1, 7)),
        "lists": len(re.findall(r"^\s*\d+\.\s", prose, re.MULTILINE)) + len(re.findall(r"^\s*[-*+]\s", prose, re.MULTILINE)),
        "bold": len(re.findall(r"\*\*[^*\n]+\*\*", prose)) + len(re.findall(r"__[^_\n]+__", prose)),
    }


draw = random.Random(20240607)
texts = ["".join(draw.choices(PIECES, k=draw.randint(1, 12))) for _ in range(120)]
print("[")
print(",\n".join(json.dumps({"text": text, **counts(text)}) for text in texts))
print("]")
