"""What `headrace serve` prints when it is ready: the address, and two calls that work as pasted."""

from __future__ import annotations

from collections.abc import Sequence

_CURL = """\
curl -s {base_url}/chat/completions -H 'content-type: application/json'{curl_key} -d '{{
  "model": "{model}", "tool_choice": "required",
  "messages": [{{"role": "user", "content": "Find the least common multiple of 18 and 12."}}],
  "tools": [{{"type": "function", "function": {{
    "name": "least_common_multiple",
    "description": "The least common multiple of two numbers.",
    "parameters": {{"type": "object", "required": ["a", "b"], "properties": {{
      "a": {{"type": "integer"}}, "b": {{"type": "integer"}}}}}}}}}}]}}'
"""

_PYTHON = """\
python - <<'END'   # needs: pip install openai
from openai import OpenAI

client = OpenAI(base_url="{base_url}", api_key={python_key})
numbers = {{"a": {{"type": "integer"}}, "b": {{"type": "integer"}}}}
tool = {{
    "name": "least_common_multiple",
    "description": "The least common multiple of two numbers.",
    "parameters": {{"type": "object", "properties": numbers, "required": ["a", "b"]}},
}}
answer = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "Find the least common multiple of 18 and 12."}}],
    tools=[{{"type": "function", "function": tool}}],
    tool_choice="required",
)
print(answer.choices[0].message)
END
"""


def welcome(address: str, models: Sequence[str], has_keys: bool) -> str:
    """The text for a server that listens on `address` (host:port)."""
    told = {
        "base_url": f"http://{address}/v1",
        "model": models[0],
        "curl_key": ' -H "authorization: Bearer $HEADRACE_KEY"' if has_keys else "",
        "python_key": '__import__("os").environ["HEADRACE_KEY"]' if has_keys else '"none"',
    }
    return (
        f"Headrace is ready.\n\nbase_url {told['base_url']}\nmodels   {', '.join(models)}\n\n"
        f"{_CURL.format(**told)}\n{_PYTHON.format(**told)}"
    )
