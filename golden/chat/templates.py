"""Records what transformers makes of conversations with fourteen chat templates.

Templates of public models are read from the folder `chat_templates` of TRL (Apache 2.0), which keeps them as the models ship them:
Llama 3 and 3.2, Gemma and Gemma 3, Qwen 2.5 and Qwen 3, Phi 3, DeepSeek R1 (distilled). The others (ChatML, Llama 2, Zephyr, Mistral and
two of our own, which go through what templates may ask for) are written here in the shapes of their models' templates.

Versions: written into the file. Run: python golden/chat/templates.py
"""

import datetime
import json
from pathlib import Path

import jinja2
import transformers
import trl
from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
DATE = datetime.datetime(2024, 7, 6)


class Today(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return DATE


chat_template_utils.datetime = Today

CHATML = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

LLAMA_2 = """{% if messages[0]['role'] == 'system' %}
    {% set rest = messages[1:] %}
    {% set system = messages[0]['content'] %}
{% else %}
    {% set rest = messages %}
    {% set system = false %}
{% endif %}
{% for message in rest %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}
    {% if loop.index0 == 0 and system != false %}
        {% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}
    {% else %}
        {% set content = message['content'] %}
    {% endif %}
    {% if message['role'] == 'user' %}
        {{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
    {% elif message['role'] == 'assistant' %}
        {{ ' ' + content.strip() + ' ' + eos_token }}
    {% endif %}
{% endfor %}
"""

ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system = messages[0]["content"] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{%- set users = turns | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in turns %}
    {%- if message["role"] in ["user", "assistant"] and not (message.tool_calls is defined and message.tool_calls is not none) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in turns %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and message == users[-1] %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, value in tool.items() if key != "return" %}
                    {%- if value is string %}
                        {{- '"' + key + '": "' + value + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + value|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system is defined %}
            {{- "[INST] " + system + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for call in message.tool_calls %}
            {{- call.function|tojson }}{% if not loop.last %}{{- ", " }}{% else %}{{- "]" + eos_token }}{% endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + "}[/TOOL_RESULTS]" }}
    {%- else %}
        {{- raise_exception("Only user, assistant and tool roles are supported") }}
    {%- endif %}
{%- endfor %}
"""

# Dates, white space, loop controls, generation marks, and values that aren't texts.
CUSTOM = """{# a comment #}
Today is {{ strftime_now("%d %B %Y, %A %j") }}.
{% macro turn(name, text) -%}
  <{{ name | upper }}>{{ text | trim }}</{{ name | upper }}>
{%- endmacro %}
{% for message in messages %}
  {% if message.role == "system" %}{% continue %}{% endif %}
  {% if loop.index > 4 %}{% break %}{% endif %}
  {%- if message.role == "assistant" %}
    {% generation %}
{{ turn(message.role, message.content) }}
    {%- endgeneration %}
  {% else %}
{{ turn(message["role"], message["content"]) }} {{ loop.index0 }}/{{ loop.length }} {{ loop.first }} {{ message.name }}|
  {% endif %}
{% endfor %}
{{ messages | map(attribute="role") | join(",") }} {{ messages[::-1][0].role }} {{ messages|length }} {{ none }} {{ [1, 2.0, "it's", true, none] }} {{ {"a": 1e-7, "b": 1e22} }}
{{ "%s" | replace("%s", "x") }}{{ "a,b".split(",")[1] }}{{ "Abc".startswith("A") }}{{ " x ".strip() }}{{ "abc"[1:] }}{{ 7 // 2 }}{{ 7 / 2 }}{{ "é".upper() }}{{ "x" ~ 3 }}
{% if add_generation_prompt %}<ASSISTANT>{% endif %}"""

JSON = """{{ tools | tojson }}
{{ tools | tojson(indent=4) }}
{{ tools | tojson(separators=(",", ":"), sort_keys=true) }}
{{ messages | tojson(ensure_ascii=true) }}
{{ {"z": [], "a": {}, "f": [0.1, 1.0, 1e16, 1e-5, -2.5e-9, 100000000000000000000], "t": true, "n": none} | tojson }}
{% for key, value in tools[0].function.items() %}{{ key }}={{ value is mapping }} {% endfor %}
{% if messages | length > 1 %}{{ raise_exception("one message only, got " ~ messages | length) }}{% endif %}"""

say = lambda role, content, **more: {"role": role, "content": content, **more}  # noqa: E731
ONE = [say("user", "How's the <b>sea</b> & \"sky\"?")]
TWO = [say("user", " Hi\n"), say("assistant", "Hello, naïve 漢 🙂. ")]
SYSTEM = [say("system", "Be brief."), *TWO, say("user", "Why?"), say("assistant", "So.")]
BAD = [say("user", "a"), say("user", "b")]
THINKING = [
    say("user", "2 + 2?"),
    say("assistant", "4", reasoning_content="Two and two.\n"),
    say("user", "And 3 + 3?"),
    say("assistant", "<think>\nThree and three.\n</think>\n\n6"),
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather at a place: <now> & \"here\"",
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string", "description": "Naïve"}, "days": {"type": "integer"}},
                "required": ["place"],
            },
        },
    }
]
CALL = {"type": "function", "id": "a12345678", "function": {"name": "weather", "arguments": {"place": "Ulm", "days": 2}}}
CALLING = [
    say("system", "Use tools."),
    say("user", "Rain in Ulm?"),
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    say("tool", "dry, 20 °C", tool_call_id="a12345678"),
    say("assistant", "No."),
]

# What every template is asked: messages, tools, and whether the assistant's turn is begun.
PLAIN = [(ONE, None, True), (TWO, None, False), (SYSTEM, None, False), (SYSTEM[:-1], None, True), (BAD, None, False)]
WITH_TOOLS = [(ONE, TOOLS, True), (CALLING[:2], TOOLS, True), (CALLING, TOOLS, False), (CALLING[:4], TOOLS, True)]
SHIPPED = Path(trl.__file__).parent / "chat_templates"


def shipped(name):
    return (SHIPPED / f"{name}.jinja").read_text()


LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
LLAMA_3 = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>"}
QWEN = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
TEMPLATES = {
    "chatml": ("written here", CHATML, QWEN, PLAIN),
    "llama-2": ("written here", LLAMA_2, LLAMA, PLAIN),
    "zephyr": ("written here", ZEPHYR, LLAMA, PLAIN),
    "mistral": ("written here", MISTRAL, LLAMA, PLAIN + WITH_TOOLS),
    "llama-3": ("TRL's llama3.jinja", shipped("llama3"), LLAMA_3, PLAIN),
    "llama-3.2": ("TRL's llama3_2.jinja", shipped("llama3_2"), LLAMA_3, PLAIN + WITH_TOOLS),
    "gemma": ("TRL's gemma.jinja", shipped("gemma"), GEMMA, PLAIN),
    "gemma-3": ("TRL's gemma3.jinja", shipped("gemma3"), GEMMA, PLAIN),
    "qwen-2.5": ("TRL's qwen2_5.jinja", shipped("qwen2_5"), QWEN, PLAIN + WITH_TOOLS),
    "qwen-3": (
        "TRL's qwen3.jinja",
        shipped("qwen3"),
        QWEN,
        PLAIN + WITH_TOOLS + [(THINKING, None, False), (THINKING[:3], None, True), (THINKING[:2], None, False)],
    ),
    "phi-3": ("TRL's phi3.jinja", shipped("phi3"), LLAMA, PLAIN),
    "deepseek-r1": (
        "TRL's deepseek_r1_distill.jinja",
        shipped("deepseek_r1_distill"),
        LLAMA,
        PLAIN + [(THINKING, None, False), (THINKING[:3], None, True)],
    ),
    "custom": ("written here", CUSTOM, {}, PLAIN),
    "json": ("written here", JSON, {}, [(ONE, TOOLS, False), (TWO, TOOLS, False)]),
}


def record(template, tokens, messages, tools, generation):
    case = {"messages": messages, "add_generation_prompt": generation}
    if tools:
        case["tools"] = tools
    try:
        (text,), _ = chat_template_utils.render_jinja_template(
            [messages], tools=tools, chat_template=template, add_generation_prompt=generation, **tokens
        )
        case["text"] = text
    except jinja2.exceptions.TemplateError as error:
        case["error"] = str(error)
    return case


recorded = {
    "versions": {"transformers": transformers.__version__, "jinja2": jinja2.__version__, "trl": trl.__version__},
    "date": DATE.strftime("%Y-%m-%d"),
    "templates": [
        {
            "name": name,
            "source": source,
            "template": template,
            "special_tokens": tokens,
            "cases": [record(template, tokens, *case) for case in cases],
        }
        for name, (source, template, tokens, cases) in TEMPLATES.items()
    ],
}
(HERE / "templates.json").write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")
