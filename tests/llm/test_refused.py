"""Errors about fields of a request, in the forms that servers write them; all bodies are written by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hf_synth.llm.refused import read_refused

SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
SENT: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "system", "content": "You write."}, {"role": "user", "content": "Write notes."}],
    "temperature": 0.9, "top_p": 0.95, "seed": 7, "max_tokens": 9000, "logprobs": True, "top_logprobs": 20,
    "response_format": SCHEMA,
}  # fmt: skip


def openai(message: str, param: str | None = None, code: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def pydantic(
    *places: list[Any], msg: str = "Extra inputs are not permitted", type: str = "extra_forbidden"
) -> list[Any]:
    return [{"type": type, "loc": loc, "msg": msg, "input": 7} for loc in places]


OTHER = {"max_tokens": "max_completion_tokens"}
CASES: list[tuple[str, int, Any, dict[str, Any]]] = [
    (
        "openai: unsupported parameter",
        400,
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        ),
        OTHER,
    ),
    (
        "openai: unsupported value",
        400,
        openai(
            "Unsupported value: 'temperature' does not support 0.9 with this model. "
            "Only the default (1) value is supported.",
            "temperature",
            "unsupported_value",
        ),
        {"temperature": None},
    ),
    (
        "openai: no param",
        400,
        openai("Unsupported parameter: 'top_p' is not supported with this model."),
        {"top_p": None},
    ),
    (
        "openai: too many tokens",
        400,
        openai("max_tokens is too large: 9000. This model supports at most 4096 completion tokens.", "max_tokens"),
        {"max_tokens": {"most": 4096}},
    ),
    (
        "openai: no logprobs",
        403,
        openai("You are not allowed to request logprobs from this model"),
        {"logprobs": None, "top_logprobs": None},
    ),
    (
        "openai: role",
        400,
        openai(
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            "messages[0].role",
            "unsupported_value",
        ),
        {"system": "user"},
    ),
    (
        "openai: schema",
        400,
        openai(
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
            "response_format",
        ),
        {"response_format": None},
    ),
    (
        "openai: strict",
        400,
        openai(
            "Missing required parameter: 'response_format.json_schema.strict'",
            "response_format.json_schema.strict",
            "missing_required_parameter",
        ),
        {"response_format": "strict"},
    ),
    (
        "mistral: extra",
        422,
        {"object": "error", "message": {"detail": pydantic(["body", "seed"])}, "code": None},
        {"seed": None},
    ),
    (
        "pydantic: two at once",
        422,
        {"detail": pydantic(["body", "seed"], ["body", "top_p"])},
        {"seed": None, "top_p": None},
    ),
    (
        "pydantic: bound",
        422,
        {
            "detail": pydantic(
                ["body", "top_logprobs"], type="less_than_equal", msg="Input should be less than or equal to 5"
            )
        },
        {"top_logprobs": {"most": 5}},
    ),
    (
        "pydantic: structure",
        422,
        {
            "detail": pydantic(
                ["body", "response_format", "type"], type="literal_error", msg="Input should be 'text' or 'json_object'"
            )
        },
        {"response_format": "json_object"},
    ),
    (
        "gemini: a list",
        400,
        [
            {
                "error": {
                    "code": 400,
                    "status": "INVALID_ARGUMENT",
                    "message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.',
                }
            }
        ],
        {"seed": None},
    ),
    (
        "gemini: violations",
        400,
        {
            "error": {
                "code": 400,
                "message": "Request contains an invalid argument.",
                "details": [
                    {"fieldViolations": [{"field": "top_logprobs", "description": "Unknown name: Cannot find field."}]}
                ],
            }
        },
        {"top_logprobs": None},
    ),
    (
        "gemma at google",
        400,
        [{"error": {"code": 400, "message": "Developer instruction is not enabled for models/gemma"}}],
        {"system": "user"},
    ),
    (
        "litellm: 500",
        500,
        openai("litellm.UnsupportedParamsError: ollama does not support parameters: ['seed']", code="500"),
        {"seed": None},
    ),
    (
        "litellm: several",
        400,
        openai(
            "litellm.UnsupportedParamsError: x does not support parameters: {'seed': 7, 'logprobs': "
            "True}, for model=y. To drop these, set `litellm.drop_params=True`"
        ),
        {"seed": None, "logprobs": None},
    ),
    (
        "litellm: gpt-5",
        400,
        openai(
            "litellm.UnsupportedParamsError: gpt-5 models don't support temperature=0.9. Only "
            "temperature=1 is supported."
        ),
        {"temperature": None},
    ),
    (
        "claude: both",
        400,
        openai("`temperature` and `top_p` cannot both be specified for this model. Please use only one.", code="400"),
        {"top_p": None},
    ),
    (
        "bedrock: both",
        400,
        {"message": "The model returned the following errors: temperature and top_p are mutually exclusive"},
        {"top_p": None},
    ),
    (
        "claude: range",
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "max_tokens: 9000 > 8192, which is the maximum allowed number of output tokens",
            },
        },
        {"max_tokens": {"most": 8192}},
    ),
    (
        "logprobs: range",
        400,
        openai("top_logprobs must be between 0 and 5", "top_logprobs"),
        {"top_logprobs": {"most": 5}},
    ),
    (
        "vllm: bound",
        400,
        {
            "object": "error",
            "message": "Requested sample logprobs of 20, which is greater than max allowed: 5",
            "type": "BadRequestError",
            "param": "top_logprobs",
            "code": 400,
        },
        {"top_logprobs": {"most": 5}},
    ),
    ("groq: property", 400, openai("property 'seed' is unsupported"), {"seed": None}),
    (
        "groq: json_schema",
        400,
        openai("This model does not support response format `json_schema`. See our docs"),
        {"response_format": None},
    ),
    ("deepseek: type", 400, openai("This response_format type is unavailable now"), {"response_format": None}),
    (
        "fireworks",
        400,
        {"error": {"object": "error", "message": "Extra inputs are not permitted, field: 'seed', value: 7"}},
        {"seed": None},
    ),
    (
        "cohere",
        422,
        {"message": "unknown field: parameter 'top_logprobs' is not a valid field"},
        {"top_logprobs": None},
    ),
    (
        "tgi: a list of what is known",
        422,
        "Failed to deserialize the JSON body: unknown field `seed`, expected one of `messages`, `temperature`, `top_p`",
        {"seed": None},
    ),
    (
        "lm studio: a string",
        400,
        {"error": "'response_format.type' must be 'json_schema' or 'text'"},
        {"response_format": None},
    ),
    ("ollama: format", 500, openai("failed to load model vocabulary required for format"), {"response_format": None}),
    ("not implemented", 501, openai("response_format is not implemented"), {"response_format": None}),
    ("unsupported", 415, openai("unsupported"), {"response_format": None}),
    (
        "openrouter: no route",
        404,
        {"error": {"code": 404, "message": "No endpoints found that can handle the requested parameters."}},
        {"response_format": None},
    ),
    (
        "openrouter: a body inside",
        400,
        {
            "error": {
                "code": 400,
                "message": "Provider returned error",
                "metadata": {"raw": json.dumps(openai("Unsupported parameter: 'seed' is not supported", "seed"))},
            }
        },
        {"seed": None},
    ),
    ("vllm: system", 400, {"object": "error", "message": "System role not supported", "code": 400}, {"system": "user"}),
    (
        "hf: alternate",
        400,
        {"error": "Conversation roles must alternate user/assistant/user/assistant/..."},
        {"system": "user"},
    ),
    (
        "grammar",
        400,
        {"error": {"code": 400, "message": "Failed to parse grammar", "type": "invalid_request_error"}},
        {"response_format": None},
    ),
    ("python", 500, {"detail": "create() got an unexpected keyword argument 'seed'"}, {"seed": None}),
    (
        "vertex: camel",
        400,
        {"error": {"message": "Unable to submit request: topLogprobs is not supported", "code": 400}},
        {"top_logprobs": None},
    ),
    # errors about something else
    (
        "context",
        400,
        openai(
            "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens (1000 in "
            "the messages, 8000 in the completion). Please reduce the length.",
            "max_tokens",
            "context_length_exceeded",
        ),
        {},
    ),
    (
        "filter",
        400,
        openai("The response was filtered due to the prompt triggering a policy.", "prompt", "content_filter"),
        {},
    ),
    ("unknown model", 404, openai("The model `m` does not exist", "model", "model_not_found"), {}),
    ("not found", 404, {"detail": "Not Found"}, {}),
    ("a key", 401, openai("Unsupported parameter: 'seed'"), {}),
    ("rate", 429, openai("Unsupported parameter: 'seed'"), {}),
    ("nothing said", 400, {}, {}),
    ("a bug", 500, "Internal Server Error", {}),
    ("the prompt", 400, openai("Bad request: Write notes. The temperature is not supported and seed is unknown"), {}),
]


@pytest.mark.parametrize(("status", "body", "rules"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_refused_is_read_from_the_error(status: int, body: Any, rules: dict[str, Any]) -> None:
    assert read_refused(status, body.encode() if isinstance(body, str) else json.dumps(body).encode(), SENT) == rules


def test_a_field_that_was_not_sent_is_not_refused() -> None:
    sent = {"model": "m", "messages": [{"role": "user", "content": "q"}], "temperature": 0.5}
    for _, status, body, _rules in CASES:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        assert set(read_refused(status, data, sent)) <= {"temperature"}


@pytest.mark.parametrize(
    "body", [b"", b"\xff" * 50, b"[" * 9_000, b'{"error": ' * 900, b"null", b"7", b'"seed"' * 9_000]
)
def test_any_body_is_read_in_a_moment(body: bytes) -> None:
    assert read_refused(400, body, SENT) in ({}, {"seed": None})


@pytest.mark.parametrize(
    "note",
    [
        "Pat. febrile, temperature 38.9 is not supported by the chart, seed of doubt unknown.",
        "A long line first, then: the system role is not supported in this ward, and unknown temperature.",
    ],
)
def test_words_of_a_note_are_no_refusal(note: str) -> None:
    """An error that quotes a part of the prompt, from the middle of a line, refuses nothing."""
    messages = [
        {"role": "system", "content": "You write."},
        {"role": "user", "content": f"Rewrite this: {note} Thanks."},
    ]
    sent = {"model": "m", "messages": messages, "temperature": 1, "seed": 3}
    for quoted in (note, note[10:], note.upper()[14:]):
        assert read_refused(400, json.dumps(openai(f"bad request: ...{quoted}")).encode(), sent) == {}
