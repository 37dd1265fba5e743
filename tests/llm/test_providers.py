"""The table of providers, each row replayed from hand-written bodies by a real server on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from support.llm_server import Said, entries, serving

from hf_synth.errors import LLMError
from hf_synth.generation.generation import generate
from hf_synth.llm import calls
from hf_synth.llm.endpoints import parse_origin
from hf_synth.llm.llm import LLM, Wire
from hf_synth.llm.providers import PROVIDERS, chat_url, key_headers, key_of, provider_of
from hf_synth.task.task import Prompt, Task

DRAFT = json.dumps({"entries": [{"text": "DRAFTNOTE of the ward, not for use.", "label": "a"}]})
Reply = Callable[[str], dict[str, Any]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_BACKOFF", 0.01)
    monkeypatch.setattr("hf_synth.llm.manners._NEAR", 20.0)  # a busy machine is slow
    for provider in PROVIDERS:
        for name in provider.key_variables:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


# --- what the servers say -------------------------------------------------------------------------------------------
def error(status: int, body: Any) -> Said:
    return Said(status=status, body=json.dumps(body).encode())


def openai_error(name: str) -> Said:
    said = {"message": f"Unsupported parameter: '{name}' is not supported with this model.", "param": name}
    if name == "max_tokens":
        said["message"] += " Use 'max_completion_tokens' instead."
    return error(400, {"error": {**said, "type": "invalid_request_error", "code": "unsupported_parameter"}})


def pydantic_error(name: str) -> Said:
    detail = [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": 1}]
    return error(422, {"object": "error", "message": {"detail": detail}, "type": "invalid_request_error", "code": None})


def google_error(name: str) -> Said:
    if name == "system":
        return error(
            400, [{"error": {"code": 400, "message": "Developer instruction is not enabled for models/gemma-3"}}]
        )
    text = f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
    return error(400, [{"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}}])


def plain_error(name: str) -> Said:
    text = "System role not supported" if name == "system" else f"property '{name}' is unsupported"
    return error(400, {"object": "error", "message": text, "type": "BadRequestError", "param": None, "code": 400})


def litellm_error(name: str) -> Said:
    text = f"litellm.UnsupportedParamsError: ollama does not support parameters: ['{name}']. set drop_params=True"
    return error(500, {"error": {"message": text, "type": "None", "param": "None", "code": "500"}})


def routed_error(name: str) -> Said:
    raw = json.dumps({"error": {"message": f"Unsupported parameter: '{name}' is not supported", "param": name}})
    metadata = {"raw": raw, "provider_name": "Azure"}
    return error(400, {"error": {"message": "Provider returned error", "code": 400, "metadata": metadata}})


def fields_error(name: str) -> Said:
    return error(422, {"detail": f"Unsupported fields in the request: {{'{name}'}}"})


def in_text(open_tag: str, close_tag: str) -> Reply:
    return lambda text: {"content": f"{open_tag}{DRAFT}{close_tag}{text}"}


def in_field(name: str) -> Reply:
    return lambda text: {"content": text, name: DRAFT}


def in_parts(kind: str) -> Reply:
    thought = {"type": kind, kind: [{"type": "text", "text": DRAFT}], "text": DRAFT}
    return lambda text: {"content": [thought, {"type": "text", "text": text}]}


def plainly(text: str) -> dict[str, Any]:
    return {"content": text}


SAMPLING: tuple[tuple[str, Any], ...] = (("temperature", 0.9), ("top_p", 0.95), ("max_tokens", 900))
# For a row of the table: an address and a model, what its server refuses and how it says so, and the form of a reply.
REPLAYS: dict[str, tuple[str, str, tuple[str, ...], Callable[[str], Said], Reply]] = {
    "OpenAI, reasoning models": (
        "https://api.openai.com/v1",
        "o3-mini",
        ("temperature", "top_p", "max_tokens"),
        openai_error,
        plainly,
    ),
    "OpenAI": ("https://api.openai.com/v1", "gpt-4.1-mini", ("max_tokens",), openai_error, plainly),
    "Azure OpenAI v1, reasoning models": (
        "https://ward.openai.azure.com/openai/v1",
        "gpt-5-mini",
        ("temperature", "top_p", "max_tokens"),
        openai_error,
        plainly,
    ),
    "Azure OpenAI v1": ("https://ward.openai.azure.com/openai/v1", "our-model", (), openai_error, plainly),
    "Azure OpenAI, classic": ("https://ward.openai.azure.com", "our-model", (), openai_error, plainly),
    "GitHub Models": ("https://models.github.ai/inference", "openai/gpt-4.1", (), openai_error, plainly),
    "Hugging Face router": (
        "https://router.huggingface.co/v1",
        "org/model:groq",
        (),
        plain_error,
        in_text("<think>", "</think>"),
    ),
    "Hugging Face endpoint": (
        "https://x.eu-west-1.aws.endpoints.huggingface.cloud/v1",
        "tgi",
        (),
        plain_error,
        plainly,
    ),
    "Google Gemini, Gemma models": (
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "gemma-3-27b-it",
        ("system", "seed", "response_format"),
        google_error,
        plainly,
    ),
    "Google Gemini": (
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "gemini-2.5-flash",
        ("seed",),
        google_error,
        in_text("<thought>", "</thought>"),
    ),
    "Google Vertex AI": (
        "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/endpoints/openapi",
        "google/gemini-2.5-flash",
        (),
        google_error,
        plainly,
    ),
    "Mistral": ("https://api.mistral.ai/v1", "magistral-small", ("seed",), pydantic_error, in_parts("thinking")),
    "DeepSeek": (
        "https://api.deepseek.com",
        "deepseek-reasoner",
        ("json_schema",),
        plain_error,
        in_field("reasoning_content"),
    ),
    "Groq": ("https://api.groq.com/openai/v1", "qwen/qwen3-32b", ("logprobs",), plain_error, in_field("reasoning")),
    "OpenRouter": (
        "https://openrouter.ai/api/v1",
        "openai/gpt-5",
        ("temperature",),
        routed_error,
        in_field("reasoning"),
    ),
    "Together": (
        "https://api.together.xyz/v1",
        "deepseek-ai/DeepSeek-R1",
        (),
        plain_error,
        in_text("<think>", "</think>"),
    ),
    "Fireworks": (
        "https://api.fireworks.ai/inference/v1",
        "accounts/x/models/y",
        (),
        plain_error,
        in_text("<think>", "</think>"),
    ),
    "xAI": ("https://api.x.ai/v1", "grok-4", (), plain_error, in_field("reasoning_content")),
    "Cerebras": ("https://api.cerebras.ai/v1", "qwen-3-32b", (), plain_error, in_field("reasoning")),
    "SambaNova": ("https://api.sambanova.ai/v1", "DeepSeek-R1", ("seed",), plain_error, in_text("<think>", "</think>")),
    "NVIDIA NIM": (
        "https://integrate.api.nvidia.com/v1",
        "nvidia/nemotron",
        (),
        pydantic_error,
        in_text("", "</think>"),
    ),
    "DeepInfra": ("https://api.deepinfra.com/v1/openai", "org/model", (), plain_error, in_text("<think>", "</think>")),
    "Cohere": (
        "https://api.cohere.ai/compatibility/v1",
        "command-a-reasoning",
        (),
        plain_error,
        in_text("<|START_THINKING|>", "<|END_THINKING|>"),
    ),
    "Perplexity": (
        "https://api.perplexity.ai",
        "sonar-reasoning",
        ("seed",),
        plain_error,
        in_text("<think>", "</think>"),
    ),
    "Alibaba Model Studio": (
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "qwen3-max",
        ("json_schema",),
        plain_error,
        in_field("reasoning_content"),
    ),
    "Moonshot": (
        "https://api.moonshot.ai/v1",
        "kimi-k2-thinking",
        ("json_schema",),
        plain_error,
        in_text("◁think▷", "◁/think▷"),
    ),
    "Anthropic": (
        "https://api.anthropic.com/v1",
        "claude-sonnet-4-5",
        ("response_format", "seed", "top_p"),
        plain_error,
        in_text("<thinking>", "</thinking>"),
    ),
    "Amazon Bedrock": (
        "https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1",
        "openai.gpt-oss-20b",
        ("seed",),
        plain_error,
        in_text("<reasoning>", "</reasoning>"),
    ),
    "Databricks": (
        "https://w.cloud.databricks.com/serving-endpoints",
        "databricks-claude",
        ("seed",),
        plain_error,
        in_parts("reasoning"),
    ),
    "LiteLLM": ("http://10.0.0.7:4000/v1", "ollama/llama3", ("seed",), litellm_error, in_field("reasoning_content")),
    "Ollama": ("http://127.0.0.1:11434/v1", "deepseek-r1:8b", (), plain_error, in_text("<think>", "</think>")),
    "LM Studio": ("http://127.0.0.1:1234/v1", "qwen3", ("seed",), plain_error, in_text("<think>", "</think>")),
    "SGLang": ("http://127.0.0.1:30000/v1", "org/gemma-2", ("system",), plain_error, plainly),
    "TGI or llama.cpp": (
        "http://127.0.0.1:8080/v1",
        "tgi",
        ("response_format",),
        plain_error,
        in_text("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ),
    "transformers serve, or vLLM": (
        "http://127.0.0.1:8000/v1",
        "org/model",
        ("response_format", "seed"),
        fields_error,
        in_text("<think>", "</think>"),
    ),
}
TASK = Task.from_columns(
    "toy", text_columns="text", label_column="label", labels=["a", "b"], access="open",
    prompts=(Prompt(system="You write.", instruction="Write invented notes.", rows=2, sampling=SAMPLING),),
)  # fmt: skip


def gold() -> Dataset:
    rows = [TASK.gold_row(f"g{i}", None, i % 2, f"Gold text {i} of a person with matter {i * 17}.") for i in range(8)]
    return Dataset.from_list(rows, features=TASK.gold_features())


def server_of(name: str) -> Callable[[dict[str, Any], int], Said]:
    """Return a server that refuses what a provider's does, and answers in its form."""
    _, _, refused, refuse, reply = REPLAYS[name]

    def answer(sent: dict[str, Any], number: int) -> Said:
        structure = sent.get("response_format", {}).get("type")
        for field in refused:
            system = field == "system" and sent["messages"][0]["role"] == "system"
            if field in sent or system or field == structure:
                return refuse("response_format" if field == structure else field)
        message = {"role": "assistant", **reply(entries({**sent, "seed": number}))}
        usage = {"prompt_tokens": 10, "completion_tokens": 20}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Said(body=json.dumps({"id": "1", "model": "served", "choices": [choice], "usage": usage}).encode())

    return answer


def test_every_row_is_replayed_and_recognised() -> None:
    assert set(REPLAYS) == {provider.name for provider in PROVIDERS}
    assert len(PROVIDERS) >= 20
    for name, (url, model, *_) in REPLAYS.items():
        assert provider_of(parse_origin(url), model).name == name
    assert provider_of(parse_origin("http://10.0.0.9:9999/v1"), "m").rules == {}


@pytest.mark.parametrize("name", REPLAYS)
def test_rows_come_from_each(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, model, refused, *_ = REPLAYS[name]
    provider = provider_of(parse_origin(url), model)
    with serving(server_of(name)) as server:
        options: dict[str, Any] = {"base_url": server.url, "concurrency": 4, "max_retries": 1, "api_key": "k"}
        llm = LLM(model, **options, journal=tmp_path / "learnt" / "j.sqlite")  # nothing is known of this address
        rows = generate(TASK, gold(), llm, 8)
        assert rows["label_status"] == ["kept"] * 8
        assert not any("DRAFTNOTE" in text for text in rows["text"])
        assert len(server.requests) <= 2 + 2 * len(refused)
        before = len(server.requests)
        monkeypatch.setattr("hf_synth.llm.llm.provider_of", lambda *_: provider)
        llm = LLM(model, **options, journal=tmp_path / "known" / "j.sqlite")
        assert generate(TASK, gold(), llm, 8)["label_status"] == ["kept"] * 8
        if (
            name in ("LiteLLM", "OpenRouter", "SambaNova", "Perplexity", "Amazon Bedrock", "Databricks")
            or provider.port
        ):
            return  # what these refuse depends on the model behind them: it is learnt
        assert len(server.requests) == before + 2  # the table saved every refusal


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (error(401, {"error": {"message": "bad key"}}), "401"),
        (error(402, {"error": {"message": "Insufficient credits"}}), "credits"),
        (error(404, {"error": {"message": "no such model"}}), "404"),
        (error(400, {"error": {"message": "The model `m` does not exist", "param": "model"}}), "400"),
        (Said(body=b"<!doctype html><title>Log in</title>"), "page"),
    ],
)
@pytest.mark.parametrize("name", ["Groq", "Ollama", "Azure OpenAI, classic"])
def test_what_no_rule_mends_is_one_sentence(
    said: Said, words: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = next(one for one in PROVIDERS if one.name == name)
    monkeypatch.setattr("hf_synth.llm.llm.provider_of", lambda *_: provider)
    with serving(lambda *_: said) as server:
        llm = LLM("m", base_url=server.url, journal=tmp_path / "j.sqlite", max_retries=1, api_key="k")
        with pytest.raises(LLMError, match=words) as caught:
            llm.chat([[{"role": "user", "content": "q"}]], access="open")
    assert "\n" not in str(caught.value)
    if "401" in words:
        assert str(caught.value).endswith(tuple(provider.key_variables) or ("OPENAI_BASE_URL beside it",))


@pytest.mark.parametrize(
    "said",
    [
        error(400, {"error": {"message": "The response was filtered", "param": "prompt", "code": "content_filter"}}),
        error(403, {"error": {"code": 403, "message": "Input was flagged", "metadata": {"reasons": ["self-harm"]}}}),
        Said(body=b'{"choices": [], "promptFeedback": {"blockReason": "SAFETY"}}'),
        Said(body=b'{"choices": [{"message": {"content": ""}, "finish_reason": "SAFETY"}]}'),
        Said(body=b'{"choices": [{"message": {"content": "I am", "refusal": "no"}, "finish_reason": "stop"}]}'),
    ],
    ids=["azure", "openrouter", "gemini prompt", "gemini answer", "openai"],
)
def test_a_declined_prompt_is_one_refusal(said: Said, tmp_path: Path) -> None:
    def answer(sent: dict[str, Any], _: int) -> Said:
        return said if "question 2" in sent["messages"][-1]["content"] else Said()

    with serving(answer) as server:
        llm = LLM("m", base_url=server.url, journal=tmp_path / "j.sqlite", max_retries=1, concurrency=2)
        asked = [[{"role": "user", "content": f"question {i}"}] for i in range(5)]
        assert [a.status for a in llm.chat(asked, schema={"type": "object"})] == ["ok", "ok", "refusal", "ok", "ok"]
        assert len(server.requests) == 5


# --- keys and addresses ---------------------------------------------------------------------------------------------
SIBLINGS = [
    "http://api.groq.com/openai/v1", "https://api.groq.com.evil.example/v1", "https://evilapi.groq.com.example/v1",
    "https://xapi.groq.com/v1", "https://10.0.0.7/api.groq.com/v1", "http://127.0.0.1:4000/v1",
    "https://bedrock-runtime.eu.s3.amazonaws.com/v1", "https://amazonaws.com/v1", "https://x.y.openai.azure.com.evil.com/v1",
]  # fmt: skip


def test_a_key_goes_to_its_own_provider_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for provider in PROVIDERS:
        for name in provider.key_variables:
            monkeypatch.setenv(name, f"secret of {name}")
    for name, (url, model, *_) in REPLAYS.items():
        provider, origin = provider_of(parse_origin(url), model), parse_origin(url)
        expected = f"secret of {provider.key_variables[0]}" if provider.key_variables else None
        assert key_of(provider, origin) == expected, name
        wire = Wire(LLM(model, base_url=url, journal=tmp_path / "j.sqlite"), "open", {})
        secrets = [value for value in wire._headers.values() if "secret" in value]
        assert secrets == ([] if expected is None else [expected if "Azure" in name else f"Bearer {expected}"]), name
    for url in SIBLINGS:
        origin = parse_origin(url)
        assert all(key_of(provider, origin) is None for provider in PROVIDERS), url
        try:
            wire = Wire(LLM("m", base_url=url, journal=tmp_path / "j.sqlite"), "open", {})
        except LLMError:  # a key of a known host is missing, and goes there over https only
            assert url.startswith("http://api.groq.com")
            continue
        assert not [value for value in wire._headers.values() if "secret" in value], url


def test_a_missing_key_names_its_variable(tmp_path: Path) -> None:
    for url, variable in [
        ("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
        ("https://router.huggingface.co/v1", "HF_TOKEN"),
    ]:
        with pytest.raises(LLMError, match=f"set {variable}, or pass"):
            LLM("m", base_url=url, journal=tmp_path / "j.sqlite").chat(
                [[{"role": "user", "content": "q"}]], access="open"
            )


@pytest.mark.parametrize(
    ("base_url", "model", "url"),
    [
        ("https://w.openai.azure.com", "dep", "/openai/deployments/dep/chat/completions?api-version=2024-10-21"),
        (
            "https://w.openai.azure.com/openai/",
            "a/b",
            "/openai/deployments/a%2Fb/chat/completions?api-version=2024-10-21",
        ),
        (
            "https://w.openai.azure.com/openai/deployments/d2?api-version=2025-01-01-preview",
            "dep",
            "/openai/deployments/d2/chat/completions?api-version=2025-01-01-preview",
        ),
        ("https://w.openai.azure.com/openai/v1", "dep", "/openai/v1/chat/completions"),
        ("https://api.groq.com/openai/v1/chat/completions", "m", "/openai/v1/chat/completions"),
        ("http://127.0.0.1:8000/v1", "m", "/v1/chat/completions"),
    ],
)
def test_the_address_of_a_question(base_url: str, model: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_VERSION", raising=False)
    origin = parse_origin(base_url)
    assert chat_url(provider_of(origin, model), origin, model) == f"{origin.scheme}://{origin}{url}"


def test_azure_takes_a_key_or_a_token() -> None:
    azure = next(one for one in PROVIDERS if one.name == "Azure OpenAI, classic")
    assert key_headers(azure, "0123abcd") == {"api-key": "0123abcd"}
    assert key_headers(azure, "eyJ0eXAi.x.y") == {"Authorization": "Bearer eyJ0eXAi.x.y"}
    with pytest.raises(LLMError, match="query"):
        parse_origin("https://w.openai.azure.com/openai?key=secret")
