"""The parameters of a request: those of OpenAI's API, and those that its servers add.

A misspelled name would be sent and ignored, so that every answer would be one to another question.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ...errors import ConfigError
from ...keywords import nearest, refuse_unknown


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SAMPLING = _names(
    "frequency_penalty logit_bias logprobs max_tokens presence_penalty seed stop temperature top_p "
    "user"
)
_OF_SERVERS = _names(
    # vLLM (`SamplingParams`, its extra parameters), SGLang, NIM, llama.cpp and Ollama
    "top_k min_p repetition_penalty length_penalty min_tokens ignore_eos stop_token_ids "
    "include_stop_str_in_output skip_special_tokens spaces_between_special_tokens "
    "truncate_prompt_tokens prompt_logprobs allowed_token_ids bad_words add_special_tokens "
    "structured_outputs guided_json guided_regex guided_choice guided_grammar regex ebnf "
    "json_schema grammar priority lora_path no_stop_trim repeat_penalty repeat_last_n typical_p "
    "mirostat mirostat_tau mirostat_eta n_predict cache_prompt keep_alive options "
    "nvext"
)
KNOWN: dict[str, frozenset[str]] = {
    "chat": _SAMPLING
    | _OF_SERVERS
    | _names(
        "model audio function_call functions max_completion_tokens metadata modalities "
        "parallel_tool_calls prediction prompt_cache_key reasoning_effort response_format "
        "safety_identifier service_tier store tool_choice tools top_logprobs verbosity "
        "web_search_options chat_template chat_template_kwargs add_generation_prompt "
        "continue_final_message documents mm_processor_kwargs include_reasoning "
        "separate_reasoning"
    ),
    "completion": _SAMPLING | _OF_SERVERS | _names("model best_of echo suffix"),
    "embeddings": _names(
        # `truncate`: TEI and Ollama; `input_type`: NIM; the last three: vLLM
        "model dimensions encoding_format user truncate truncation_direction prompt_name normalize "
        "input_type truncate_prompt_tokens add_special_tokens priority"
    ),
}
"""The names by kind of work, from `openai` 3.52 (`resources/`) and the servers' documentation."""
KNOWN["structured"] = KNOWN["chat"] - {"response_format"}
_NOT_IN_A_BATCH = {
    "stream": "a row's answer is read as a whole",
    "stream_options": "a row's answer is read as a whole",
    "n": "a row has one output",
    "messages": "they come from the rows",
    "prompt": "it comes from the rows",
    "input": "it comes from the rows",
}
_ARGUMENTS = frozenset({"column", "system", "path"})
_CLIENTS = frozenset({"extra_body", "extra_headers", "extra_query", "timeout"})
"""Those of OpenAI's client that are no part of the body, with the meaning that they have there."""


def request_settings(kind: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an `HttpWork` that parameters determine.

    Args:
        kind: The kind of work.
        parameters: What the user gave besides the arguments of that work.

    Raises:
        ArgumentError: No server takes a parameter of this name.
        ConfigError: A parameter cannot be used in a batch, or has a wrong value.
    """
    known = KNOWN[kind] | _CLIENTS
    suggested = known | (_ARGUMENTS if kind in ("chat", "structured") else _ARGUMENTS - {"system"})
    refuse_unknown(
        f"{kind}(…)",
        parameters,
        known | _NOT_IN_A_BATCH.keys(),
        advice=lambda name: _advice(name, suggested),
    )
    body = {name: value for name, value in parameters.items() if name not in _CLIENTS}
    extra, headers, query = (
        _mapping(name, parameters.get(name))
        for name in ("extra_body", "extra_headers", "extra_query")
    )
    body.update(extra)
    problems = [
        f"{name}= cannot be used in a batch: {why}."
        for name, why in sorted(_NOT_IN_A_BATCH.items())
        if name in body
    ]
    try:
        json.dumps(body)
    except (TypeError, ValueError) as error:
        problems.append(f"A parameter has no form as JSON: {error}.")
    for name, values in (("extra_headers", headers), ("extra_query", query)):
        problems += [
            f"{name}={{{key!r}: {value!r}}}; expected a text."
            for key, value in values.items()
            if not isinstance(value, str)
        ]
    timeout = parameters.get("timeout")
    if timeout is not None and not _is_seconds(timeout):
        problems.append(f"timeout={timeout!r}; expected seconds, more than 0.")
    if problems:
        raise ConfigError("The parameters of a request are wrong.", problems=problems)
    return {"parameters": body, "headers": headers, "query": query, "timeout": timeout}


def _advice(name: str, known: frozenset[str]) -> str:
    meant = nearest(name, known)
    own = f"a parameter of the server's own goes into extra_body={{{name!r}: …}}"
    return f"did you mean {meant}=? Else {own}" if meant else own


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{name}={value!r}; expected a mapping of names to values.")
    return dict(value)


def _is_seconds(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0
