#!/usr/bin/env python3
"""Random conversations rendered by transformers, for the test of src/data/chat to compare with.

usage: python tests/python/chat_templates.py [--seed N] [--cases N] OUT [NAME=TEMPLATE_FILE]...

Needs transformers and jinja2; makes no environment of its own. Without templates, the project's own
(the ones in tests/fixtures/chat_templates.json) are rendered again: that is how the fixture was made.
A template file is Jinja, or JSON with the key chat_template. Then

  KILN_CHAT_CASES=OUT cargo test --lib chat::tests::as_transformers

compares each rendering, to the byte, and each refusal.
"""

import argparse
import json
import pathlib
import random

import transformers.utils.chat_template_utils as chat

FIXTURE = pathlib.Path(__file__).parent.parent / "fixtures" / "chat_templates.json"
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
PIECES = [
    "hi", " Oslo", "  two\n\nlines ", "東京", "café—", "\"q\" <b>&'", "{{ x }}", "{% if %}", "/no_think", "/think",
    "<think>\na\n</think>\n\nb", "", "\n", "e\u0301", "1", "|trim", "\\n", "\t", "/system_override", "<|im_end|>",
]
VALUES = [1, 2.5, True, None, "é<", 1e20, 1e-7, [1, "a"], {"k": None}, -0.0, 12345678901234]


def text(rng):
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(5)))


def conversation(rng):
    messages = []
    if rng.random() < 0.4:
        messages.append({"role": "system", "content": text(rng)})
    for i in range(rng.randrange(5)):
        role = ["user", "assistant"][i % 2] if rng.random() < 0.85 else rng.choice(["user", "assistant", "tool", "system"])
        message = {"role": role, "content": text(rng)}
        if rng.random() < 0.05:
            message["content"] = None
        if rng.random() < 0.1:
            function = {"name": "f", "arguments": {"x": rng.choice(VALUES), "y": rng.choice(VALUES)}}
            message["tool_calls"] = [{"type": "function", "function": function}]
        messages.append(message)
    tool = {"type": "function", "function": {"name": "g", "parameters": {"n": 3, "t": [True, None, 0.1]}}}
    return messages, rng.choice([None, None, [tool]])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("out")
    parser.add_argument("templates", nargs="*")
    asked = parser.parse_args()
    templates = {}
    for item in asked.templates:
        name, path = item.split("=", 1)
        source = pathlib.Path(path).read_text()
        templates[name] = json.loads(source)["chat_template"] if path.endswith(".json") else source
    if not templates:
        templates = json.loads(FIXTURE.read_text())["templates"]
    rng = random.Random(asked.seed)
    cases = []
    for name, source in templates.items():
        template = chat._compile_jinja_template(source)
        for _ in range(asked.cases):
            messages, tools = conversation(rng)
            prompt = rng.random() < 0.5
            case = {"template": name, "messages": messages, "tools": tools, "prompt": prompt}
            try:
                case["text"] = template.render(
                    messages=messages, tools=tools, documents=None, add_generation_prompt=prompt, **VARIABLES
                )
            except Exception as error:
                case["error"] = type(error).__name__
            cases.append(case)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    head = json.dumps(templates, ensure_ascii=False, indent=1)
    pathlib.Path(asked.out).write_text(f'{{"templates": {head},\n"cases": [\n{lines}\n]}}\n')
    print(f"{len(cases)} renderings, {sum('error' in case for case in cases)} of them refused")


if __name__ == "__main__":
    main()
