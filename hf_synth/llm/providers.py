"""Providers, gateways and servers of OpenAI's chat protocol as one table: how each is recognised and what it takes.

A row holds what is known beforehand. It saves the request by which it would be learnt (`refused.py`), and names the
key. Whatever the table does not know, or no longer knows, is learnt from the endpoint's own errors, so that a row may
be missing and nothing fails for it.

A key in the environment goes to the hosts of its own provider alone, over https: no path, port or model name leads a
key anywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from hf_synth.errors import LLMError
from hf_synth.llm.endpoints import Origin
from hf_synth.llm.refused import STRUCTURE, SYSTEM

_AZURE_VERSION = "2024-10-21"  # the last api-version of Azure's classic paths that is no preview
_OPENAI = ("OPENAI_API_KEY",)
_OPENAI_HOSTS = ("*.openai.com", "*.api.openai.com")
_AZURE = ("*.openai.azure.com", "*.cognitiveservices.azure.com", "*.services.ai.azure.com")
_AZURE_KEYS = ("AZURE_OPENAI_API_KEY", "AZURE_API_KEY")
_AZURE_FILTER = ("content_filter", "ResponsibleAIPolicyViolation")
_GEMINI, _GEMINI_KEYS = ("generativelanguage.googleapis.com",), ("GEMINI_API_KEY", "GOOGLE_API_KEY")
_GEMINI_FILTER = ("SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "RECITATION", "SPII", "blockReason")
_THINK = "<think> in the text, or field reasoning_content"
_BLOCKED = ("content_filter",)


@dataclass(frozen=True)
class Provider:
    """What is known of a provider, a gateway or a server.

    Args:
        name: its name.
        hosts: its host names, where * is one part of a name; its key goes to no other host.
        path: regular expression that its path begins with.
        port: the port that its server listens on by default.
        models: regular expression of the models that the row is about.
        key_variables: environment variables that hold its key.
        key_header: the header of the key; "Authorization" holds it as a bearer.
        refuses: fields that it refuses.
        renamed: fields that have another name there, as (name, its name).
        structure: the strictest structure of an answer that it takes.
        system: whether it takes a system message.
        thoughts: where a reasoning model's thoughts stand.
        refusals: codes by which it declines a prompt or an answer.
        note: what to know or do, where something is missing.
    """

    name: str
    hosts: tuple[str, ...] = ()
    path: str = ""
    port: int | None = None
    models: str = ""
    key_variables: tuple[str, ...] = ()
    key_header: str = "Authorization"
    refuses: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    structure: Literal["json_schema", "json_object", "none"] = "json_schema"
    system: bool = True
    thoughts: str = _THINK
    refusals: tuple[str, ...] = _BLOCKED
    note: str = ""

    @property
    def limit(self) -> str:
        """The name of the limit of an answer's tokens."""
        return dict(self.renamed).get("max_tokens", "max_tokens")

    @property
    def rules(self) -> dict[str, Any]:
        """What is changed in a request (see `refused.py`)."""
        rules: dict[str, Any] = {**dict.fromkeys(self.refuses), **dict(self.renamed)}
        if self.structure != "json_schema":
            rules[STRUCTURE] = "json_object" if self.structure == "json_object" else None
        return rules if self.system else {**rules, SYSTEM: "user"}

    def is_at(self, host: str) -> bool:
        """Check whether a host is one of its own."""
        return any(re.fullmatch(re.escape(name).replace(r"\*", "[a-z0-9-]+"), host) for name in self.hosts)

    def matches(self, origin: Origin, model: str) -> bool:
        """Check whether an endpoint and a model are what the row is about."""
        if self.hosts and not self.is_at(origin.host):
            return False
        if self.port is not None and origin.port != self.port:
            return False
        return re.match(self.path, origin.path) is not None and re.search(self.models, model) is not None


_REASONING = r"\A(?:o[134](?:-|\Z)|gpt-5(?:-mini|-nano|-pro|-codex)?(?:-\d{4}|\Z))"
_NO_SAMPLING = ("temperature", "top_p", "logprobs", "top_logprobs")
_COMPLETION = (("max_tokens", "max_completion_tokens"),)
_HIDDEN = "hidden; they count as tokens of the answer"

# The first row that matches counts. Rows with a model come before those of the whole host; servers are told by their
# port, which is a guess and decides no key.
PROVIDERS: tuple[Provider, ...] = (
    Provider("OpenAI, reasoning models", _OPENAI_HOSTS, models=_REASONING, key_variables=_OPENAI,
             refuses=_NO_SAMPLING, renamed=_COMPLETION, thoughts=_HIDDEN,
             note="reasoning_effort=low leaves more tokens for the answer"),
    Provider("OpenAI", _OPENAI_HOSTS, key_variables=_OPENAI, renamed=_COMPLETION, thoughts="none"),
    Provider("Azure OpenAI v1, reasoning models", _AZURE, r"/openai/v1", models=_REASONING,
             key_variables=_AZURE_KEYS, key_header="api-key", refuses=_NO_SAMPLING,
             renamed=_COMPLETION, thoughts=_HIDDEN, refusals=_AZURE_FILTER),
    Provider("Azure OpenAI v1", _AZURE, r"/openai/v1", key_variables=_AZURE_KEYS,
             key_header="api-key", thoughts=_HIDDEN, refusals=_AZURE_FILTER),
    Provider("Azure OpenAI, classic", _AZURE, key_variables=_AZURE_KEYS, key_header="api-key",
             thoughts=_HIDDEN, refusals=_AZURE_FILTER,
             note="the model's name is the deployment; OPENAI_API_VERSION names another api-version"),
    Provider("GitHub Models", ("models.github.ai",), key_variables=("GITHUB_TOKEN",)),
    Provider("Hugging Face router", ("router.huggingface.co",), key_variables=("HF_TOKEN",),
             note="MODEL:PROVIDER chooses the provider, e.g. org/model:groq; MODEL:cheapest the cheapest"),
    Provider("Hugging Face endpoint", ("*.*.*.endpoints.huggingface.cloud",),
             note="pass its token as api_key: HF_TOKEN is not sent to endpoints, which may be another person's"),
    Provider("Google Gemini, Gemma models", _GEMINI, models=r"gemma-[23]", key_variables=_GEMINI_KEYS,
             refuses=("seed",), structure="none", system=False, refusals=_GEMINI_FILTER),
    Provider("Google Gemini", _GEMINI, key_variables=_GEMINI_KEYS, refuses=("seed",), refusals=_GEMINI_FILTER,
             thoughts="parts marked as thought, <thought> in the text", note="base_url ends with /v1beta/openai"),
    Provider("Google Vertex AI", ("aiplatform.googleapis.com", "*-aiplatform.googleapis.com"), r"/v1[a-z\d]*/projects/",
             key_variables=("GOOGLE_ACCESS_TOKEN",), refusals=("SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII"),
             note="the key is an access token that ends after an hour: gcloud auth print-access-token"),
    Provider("Mistral", ("api.mistral.ai",), key_variables=("MISTRAL_API_KEY",), renamed=(("seed", "random_seed"),),
             refuses=("logprobs", "top_logprobs"), thoughts="parts of type thinking, [THINK] in the text"),
    Provider("DeepSeek", ("api.deepseek.com",), key_variables=("DEEPSEEK_API_KEY",), structure="json_object",
             thoughts="field reasoning_content"),
    Provider("Groq", ("api.groq.com",), key_variables=("GROQ_API_KEY",), refuses=("logprobs", "top_logprobs"),
             thoughts="field reasoning, <think> in the text"),
    Provider("OpenRouter", ("openrouter.ai",), key_variables=("OPENROUTER_API_KEY",), thoughts="field reasoning",
             refusals=("content_filter", "403 with the reasons of a moderation")),
    Provider("Together", ("api.together.xyz", "api.together.ai"), key_variables=("TOGETHER_API_KEY",)),
    Provider("Fireworks", ("api.fireworks.ai",), key_variables=("FIREWORKS_API_KEY",)),
    Provider("xAI", ("api.x.ai",), key_variables=("XAI_API_KEY",), thoughts="field reasoning_content"),
    Provider("Cerebras", ("api.cerebras.ai",), key_variables=("CEREBRAS_API_KEY",), renamed=_COMPLETION),
    Provider("SambaNova", ("api.sambanova.ai",), key_variables=("SAMBANOVA_API_KEY",)),
    Provider("NVIDIA NIM", ("integrate.api.nvidia.com",), key_variables=("NVIDIA_API_KEY",)),
    Provider("DeepInfra", ("api.deepinfra.com",), key_variables=("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN")),
    Provider("Cohere", ("api.cohere.ai", "api.cohere.com"), key_variables=("COHERE_API_KEY", "CO_API_KEY"),
             thoughts="<|START_THINKING|> in the text", note="base_url ends with /compatibility/v1"),
    Provider("Perplexity", ("api.perplexity.ai",), key_variables=("PERPLEXITY_API_KEY",)),
    Provider("Alibaba Model Studio", ("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com"),
             key_variables=("DASHSCOPE_API_KEY",), structure="json_object", refusals=("data_inspection_failed",),
             note="base_url ends with /compatible-mode/v1"),
    Provider("Moonshot", ("api.moonshot.ai", "api.moonshot.cn"), key_variables=("MOONSHOT_API_KEY",),
             structure="json_object", thoughts="field reasoning_content, ◁think▷ in the text"),
    Provider("Anthropic", ("api.anthropic.com",), key_variables=("ANTHROPIC_API_KEY",), structure="none",
             refuses=("seed", "logprobs", "top_logprobs", "top_p"), refusals=("refusal",),
             note="of temperature and top_p it takes one"),
    Provider("Amazon Bedrock", ("bedrock-runtime.*.amazonaws.com", "bedrock-mantle.*.api.aws"),
             key_variables=("AWS_BEARER_TOKEN_BEDROCK",),
             refusals=("guardrail_intervened", "content_filtered"), note="base_url ends with /openai/v1"),
    Provider("Databricks", ("*.cloud.databricks.com", "*.*.azuredatabricks.net"), key_variables=("DATABRICKS_TOKEN",),
             note="base_url ends with /serving-endpoints"),
    Provider("LiteLLM", port=4000, thoughts="field reasoning_content",
             note="it names what a model does not support; drop_params has it leave that out"),
    Provider("Ollama", port=11434, thoughts="field reasoning, <think> in the text", note="base_url ends with /v1"),
    Provider("LM Studio", port=1234, note="load the model in LM Studio, or let it load models when they are asked for"),
    Provider("SGLang", port=30000, note="--reasoning-parser keeps thoughts out of the text"),
    Provider("TGI or llama.cpp", port=8080, note="llama.cpp: -np slots; it says 503 while it loads the model"),
    Provider("transformers serve, or vLLM", port=8000, thoughts="<think> in the text; vLLM: field reasoning_content",
             note="vLLM: --reasoning-parser keeps thoughts out of the text"),
)  # fmt: skip
OTHER = Provider("an endpoint of OpenAI's protocol")


def provider_of(origin: Origin, model: str) -> Provider:
    """Return the row of an endpoint and a model; `OTHER` where none is known."""
    return next((one for one in PROVIDERS if one.matches(origin, model)), OTHER)


def key_of(provider: Provider, origin: Origin) -> str | None:
    """Return the provider's key in the environment, for its own hosts over https; None elsewhere."""
    if origin.scheme != "https" or not provider.is_at(origin.host):
        return None
    return next((key for name in provider.key_variables if (key := os.environ.get(name))), None)


def plain_key(key: str) -> str:
    """Return a key without white space around it, as files and environments add it.

    Raises:
        LLMError: it holds a character that no header may hold.
    """
    if not (key := key.strip()).isprintable():
        raise LLMError("the API key holds a line break or another control character inside; copy it again")
    return key


def key_headers(provider: Provider, key: str) -> Mapping[str, str]:
    """Return the header of a key; a token of Microsoft's directory is a bearer at Azure too."""
    if provider.key_header == "Authorization" or key.startswith("eyJ"):
        return {"Authorization": f"Bearer {key}"}
    return {provider.key_header: key}


def chat_url(provider: Provider, origin: Origin, model: str) -> str:
    """Return the address of chat completions; on Azure's classic paths with the deployment and the api-version."""
    url = origin.url.removesuffix("/chat/completions")
    query = origin.query
    if provider.name == "Azure OpenAI, classic":
        if "/deployments/" not in url:
            url = f"{url.removesuffix('/openai')}/openai/deployments/{quote(model, safe='')}"
        query = query or f"api-version={os.environ.get('OPENAI_API_VERSION') or _AZURE_VERSION}"
    return f"{url}/chat/completions" + (f"?{query}" if query else "")


def next_step(provider: Provider) -> str:
    """Return what to check where a key is refused."""
    if not provider.key_variables or provider.key_variables == _OPENAI:
        return "check api_key, or OPENAI_API_KEY with OPENAI_BASE_URL beside it"
    return f"check api_key, or {' or '.join(provider.key_variables)}"
